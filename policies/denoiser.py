"""What flow and diffusion policies share: everything except how noise becomes a chunk.

"Clean" and "noisy" in this module mean chunks in the form that is learned, see `chunks.py`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.backbone import Senses
from robolearn.policies.base import (
    Batch,
    Chunks,
    Context,
    Generators,
    Info,
    Overlaps,
    as_batch,
)
from robolearn.policies.chunks import ChunkPolicy
from robolearn.policies.configs import NoiseConfig
from robolearn.policies.heads import HEADS, Prefix

Draw = Callable[..., np.ndarray]
STRONGEST = 5.0  # guidance, beta in the paper


def draws_of(draw: Draw, shape: Sequence[int]) -> Tensor:
    """Random numbers (B, n, ...), drawn for one n after the other."""
    observations, draws, *rest = shape
    drawn = draw((draws, observations, *rest), dtype=np.float32)
    return torch.from_numpy(drawn).transpose(0, 1)


@dataclass(frozen=True)
class Guide:
    """Draws a sampler towards a chunk that is under way (Black et al. 2025, eq. 2 to 4).

    That is inpainting by the gradient of the denoiser (Pokle et al. 2024) with soft weights.

    Attributes:
        towards: a clean chunk (B, 1, H, J).
        weights: of its steps, 0..1, (B, 1, H, 1).
    """

    towards: Tensor
    weights: Tensor

    def push(self, x: Tensor, t: float, clean_of: Callable[[Tensor], Tensor]) -> Tensor:
        """What is to be added to the velocity of x, as `x`.

        Args:
            x: noisy chunks (B, n, H, J): t of a clean one, 1 - t of noise.
            t: time in 0..1.
            clean_of: what the denoiser takes for the clean chunks of noisy ones.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = clean_of(x)
            error = self.weights * (self.towards - clean.detach())
            (gradient,) = torch.autograd.grad(clean, x, error)
        strength = (t**2 + (1 - t) ** 2) / (t * (1 - t)) if 0 < t < 1 else np.inf
        return min(STRONGEST, strength) * gradient


class DenoisingPolicy(ChunkPolicy):
    """See the module's docstring, and `ChunkPolicy`."""

    config_type: ClassVar[type[NoiseConfig]]
    config: Any
    head: Any  # a `Head`, unless a method has its own

    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """See `ChunkPolicy`; the head denoises."""
        backbone = self.eyes(senses)
        tokens = (backbone.token_count, self.config.backbone.width)
        return backbone, HEADS[self.config.head](self.config, senses.joints, tokens)

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return self.config.goal == "pictures"

    @abstractmethod
    def corrupt(
        self, clean: Tensor, inside: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A training example of clean chunks: noisy ones, their times, and targets.

        Args:
            clean: (B, n, H, J).
            inside: bool (B, 1, H, 1); false beyond the end of an episode.
            rng: the source of noise and times.

        Returns:
            Noisy chunks (B, n, H, J), times (B, n, 1) and what the head shall predict, as `clean`.
        """

    @abstractmethod
    def noised(self, clean: Tensor, noise: Tensor, start: int) -> Tensor:
        """Clean chunks with as much noise as there is before sampling step `start`."""

    @abstractmethod
    def denoise(
        self, x: Tensor, start: int, prefix: Prefix, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the sampling steps from `start` on: clean chunks, and the last step's features."""

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """Denoises n chunks of pure noise for each context; see `Policy`."""
        return self.finished(context, *self.denoise(self.first_noise(n, noise), 0, context.cache))

    def follow(self, context: Context, n: int, noise: Generators, overlaps: Overlaps) -> Chunks:
        """Guides the denoising towards what is under way; see `Policy` and `Guide`."""
        with torch.inference_mode(mode=False):  # in which no gradient is possible
            actions, weights = (part.to(self.device) for part in as_batch(overlaps))
            towards = self._learned(actions, context.agent_pos.clone())
            weights = functional.pad(weights, (0, 0, 0, self.auxiliary))
            prefix = tuple(part.clone() for part in context.cache)
            guide = Guide(towards.detach(), weights)
            clean, features = self.denoise(self.first_noise(n, noise), 0, prefix, guide)
            return self.finished(context, clean.detach(), features.detach())

    def refine(self, context: Context, actions: Tensor, noise: Generators, level: float) -> Chunks:
        """Puts noise on chunks and takes it off again; see `Policy`.

        The level is rounded to a sampling step, so that the features are of the same last step that
        `sample` ends with, whatever the number of steps.
        """
        steps = self.config.sample_steps
        start = min(round((1.0 - level) * steps), steps - 1)
        x = self.first_noise(actions.shape[1], noise)
        if start:
            x = self.noised(self._learned(actions, context.agent_pos), x, start)
        return self.finished(context, *self.denoise(x, start, context.cache))

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """Mean squared error; steps beyond the end of an episode do not count."""
        prefix = self.head.prefix(self.tokens_of(batch, batch["instruction"], rng))
        loss = self._error(self.clean_of(batch), batch["mask"], prefix, rng)
        return loss, {f"{self.kind}/loss": float(loss.detach())}

    def _error(
        self, clean: Tensor, inside: Tensor, prefix: Prefix, rng: np.random.Generator
    ) -> Tensor:
        """Mean squared error of the head for clean chunks (B, 1, H, J), where `inside` (B, H)."""
        clean = clean.expand(-1, self.config.draws, -1, -1)
        inside = inside[:, None, :, None]
        noisy, t, target = self.corrupt(clean, inside, rng)
        predicted, _ = self.head(noisy, t, prefix)
        error = (predicted.float() - target).square() * inside
        return error.sum() / inside.expand_as(error).sum()

    def first_noise(self, n: int, noise: Generators) -> Tensor:
        """(B, n, H, J); the first candidates are the same however many there are."""
        shape = (n, *self.chunk.mean.shape)
        drawn = [generator.standard_normal(shape, dtype=np.float32) for generator in noise]
        return torch.from_numpy(np.stack(drawn)).to(self.device)
