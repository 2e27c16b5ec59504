"""SuSIE: imagine a picture of what is next on the way to a goal, and act towards that picture.

Black et al. 2023, "Zero-Shot Robotic Manipulation with Pretrained Image-Editing Diffusion Models",
arXiv 2310.10639, with a goal picture in place of words, and a small world model in place of a large
editor of images:

    now, goal ─ world model, one frame, in latents ─ autoencoder ─ subgoal picture, k steps ahead
    now, subgoal picture ─ flow policy that is shown its goal ─ chunk

The published text calls the first the high-level policy, the second the low-level policy. Both
learn from the same goals in hindsight, each by flow matching; neither reads the other's weights.
The low level learns with recorded subgoals that went through the autoencoder, since those that are
imagined do. Nobody says how far the goal is: where it is nearer than k steps, it is the subgoal.

A comparator of Act2Goal: its imagination without what it felt meanwhile, and without far frames.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.hindsight import Hindsight
from robolearn.policies.backbone import Senses
from robolearn.policies.base import Batch, Context, Info
from robolearn.policies.denoiser import draws_of
from robolearn.policies.flow import FlowPolicy
from robolearn.policies.hashing import Hashing
from robolearn.policies.latent_configs import SusieConfig
from robolearn.policies.latents import Latents
from robolearn.policies.world_model import Imagined, WorldModel

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset


class SusiePolicy(FlowPolicy):
    """See the module's docstring."""

    kind: ClassVar[str] = SusieConfig.kind
    config_type: ClassVar[type[SusieConfig]] = SusieConfig
    config: SusieConfig
    world: WorldModel

    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """Those of the low level; makes the world model, too. See `DenoisingPolicy`."""
        ahead, furthest = self.config.ahead, self.config.hindsight.furthest
        # The only frame is k steps ahead: near, and no far ones.
        once = Hashing(ahead, ahead, 1, max(ahead, furthest), "none")
        self.world = WorldModel(self.config, senses.cameras, once)
        return super().networks(senses)

    @property
    def latents(self) -> Latents:
        """What imagines, as what encodes pictures."""
        return self.world

    @property
    def fixed(self) -> nn.Module:
        """The autoencoder; see `TrainablePolicy`."""
        return self.latents.autoencoder

    def fit(self, dataset: "EpisodeDataset") -> None:
        """Also trains the autoencoder, which takes a minute or two; see `DenoisingPolicy`.

        Raises:
            DatasetError: the cameras' pictures have different sizes.
        """
        super().fit(dataset)
        self.world.fit(dataset, self.config.autoencoder_steps, torch.initial_seed())

    def windows(self, dataset: "EpisodeDataset") -> Hindsight:
        """With the latents of the subgoal; see `Policy`."""
        return self.world.hindsight(dataset, self.horizon, self.config.hindsight)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The sum of both levels' losses, which share no weights."""
        world = self.world
        ends = world.see(batch["pixels"]), world.see(batch["goal_pixels"])
        subgoal = world.joined(batch["future"])
        noise = draws_of(rng.standard_normal, subgoal.shape).to(subgoal.device)
        t = draws_of(rng.random, (len(subgoal), 1)).to(subgoal.device)
        high, _ = world.loss(ends, subgoal, noise, t, self._ahead(subgoal))
        low, info = super().loss({**batch, "goal_pixels": self._shown(subgoal)}, rng)
        return high + low, {**info, f"{self.kind}/subgoal": float(high.detach())}

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Imagines the subgoal, once a decision, and looks at it; see `Policy`."""
        shown = self._shown(self._imagined(observation))
        return super().encode({**observation, "goal_pixels": shown}, instructions)

    def _imagined(self, observation: Batch) -> Tensor:
        """Latents of the subgoal (B, 1, N, C), from the same noise at every decision."""
        world = self.world
        now, goal = world.see(observation["pixels"]), world.see(observation["goal_pixels"])
        return world.imagine(now, goal, self._ahead(now), self.config.sample_steps)

    def _ahead(self, rows: Tensor) -> Tensor:
        """As many steps, (B,), as the world model is always told, whatever the goal."""
        return torch.full((len(rows),), self.config.ahead, device=rows.device)

    def _shown(self, latents: Tensor) -> dict[str, Tensor]:
        """Pictures uint8 (B, h, w, 3) of latents (B, 1, N, C), by camera."""
        return {name: picture[:, 0] for name, picture in self.world.decode(latents).items()}

    def gist(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """The autoencoder's latents; see `Policy`."""
        return self.world.encode(pixels).flatten(1)

    def imagine(self, observation: Batch) -> Imagined:
        """The subgoal; see `Policy`."""
        latents = self._imagined(observation)
        return Imagined(self.world.decode(latents), self._ahead(latents)[:, None].cpu())
