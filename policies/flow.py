"""FlowPolicy: a vision-language-action policy by conditional flow matching.

Lipman et al. 2023, "Flow matching for generative modeling", with the straight paths of eq. 20-23
(sigma_min = 0). With noise x0 ~ N(0, I), a demonstrated chunk x1 and time t in [0, 1]:

    x_t = (1 - t) x0 + t x1        u = x1 - x0        loss = E |v(x_t, t, context) - u|^2

A chunk is drawn by integrating dx/dt = v from noise at t = 0 to t = 1 in equal steps. In training,
t is drawn uniformly; or from a logit-normal distribution (Esser et al. 2024, section 3.1), which
prefers the middle; or from the beta distribution of pi0 (Black et al. 2024, appendix B), which
prefers the noisy end.
"""

from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from robolearn.policies.configs import FlowConfig, FlowSettings
from robolearn.policies.denoiser import DenoisingPolicy, Draw, Guide, draws_of
from robolearn.policies.heads import Prefix

LAST_TIME = 0.999  # of pi0's beta distribution


def between(noise: Tensor, clean: Tensor, t: Tensor | float) -> Tensor:
    """The point at time t of the straight path from noise to what is clean."""
    return (1 - t) * noise + t * clean


class FlowPolicy(DenoisingPolicy):
    """See the module's docstring."""

    kind: ClassVar[str] = FlowConfig.kind
    config_type: ClassVar[type[FlowSettings]] = FlowConfig
    config: FlowSettings

    def corrupt(
        self, clean: Tensor, inside: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points on the paths from noise to chunks; see `DenoisingPolicy`."""
        noise = draws_of(rng.standard_normal, clean.shape).to(clean.device)
        clean = torch.where(inside, clean, noise)  # so that padding teaches nothing
        t = draws_of(self._times(rng), (*clean.shape[:2], 1)).to(clean.device)
        return between(noise, clean, t[..., None]), t, clean - noise

    def _times(self, rng: np.random.Generator) -> Draw:
        if self.config.times == "uniform":
            return rng.random
        if self.config.times == "beta":
            return lambda shape, dtype: np.asarray(LAST_TIME * rng.beta(1.0, 1.5, shape), dtype)
        return lambda shape, dtype: 1.0 / (1.0 + np.exp(-rng.standard_normal(shape, dtype)))

    def noised(self, clean: Tensor, noise: Tensor, start: int) -> Tensor:
        """See `DenoisingPolicy`."""
        return between(noise, clean, start / self.config.sample_steps)

    def denoise(
        self, x: Tensor, start: int, prefix: Prefix, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Integrates from a step on; see `DenoisingPolicy`."""
        step = 1.0 / self.config.sample_steps
        for k in range(start, self.config.sample_steps):
            t = k * step
            v, features = self._velocity(x, t, prefix)
            if self.config.solver == "midpoint":
                v, features = self._velocity(x + 0.5 * step * v, t + 0.5 * step, prefix)
            if guide:
                clean_of = partial(self._clean, t=t, prefix=prefix)
                v = v + guide.push(x, t, clean_of)
            x = x + step * v
        return x, features

    def _clean(self, x: Tensor, t: float, prefix: Prefix) -> Tensor:
        """Where a straight path from here would end."""
        return x + (1 - t) * self._velocity(x, t, prefix)[0]

    def _velocity(self, x: Tensor, t: float, prefix: Prefix) -> tuple[Tensor, Tensor]:
        return self.head(x, torch.full((1, 1, 1), t, device=x.device), prefix)
