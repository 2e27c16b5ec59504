"""What TACO is compared with: other verifiers of the same features, each in a few lines."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from robolearn.config import from_json
from robolearn.policies.configs import KnnConfig, MahalanobisConfig, RndConfig
from robolearn.policies.fitting import minimise
from robolearn.policies.residual import residual_mlp
from robolearn.policies.verifier import Verifier


class Knn(Verifier):
    """The distance to the nearest demonstrated features; it keeps all of them and asks each."""

    kind: ClassVar[str] = KnnConfig.kind
    config_type = KnnConfig
    bank: Tensor  # (N, F)

    def __init__(self, config: KnnConfig, size: int, base: str, count: int = 0) -> None:
        super().__init__(config, size, base)
        self.register_buffer("bank", torch.zeros(count, size))

    def fit(self, features: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """See `Verifier`."""
        del rng
        self.features.fit(features.cpu().numpy())
        self.bank = self.features(features)
        return {"features": len(features)}

    def rate(self, features: Tensor) -> Tensor:
        """See `Verifier`."""
        distance = torch.cdist(self.features(features), self.bank)
        count = min(self.config.neighbours, len(self.bank))
        return -distance.topk(count, largest=False).values.mean(1)

    def extra(self) -> dict[str, Any]:
        """See `Verifier`."""
        return {"count": len(self.bank)}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Verifier`."""
        config = from_json(cls.config_type, description["config"])
        return cls(config, description["size"], description["base"], description["count"])


class Mahalanobis(Verifier):
    """The distance to the mean of all demonstrated features, in units of their covariance."""

    kind: ClassVar[str] = MahalanobisConfig.kind
    config_type = MahalanobisConfig
    precision: Tensor  # (F, F)

    def __init__(self, config: MahalanobisConfig, size: int, base: str) -> None:
        super().__init__(config, size, base)
        self.register_buffer("precision", torch.eye(size))

    def fit(self, features: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """See `Verifier`."""
        del rng
        self.features.fit(features.cpu().numpy())
        z = self.features(features).double()
        covariance = z.T @ z / len(z) + self.config.ridge * torch.eye(self.size, device=z.device)
        self.precision.copy_(torch.linalg.inv(covariance))
        return {"features": len(features)}

    def rate(self, features: Tensor) -> Tensor:
        """See `Verifier`."""
        z = self.features(features)
        return -((z @ self.precision) * z).sum(1)


class Rnd(Verifier):
    """Random network distillation (Burda et al. 2019): how badly a random network is imitated."""

    kind: ClassVar[str] = RndConfig.kind
    config_type = RndConfig

    def __init__(self, config: RndConfig, size: int, base: str) -> None:
        super().__init__(config, size, base)
        shape = (size, config.hidden, config.depth, config.outputs)
        self.imitator = residual_mlp(*shape)
        self.target = residual_mlp(*shape).requires_grad_(requires_grad=False)

    def fit(self, features: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """See `Verifier`."""
        self.features.fit(features.cpu().numpy())
        c = self.config

        def loss(step: int) -> Tensor:
            del step
            rows = torch.from_numpy(rng.integers(len(features), size=c.batch_size))
            return self._error(features[rows.to(features.device)]).mean()

        losses = minimise(self, loss, steps=c.steps, learning_rate=c.learning_rate)
        return {"features": len(features), "losses": losses}

    def _error(self, features: Tensor) -> Tensor:
        z = self.features(features)
        with torch.no_grad():
            target = self.target(z)
        return (self.imitator(z) - target).square().mean(-1)

    def rate(self, features: Tensor) -> Tensor:
        """See `Verifier`."""
        return -self._error(features)
