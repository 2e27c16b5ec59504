"""Act2Goal: a goal picture in, imagined frames and actions out.

Zhou et al. 2025, "Act2Goal", arXiv 2512.23541, known from notes on it; what these leave open is
settled in docs/act2goal.md.

    now, goal ─ world model, once a decision, at the time of pure noise ─ features of L blocks
    now, goal, joints ─ the small backbone of other policies ─ tokens of a close look
    chunk of noise ─ action expert, L blocks, block l attends to the features of block l ─ chunk

A latent stands for 16 x 16 pixels, which says too little of where a cube is that covers five: so
the expert also attends to the tokens of a close look. `sees` leaves out either: "imagination" is
the published method, "pictures" tells what the features are worth.

A chunk has P actions at hand, which are executed, and M far ones at the hashed steps on the way to
the goal, which only guide the training. Both networks learn by flow matching with data minus noise
as the target. The first stage minimises L_v + 0.1 L_a, the second L_a through both networks, with a
little of L_v: published is none, by which the model forgot how to imagine.
How far the goal is, K, is estimated (`temporal_distance.py`); where it is beyond reach there is no
plan, which whoever acts is told (`notes`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.contract import SO101
from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight
from robolearn.policies.action_expert import ActionExpert, hashing_of, within
from robolearn.policies.backbone import Senses
from robolearn.policies.backbone_small import SmallBackbone
from robolearn.policies.base import (
    Batch,
    Chunks,
    Context,
    Generators,
    Info,
    Overlaps,
)
from robolearn.policies.chunks import beside_goal, with_goals
from robolearn.policies.configs import SmallConfig
from robolearn.policies.denoiser import Guide, draws_of
from robolearn.policies.flow import FlowPolicy
from robolearn.policies.frozen import Frozen, check_models
from robolearn.policies.heads import Prefix
from robolearn.policies.latent_configs import Act2GoalConfig
from robolearn.policies.latents import Latents
from robolearn.policies.normaliser import Normaliser
from robolearn.policies.planning import Outlook, planned
from robolearn.policies.temporal_distance import TemporalDistance
from robolearn.policies.video_model import VideoModel
from robolearn.policies.world_model import GROUPS, Imagined, Imaginer, WorldModel
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset

# Share of the examples that begin at pure noise, in the first stage and in the second.
PURE: Final = (0.5, 0.75)
FITTED: Final = 20_000  # windows that the statistics of chunks are taken of


class Planner(nn.Module):
    """What perceives: the world model, a close look, the joints, and how far the goal is."""

    def __init__(self, config: Act2GoalConfig, senses: Senses, rate: float) -> None:
        super().__init__()
        self.senses = senses
        self.world = _world(config, senses, rate)
        self.imagines, looks = config.sees != "pictures", config.sees != "imagination"
        looked = replace(senses, cameras=with_goals(senses.cameras) if looks else {})
        self.look = SmallBackbone(SmallConfig(width=config.width), looked)
        furthest = config.hindsight.furthest
        self.distance = TemporalDistance(self.world.count, self.world.channels, furthest)

    def fit(self, columns: Mapping[str, np.ndarray]) -> None:
        """Takes the statistics of a dataset's columns."""
        self.look.fit(columns)

    @property
    def agent_pos(self) -> Normaliser:
        """Of the joint positions."""
        return self.look.agent_pos

    @property
    def tokens(self) -> int:
        """How many each block of the expert attends to."""
        return self.look.token_count + self.imagines * GROUPS * self.world.count

    @property
    def models(self) -> Mapping[str, Frozen]:
        """Models that others have trained, and that are not in the checkpoint."""
        return self.world.models

    def check_models(self, trained: Mapping[str, str]) -> None:
        """See `frozen.check_models`."""
        check_models(self.models, trained)

    def looked(self, observation: Batch) -> Tensor:
        """Tokens of a close look (B, T, D); without one, of the joints."""
        seen = beside_goal(observation, observation["goal_pixels"])
        return self.look(seen, [""] * len(observation["agent_pos"]))

    def remembered(self, features: Sequence[Tensor], looked: Tensor) -> list[Tensor]:
        """Memory of each block: its features (B, 3 N, D), and what was looked at (B, T, D)."""
        return [torch.cat([part, looked], 1) if self.imagines else looked for part in features]


def _world(config: Act2GoalConfig, senses: Senses, rate: float) -> Imaginer:
    """What imagines, at so many control steps a second: somebody else's, or trained here."""
    if config.video:
        return VideoModel(config, senses.cameras, hashing_of(config), rate)
    return WorldModel(config, senses.cameras, hashing_of(config), config.autoencoder)


class Act2GoalPolicy(FlowPolicy):
    """See the module's docstring.

    Attributes:
        planning: each candidate but the first follows frames of its own, imagined from other noise.
    """

    planning: bool = False
    kind: ClassVar[str] = Act2GoalConfig.kind
    config_type: ClassVar[type[Act2GoalConfig]] = Act2GoalConfig
    config: Act2GoalConfig
    backbone: Planner
    head: ActionExpert

    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """Planner and expert; see `ChunkPolicy`."""
        planner = Planner(self.config, senses, self.arm.get("control_hz", SO101.control_hz))
        tokens = (planner.tokens, self.config.width)
        return planner, ActionExpert(self.config, senses.joints, tokens)

    @property
    def auxiliary(self) -> int:
        """The far actions; see `ChunkPolicy`."""
        return hashing_of(self.config).far_points

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return True

    @property
    def latents(self) -> Latents:
        """What imagines, as what encodes pictures."""
        return self.backbone.world

    @property
    def fixed(self) -> nn.Module:
        """The autoencoder; see `TrainablePolicy`."""
        return self.latents.autoencoder

    def fit(self, dataset: "EpisodeDataset") -> None:
        """Also trains the autoencoder, which takes a minute or two; see `ChunkPolicy`.

        Raises:
            DatasetError: no episode is long enough for the chunk and the far points, or the
                cameras' pictures have different sizes.
        """
        needed, longest = self.horizon + self.auxiliary + 1, int(dataset.episodes.length.max())
        if longest < needed:
            raise DatasetError(
                f"{dataset.root} has no episode of more than {longest} frames, and a horizon of "
                f"{self.horizon} with {self.auxiliary} points beyond needs {needed}; record longer "
                "ones, or give a smaller --policy.horizon"
            )
        self.backbone.fit(dataset.columns)
        seed = torch.initial_seed()
        self.backbone.world.fit(dataset, self.config.autoencoder_steps, seed)
        windows = Hindsight(
            dataset.windows(self.horizon), self.config.hindsight, hashing_of(self.config)
        )
        self.fit_chunks(self._rows(windows, seed))

    def _rows(self, windows: Hindsight, seed: int) -> np.ndarray:
        """Rows of random chunks, relative to the arm, (n, P + M, J); NaN where there are none."""
        indices, steps = windows.pairs(stream(seed, "statistics"), FITTED)
        batch = windows.get(indices, steps)
        far = np.where(batch["far_valid"][..., None], batch["far_action"], np.nan)
        rows = np.concatenate([batch["action"], far], 1)
        return self.seen_from(batch["agent_pos"], rows)

    def windows(self, dataset: "EpisodeDataset") -> Hindsight:
        """With the latents of what lies between now and goal; see `Policy`."""
        return self.backbone.world.hindsight(dataset, self.horizon, self.config.hindsight)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """L_v + 0.1 L_a in the first stage, 0.1 L_v + L_a in the second; the distance in both."""
        planner, c = self.backbone, self.config
        now, goal = planner.world.see(batch["pixels"]), planner.world.see(batch["goal_pixels"])
        first = batch.get("trained", 1.0) < c.first_stage
        videos, actions = (1.0, c.action_weight) if first else (c.video_weight, 1.0)
        pure = PURE[not first] if videos else 1.0
        video, features = self._imagining(now, goal, batch, rng, pure)
        memories = planner.remembered(features, planner.looked(batch))
        prefix = self.head.prefix(memories, batch["steps"])
        near, far = batch["action"], batch["far_action"]
        base = (batch["agent_pos"] * self.relative)[:, None]
        clean = self.chunk(torch.cat([near, far], 1) - base)[:, None]
        inside = torch.cat([batch["mask"], batch["far_valid"]], 1)
        action = self._error(clean, inside, prefix, rng)
        distance = planner.distance.loss(now, goal, batch["steps"], batch["episode"])
        loss = videos * video + actions * action
        parts = {"action/loss": action, "distance/loss": distance}
        parts |= {"video/loss": video} if videos else {}
        return loss + c.distance_weight * distance, {k: float(v.detach()) for k, v in parts.items()}

    def _imagining(
        self, now: Tensor, goal: Tensor, batch: Batch, rng: np.random.Generator, pure: float
    ) -> tuple[Tensor, list[Tensor]]:
        """L_v, and the features of each block; of pure noise alone, no video is learned.

        A share of the examples begins at pure noise, the same that the expert always gets when it
        acts; the others know something of the frames, so that the model learns to imagine.
        """
        world = self.backbone.world
        start, t = world.start.expand(len(now), -1, -1, -1), torch.zeros(len(now), 1).to(now)
        if pure == 1.0:
            velocity, features = world(now, goal, start, t, batch["steps"])
            # Of no worth, but processes that train together miss weights without a gradient.
            return 0.0 * velocity.sum(), features
        noise = draws_of(rng.standard_normal, start.shape).to(now.device)
        later, often = (draws_of(rng.random, (len(now), 1)).to(now.device) for _ in range(2))
        t = torch.where(often < pure, t, later)
        noise = torch.where((t == 0.0)[..., None, None], start, noise)
        return world.loss((now, goal), world.joined(batch["future"]), noise, t, batch["steps"])

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Outlook:
        """The world model's features, and what the expert keeps of them; see `Policy`."""
        del instructions  # the goal is shown
        world = self.backbone.world
        now, goal, steps = self._seen(observation)
        noise, t = world.start.expand(len(now), -1, -1, -1), torch.zeros(len(now), 1).to(now)
        known = within(steps, world.hashing.furthest)
        features = world(now, goal, noise, t, known)[1]
        agent_pos, looked = observation["agent_pos"], self.backbone.looked(observation)
        memories = self.backbone.remembered(features, looked)
        prefix = self.head.prefix(memories, steps)
        ends = {"now": now, "goal": goal, "steps": steps, "known": known, "looked": looked}
        return Outlook(memories[-1], agent_pos, prefix, **ends)

    def _seen(self, observation: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of observation and goal, and the steps between them, not limited to any."""
        world = self.backbone.world
        now, goal = world.see(observation["pixels"]), world.see(observation["goal_pixels"])
        return now, goal, self.backbone.distance.steps(now, goal)

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """See `Policy`, and `planning`."""
        if not self.planning:
            return super().sample(context, n, noise)
        apart, plans = planned(self, context, n, noise)
        return replace(super().sample(apart, n, noise), plans=plans)

    def follow(self, context: Context, n: int, noise: Generators, overlaps: Overlaps) -> Chunks:
        """See `Policy`, and `planning`."""
        if not self.planning:
            return super().follow(context, n, noise, overlaps)
        apart, plans = planned(self, context, n, noise)
        return replace(super().follow(apart, n, noise, overlaps), plans=plans)

    def denoise(
        self, x: Tensor, start: int, prefix: Prefix, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Candidates that have a prefix each are rows of their own; see `DenoisingPolicy`."""
        if (n := len(prefix[0]) // len(x)) == 1:
            return super().denoise(x, start, prefix, guide)
        if guide:
            rows = {name: part.repeat_interleave(n, 0) for name, part in vars(guide).items()}
            guide = Guide(**rows)
        clean, features = super().denoise(x.flatten(0, 1)[:, None], start, prefix, guide)
        return clean.view(x.shape), features.view(*x.shape[:2], -1)

    def notes(self, context: Context) -> dict[str, Tensor]:
        """See `Policy`."""
        assert isinstance(context, Outlook)
        steps = context.steps
        limit = self.config.limit * self.config.hindsight.furthest
        return {"steps_to_goal": steps, "plan_found": (steps <= limit).float()}

    def gist(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """The autoencoder's latents; see `Policy`."""
        return self.latents.encode(pixels).flatten(1)

    def imagine(self, observation: Batch) -> Imagined:
        """The frames at the hashed steps; see `Policy`."""
        now, goal, steps = self._seen(observation)
        world = self.backbone.world
        known = within(steps, world.hashing.furthest)
        latents = world.imagine(now, goal, known, self.config.sample_steps)
        offsets = torch.from_numpy(world.hashing.offsets(known.cpu().numpy()))
        return Imagined(world.decode(latents), offsets)
