"""TACO: the candidate that the demonstrations support most, by counting with coins.

Yang et al. 2025, "Steering vision-language-action models as anti-exploration". After fine-tuning, a
policy still has modes of other data in it; the executed chunk should be one that the fine-tuning
data knows. How often features z were seen is counted by the coin-flipping network of Lobel et al.
2023: every datum gets d fixed random signs c, and a network f learns

    loss = E |f(z) - c|^2        so that        |f(z)|^2 / d = 1 / n

for features that occur n times, since n random signs average to a length of 1 / sqrt(n). A frozen
random prior of unit variance is part of f: where nothing was learned, it makes f read about 1, a
count of one. The candidate with the smallest |f| is executed.

Which network counts? An MLP, as published, knows its signs by heart within some hundred steps;
every datum then reads 1, and the density is gone. And it undoes a prior of its own kind everywhere,
not only near the data. Here f is a layer of frozen random Fourier features (Rahimi and Recht 2007)
and a linear layer, for which the loss is solved exactly,

    f(z) = W phi(z) + prior(z)        W = argmin sum |f(z) - c|^2 + ridge |W|^2

and the prior is such features, too. Their length scale and the strength of the ridge, which is what
an early end of training would be, are chosen on held-out features: their counts, and those of
mixtures of them, shall be ranked as the distance to the nearest other features is.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from robolearn.policies.configs import TacoConfig
from robolearn.policies.verifier import Verifier

HELD_OUT = 0.1  # share of the features
NEIGHBOURS = 8  # whose mean distance tells how dense it is at a held-out feature
BLOCKS = 40  # of successive features, which are held out as a whole
SAMPLED = 1000  # features that tell how far neighbours are
LENGTH_SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 8.0)  # in distances to the neighbours
RIDGES = tuple(10.0**k for k in range(-3, 6))


class RandomFourier(nn.Module):
    """sqrt(2) cos(W z + b) with frozen random W and b: mean 0 and variance 1 wherever z is.

    Args:
        size: F.
        outputs: how many.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(size, outputs))
        self.register_buffer("phases", 2.0 * torch.pi * torch.rand(outputs))

    def forward(self, z: Tensor, scale: Tensor | float) -> Tensor:
        """(N, F) to (N, outputs); what is a length scale apart is about a radian apart."""
        return 2.0**0.5 * torch.cos(z @ self.frequencies / scale + self.phases)


class Taco(Verifier):
    """See the module's docstring."""

    kind: ClassVar[str] = TacoConfig.kind
    config_type = TacoConfig
    length_scale: Tensor
    weight: Tensor  # (fourier, d)

    def __init__(self, config: TacoConfig, size: int, base: str) -> None:
        super().__init__(config, size, base)
        self.fourier = RandomFourier(size, config.fourier)
        self.prior = RandomFourier(size, config.flips)
        self.register_buffer("length_scale", torch.ones(()))
        self.register_buffer("weight", torch.zeros(config.fourier, config.flips))

    def forward(self, features: Tensor) -> Tensor:
        """f(z), (N, d), of features (N, F)."""
        z = self._scaled(features)
        return self.fourier(z, self.length_scale) @ self.weight + self._prior(z, self.length_scale)

    def _scaled(self, features: Tensor) -> Tensor:
        return self.config.scale * features if self.config.scale else self.features(features)

    def _prior(self, z: Tensor, scale: Tensor | float) -> Tensor:
        return self.prior(z, scale) * float(self.config.prior)

    def reading(self, features: Tensor) -> Tensor:
        """|f|^2 / d, (N,): one over the count."""
        return self(features).square().mean(-1)

    def rate(self, features: Tensor) -> Tensor:
        """See `Verifier`: the larger the count, the better."""
        return -self.reading(features)

    @torch.no_grad()
    def fit(self, features: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """Chooses length scale and ridge on held-out features, then counts all; see `Verifier`."""
        self.features.fit(features.cpu().numpy())
        z = self._scaled(features)
        shape = (len(z), self.config.flips)
        signs = torch.from_numpy(rng.integers(2, size=shape, dtype=np.int8)).to(z) * 2.0 - 1.0
        held = torch.from_numpy(_held_out(len(z), rng)).to(z.device)
        probes, distance = _probes(z[held], z[~held], rng)
        unit = _distance_of_neighbours(z)
        tried = {}
        for factor in (self.config.length_scale,) if self.config.length_scale else LENGTH_SCALES:
            scale = factor * unit
            for ridge, weight in self._solutions(z[~held], signs[~held], scale):
                f = self.fourier(probes, scale) @ weight + self._prior(probes, scale)
                tried[factor, ridge] = _rank(f.square().mean(-1).cpu().numpy(), distance)
        factor, ridge = max(tried, key=lambda which: tried[which])
        self.length_scale.fill_(factor * unit)
        ((_, weight),) = self._solutions(z, signs, factor * unit, (ridge,))
        self.weight.copy_(weight)
        chosen = {"length_scale": factor, "ridge": ridge, "rank": tried[factor, ridge]}
        return {**chosen, "features": len(features)}

    def _solutions(
        self, z: Tensor, signs: Tensor, scale: float, ridges: tuple[float, ...] = ()
    ) -> Iterator[tuple[float, Tensor]]:
        """The linear layer for every ridge, by one eigendecomposition in double precision."""
        phi = self.fourier(z, scale).double()
        target = (signs - self._prior(z, scale)).double()
        values, vectors = torch.linalg.eigh(phi.T @ phi)
        projected = vectors.T @ (phi.T @ target)
        for ridge in ridges or ((self.config.ridge,) if self.config.ridge else RIDGES):
            damped = projected / (values.clamp_min(0.0) + ridge)[:, None]
            yield ridge, (vectors @ damped).to(z.dtype)


def _held_out(count: int, rng: np.random.Generator) -> np.ndarray:
    """Which features are held out, bool (N,): stretches, since neighbours in time are alike."""
    blocks = min(BLOCKS, count // 2)
    chosen = rng.choice(blocks, max(1, round(HELD_OUT * blocks)), replace=False)
    return np.isin(np.arange(count) * blocks // count, chosen)


def _rank(reading: np.ndarray, distance: np.ndarray) -> float:
    """Rank correlation; -1 where nothing differs."""
    found = float(spearmanr(reading, distance).statistic)
    return found if np.isfinite(found) else -1.0


def _probes(held: Tensor, shown: Tensor, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
    """Held-out features, from seen to unheard-of, and how far they are from what is shown."""
    other = held[torch.from_numpy(rng.permutation(len(held))).to(held.device)]
    share = torch.from_numpy(rng.random((len(held), 1), dtype=np.float32)).to(held.device)
    probes = torch.cat([held, torch.lerp(held, other, share)])
    return probes, _nearest(probes, shown, NEIGHBOURS).cpu().numpy()


def _distance_of_neighbours(z: Tensor) -> float:
    """The median distance to the nearest features that are not the same."""
    different = z.unique(dim=0)
    some = different[:: -(-len(different) // SAMPLED)]
    found = float(_nearest(some, different, NEIGHBOURS + 1).median())  # the first is itself
    return max(found, 1e-6)


def _nearest(z: Tensor, others: Tensor, count: int) -> Tensor:
    """Mean distance (N,) of features (N, F) to the nearest of others (M, F)."""
    count = min(count, len(others))
    near = [torch.cdist(some, others).topk(count, largest=False).values for some in z.split(512)]
    return torch.cat(near).mean(1)
