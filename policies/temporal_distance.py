"""How many steps it is from an observation to a goal: quantiles of their logarithm, from hindsight.

Pairs of frames of one episode tell it (log-steps spread evenly, where steps do not), and quantile
regression tells how sure it is (Koenker and Bassett 1978). The steps between two frames are those
that the demonstrator took, which need not be the fewest. Goals of other episodes are taught as
beyond reach: their scene is another one, so that no way leads there.
"""

from itertools import pairwise
from math import log
from typing import Final

import torch
from torch import Tensor, nn

QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9)
MEDIAN: Final = QUANTILES.index(0.5)
NARROW: Final = 16  # features of a cell
HIDDEN: Final = 128
STRANGE: Final = 4.0  # a goal of another episode counts as so many times as far as the furthest


class TemporalDistance(nn.Module):
    """See the module's docstring.

    Args:
        cells: N of an observation.
        channels: C of a cell.
        furthest: steps, the longest that pairs of one episode are apart.
    """

    scale: Tensor  # of the logarithm, so that the furthest is 1

    def __init__(self, cells: int, channels: int, furthest: int) -> None:
        super().__init__()
        self.compared = nn.Linear(2 * channels, NARROW)
        sizes = (cells * NARROW, HIDDEN, HIDDEN)
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        self.mlp = nn.Sequential(
            nn.SiLU(), nn.Flatten(), *layers, nn.Linear(HIDDEN, len(QUANTILES))
        )
        scale = torch.tensor(float(furthest + 1)).log()
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, now: Tensor, goal: Tensor) -> Tensor:
        """Quantiles of the scaled logarithm of the steps (B, Q), of latents (B, N, C)."""
        return self.mlp(self.compared(torch.cat([now, goal], -1)))

    def steps(self, now: Tensor, goal: Tensor) -> Tensor:
        """The median number of steps (B,)."""
        return (self(now, goal)[:, MEDIAN] * self.scale).exp()

    def loss(self, now: Tensor, goal: Tensor, steps: Tensor, episode: Tensor) -> Tensor:
        """What pairs B of one episode teach, and each goal beside the next observation.

        Args:
            now: latents (B, N, C).
            goal: likewise.
            steps: between them (B,).
            episode: of each pair (B,).
        """
        other = episode.roll(1)
        strangers = other != episode
        known = _pinball(self(now, goal), steps.float().log() / self.scale)
        far = torch.full_like(known, 1.0) + log(STRANGE) / self.scale
        unknown = _pinball(self(now, goal.roll(1, 0)), far)
        return known.mean() + (unknown * strangers).mean()


def _pinball(predicted: Tensor, target: Tensor) -> Tensor:
    """Quantile loss (B,) of quantiles (B, Q) of a number (B,)."""
    above = target[:, None] - predicted
    levels = torch.tensor(QUANTILES, device=target.device)
    return torch.maximum(levels * above, (levels - 1.0) * above).mean(1)
