"""The small backbone: words and pictures are learned from scratch, on a CPU.

A picture (B, h, w, 3) goes through a few convolutions; `readout` says what becomes of their map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.backbone import Backbone, Senses
from robolearn.policies.configs import SmallConfig
from robolearn.policies.language import LanguageEncoder
from robolearn.policies.readout import Readout


class SmallBackbone(Backbone):
    """See the module's docstring."""

    config: SmallConfig

    def __init__(self, config: SmallConfig, senses: Senses) -> None:
        language = LanguageEncoder(senses.vocabulary, config.words, config.width)
        vision = {camera: Readout(PixelStem(config.channels), config) for camera in senses.cameras}
        super().__init__(config, senses, language, vision)

    def views(
        self, observation: Mapping[str, Any], instructions: Sequence[str]
    ) -> Mapping[str, Tensor]:
        """The pictures; see `Backbone`."""
        del instructions
        return observation.get("pixels", {})


class PixelStem(nn.Sequential):
    """A feature map (B, C, h / 4, w / 4) of uint8 (B, h, w, 3)."""

    def __init__(self, channels: int) -> None:
        # Two pixels square at a time, and only then a stride: at full resolution CPUs drown in
        # memory traffic.
        super().__init__(nn.PixelUnshuffle(2), nn.Conv2d(12, channels, 3, stride=2, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # a channels-last view, as CPUs like
        # The stem takes pixels in squares of two, so an odd side gets one more row or column.
        return super().forward(functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))
