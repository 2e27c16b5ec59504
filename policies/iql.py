"""Implicit Q-learning on chunks (Kostrikov et al. 2022; IDQL, Hansen-Estruch et al. 2023).

    L_V = E |tau - 1(u < 0)| u^2        u = Q'(s, a) - V(s)
    L_Q = E (sum_{k<n} gamma^k r_k + gamma^n (1 - terminated) V(s') - Q(s, a))^2

With tau above one half, V is what the better of the recorded actions are worth, and no action is
ever asked about that was not recorded. The policy imitates by the advantage Q - V; at run time the
best of its chunks by Q is executed, as IDQL does.
"""

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.advantage import effective_share, weights_of
from robolearn.policies.aloe import fresh_critic, measured, shares_of, value_of
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.fitting import minimise
from robolearn.policies.improver import Judge, Judgement, held_out, in_batches
from robolearn.policies.improver_configs import IqlConfig
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience, Samples


class Iql(Judge):
    """See the module's docstring, and `Judge`."""

    config: IqlConfig

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """See `Judge`; the state value is learned anew in every round."""
        config = self.config
        samples = experience.samples(policy, 1, seed)  # complete chunks that ended the task
        held = held_out(experience.replay.numbers)
        critic = before or fresh_critic(config.critic, policy, experience, held, seed)
        both = taught(config, critic, experience, samples, held, seed)
        advantage = both.advantage(experience, samples)
        weights = weights_of(advantage, config.advantage)
        figures = {"effective": effective_share(weights)}
        return Judgement(weights, figures | measured(critic, experience, samples, held), critic)


class Both(nn.Module):
    """A critic, and the value V(s) of states upon the same tokens."""

    def __init__(self, critic: Critic, width: int) -> None:
        super().__init__()
        self.critic = critic
        size = critic.shape[0] * critic.shape[1]
        self.net = nn.Sequential(
            nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.out = nn.Linear(width, 1)
        nn.init.constant_(self.out.bias, 0.5 * critic.lowest)

    def value(self, tokens: Tensor) -> Tensor:
        """V (B,) of tokens (B, T, D)."""
        return self.out(self.net(self.critic.tokens(tokens).flatten(1)))[:, 0]

    @torch.inference_mode()
    def advantage(self, experience: "Experience", samples: "Samples") -> np.ndarray:
        """Cautious Q minus V (N,), at the `starts` of the replay."""
        found = []
        for frames in in_batches(experience.replay.starts):
            q = self.critic.pessimistic(value_of(self.critic, experience, samples, frames))
            found.append(q - self.value(experience.tokens(frames)))
        return torch.cat(found).cpu().numpy()


def taught(
    config: IqlConfig,
    critic: Critic,
    experience: "Experience",
    samples: "Samples",
    held: np.ndarray,
    seed: int,
) -> Both:
    """The critic, taught in place, and a value of states that was taught with it.

    Args:
        config: of the method.
        critic: learns in place.
        experience: what both learn from.
        samples: complete chunks that ended the task.
        held: bool (E,), episodes that neither must see.
        seed: of the draws.
    """
    c, replay = critic.config, experience.replay
    torch.manual_seed(seed)  # the initial weights of the value
    both = Both(critic, config.hidden).to(experience.device)
    slow = copy.deepcopy(both).eval().requires_grad_(requires_grad=False)
    starts = replay.starts_of(~held)
    shares = shares_of(replay.numbers, c, experience.device)

    def loss(step: int) -> Tensor:
        frames = stream(seed, f"iql {step}").choice(starts, c.batch_size)
        fragments = replay.fragments(frames)
        discount, total = (
            torch.from_numpy(part).to(experience.device)
            for part in (fragments.discount, fragments.total)
        )
        with torch.no_grad():
            ahead = both.value(experience.tokens(fragments.following))
            target = (total + discount * ahead).clamp(critic.lowest, 0.0)
            known = slow.critic.pessimistic(value_of(slow.critic, experience, samples, frames))
        error = known - both.value(experience.tokens(frames))
        share = torch.where(error < 0, 1.0 - config.expectile, config.expectile)
        q = value_of(critic, experience, samples, frames)
        learns = shares[:, torch.from_numpy(replay.episode[frames]).to(experience.device)]
        of_q = ((q - target).square() * learns).sum() / learns.sum().clamp_min(1.0)
        return of_q + (share * error.square()).mean()

    rate = c.learning_rate
    minimise(both, loss, steps=c.steps, learning_rate=rate, follower=slow, pace=c.polyak)
    return both.eval()
