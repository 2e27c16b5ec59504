"""A Gaussian squashed into a box, which a soft actor-critic (Haarnoja et al. 2018) draws from."""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.residual import residual_mlp

NARROWEST, WIDEST = -5.0, 1.0  # logarithms of the deviation, before squashing
NOTHING: Final = 1e-6  # a bound of zero
PACE: Final = 10.0  # of a temperature's logarithm, beside that of all other weights
INSIDE: Final = 0.99  # of the box: what is further out is taken for this
EXACT: Final = 1.0 - 1e-6  # the same, for what was drawn


class SquashedGaussian(nn.Module):
    """bound tanh(u / bound), u ~ N(mean(tokens), deviation(tokens)); begins with u ~ N(0, 1).

    Args:
        tokens: T and D.
        shape: of what is drawn.
        bound: no number of it is larger.
        hidden: width.
        depth: layers.
    """

    def __init__(
        self, tokens: tuple[int, int], shape: tuple[int, ...], bound: float, hidden: int, depth: int
    ) -> None:
        super().__init__()
        self.shape, self.bound = shape, max(bound, NOTHING)
        size = tokens[0] * tokens[1]
        self.norm = nn.LayerNorm(size)
        self.body = residual_mlp(size, hidden, depth, hidden)
        self.out = nn.Linear(hidden, 2 * math.prod(shape))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def features(self, tokens: Tensor) -> Tensor:
        """What it makes of tokens (B, T, D): (B, 1, hidden)."""
        return functional.silu(self.body(self.norm(tokens.flatten(1))))[:, None]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the deviation before squashing, (B, 1, *shape)."""
        mean, log_std = self.out(features).unflatten(-1, (2, *self.shape)).unbind(2)
        return mean, log_std.clamp(NARROWEST, WIDEST)

    def draw(self, features: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draws (B, n, *shape) for noise of that shape, and the log-density of each number."""
        mean, log_std = self(features)
        u = mean + log_std.exp() * noise
        return self.bound * (u / self.bound).tanh(), self._density(u, mean, log_std)

    def log_density(self, features: Tensor, value: Tensor, inside: float = INSIDE) -> Tensor:
        """Of each number of values (B, n, *shape); `inside` is the share of the box that counts."""
        u = self.bound * (value / self.bound).clamp(-inside, inside).atanh()
        return self._density(u, *self(features))

    def _density(self, u: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        z = (u - mean) / log_std.exp()
        normal = -0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        y = u / self.bound
        squashed = 2.0 * (math.log(2.0) - y - functional.softplus(-2.0 * y))  # log(1 - tanh^2)
        return normal - squashed


class Temperature(nn.Module):
    """What entropy is worth: it rises while there is less of it than is aimed at.

    A round has some thousand steps, where a soft actor-critic usually has a million: at their rate
    a logarithm of its own would end where it began.
    """

    def __init__(self, entropy: float, start: float = 0.1) -> None:
        super().__init__()
        self.entropy = entropy
        self.scaled = nn.Parameter(torch.tensor(math.log(start) / PACE))

    @property
    def log(self) -> Tensor:
        """The logarithm of what entropy is worth."""
        return PACE * self.scaled

    def loss(self, density: Tensor) -> Tensor:
        """What actor and temperature minimise of log-densities (...)."""
        own = -self.log * (density.detach().mean() + self.entropy)
        return self.log.exp().detach() * density.mean() + own
