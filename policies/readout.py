"""What is read off a feature map: where things are, and roughly what is there.

    map (B, C, h, w) ─ residual blocks, modulated by the words ─┬─ keypoints, soft-argmax ─ token
                                                                └─ coarse feature map ───── token

Soft-argmax keypoints (Levine et al. 2016, section 5) say where the thing is that the task needs,
finer than the feature map's grid; feature-wise modulation (FiLM, Perez et al. 2018, eq. 1) lets the
instruction decide which thing that is, before its position is read off.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.configs import BackboneConfig

TOKENS: Final = 2  # that a readout gives


class Readout(nn.Module):
    """Two tokens of a feature map; see the module's docstring.

    Args:
        stem: makes (B, channels, h, w) of what `forward` is given.
        config: sizes.
    """

    def __init__(self, stem: nn.Module, config: BackboneConfig) -> None:
        super().__init__()
        c = config.channels
        self.stem = stem
        self.blocks = nn.ModuleList(FilmBlock(c, config.width) for _ in range(config.blocks))
        self.heat = nn.Conv2d(c, config.keypoints, 1)
        self.temperature = nn.Parameter(torch.zeros(()))
        self.points = nn.Linear(2 * config.keypoints, config.width)
        self.coarse = nn.Sequential(
            nn.Conv2d(c, c, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d((3, 5)),
            nn.Flatten(),
            nn.Linear(15 * c, config.width),
        )

    def forward(self, view: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """A keypoint token and a map token, both (B, D).

        Args:
            view: what the stem takes.
            words: the words' token (B, D).
        """
        x = self.stem(view)
        for block in self.blocks:
            x = block(x, words)
        return self.points(self._keypoints(x)), self.coarse(x)

    def _keypoints(self, x: Tensor) -> Tensor:
        """Expected positions (B, 2 K) in -1..1 under a softmax over each heat map."""
        heat = self.heat(x).float() * self.temperature.exp()
        rows = torch.linspace(-1.0, 1.0, heat.shape[2], device=heat.device)
        columns = torch.linspace(-1.0, 1.0, heat.shape[3], device=heat.device)
        weight = heat.flatten(2).softmax(-1).view_as(heat)
        y = (weight.sum(3) * rows).sum(2)
        x_ = (weight.sum(2) * columns).sum(2)
        return torch.cat([x_, y], dim=1)


class FilmBlock(nn.Module):
    """A residual block whose features are scaled and shifted by the instruction.

    It has no normalisation layer: on a CPU group norm cost a quarter of a training step, and a
    shallow residual network that starts as the identity trains without it.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.film = nn.Linear(condition, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # starts as the identity

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, h, w) and (B, condition) to (B, C, h, w)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        y = functional.silu(x * (1.0 + scale) + shift)
        return x + self.second(functional.silu(self.first(y)))
