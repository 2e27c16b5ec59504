"""The settings of every method; apart from the methods so that help and configs need no torch."""

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes of the small backbone."""

    width: int = 128  # features of a token, D
    channels: int = 32  # of the convolutions
    blocks: int = 2  # residual blocks, at a quarter of the picture's resolution
    keypoints: int = 32  # for each camera
    words: int = 64  # features of a word


@dataclass(frozen=True)
class FlowConfig:
    """What defines a flow policy."""

    kind: ClassVar[str] = "flow"
    horizon: int = 16  # steps in a chunk
    sample_steps: int = 8  # Euler steps from noise to chunk
    draws: int = 4  # noise draws for each observation in the loss; the picture is encoded once
    hidden: int = 384  # width of the velocity field
    depth: int = 3  # residual blocks of the velocity field
    backbone: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        """Refuses sizes below one.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("horizon", "sample_steps", "draws", "hidden", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"policy {name} is {getattr(self, name)}; it must be at least 1")
