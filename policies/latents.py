"""Latents of a policy: what all its cameras show, as cells of one autoencoder, and back.

    pictures {camera: (B, h, w, 3)} ─ autoencoder ─ latents (B, N, C) ─ pictures

N cells of all cameras, always in the same order, C channels of a latent. World models, planners and
writers of goals predict these; the autoencoder is trained first and then stays as it is.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.checkpoint import CheckpointError
from robolearn.episodes import DatasetError
from robolearn.features import PictureFeatures
from robolearn.policies.autoencoder import Autoencoder, cells_of
from robolearn.policies.frozen import Frozen
from robolearn.policies.pretrained_autoencoder import PretrainedAutoencoder

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset


class Latents(nn.Module):
    """See the module's docstring.

    Args:
        cameras: camera name -> (height, width) of its pictures.
        channels: C, of an autoencoder that is trained here.
        pretrained: the folder or id of one that others have trained, which has its own C; "" for
            none.

    Raises:
        CheckpointError: it is not there, or cannot be used.
    """

    def __init__(
        self, cameras: Mapping[str, tuple[int, int]], channels: int, pretrained: str = ""
    ) -> None:
        super().__init__()
        self.cameras = dict(cameras)
        self.cells = {name: cells_of(size) for name, size in cameras.items()}
        self.count = sum(rows * columns for rows, columns in self.cells.values())
        self.autoencoder = (
            PretrainedAutoencoder(pretrained) if pretrained else Autoencoder(channels)
        )
        self.channels = self.autoencoder.channels

    @property
    def models(self) -> Mapping[str, Frozen]:
        """Models that others have trained; see `Backbone`."""
        frozen = getattr(self.autoencoder, "frozen", None)
        return {"autoencoder": frozen} if frozen else {}

    def fit(self, dataset: "EpisodeDataset", steps: int, seed: int) -> list[float]:
        """Trains the autoencoder, which takes a minute or two. See `Autoencoder.fit`.

        Raises:
            DatasetError: the cameras' pictures have different sizes.
        """
        return self.autoencoder.fit(self.frames(dataset), steps, seed)

    def frames(self, dataset: "EpisodeDataset") -> dict[str, np.ndarray]:
        """Pictures uint8 (F, h, w, 3) of each camera.

        Raises:
            DatasetError: the cameras' pictures have different sizes.
        """
        if len({*self.cameras.values()}) > 1:
            raise DatasetError(
                f"{dataset.root} has pictures of several sizes, which one autoencoder cannot "
                "encode; record all cameras in one"
            )
        return {camera: dataset.frames(camera) for camera in self.cameras}

    def features(self) -> PictureFeatures:
        """Latents of a camera's pictures, for the dataset to keep."""
        (size,) = {*self.cameras.values()}
        return self.autoencoder.features(size)

    @torch.no_grad()
    def encode(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """Latents (B, N, C) of uint8 pictures (B, h, w, 3), by camera."""
        seen = {name: self.autoencoder.encoder(pixels[name])[:, None] for name in self.cameras}
        return self.joined(seen)[:, 0]

    def joined(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Latents (B, T, C, h', w') of the cameras, always in the same order, as (B, T, N, C).

        In full, whatever the dataset keeps: autocast on a CPU cannot join halves.
        """
        cells = [latents[name].float().flatten(3).transpose(2, 3) for name in self.cameras]
        return torch.cat(cells, dim=2)

    def decode(self, latents: Tensor) -> dict[str, Tensor]:
        """Pictures uint8 (B, T, h, w, 3) of latents (B, T, N, C), by camera."""
        parts = latents.split([rows * columns for rows, columns in self.cells.values()], dim=2)
        pictures = {}
        for (name, size), part in zip(self.cameras.items(), parts, strict=True):
            maps = part.transpose(2, 3).unflatten(3, self.cells[name]).flatten(0, 1)
            pictures[name] = self.autoencoder.decode(maps, size).unflatten(0, latents.shape[:2])
        return pictures


def latents_of(policy: nn.Module, what: str) -> Latents:
    """The latents of a policy that has some.

    Args:
        policy: has them as its `latents`.
        what: needs them, for the error.

    Raises:
        CheckpointError: it has none.
    """
    found = getattr(policy, "latents", None)
    if not isinstance(found, Latents):
        raise CheckpointError(
            f"{what} needs a policy that encodes its goal pictures by themselves, and this one "
            "does not; give an act2goal, susie or cem policy"
        )
    return found
