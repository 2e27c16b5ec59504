"""What actions lead to, in latents: the model that a planner searches with.

    z (B, N, C) ──────────────────────────── tokens ─ blocks ─ z after the part, as a change
    joints q (B, J), targets (B, p, J) ─ MLP ─ modulates the blocks ─ q after it, likewise

As in V-JEPA 2-AC (Assran et al. 2025, arXiv 2506.09985, section 3) it learns by teacher forcing,
each part from what was seen before it, and by rolling out, from what it predicted itself, with the
absolute error of both. A part is p control steps; targets are relative to where the joints are.

B batch, N cells of all cameras, C channels of a latent, T parts of a chunk, J joints.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.backbone import two_layers
from robolearn.policies.latent_configs import CemConfig
from robolearn.policies.normaliser import Normaliser
from robolearn.policies.world_model import PLACE, Block


class LatentDynamics(nn.Module):
    """See the module's docstring.

    Args:
        config: sizes.
        cells: N.
        relative: (J,), 1 for joints whose targets are seen relative to where they are.
    """

    relative: Tensor

    def __init__(self, config: CemConfig, cells: int, relative: Tensor) -> None:
        super().__init__()
        joints, width, self.part = len(relative), config.width, config.part
        self.agent_pos = Normaliser((joints,))
        self.targets = Normaliser((config.part, joints))
        self.moved = two_layers((1 + config.part) * joints, width)
        self.inward = nn.Linear(config.latents, width)
        self.place = nn.Parameter(PLACE * torch.randn(cells, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.depth))
        self.norm, self.outward = nn.LayerNorm(width), nn.Linear(width, config.latents)
        self.arm = nn.Linear(width, joints)
        for last in (self.outward, self.arm):  # at first nothing changes
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.register_buffer("relative", relative, persistent=False)

    def forward(self, z: Tensor, joints: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, N, C) and joints (B, J) after a part.

        Args:
            z: latents before it, likewise.
            joints: likewise.
            targets: of the joints in each step of it (B, p, J), absolute.
        """
        q = self.agent_pos(joints)
        rows = self.targets(targets - (joints * self.relative)[:, None])
        c = functional.silu(self.moved(torch.cat([q[:, None], rows], 1).flatten(1)))
        h = (self.inward(z) + self.place)[:, None]
        for block in self.blocks:
            h = block(h, c[:, None, None])
        after = z + self.outward(self.norm(h[:, 0]))
        # Latents have no mean and unit variance in any cell, and so have those to come.
        return functional.layer_norm(after, z.shape[-1:]), joints + self.arm(c) * self.agent_pos.std

    def unrolled(self, z: Tensor, joints: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """The same after each of T parts, (B, T, N, C) and (B, T, J), of a chunk (B, T p, J)."""
        seen = []
        for targets in chunk.split(self.part, 1):
            z, joints = self(z, joints, targets)
            seen.append((z, joints))
        latents, positions = zip(*seen, strict=True)
        return torch.stack(latents, 1), torch.stack(positions, 1)

    def losses(self, z: Tensor, joints: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """The errors of teacher forcing and of rolling out.

        Args:
            z: latents before the first and after each part (B, T + 1, N, C).
            joints: likewise (B, T + 1, J).
            chunk: (B, T p, J).
        """
        parts = chunk.unflatten(1, (-1, self.part)).flatten(0, 1)
        forced = self(z[:, :-1].flatten(0, 1), joints[:, :-1].flatten(0, 1), parts)
        rolled = self.unrolled(z[:, 0], joints[:, 0], chunk)
        after = z[:, 1:], joints[:, 1:]
        return self._error(forced, after), self._error(rolled, after)

    def _error(self, predicted: Sequence[Tensor], seen: Sequence[Tensor]) -> Tensor:
        """Mean absolute error of latents and joints; these weigh in units of their spread."""
        z, joints = (a.float().reshape(b.shape) - b for a, b in zip(predicted, seen, strict=True))
        return z.abs().mean() + (joints / self.agent_pos.std).abs().mean()
