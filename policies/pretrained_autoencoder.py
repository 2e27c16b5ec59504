"""An autoencoder that others have trained, through diffusers: its latents are what is imagined.

    picture (h, w, 3) ─ VAE ─ latents (c, h / f, w / f) ─ cells (C, h / 16, w / 16)

Autoencoders of images (`AutoencoderKL` of Stable Diffusion and its kin, `AutoencoderTiny`) make one
latent of 8 x 8 pixels, those of videos (`AutoencoderKLLTXVideo`, to which a frame is a video) one
of 32 x 32. So that a world model has cells of 16 x 16 pixels whichever it is, finer latents are put
side by side in one cell, and for coarser ones the picture is enlarged. They are brought to the zero
mean and unit variance that flow matching starts from by the numbers that come with them.

It is large and stays as it is, so a policy does not look through it when it acts: its own eye
learns to tell the same latents, before anything else is learned.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.features import PictureFeatures
from robolearn.policies.autoencoder import BATCH, CELL, Encoder, cells_of, padded, some_of
from robolearn.policies.fitting import minimise
from robolearn.policies.frozen import Frozen, shared
from robolearn.seeding import stream

PROBE: Final = 64  # pixels, the side of a picture that tells how coarse the latents are
LEARNING_RATE: Final = 2e-3
AT_A_TIME: Final = 16  # pictures


class PretrainedAutoencoder(nn.Module):
    """See the module's docstring; in the place of `Autoencoder`.

    Args:
        where: a folder, or an id of the hub: of the autoencoder, or of a pipeline that has one.

    Raises:
        CheckpointError: it is not there, or cannot be used.
    """

    here: Tensor  # nothing

    def __init__(self, where: str) -> None:
        super().__init__()
        self.frozen: Frozen = shared(where, "autoencoder", _load)
        self.channels = int(self.frozen.module.channels)
        self.register_buffer("here", torch.empty(0), persistent=False)  # on the policy's device

    def encoder(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, h', w') of uint8 pictures (B, h, w, 3)."""
        return self.frozen("encode", pixels, device=pixels.device)

    def decode(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Pictures uint8 (B, *size, 3) of latents (B, C, h', w')."""
        drawn = self.frozen("decode", latents, device=latents.device)
        return drawn[:, : size[0], : size[1]]

    def fit(self, frames: Mapping[str, np.ndarray], steps: int, seed: int) -> list[float]:
        """Nothing: it is trained."""
        del frames, steps, seed
        return []

    def eye(self) -> Encoder:
        """A network that can learn to tell these latents."""
        return Encoder(self.channels, normalised=False)

    def teach(
        self, eye: Encoder, frames: Mapping[str, np.ndarray], steps: int, seed: int
    ) -> list[float]:
        """Lets an eye learn to tell these latents; the losses, meant over tenths.

        Args:
            eye: learns in place.
            frames: uint8 (F, h, w, 3) of each camera.
            steps: of training.
            seed: decides on the pictures of each.
        """

        def loss(step: int) -> Tensor:
            rng = stream(step, f"eye {seed}")
            seen = [torch.from_numpy(some_of(rows, BATCH, rng)) for rows in frames.values()]
            errors = [(eye(pixels) - self.encoder(pixels)).square().mean() for pixels in seen]
            return torch.stack(errors).mean()

        return minimise(eye, loss, steps=steps, learning_rate=LEARNING_RATE)

    def features(self, size: tuple[int, int]) -> PictureFeatures:
        """Its latents of pictures of this size, for the dataset to keep."""
        shape = (self.channels, *cells_of(size))
        return PictureFeatures(f"latents-{self.frozen.fingerprint[:16]}", shape, self._latents)

    def _latents(self, pixels: np.ndarray) -> np.ndarray:
        parts = torch.tensor(pixels, device=self.here.device).split(AT_A_TIME)
        return torch.cat([self.encoder(part) for part in parts]).half().cpu().numpy()


class Codec(nn.Module):
    """A VAE of diffusers, which speaks of cells.

    Args:
        vae: any of its autoencoders of pictures or videos.

    Raises:
        ValueError: its latents are of no size that fits into cells.
    """

    def __init__(self, vae: Any) -> None:  # noqa: ANN401 (diffusers has no type for all of them)
        super().__init__()
        self.vae, self._settings = vae, vae.config
        self._video = "Video" in type(vae).__name__
        with torch.no_grad():
            probe = self._encoded(torch.zeros(1, 3, PROBE, PROBE))
        self.coarse = PROBE // probe.shape[2]  # pixels, the side of what a latent stands for
        if max(CELL, self.coarse) % min(CELL, self.coarse):
            raise ValueError(f"its latents stand for {self.coarse} pixels, which {CELL} do not fit")
        self.fine = max(1, CELL // self.coarse)  # latents on the side of a cell
        self.channels = probe.shape[1] * self.fine**2

    def forward(self, way: str, x: Tensor) -> Tensor:
        """Latents (B, C, h', w') of uint8 pictures (B, h, w, 3), or back, whole cells.

        Args:
            way: "encode" or "decode".
            x: what is encoded or decoded.
        """
        return self._encode(x) if way == "encode" else self._decode(x)

    def _encode(self, pixels: Tensor) -> Tensor:
        x = padded(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0)
        x = functional.interpolate(x, scale_factor=self._larger) if self._larger > 1 else x
        mean, spread = self._statistics(x)
        return functional.pixel_unshuffle((self._encoded(x) - mean) / spread, self.fine)

    def _decode(self, latents: Tensor) -> Tensor:
        mean, spread = self._statistics(latents)
        x = self._decoded(functional.pixel_shuffle(latents, self.fine) * spread + mean)
        x = functional.avg_pool2d(x, self._larger) if self._larger > 1 else x
        pixels = x.add(1.0).mul(127.5).round().clamp(0, 255)
        return pixels.to(torch.uint8).movedim(1, -1)

    @property
    def _larger(self) -> int:
        """How many times a picture is enlarged, for latents that are coarser than a cell."""
        return max(1, self.coarse // CELL)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of its latents, (c, 1, 1) or for all channels together."""
        known = {**self._settings, **dict(self.vae.named_buffers(recurse=False))}
        mean, spread = (known.get(name) for name in ("latents_mean", "latents_std"))
        if mean is None or spread is None:  # one number for all channels
            mean, spread = [known.get("shift_factor") or 0.0], [1.0]
        mean, spread = (torch.as_tensor(x).to(like)[:, None, None] for x in (mean, spread))
        return mean, spread / float(known.get("scaling_factor") or 1.0)

    def _encoded(self, x: Tensor) -> Tensor:
        found = self.vae.encode(x[:, :, None] if self._video else x)
        drawn = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return drawn[:, :, 0] if self._video else drawn

    def _decoded(self, latents: Tensor) -> Tensor:
        if not self._video:
            return self.vae.decode(latents).sample
        # Some decoders also denoise, and are told the time: here there is no noise.
        told = (
            (latents.new_zeros(len(latents)),)
            if self._settings.get("timestep_conditioning")
            else ()
        )
        return self.vae.decode(latents[:, :, None], *told).sample[:, :, 0]


def _load(path: str) -> Codec:
    from diffusers import AutoModel

    options: dict[str, Any] = {"torch_dtype": torch.float32, "use_safetensors": True}
    try:
        vae = AutoModel.from_pretrained(path, subfolder="vae", **options)
    except (OSError, ValueError):  # no pipeline: the folder is the autoencoder's own
        vae = AutoModel.from_pretrained(path, **options)
    if not hasattr(vae, "encode") or not hasattr(vae, "decode"):
        raise ValueError(f"a {type(vae).__name__} is no autoencoder")
    return Codec(vae)
