"""The action expert of Act2Goal: it denoises chunks, and its blocks attend to a world model's."""

from collections.abc import Sequence
from itertools import batched

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.hashing import Hashing
from robolearn.policies.heads import Prefix, TimeEncoder, TransformerLayer
from robolearn.policies.latent_configs import Act2GoalConfig
from robolearn.policies.world_model import PLACE


def hashing_of(config: Act2GoalConfig) -> Hashing:
    """The hashing that these settings mean."""
    furthest = config.hindsight.furthest
    return Hashing(config.horizon, config.stride, config.far, furthest, config.spacing)


def within(steps: Tensor, furthest: int) -> Tensor:
    """Whole steps that goals in training may be away, (B,), of estimated ones."""
    return steps.detach().clamp(1, furthest).round().long()


class ActionExpert(nn.Module):
    """Denoises chunks; block l attends to the features of block l of the world model.

    The actions at hand are one token and every far one another: split up into four, the chunk took
    about twice as many steps to learn, as its parts have to find each other first.

    Beside attention, each block is modulated by a summary of the same features, since an MLP learns
    sooner than attention what is to be attended to; nothing of one block is read by another.

    Args:
        config: sizes.
        joints: J.
        tokens: T and D of each block's memory.
    """

    def __init__(self, config: Act2GoalConfig, joints: int, tokens: tuple[int, int]) -> None:
        super().__init__()
        width, self.horizon = config.hidden, config.horizon
        self.hashing = hashing_of(config)
        places = 1 + self.hashing.far_points
        self.time = TimeEncoder(width)
        self.inward, self.far = nn.Linear(self.horizon * joints, width), nn.Linear(joints, width)
        self.place = nn.Parameter(PLACE * torch.randn(places, width))
        self.ahead = nn.Linear(self.hashing.far_points + 1, width)
        self.layers = nn.ModuleList(TransformerLayer(width, tokens[1]) for _ in range(config.depth))
        self.summaries = nn.ModuleList(
            nn.Linear(tokens[0] * tokens[1], width) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, self.horizon * joints)
        self.far_outward = nn.Linear(width, joints)
        for last in (self.outward, self.far_outward):
            nn.init.zeros_(last.weight)

    def prefix(self, memories: Sequence[Tensor], steps: Tensor) -> Prefix:
        """The steps to the goal (B,), then keys, values and summary of each block.

        Args:
            memories: (B, T, D) of each block.
            steps: to the goal (B,), as far as known.

        Raises:
            ValueError: not as many memories as blocks.
        """
        parts = zip(self.layers, self.summaries, memories, strict=True)
        read = ((*layer.keys_values(m), summary(m.flatten(1))) for layer, summary, m in parts)  # type: ignore[operator]
        return steps, *(x for part in read for x in part)

    def forward(self, x: Tensor, t: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """The velocity of chunks (B, n, P + M, J), and the first token's features (B, n, W).

        Args:
            x: noisy chunks (B, n, P + M, J).
            t: time in 0..1, (B, n, 1), or (1, 1, 1) where it is the same for all.
            prefix: from `prefix`.
        """
        steps, *memories = prefix
        time = self.time(t)[:, :, None] + self._ahead(steps)[:, None, None]
        near = x[:, :, : self.horizon].flatten(2)[:, :, None]
        h = torch.cat([self.inward(near), self.far(x[:, :, self.horizon :])], 2) + self.place
        for layer, (keys, values, summary) in zip(self.layers, batched(memories, 3), strict=True):
            h = layer(h, functional.silu(time + summary[:, None, None]), keys, values)
        h = self.norm(h)
        rows = self.outward(h[:, :, 0]).unflatten(2, (self.horizon, -1))
        return torch.cat([rows, self.far_outward(h[:, :, 1:])], 2), h[:, :, 0]

    def _ahead(self, steps: Tensor) -> Tensor:
        """How far goal and far actions are, (B, W)."""
        goal = within(steps, self.hashing.furthest)
        far = torch.from_numpy(self.hashing.far_offsets(goal.cpu().numpy())[0]).to(goal)
        known = torch.cat([goal[:, None], far], 1).float()
        return self.ahead(known.log() / np.log(self.hashing.furthest + 1))
