"""GoRL: reinforcement learning from nothing, with a generative policy that stays tractable.

"GoRL: An algorithm-agnostic framework for online reinforcement learning with generative policies"
(arXiv 2512.02581). A policy is two: an encoder pi(z | s), a Gaussian, and a decoder, a flow from z
to chunks. They learn at two paces:

    encoder   proximal policy optimisation (Schulman et al. 2017) on z; the decoder stays
    decoder   flow matching from the noise of a fresh encoder, N(0, I) squashed into its bound, to
              chunks that went well; then the encoder begins anew, which by now gives such chunks

At first the decoder is the identity, so that the first stage is plain PPO on chunks. The latent is
the same for all steps of a chunk; the units of chunks grow with the step, so a chunk begins as a
straight move. What comes out is a policy whose noise is chosen, as DSRL makes one (`dsrl.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.contract import ArmSpec
from robolearn.policies.base import Batch, Context
from robolearn.policies.configs import FlowConfig, SmallConfig
from robolearn.policies.denoiser import draws_of
from robolearn.policies.dsrl import DsrlPolicy
from robolearn.policies.fitting import minimise
from robolearn.policies.flow import FlowPolicy
from robolearn.policies.gaussian import EXACT, SquashedGaussian
from robolearn.policies.improver_configs import DsrlConfig, GorlConfig
from robolearn.policies.residual import residual_mlp
from robolearn.seeding import stream


@dataclass
class Decisions:
    """What was decided in N moments, and what came of it.

    Attributes:
        seen: observations (N, ...), as tensors.
        instructions: N strings.
        latent: z, (N, 1, J).
        density: log pi(z | s) when it was drawn (N,).
        reward: until the next decision (N,).
        last: bool (N,), whether the episode ended then; the next decision is of another one.
        terminated: bool (N,), whether the task ended, not the time.
    """

    seen: Batch
    instructions: Sequence[str]
    latent: Tensor
    density: Tensor
    reward: np.ndarray
    last: np.ndarray
    terminated: np.ndarray

    def some(self, rows: np.ndarray) -> tuple[Batch, list[str]]:
        """Observations and instructions of some rows (B,)."""
        seen = {name: value[rows] for name, value in self.seen.items()}
        return seen, [self.instructions[row] for row in rows]


def joined(parts: Sequence[Decisions]) -> Decisions:
    """What was decided in one iteration after the other."""

    def tensor(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    def array(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Decisions(
        seen={name: torch.cat([part.seen[name] for part in parts]) for name in parts[0].seen},
        instructions=[text for part in parts for text in part.instructions],
        latent=tensor("latent"),
        density=tensor("density"),
        reward=array("reward"),
        last=array("last"),
        terminated=array("terminated"),
    )


def fresh_policy(
    config: GorlConfig,
    arm: ArmSpec,
    states: Mapping[str, np.ndarray],
    vocabulary: Sequence[str],
    seed: int,
) -> DsrlPolicy:
    """A policy that moves at random.

    Args:
        config: sizes.
        arm: whose joints it moves.
        states: "agent_pos" (N, J) and "environment_state" (N, S) of some episodes' beginnings;
            `Gorl.fit` takes better units later.
        vocabulary: the words of the task's instructions.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    sizes: Any = {"horizon": config.horizon, "hidden": config.hidden, "depth": config.depth}
    flow = FlowConfig(backbone=SmallConfig(width=config.width), **sizes)
    inner = FlowPolicy(flow, {}, asdict(arm), vocabulary, states["environment_state"].shape[1])
    inner.backbone.fit(states)
    nn.init.zeros_(inner.head.outward.bias)
    _scale_chunks(inner, arm, config)
    steering = DsrlConfig(bound=config.bound, shared=True, hidden=config.hidden, depth=config.depth)
    return DsrlPolicy(inner, steering)


def _scale_chunks(policy: FlowPolicy, arm: ArmSpec, config: GorlConfig) -> None:
    """The units of chunks, which grow with the step; a gripper begins half open."""
    step = torch.arange(1, config.horizon + 1)[:, None] / config.horizon
    low, high = torch.tensor(arm.low), torch.tensor(arm.high)
    policy.chunk.std.copy_(config.move * step.expand(-1, len(low)))
    policy.chunk.mean.copy_(((1.0 - policy.relative) * (low + high) / 2.0).expand_as(step * low))


class Gorl:
    """Teaches a policy of `fresh_policy`; see the module's docstring.

    Args:
        config: of the method.
        policy: learns in place.
    """

    def __init__(self, config: GorlConfig, policy: DsrlPolicy) -> None:
        self.config, self.policy = config, policy
        size = policy.tokens[0] * policy.tokens[1]
        self.value = nn.Sequential(
            nn.LayerNorm(size), residual_mlp(size, config.hidden, config.depth, 1)
        )
        self.begin(encoder_too=True)

    def begin(self, *, encoder_too: bool) -> None:
        """A stage begins; the backbone learns only until a decoder depends on it."""
        backbone = self.policy.inner.backbone.requires_grad_(encoder_too)
        self.policy.inner.head.requires_grad_(requires_grad=False)
        parts = [backbone, self.policy.actor, self.value]
        self.learning = [p for part in parts for p in part.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.learning, self.config.learning_rate)

    def fit(self, decisions: Decisions) -> None:
        """Takes the units of what is seen: at the beginnings of episodes hardly anything moves."""
        seen = {name: value.numpy() for name, value in decisions.seen.items()}
        self.policy.inner.backbone.fit(seen)

    def tokens(self, decisions: Decisions, rows: np.ndarray) -> Tensor:
        """(B, T, D) of some rows."""
        return self.policy.inner.tokens_of(*decisions.some(rows))

    @torch.no_grad()
    def expected(self, decisions: Decisions) -> Tensor:
        """Values (N,) of what was seen."""
        tokens = self.tokens(decisions, np.arange(len(decisions.reward)))
        return self.value(tokens.flatten(1))[:, 0]

    def update(self, decisions: Decisions, rng: np.random.Generator) -> float:
        """The encoder learns from what was just done; the last loss."""
        count, config = len(decisions.reward), self.config
        value = self.expected(decisions)
        advantage = generalised_advantages(decisions, value.numpy(), config)
        target = value + torch.from_numpy(advantage)
        scaled = torch.from_numpy((advantage - advantage.mean()) / (advantage.std() + 1e-6))
        loss = torch.zeros(())
        for _ in range(config.epochs):
            for rows in np.array_split(
                rng.permutation(count), math.ceil(count / config.batch_size)
            ):
                loss = self.loss(decisions, rows, scaled[rows], target[rows])
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.learning, 0.5)
                self.optimizer.step()
        return float(loss.detach())

    def loss(
        self, decisions: Decisions, rows: np.ndarray, advantage: Tensor, target: Tensor
    ) -> Tensor:
        """Clipped surrogate, value error and a pull towards the prior (Schulman et al., eq. 9)."""
        tokens, c = self.tokens(decisions, rows), self.config
        features = self.policy.actor.features(tokens)
        latent = decisions.latent[rows]
        density = self.policy.actor.log_density(features, latent[:, None], EXACT)
        ratio = (density.sum((1, 2, 3)) - decisions.density[rows]).exp()
        clipped = ratio.clamp(1.0 - c.clip, 1.0 + c.clip)
        surrogate = torch.minimum(ratio * advantage, clipped * advantage).mean()
        error = (self.value(tokens.flatten(1))[:, 0] - target).square().mean()
        mean, log_std = self.policy.actor(features)
        apart = (mean.square() + (2.0 * log_std).exp() - 2.0 * log_std).mean()
        return 0.5 * error - surrogate + c.prior * apart

    def refine(self, decisions: Decisions, seed: int) -> float:
        """The decoder learns the chunks that went well, and the encoder begins anew; its loss.

        Args:
            decisions: of the last iterations; those of the episodes that went best, measured by
                what was expected of them, are imitated.
            seed: of the draws, and of the new encoder's weights.
        """
        config, inner = self.config, self.policy.inner
        expected = self.expected(decisions).numpy()
        good = np.flatnonzero(went_well(decisions, expected, config.share, config.discount))
        clean = self.clean(decisions, good)
        with torch.no_grad():
            tokens = self.tokens(decisions, good)  # which stay: the backbone learns no more

        def loss(step: int) -> Tensor:
            rng = stream(seed, f"decoder {step}")
            some = rng.integers(len(good), size=config.batch_size)
            return self.matching(tokens[some], clean[some], rng)

        inner.head.requires_grad_(requires_grad=True)
        losses = minimise(
            inner.head, loss, steps=config.decoder_steps, learning_rate=config.learning_rate
        )
        torch.manual_seed(seed)
        old, steering = self.policy.actor, self.policy.method
        sizes = (steering.bound, steering.hidden, steering.depth)
        self.policy.actor = SquashedGaussian(self.policy.tokens, old.shape, *sizes)
        self.begin(encoder_too=False)
        return losses[-1]

    @torch.no_grad()
    def clean(self, decisions: Decisions, rows: np.ndarray) -> Tensor:
        """The chunks (B, 1, H, J) that were decoded, in the form that is learned."""
        tokens = self.tokens(decisions, rows)
        kept, horizon = self.policy.inner.head.prefix(tokens), self.policy.horizon
        whole = decisions.latent[rows][:, None].expand(-1, -1, horizon, -1)
        return self.policy.inner.denoise(whole, 0, kept)[0]

    def matching(self, tokens: Tensor, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """The flow matching loss from noise that is the same for all steps (flow.py).

        It is squashed as a fresh encoder squashes its own, which the flow will begin with.
        """
        shape = (len(clean), 1, 1, clean.shape[-1])
        bound = self.config.bound
        noise = bound * (draws_of(rng.standard_normal, shape) / bound).tanh().expand_as(clean)
        t = draws_of(rng.random, (len(clean), 1, 1))
        x = noise + t[..., None] * (clean - noise)
        predicted, _ = self.policy.inner.head(x, t, self.policy.inner.head.prefix(tokens))
        return (predicted - (clean - noise)).square().mean()

    def decide(self, context: Context, noise: Tensor) -> tuple[np.ndarray, Tensor, Tensor]:
        """Chunks (B, H, J), the latents (B, 1, J) behind them and their log-densities (B,).

        Args:
            context: of B observations.
            noise: (B, 1, 1, J), of the encoder.
        """
        chosen, density = self.policy.choose(context, noise)
        chunks = self.policy.decode(context, chosen).actions[:, 0]
        return chunks.numpy(), chosen[:, 0], density.sum((1, 2, 3))


def generalised_advantages(
    decisions: Decisions, value: np.ndarray, config: GorlConfig
) -> np.ndarray:
    """Advantages float32 (N,) (Schulman et al. 2016, eq. 16).

    What would have followed a time limit is taken to be worth what the last moment is.
    """
    result = np.zeros(len(value), np.float32)
    carried = 0.0
    for k in reversed(range(len(value))):
        last, ended = bool(decisions.last[k]), bool(decisions.terminated[k])
        ahead = 0.0 if ended else value[k] if last else value[k + 1]
        error = decisions.reward[k] + config.discount * ahead - value[k]
        carried = error + config.discount * config.trace * carried * (not last)
        result[k] = carried
    return result


def went_well(
    decisions: Decisions, expected: np.ndarray, share: float, discount: float
) -> np.ndarray:
    """Which decisions (N,) are of the best episodes, as a share of all.

    The best are those that were paid most, discounted, beyond what was expected at their beginning:
    the further away a goal is, the more there is to be gained.

    Args:
        decisions: of whole episodes.
        expected: values (N,) of what was seen.
        share: of the episodes.
        discount: of one decision.
    """
    episode = np.concatenate([[0], np.cumsum(decisions.last)[:-1]])
    first = np.flatnonzero(np.concatenate([[True], decisions.last[:-1]]))
    age = np.arange(len(episode)) - first[episode]
    beyond = np.bincount(episode, decisions.reward * discount**age) - expected[first]
    return (beyond >= np.quantile(beyond, 1.0 - share))[episode]
