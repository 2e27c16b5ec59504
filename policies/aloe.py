"""ALOE: post-training by action-level off-policy evaluation.

Yang et al. 2026, "ALOE: Action-level off-policy evaluation for vision-language-action model
post-training". What was collected is a mixture: demonstrations, rollouts of older policies,
corrections. Regressing returns would value that mixture. ALOE values the current policy, chunk by
chunk, by bootstrapping with what the current policy would do next:

    y = sum_{k<n} gamma^k r_k + gamma^n (1 - terminated) mean_{a' ~ policy} mean_m Q'_m(s', a')
    loss = sum_m E (Q_m(s, a) - y)^2

with n <= H executed steps, Q' a slow copy of Q, and each head m learning from episodes of its own.
The published target has no mask for the end of a task; without it (`masked`) nothing is right near
the end. The mean is in the target, and caution (the least of the heads) only where chunks are
chosen or judged, since caution would otherwise add up over bootstraps.

The policy then imitates what was executed, weighted by its advantage

    A = Qp(s, a) - mean_{a' ~ policy} Qp(s, a')        Qp the cautious value

and at run time the best of several candidates by Qp is executed (`--scorer critic`).
"""

import copy
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from robolearn.policies.advantage import effective_share, weights_of
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.fitting import minimise
from robolearn.policies.improver import Judge, Judgement, held_out, in_batches, rank_correlation
from robolearn.policies.improver_configs import AloeConfig, CriticConfig
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience, Samples

STATISTICS: Final = 20_000  # fragments that the normalisers are fitted to, at most


class Aloe(Judge):
    """See the module's docstring, and `Judge`."""

    config: AloeConfig

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """Evaluates the policy, and weighs every fragment by its advantage; see `Judge`."""
        critic, samples, figures = critic_of(self.config.critic, policy, experience, before, seed)
        value, baseline = judged(critic, experience, samples)
        weights = weights_of(value - baseline, self.config.advantage)
        return Judgement(weights, {"effective": effective_share(weights), **figures}, critic)


def critic_of(
    config: CriticConfig,
    policy: TrainablePolicy,
    experience: "Experience",
    before: Critic | None,
    seed: int,
) -> tuple[Critic, "Samples", dict[str, Any]]:
    """A critic of the current policy, the policy's samples it learned from, and figures.

    Args:
        config: of a fresh critic.
        policy: the current one.
        experience: what it learns from.
        before: the critic of the round before, which is taught on.
        seed: of all draws.
    """
    samples = experience.samples(policy, config.samples, seed)
    held = held_out(experience.replay.numbers)
    critic = before or fresh_critic(config, policy, experience, held, seed)
    loss = evaluate_policy(critic, experience, samples, held, seed)
    return critic, samples, {"critic_loss": loss, **measured(critic, experience, samples, held)}


def fresh_critic(
    config: CriticConfig,
    policy: TrainablePolicy,
    experience: "Experience",
    held: np.ndarray,
    seed: int,
) -> Critic:
    """A critic of this policy's chunks, with the statistics of episodes not held out (E,)."""
    replay = experience.replay
    torch.manual_seed(seed)  # the initial weights
    critic = Critic.for_policy(
        config, policy, experience.tokens_shape, replay.executed, replay.reward.lowest
    ).to(experience.device)
    rng = stream(seed, "statistics")
    starts = replay.starts_of(~held)
    some = rng.choice(starts, min(len(starts), STATISTICS), replace=False)
    context = experience.context(some)
    chunks = torch.from_numpy(replay.fragments(some).action).to(experience.device)
    critic.fit(context.tokens, critic.seen_from_here(chunks[:, None], context.agent_pos)[:, 0])
    return critic


def evaluate_policy(
    critic: Critic,
    experience: "Experience",
    samples: "Samples",
    held: np.ndarray,
    seed: int,
) -> float:
    """Teaches the critic what the policy that drew the samples is worth; the last mean loss.

    Args:
        critic: learns in place.
        experience: what it learns from.
        samples: of the policy, at every observation.
        held: bool (E,), episodes that it must not see.
        seed: of the draws.
    """
    c, replay = critic.config, experience.replay
    starts = replay.starts_of(~held)
    shares = shares_of(replay.numbers, c, experience.device)
    slow = copy.deepcopy(critic).eval().requires_grad_(requires_grad=False)

    def loss(step: int) -> Tensor:
        rng = stream(seed, f"critic {step}")
        frames = rng.choice(starts, c.batch_size)
        values, target = _values_and_target(critic, slow, experience, samples, frames, rng)
        learns = shares[:, torch.from_numpy(replay.episode[frames]).to(experience.device)]
        return ((values - target).square() * learns).sum() / learns.sum().clamp_min(1.0)

    rate = c.learning_rate
    critic.train()
    return minimise(critic, loss, steps=c.steps, learning_rate=rate, follower=slow, pace=c.polyak)[
        -1
    ]


def shares_of(numbers: np.ndarray, config: CriticConfig, device: torch.device) -> Tensor:
    """Which head learns from which episode, 0 or 1 (M, E); see `held_out`."""
    drawn = stream(0, "heads").random((int(numbers.max()) + 1, config.heads)) < config.share
    return torch.from_numpy(drawn[numbers].T.astype(np.float32)).to(device)


def _values_and_target(
    critic: Critic,
    slow: Critic,
    experience: "Experience",
    samples: "Samples",
    frames: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Values (M, B) of what was done, and what they should be (B,)."""
    device, fragments = experience.device, experience.replay.fragments(frames)
    chunks = samples.at(fragments.following)  # (B, S, H, J)
    if critic.config.backup == "policy":
        chunks = chunks[np.arange(len(frames)), rng.integers(chunks.shape[1], size=len(frames))]
        chunks = chunks[:, None]
    discount = fragments.discount
    if not critic.config.masked:
        steps = fragments.valid.sum(1)
        discount = (experience.replay.reward.gamma**steps).astype(np.float32)
    with torch.no_grad():
        context = experience.context(fragments.following)
        ahead = slow(context, torch.from_numpy(chunks).to(device)).mean(0).amax(-1)
        target = torch.from_numpy(fragments.total).to(device)
        target = target + torch.from_numpy(discount).to(device) * ahead
        target = target.clamp(critic.lowest, 0.0)
    return value_of(critic, experience, samples, frames), target


def value_of(
    critic: Critic, experience: "Experience", samples: "Samples", frames: np.ndarray
) -> Tensor:
    """Values (M, B) of what was done at frames (B,).

    Where the task ended within a chunk, it goes on as the policy would: what is beyond the end
    makes no difference, and a chunk that is rated before it is executed knows no end.
    """
    fragments = experience.replay.fragments(frames)
    executed = fragments.valid[..., None]
    action = np.where(executed, fragments.action, samples.at(frames)[:, 0])
    actions = torch.from_numpy(action).to(experience.device)[:, None]
    return critic(experience.context(frames), actions)[..., 0]


@torch.inference_mode()
def judged(
    critic: Critic, experience: "Experience", samples: "Samples"
) -> tuple[np.ndarray, np.ndarray]:
    """Cautious values (N,) of what was done at `starts`, and of what the policy would do there."""
    done, policy = [], []
    critic.eval()
    for frames in in_batches(experience.replay.starts):
        done.append(critic.pessimistic(value_of(critic, experience, samples, frames)))
        chunks = torch.from_numpy(samples.at(frames)).to(experience.device)
        ahead = critic(experience.context(frames), chunks)
        policy.append(critic.pessimistic(ahead).mean(-1))
    return torch.cat(done).cpu().numpy(), torch.cat(policy).cpu().numpy()


@torch.inference_mode()
def measured(
    critic: Critic, experience: "Experience", samples: "Samples", held: np.ndarray
) -> dict[str, Any]:
    """How good the critic is on episodes that it never saw.

    Of episodes that the policy or its predecessors made: demonstrations are no failures. `auc`: how
    often the mean value of a success is above that of a failure; `rank`: the rank correlation of
    values and returns; `bias` and `error`: mean difference to the returns, and its mean size.
    Returns are of whoever acted, so a better policy has a bias upwards.

    Args:
        critic: what is measured.
        experience: holds the episodes.
        samples: complete chunks that ended the task.
        held: bool (E,), those that the critic did not learn from.
    """
    replay = experience.replay
    unseen = held & (np.arange(len(held)) >= experience.demonstrations)
    starts = replay.starts_of(unseen)
    if not len(starts):
        return {}
    critic.eval()
    parts = in_batches(starts)
    values = [value_of(critic, experience, samples, frames).mean(0) for frames in parts]
    value, returns = torch.cat(values).cpu().numpy(), replay.returns()[starts]
    count = np.bincount(replay.episode[starts], minlength=len(held))
    known = count > 0  # an episode may be too short for a fragment
    mean = np.bincount(replay.episode[starts], value, len(held))[known] / count[known]
    return {
        "critic_auc": auc(mean, replay.success[known]),
        "critic_rank": rank_correlation(value, returns),
        "critic_bias": float(np.mean(value - returns)),
        "critic_error": float(np.mean(np.abs(value - returns))),
        "calibration": calibration(value, returns),
    }


def calibration(value: np.ndarray, returns: np.ndarray) -> list[list[float]]:
    """Mean value and mean return of each tenth of N fragments (N,), from the lowest values up."""
    tenths = np.array_split(np.argsort(value), min(10, len(value)))
    return [[float(value[some].mean()), float(returns[some].mean())] for some in tenths]


def auc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """How often a positive one of N scores (N,) is above a negative one; None without both."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return None
    ranks = rankdata(score)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))
