"""HIQL: a policy that proposes subgoals, and one that acts towards them.

Park et al. 2023, "HIQL: Offline goal-conditioned RL with latent states as actions", arXiv
2307.11949, eq. 6 and 7, with modes in place of Gaussians of one deviation:

    high    exp(beta A(s, w, g)) |high(s, g) - phi(s, w)|^2        w: k steps ahead
    low     exp(alpha A(s, a, w)) |low(s, phi(s, w)) - chunk|^2
    acts    low(s, z) with z = high(s, g), made as long as a phi

Far from the goal a value says little of a single chunk, and more of where one is k steps later;
near a subgoal it tells chunks apart. Each decision proposes its subgoal anew, as phi depends on the
state. The low policy does not move phi.

Settled here: k is `ahead`; the action is a chunk, of which `executed` steps are rated; high and low
share a backbone, and the low policy does not see the goal. Further candidates go towards further
subgoals, `spread` around the proposed one.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.base import Batch, Context, Generators
from robolearn.policies.goal_configs import HiqlConfig
from robolearn.policies.goal_value import Advantages, Way, of_length, weights_of
from robolearn.policies.heads import Prefix
from robolearn.policies.mode import ModeHead, squared_error
from robolearn.policies.readout import TOKENS
from robolearn.policies.residual import residual_mlp
from robolearn.policies.valued import ValuedPolicy, apart


class Hierarchy(nn.Module):
    """Both policies.

    Args:
        tokens: T and D, of an observation and its goal.
        shown: how many of the tokens are of the goal.
        chunk: H and J.
        config: sizes.
    """

    def __init__(
        self, tokens: tuple[int, int], shown: int, chunk: tuple[int, int], config: HiqlConfig
    ) -> None:
        super().__init__()
        self.shown, narrow = shown, config.representation
        self.high = residual_mlp(tokens[0] * tokens[1], config.hidden, config.depth, narrow)
        self.low = ModeHead((tokens[0] - shown) * tokens[1] + narrow, chunk, config)

    def propose(self, tokens: Tensor) -> Tensor:
        """Subgoals (B, d), of any length, for tokens (B, T, D)."""
        return self.high(tokens.flatten(1))

    def towards(self, state: Tensor, subgoal: Tensor) -> Prefix:
        """Modes of chunks and what they were made of, for states (N, S) and subgoals (N, d)."""
        return self.low(torch.cat([state, subgoal], 1))

    def prefix(self, tokens: Tensor) -> Prefix:
        """The state (B, S) and the proposed subgoal (B, d)."""
        return apart(tokens, self.shown)[0], self.propose(tokens)


class HiqlPolicy(ValuedPolicy):
    """See the module's docstring."""

    kind: ClassVar[str] = HiqlConfig.kind
    config_type = HiqlConfig
    config: HiqlConfig
    head: Hierarchy

    def decider(self, tokens: tuple[int, int], chunk: tuple[int, int]) -> nn.Module:
        """See `ModePolicy`."""
        return Hierarchy(tokens, TOKENS * len(self.cameras), chunk, self.config)

    def errors(
        self, batch: Batch, way: Way, found: Advantages, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """See `ValuedPolicy`."""
        tokens = self.tokens_of(batch, batch["instruction"], rng)
        state, _ = apart(tokens, self.head.shown)
        with torch.no_grad():  # in practice adapters lie beside it, too, and shall not learn here
            phi = self.slow.value.represent(way.state, way.subgoal)
        low, _ = self.head.towards(state, phi)
        high = self.head.propose(tokens)
        return hierarchical_errors(high, phi, low, self.clean_of(batch), found, self.config)

    def draw(self, context: Context, n: int, noise: Generators) -> tuple[Tensor, Tensor]:
        """One chunk towards each subgoal; see `ModePolicy`."""
        state, proposed = context.cache
        length = self.judge.value.length
        around = self.config.spread * self.offsets((n, proposed.shape[1]), noise)
        subgoals = of_length(of_length(proposed, length)[:, None] + around, length)
        mode, made_of = self.head.towards(state.repeat_interleave(n, 0), subgoals.flatten(0, 1))
        return mode[:, 0].unflatten(0, (-1, n)), made_of[:, 0].unflatten(0, (-1, n))


def hierarchical_errors(
    high: Tensor, phi: Tensor, low: Tensor, clean: Tensor, found: Advantages, c: HiqlConfig
) -> dict[str, Tensor]:
    """The weighted errors of both policies, scalars.

    Args:
        high: proposed subgoals (B, d).
        phi: those that were reached (B, d).
        low: chunks towards these (B, ...).
        clean: what was done (B, ...).
        found: advantages.
        c: how sharply they tell.
    """
    far, near = weights_of(found.of_subgoal, c.beta), weights_of(found.of_chunk_nearby, c.alpha)
    return {
        "high": (far * squared_error(high, phi)).mean(),
        "low": (near * squared_error(low, clean)).mean(),
    }
