"""Verifiers: scorers that were fitted to what demonstrations look like inside of a policy.

Demonstrated actions never went through the policy's sampler, so they have no features of it. They
get some by search (TACO, section 3.3: high-fidelity feature search): a demonstrated chunk is noised
several times, the policy denoises all of these, and the features of that query count whose result
came nearest to the demonstration.
"""

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from robolearn.config import from_json
from robolearn.episodes import DatasetError
from robolearn.policies.base import (
    Chunks,
    Context,
    Generators,
    Policy,
    as_tensors,
)
from robolearn.policies.fitted import Fitted, Taught
from robolearn.policies.normaliser import Normaliser
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.options import FitConfig

BATCH = 64  # observations that are searched at once
LEAST = 16  # features that something can be learned from


class Verifier(Taught, Fitted):
    """Rates features (N, F); see the module's docstring.

    Args:
        config: the method's settings.
        size: F.
        base: the fingerprint of the policy's checkpoint.
    """

    config_type: ClassVar[type]
    features: Normaliser

    def __init__(self, config: Any, size: int, base: str) -> None:  # noqa: ANN401
        super().__init__()
        self.config, self.size, self.base = config, size, base
        self.features = Normaliser((size,))

    @classmethod
    def fitted_to(
        cls, policy: Policy, base: str, dataset: "EpisodeDataset", config: "FitConfig"
    ) -> tuple[Self, dict[str, Any]]:
        """See `Taught`."""
        begin = time.perf_counter()
        features = _demonstrated(policy, dataset, config)
        collected = time.perf_counter()
        torch.manual_seed(config.seed)  # the initial weights
        verifier = cls(config.policy, features.shape[1], base).to(features.device).train()
        figures = verifier.fit(features, stream(config.seed, f"fit {cls.kind}"))
        seconds = {"collect_s": collected - begin, "fit_s": time.perf_counter() - collected}
        return verifier.eval(), {**seconds, **figures}

    @abstractmethod
    def fit(self, features: Tensor, rng: np.random.Generator) -> dict[str, Any]:
        """Learns from demonstrated features (N, F); returns figures about it."""

    @abstractmethod
    def rate(self, features: Tensor) -> Tensor:
        """How well demonstrations support features (N, F): (N,), higher is better."""

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`.

        Raises:
            ValueError: features of another width, or not finite.
        """
        del context, noise
        features = chunks.features.flatten(0, 1).float()
        if features.shape[1] != self.size:
            raise ValueError(
                f"this {self.kind} verifier rates {self.size} features, and the policy gives "
                f"{features.shape[1]}; fit one to this policy"
            )
        if not features.isfinite().all():
            raise ValueError("the policy's features are not finite; its inputs or weights are bad")
        return self.rate(features).view(chunks.features.shape[:2])

    def description(self) -> dict[str, Any]:
        """See `Fitted`."""
        plain = {"config": asdict(self.config), "size": self.size, "base": self.base}
        return plain | self.extra()

    def extra(self) -> dict[str, Any]:
        """Further JSON values that the weights' shapes follow from."""
        return {}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Fitted`."""
        config: Any = from_json(cls.config_type, description["config"])
        return cls(config, description["size"], description["base"])


def _demonstrated(policy: Policy, dataset: "EpisodeDataset", config: "FitConfig") -> Tensor:
    """Features (N, F) of frames that are evenly spread.

    Raises:
        ValueError: too few, or not finite.
    """
    frames = len(dataset)
    wanted = np.unique(np.linspace(0, frames - 1, min(frames, config.frames)).round().astype(int))
    features = demonstrated_features(
        policy,
        dataset,
        wanted,
        queries=config.queries,
        level=config.noise,
        executed=config.executed,
        seed=config.seed,
    )
    if len(features) < LEAST:
        raise DatasetError(f"{len(features)} frames are too few to fit a verifier; record more")
    if not features.isfinite().all():
        raise ValueError(f"{config.base} has features that are not finite; train it again")
    return features


@torch.inference_mode()
def demonstrated_features(
    policy: Policy,
    dataset: "EpisodeDataset",
    frames: np.ndarray,
    *,
    queries: int,
    level: float,
    executed: int,
    seed: int = 0,
) -> Tensor:
    """The policy's features of demonstrated chunks, float32 (len(frames), F).

    Args:
        policy: in eval mode.
        dataset: the demonstrations.
        frames: int; the frames whose chunks are wanted.
        queries: noised copies of each chunk.
        level: their noise, see `Policy.refine`.
        executed: only so many first steps of a chunk decide which query is nearest, and none beyond
            the end of the episode.
        seed: of the noise.
    """
    windows = policy.windows(dataset)
    spread = torch.from_numpy(dataset.columns["action"].std(0) + 1e-6).to(policy.device)
    found = []
    for start in range(0, len(frames), BATCH):
        some = frames[start : start + BATCH]
        batch = as_tensors(windows.get(some), policy.device)
        context = policy.encode(batch, batch["instruction"])
        inside = batch["mask"][:, None, :, None]
        shown = batch["action"][:, None].expand(-1, queries, -1, -1)
        if not inside.all():  # beyond the end of its episode a chunk goes on as the policy would
            fill = policy.sample(context, queries, [stream(seed, f"fill {f}") for f in some])
            shown = torch.where(inside, shown, fill.actions)
        noise = [stream(seed, f"search {frame}") for frame in some]
        refined = policy.refine(context, shown, noise, level)
        error = ((refined.actions - shown) / spread).square() * inside
        nearest = error[:, :, :executed].sum((2, 3)).argmin(1)
        found.append(refined.features[torch.arange(len(some)), nearest].float())
    return torch.cat(found)
