"""What backbones upon frozen vision models share: readouts of maps that may be kept on disk.

picture  (B, h, w, 3) ─ frozen model ─ map (B, g, g, C) ─ norm, 1x1 convolution ─ `readout`
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.features import PictureFeatures
from robolearn.policies.backbone import Backbone, Senses
from robolearn.policies.configs import BackboneConfig
from robolearn.policies.frozen import Frozen
from robolearn.policies.language import Language
from robolearn.policies.readout import Readout

LARGEST: Final = 65504.0  # of half precision


class FrozenBackbone(Backbone):
    """See the module's docstring.

    Args:
        config: sizes.
        senses: what there is to perceive.
        language: makes the words' token.
        eye: makes maps (N, g, g, C) of pictures; its module has their `shape`.
    """

    def __init__(
        self, config: BackboneConfig, senses: Senses, language: Language, eye: Frozen
    ) -> None:
        channels = eye.module.shape[-1]
        vision = {
            camera: Readout(MapStem(channels, config.channels), config) for camera in senses.cameras
        }
        super().__init__(config, senses, language, vision)
        self.eye, self.adapters = eye, eye.adapters

    @abstractmethod
    def look(self, pixels: Tensor, instructions: Sequence[str]) -> Tensor:
        """Maps (N, g, g, C) of uint8 pictures (N, h, w, 3)."""

    @property
    def map_name(self) -> str:
        """Differs whenever maps of the same pictures would."""
        return self.eye.fingerprint[:16]

    @property
    def looks_alike(self) -> bool:
        """Whether a picture always has the same map."""
        return not self.eye.learns

    def views(
        self, observation: Mapping[str, Any], instructions: Sequence[str]
    ) -> Mapping[str, Tensor]:
        """Kept maps, or those of the pictures; see `Backbone`."""
        if "features" in observation:
            return observation["features"]
        return {
            camera: self._map(observation["pixels"][camera], instructions) for camera in self.vision
        }

    def _map(self, pixels: Tensor, instructions: Sequence[str]) -> Tensor:
        seen = self.look(pixels, instructions)
        # Rounded as the kept ones are, so that it makes no difference which are used.
        return seen.clamp(-LARGEST, LARGEST).half() if self.looks_alike else seen

    def features(self) -> PictureFeatures | None:
        """What the dataset may keep; see `Backbone`."""
        if not self.looks_alike:
            return None
        return PictureFeatures(self.map_name, self.eye.module.shape, self._kept)

    def _kept(self, pixels: np.ndarray) -> np.ndarray:
        device = next(self.parameters()).device
        seen = torch.from_numpy(np.array(pixels)).to(device)
        return self._map(seen, [""] * len(pixels)).cpu().numpy()


class MapStem(nn.Module):
    """(B, c, h, w) of a map (B, h, w, C), whose channels may be of any size."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.mix = nn.Conv2d(features, channels, 1)

    def forward(self, view: Tensor) -> Tensor:
        """See the class."""
        return self.mix(self.norm(view.float()).permute(0, 3, 1, 2))


def scaled(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Float pictures 0..1 (N, 3, *size) of uint8 (N, h, w, 3); the aspect ratio is not kept."""
    x = pixels.permute(0, 3, 1, 2).float() / 255.0
    return functional.interpolate(x, tuple(size), mode="bilinear", antialias=True).clamp(0.0, 1.0)
