"""A small convolutional autoencoder: pictures become latents that a world model can predict.

    picture (h, w, 3) ─ squares of 4x4 pixels ─ convolutions ─ latents (C, h / 16, w / 16) ─ back

A latent is normalised over its channels, without parameters, so that nothing needs to be known of
the data: zero mean and unit variance are what flow matching starts from, too. It is trained once
for a dataset and then stays as it is, since what it encodes is what the world model predicts.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.checkpoint import digest
from robolearn.features import PictureFeatures
from robolearn.policies.fitting import minimise
from robolearn.seeding import stream

CELL: Final = 16  # pixels, the side of what one latent stands for
BATCH: Final = 32  # pictures of each camera in a step
LEARNING_RATE: Final = 2e-3
RARE: Final = 10.0  # how much more a pixel counts that is quite another than on average
SAMPLE: Final = 512  # pictures that tell what is seen on average


class Encoder(nn.Sequential):
    """Latents (B, C, h', w') of uint8 pictures (B, h, w, 3), h' = h / 16, rounded up.

    Args:
        channels: C.
        normalised: over the channels, which only latents that are so can be.
    """

    def __init__(self, channels: int, *, normalised: bool = True) -> None:
        super().__init__(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 32, 1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, channels, 3, stride=2, padding=1),
        )
        self._normalised = normalised

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # a channels-last view, as CPUs like
        x = super().forward(padded(x))
        if not self._normalised:
            return x
        return functional.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


class Autoencoder(nn.Module):
    """See the module's docstring; nothing of it wants gradients but in `fit`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = Encoder(channels)
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, 256, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(32, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.requires_grad_(requires_grad=False)

    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Pictures uint8 (B, *size, 3) of latents (B, C, h', w')."""
        pixels = self._decoded(latents, size).add(1.0).mul(127.5)
        return pixels.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)

    def _decoded(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Colours in -1..1, (B, 3, *size)."""
        return self.decoder(latents)[:, :, : size[0], : size[1]]

    def fit(self, frames: Mapping[str, np.ndarray], steps: int, seed: int) -> list[float]:
        """Learns to give pictures back, and returns the losses, meant over tenths.

        Args:
            frames: uint8 (F, h, w, 3) of each camera.
            steps: of training.
            seed: decides on the pictures of each.
        """
        means = {
            name: torch.from_numpy(some[:: max(1, len(some) // SAMPLE)].mean(0)).float()
            for name, some in frames.items()
        }

        def loss(step: int) -> Tensor:
            rng = stream(step, f"autoencoder {seed}")
            losses = [
                self._error(torch.from_numpy(some_of(rows, BATCH, rng)), means[name])
                for name, rows in frames.items()
            ]
            return torch.stack(losses).mean()

        self.requires_grad_(requires_grad=True)
        losses = minimise(self, loss, steps=steps, learning_rate=LEARNING_RATE)
        self.requires_grad_(requires_grad=False)
        return losses

    def eye(self) -> Encoder:
        """A network that can learn to tell these latents."""
        return Encoder(self.channels)

    def teach(
        self, eye: Encoder, frames: Mapping[str, np.ndarray], steps: int, seed: int
    ) -> list[float]:
        """Lets an eye begin as its own encoder, which takes no steps."""
        del frames, steps, seed
        eye.load_state_dict(self.encoder.state_dict())
        return []

    def _error(self, pixels: Tensor, mean: Tensor) -> Tensor:
        """Squares of errors; small things count, which are rare where they are."""
        size = (pixels.shape[1], pixels.shape[2])
        decoded = self._decoded(self.encoder(pixels), size).movedim(1, -1)
        rare = (pixels - mean).abs().amax(-1, keepdim=True) / 255.0
        error = (decoded - (pixels / 127.5 - 1.0)).square() * (1.0 + RARE * rare)
        return error.mean()

    def features(self, size: tuple[int, int]) -> PictureFeatures:
        """Its latents of pictures of this size, for the dataset to keep."""
        shape = (self.channels, *cells_of(size))
        return PictureFeatures(f"latents-{digest(self.state_dict())[:16]}", shape, self._latents)

    @torch.inference_mode()
    def _latents(self, pixels: np.ndarray) -> np.ndarray:
        device = next(self.parameters()).device
        return self.encoder(torch.tensor(pixels, device=device)).half().cpu().numpy()


def cells_of(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the latents of a picture."""
    return -(-size[0] // CELL), -(-size[1] // CELL)


def padded(x: Tensor) -> Tensor:
    """Pictures (B, 3, h, w) of whole cells: with black to the right and below."""
    return functional.pad(x, (0, -x.shape[3] % CELL, 0, -x.shape[2] % CELL))


def some_of(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many random ones, in their order."""
    return rows[np.sort(rng.integers(len(rows), size=count))]
