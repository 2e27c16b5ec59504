"""A planner in latents: of many chunks it takes the one whose end looks most like the goal.

After V-JEPA 2-AC (Assran et al. 2025, "V-JEPA 2", arXiv 2506.09985, section 3), with a small
autoencoder in place of its encoder and whole chunks of joint targets in place of single motions:

    chunk = mean + sum_d w_d direction_d        w (D,) ~ N(0, I) are like demonstrated chunks
    cost(w) = | z after the chunk - z of the goal |_1 / (N C)

The model of what a chunk leads to is learned of recordings (`latent_dynamics.py`); nobody shows it
goals. The search is the cross-entropy method (Rubinstein 1999): draw chunks from a Gaussian, take
the best, fit the Gaussian to them, and again. Directions are the principal ones of demonstrated
chunks, so that what is tried is smooth, and of a kind that the model knows.

The end of a chunk is as far as it looks. To a goal beyond that its way is greedy: it does what
makes the picture most like the goal's now; where a detour is needed first, it gets stuck.

B batch, n candidates, S samples, D directions, H chunk steps, J joints.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight
from robolearn.policies.arm_policy import ArmPolicy
from robolearn.policies.base import Batch, Chunks, Context, Generators, Info
from robolearn.policies.configs import HindsightConfig
from robolearn.policies.latent_configs import CemConfig
from robolearn.policies.latent_dynamics import LatentDynamics
from robolearn.policies.latents import Latents
from robolearn.policies.world_model import Imagined
from robolearn.seeding import stream
from robolearn.transitions import Transitions

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset

BOUND: Final = 3.0  # standard deviations of a direction, beyond which nothing was demonstrated
NARROWEST: Final = 0.02  # the Gaussian does not collapse before the last iteration


def least(cost: Callable[[Tensor], Tensor], draws: Tensor, elites: int) -> Tensor:
    """The cross-entropy method: where a cost is about least, (R, D), for R searches side by side.

    Args:
        cost: of points (R, S, D): (R, S).
        draws: standard normal noise (R, I, S, D), for I iterations of S samples.
        elites: how many of the samples the next Gaussian is fitted to; its mean is the answer.
    """
    mean, spread = torch.zeros_like(draws[:, 0, :1]), torch.ones_like(draws[:, 0, :1])
    for noise in draws.unbind(1):
        points = (mean + spread * noise).clamp(-BOUND, BOUND)
        best = cost(points).topk(elites, largest=False).indices[..., None]
        chosen = points.gather(1, best.expand(-1, -1, points.shape[2]))
        mean = chosen.mean(1, keepdim=True)
        spread = chosen.std(1, keepdim=True).clamp(min=NARROWEST)
    return mean[:, 0]


class CemPolicy(ArmPolicy):
    """See the module's docstring, and `ArmPolicy`."""

    kind: ClassVar[str] = CemConfig.kind
    config_type: ClassVar[type[CemConfig]] = CemConfig
    config: CemConfig
    directions: Tensor  # (D, H, J), of normalised chunks, each as long as its standard deviation

    def __init__(
        self, config: CemConfig, cameras: Mapping[str, tuple[int, int]], arm: Mapping[str, Any]
    ) -> None:
        super().__init__(config, cameras, arm)
        self.latents = Latents(cameras, config.latents)
        self.dynamics = LatentDynamics(config, self.latents.count, self.relative)
        count = min(config.directions, config.horizon * self.joints)
        shape = (count, config.horizon, self.joints)
        self.register_buffer("directions", torch.full(shape, torch.nan))

    @property
    def fixed(self) -> nn.Module:
        """The autoencoder; see `TrainablePolicy`."""
        return self.latents.autoencoder

    def fit(self, dataset: "EpisodeDataset") -> None:
        """Also trains the autoencoder, which takes a minute or two; see `ArmPolicy`.

        Raises:
            DatasetError: no episode is longer than a chunk, or the cameras' pictures have different
                sizes.
        """
        if (longest := int(dataset.episodes.length.max())) <= self.horizon:
            raise DatasetError(
                f"{dataset.root} has no episode of more than {longest} frames, and a horizon of "
                f"{self.horizon} needs {self.horizon + 1}; record longer ones, or give a smaller "
                "--policy.horizon"
            )
        rows, _ = self.recorded(dataset)
        self.dynamics.agent_pos.fit(dataset.columns["agent_pos"])
        self.dynamics.targets.fit(rows[:, : self.config.part], alike=self.absolute)
        self.fit_chunks(rows)
        self.directions.copy_(self._principal(torch.from_numpy(rows)))
        self.latents.fit(dataset, self.config.autoencoder_steps, torch.initial_seed())

    def _principal(self, rows: Tensor) -> Tensor:
        """The directions in which relative chunks (F, H, J) differ most."""
        flat = self.chunk(rows).flatten(1)
        variances, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))  # the smallest first
        scaled = (vectors * variances.clamp(min=0.0).sqrt()).T.flip(0)
        return scaled[: len(self.directions)].view_as(self.directions)

    def windows(self, dataset: "EpisodeDataset") -> Transitions:
        """With the latents of what came after each part of a chunk; see `Policy`."""
        cameras = tuple(self.cameras)
        goals = Hindsight(dataset.windows(self.horizon, cameras), HindsightConfig())
        latents = dataset.windows(1, cameras, features=self.latents.features())
        return Transitions(goals, latents, self.config.part, self.horizon)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """Teacher forcing and rolling out; see `LatentDynamics`."""
        del rng  # nothing is random in it
        visited = batch["visited"]
        z = self.latents.joined(visited["features"])
        forced, rolled = self.dynamics.losses(z, visited["agent_pos"], batch["action"])
        parts = {"forced": forced, "rolled": rolled}
        return forced + rolled, {f"{self.kind}/{k}": float(v.detach()) for k, v in parts.items()}

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Latents of what is seen, as tokens, and of the goal; see `Policy`."""
        del instructions  # the goal is shown
        now, goal = (self.latents.encode(observation[k]) for k in ("pixels", "goal_pixels"))
        return Context(now, observation["agent_pos"], (goal,))

    @torch.no_grad()
    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """Searches n times for each context, every time with other noise; see `Policy`."""
        c = self.config
        shape = (n, c.iterations, c.samples, len(self.directions))
        drawn = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in noise])
        draws = torch.from_numpy(drawn).to(self.device).flatten(0, 1)
        rows = (context.tokens, context.agent_pos, *context.cache)
        now, joints, goal = (x.repeat_interleave(n, 0) for x in rows)

        def cost(points: Tensor) -> Tensor:
            last = self._led(now, joints, self._chunks(points, joints))
            return (last - goal[:, None]).abs().mean((2, 3))

        chunks = self._chunks(least(cost, draws, c.elites)[:, None], joints)
        features = self._led(now, joints, chunks).mean(2)
        return Chunks(*(x[:, 0].unflatten(0, (-1, n)) for x in (chunks, features)))

    def _chunks(self, points: Tensor, joints: Tensor) -> Tensor:
        """Chunks (R, S, H, J) of points (R, S, D), for arms at (R, J)."""
        return self.targets(torch.einsum("rsd,dhj->rshj", points, self.directions), joints)

    def _led(self, now: Tensor, joints: Tensor, chunks: Tensor) -> Tensor:
        """Latents (R, S, N, C) at the end of chunks (R, S, H, J)."""
        count = chunks.shape[1]
        z, q = now.repeat_interleave(count, 0), joints.repeat_interleave(count, 0)
        seen, _ = self.dynamics.unrolled(z, q, chunks.flatten(0, 1))
        return seen[:, -1].unflatten(0, (-1, count))

    def imagine(self, observation: Batch) -> Imagined:
        """What a chunk leads to, after each part of it; see `Policy`."""
        context = self.encode(observation, [])
        noise = [stream(0, "imagine") for _ in context.agent_pos]
        chunk = self.sample(context, 1, noise).actions[:, 0]
        seen, _ = self.dynamics.unrolled(context.tokens, context.agent_pos, chunk)
        offsets = self.config.part * torch.arange(1, seen.shape[1] + 1)
        return Imagined(self.latents.decode(seen), offsets.expand(len(seen), -1))

    def gist(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """The autoencoder's latents; see `Policy`."""
        return self.latents.encode(pixels).flatten(1)

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return True

    @property
    def spread(self) -> Tensor:
        """See `Policy`: that of the joint positions."""
        return self.dynamics.agent_pos.std
