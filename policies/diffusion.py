"""DiffusionPolicy: a vision-language-action policy by denoising diffusion.

Ho et al. 2020 (DDPM) to train: with noise e ~ N(0, I), a demonstrated chunk x and a noise level k,

    x_k = sqrt(a_k) x + sqrt(1 - a_k) e

the head predicts e, or x, or, as it does by default, v = sqrt(a_k) e - sqrt(1 - a_k) x (Salimans
and Ho 2022), and the loss is the mean squared error of that. To sample in few steps there are
DDIM (Song et al. 2021) and DPM-Solver++ (Lu et al. 2022), both without fresh noise, so that a chunk
is a function of its first noise. The noise schedule is the squared cosine of Nichol and Dhariwal
2021; schedules and samplers are those of the library diffusers.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from robolearn.policies.configs import DiffusionConfig
from robolearn.policies.denoiser import DenoisingPolicy, Guide, draws_of
from robolearn.policies.heads import Prefix

CLIP = 3.0  # standard deviations of a clean chunk


class DiffusionPolicy(DenoisingPolicy):
    """See the module's docstring."""

    kind: ClassVar[str] = DiffusionConfig.kind
    config_type = DiffusionConfig
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(config, *args, **options)
        shared = {"num_train_timesteps": config.train_steps, "beta_schedule": "squaredcos_cap_v2"}
        # The head's prediction becomes a clean chunk, and is clipped, before a sampler sees it;
        # "trailing" begins at pure noise.
        shared |= {"prediction_type": "sample", "timestep_spacing": "trailing"}
        self._sampler: Any  # diffusers has no types for what its mixins add
        if config.sampler == "ddim":
            self._sampler = DDIMScheduler(**shared, clip_sample=False)
        else:
            self._sampler = DPMSolverMultistepScheduler(**shared)

    def corrupt(
        self, clean: Tensor, inside: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy chunks of a random level; see `DenoisingPolicy`."""
        noise = draws_of(rng.standard_normal, clean.shape).to(clean.device)
        level = rng.integers(self.config.train_steps, size=tuple(clean.shape[:2]))
        k = torch.from_numpy(level).to(clean.device)
        clean = torch.where(inside, clean, torch.zeros_like(clean))
        signal, spread = self._shares(k)
        target = {
            "epsilon": lambda: noise,
            "sample": lambda: clean,
            "v_prediction": lambda: signal * noise - spread * clean,
        }[self.config.prediction]()
        return signal * clean + spread * noise, k[..., None] / self.config.train_steps, target

    def _shares(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(a_k) and sqrt(1 - a_k) of noise levels (...,), as (..., 1, 1)."""
        a = self._sampler.alphas_cumprod.to(k.device)[k][..., None, None]
        return a.sqrt(), (1.0 - a).sqrt()

    def noised(self, clean: Tensor, noise: Tensor, start: int) -> Tensor:
        """See `DenoisingPolicy`."""
        self._sampler.set_timesteps(self.config.sample_steps)
        signal, spread = self._shares(self._sampler.timesteps[start].to(clean.device))
        return signal * clean + spread * noise

    def denoise(
        self, x: Tensor, start: int, prefix: Prefix, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the sampler from a step on; see `DenoisingPolicy`."""
        sampler = self._sampler
        sampler.set_timesteps(self.config.sample_steps)  # it counts its steps
        if hasattr(sampler, "set_begin_index"):
            sampler.set_begin_index(start)
        for k in sampler.timesteps[start:]:
            clean, features = self._look(x, k, prefix)
            if guide:
                clean = (clean + self._push(x, k, prefix, guide)).clamp(-CLIP, CLIP)
            x = sampler.step(clean, k, x).prev_sample
        return x, features

    def _look(self, x: Tensor, k: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """The clean chunks that the head sees in noisy ones, and its features."""
        t = torch.full((1, 1, 1), int(k) / self.config.train_steps, device=x.device)
        predicted, features = self.head(x, t, prefix)
        return self._clean(x, predicted, k.to(x.device)), features

    def _push(self, x: Tensor, k: Tensor, prefix: Prefix, guide: Guide) -> Tensor:
        """How a guide changes the clean chunks: as on the straight path that flow would take."""
        signal, spread = self._shares(k.to(x.device))
        scale = signal + spread
        t = float(signal / scale)
        push = guide.push(x / scale, t, lambda y: self._look(scale * y, k, prefix)[0])
        return (1 - t) * push

    def _clean(self, x: Tensor, predicted: Tensor, k: Tensor) -> Tensor:
        """The clean chunk that a prediction means; far from the data it is an error of it.

        Near pure noise, epsilon is divided by a share of the signal of less than a thousandth.
        """
        signal, spread = self._shares(k)
        clean = {
            "epsilon": lambda: (x - spread * predicted) / signal,
            "sample": lambda: predicted,
            "v_prediction": lambda: signal * x - spread * predicted,
        }[self.config.prediction]()
        return clean.clamp(-CLIP, CLIP)
