"""Policies that are shown a goal picture and tell one chunk: the mode of a Gaussian.

    tokens of observation and goal (B, T, D) ─ residual MLP ─ mode (B, H, J)

The Gaussian has the same deviation everywhere, so that its likelihood is a squared error and the
divergence of two of them the squared distance of their modes. The mode acts; where there is to be a
choice, further candidates are `spread` of the demonstrations' deviation around it, with one offset
for all steps of a chunk: what shakes from step to step is no other plan.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.backbone import Senses
from robolearn.policies.base import Chunks, Context, Generators
from robolearn.policies.chunks import ChunkPolicy
from robolearn.policies.goal_configs import ModeConfig
from robolearn.policies.heads import Prefix
from robolearn.policies.residual import residual_mlp


class ModeHead(nn.Module):
    """The mode of chunks, given numbers (B, S).

    Args:
        size: S.
        chunk: H and J.
        config: sizes.
    """

    def __init__(self, size: int, chunk: tuple[int, int], config: ModeConfig) -> None:
        super().__init__()
        self.chunk = chunk
        self.body = residual_mlp(size, config.hidden, config.depth, config.hidden)
        self.outward = nn.Linear(config.hidden, chunk[0] * chunk[1])
        nn.init.zeros_(self.outward.weight)

    def forward(self, seen: Tensor) -> Prefix:
        """Modes (B, 1, H, J), and what they were made of, (B, 1, W)."""
        h = functional.silu(self.body(seen))[:, None]
        return self.outward(h).unflatten(2, self.chunk), h

    def prefix(self, tokens: Tensor) -> Prefix:
        """The same of tokens (B, T, D): once a decision, however many candidates there are."""
        return self(tokens.flatten(1))


class ModePolicy(ChunkPolicy):
    """See the module's docstring, and `ChunkPolicy`."""

    config_type: ClassVar[type[ModeConfig]]
    config: ModeConfig

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return True

    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """See `ChunkPolicy`."""
        backbone = self.eyes(senses)
        tokens = (backbone.token_count, backbone.config.width)
        return backbone, self.decider(tokens, (self.horizon, senses.joints))

    def decider(self, tokens: tuple[int, int], chunk: tuple[int, int]) -> nn.Module:
        """What makes chunks (H, J) of tokens (T, D)."""
        return ModeHead(tokens[0] * tokens[1], chunk, self.config)

    def draw(self, context: Context, n: int, noise: Generators) -> tuple[Tensor, Tensor]:
        """Clean candidates (B, n, H, J), the mode first, and what they were made of (B, n, W)."""
        mode, made_of = context.cache
        clean = mode + self.config.spread * self.offsets((n, 1, self.joints), noise)
        return clean, made_of.expand(-1, n, -1)

    def offsets(self, shape: tuple[int, ...], noise: Generators) -> Tensor:
        """Standard normal numbers (B, *shape); zeros for the first candidate, shape[0] = n."""
        drawn = torch.from_numpy(
            np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in noise])
        )
        drawn[:, 0] = 0.0
        return drawn.to(self.device)

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """See `Policy`, and the module's docstring."""
        return self._candidates(context, *self.draw(context, n, noise))

    def refine(self, context: Context, actions: Tensor, noise: Generators, level: float) -> Chunks:
        """Draws chunks towards candidates of its own, by `level` of the way; see `Policy`."""
        clean, made_of = self.draw(context, actions.shape[1], noise)
        shown = self._learned(actions, context.agent_pos)
        return self._candidates(context, shown.lerp(clean, level), made_of)

    def _candidates(self, context: Context, clean: Tensor, made_of: Tensor) -> Chunks:
        """Chunks; the features hold them, too, as what they were made of may be the same."""
        return self.finished(context, clean, torch.cat([made_of, clean.flatten(2)], -1))


def squared_error(mode: Tensor, clean: Tensor) -> Tensor:
    """Mean over all numbers of each of B modes (B, ...), (B,), in full precision."""
    return (mode.float() - clean).square().flatten(1).mean(1)
