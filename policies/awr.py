"""Advantage-weighted regression (Peng et al. 2019), with a distributional state value.

    A = return - V(s)        V learned by cross-entropy on returns, spread over bins

The value is that of whoever acted, demonstrators and older policies alike, and says nothing about
other actions than the one that was taken: what ALOE sets out to improve upon. Temperature and
limits of the weights are ALOE's, so that the two differ in their judgement alone.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.advantage import effective_share, weights_of
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.fitting import minimise
from robolearn.policies.improver import Judge, Judgement, held_out, in_batches, rank_correlation
from robolearn.policies.improver_configs import AwrConfig, ValueConfig
from robolearn.policies.normaliser import Normaliser
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience


class Awr(Judge):
    """See the module's docstring, and `Judge`."""

    config: AwrConfig

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """See `Judge`."""
        del policy, before
        replay, returns = experience.replay, experience.replay.returns()
        held = held_out(replay.numbers)
        value = fitted_value(self.config, experience, returns, held, seed)
        predicted = value_at(value, experience, replay.starts)
        weights = weights_of(returns[replay.starts] - predicted, self.config.advantage)
        unseen = held[replay.episode[replay.starts]]
        rank = rank_correlation(predicted[unseen], returns[replay.starts][unseen])
        figures = {"effective": effective_share(weights), "critic_rank": rank}
        return Judgement(weights, figures)


class Value(nn.Module):
    """V(s) as a distribution over bins from the lowest value to 0; (B, T, D) to logits (B, bins).

    Args:
        config: sizes.
        tokens: T and D.
        lowest: the value of never being done.
    """

    bins: Tensor

    def __init__(self, config: ValueConfig, tokens: tuple[int, int], lowest: float) -> None:
        super().__init__()
        self.tokens = Normaliser(tokens)
        width = config.hidden
        self.net = nn.Sequential(
            nn.Linear(tokens[0] * tokens[1], width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, config.bins),
        )
        self.register_buffer("bins", torch.linspace(lowest, 0.0, config.bins))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        return self.net(self.tokens(tokens).flatten(1))

    def mean(self, tokens: Tensor) -> Tensor:
        """The expected value (B,)."""
        return self(tokens).softmax(-1) @ self.bins

    def shares(self, value: Tensor) -> Tensor:
        """Values (B,) as shares of the two bins around them, (B, bins)."""
        step = self.bins[1] - self.bins[0]
        distance = (value[:, None] - self.bins).abs() / step
        return (1.0 - distance).clamp_min(0.0)


def fitted_value(
    config: ValueConfig,
    experience: "Experience",
    returns: np.ndarray,
    held: np.ndarray,
    seed: int,
) -> Value:
    """A value of states that was taught returns (F,), without the episodes held out (E,)."""
    replay = experience.replay
    torch.manual_seed(seed)  # the initial weights
    value = Value(config, experience.tokens_shape, replay.reward.lowest).to(experience.device)
    starts = replay.starts_of(~held)
    value.tokens.fit(experience.tokens(starts[:: 1 + len(starts) // 20_000]).cpu().numpy())

    def loss(step: int) -> Tensor:
        frames = stream(seed, f"value {step}").choice(starts, config.batch_size)
        target = torch.from_numpy(returns[frames]).to(experience.device)
        return functional.cross_entropy(value(experience.tokens(frames)), value.shares(target))

    minimise(value, loss, steps=config.steps, learning_rate=config.learning_rate)
    return value.eval()


@torch.inference_mode()
def value_at(value: Value, experience: "Experience", frames: np.ndarray) -> np.ndarray:
    """Expected values (N,) at frames (N,)."""
    found = [value.mean(experience.tokens(some)) for some in in_batches(frames)]
    return torch.cat(found).cpu().numpy()
