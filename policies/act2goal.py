"""Act2Goal: a goal picture in, imagined frames and actions out.

Zhou et al. 2025, "Act2Goal", arXiv 2512.23541, known from notes on it; what these leave open is
settled in docs/act2goal.md.

    now, goal ─ world model, once a decision, at the time of pure noise ─ features of L blocks
    chunk of noise ─ action expert, L blocks, block l attends to the features of block l ─ chunk

A chunk has P actions at hand, which are executed, and M far ones at the hashed steps on the way to
the goal, which only guide the training. Both networks learn by flow matching with data minus noise
as the target. The first stage minimises L_v + 0.1 L_a, the second L_a through both networks, with a
little of L_v: published is none, by which the model forgot how to imagine.
How far the goal is, K, is estimated (`temporal_distance.py`); where it is beyond reach there is no
plan, and the arm stays where it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import batched
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight
from robolearn.policies.backbone import Senses, two_layers
from robolearn.policies.base import (
    Batch,
    Chunks,
    Context,
    Generators,
    Info,
    Normaliser,
    Overlap,
)
from robolearn.policies.configs import Act2GoalConfig
from robolearn.policies.denoiser import Guide, draws_of
from robolearn.policies.flow import FlowPolicy, between
from robolearn.policies.hashing import Hashing
from robolearn.policies.heads import Prefix, TimeEncoder, TransformerLayer
from robolearn.policies.planning import Outlook, planned
from robolearn.policies.temporal_distance import TemporalDistance
from robolearn.policies.world_model import GROUPS, PLACE, Imagined, WorldModel
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset

PURE: Final = 0.5  # share of the examples that begin at pure noise
FITTED: Final = 20_000  # windows that the statistics of chunks are taken of


def hashing_of(config: Act2GoalConfig) -> Hashing:
    """The hashing that these settings mean."""
    furthest = config.hindsight.furthest
    return Hashing(config.horizon, config.stride, config.far, furthest, config.spacing)


def within(steps: Tensor, furthest: int) -> Tensor:
    """Whole steps that goals in training may be away, (B,), of estimated ones."""
    return steps.detach().clamp(1, furthest).round().long()


class Planner(nn.Module):
    """What perceives: the world model, the joints, and how far the goal is."""

    models: ClassVar[Mapping[str, Any]] = {}  # of others: none

    def __init__(self, config: Act2GoalConfig, senses: Senses) -> None:
        super().__init__()
        self.senses = senses
        self.world = WorldModel(config, senses.cameras, hashing_of(config))
        self.agent_pos = Normaliser((senses.joints,))
        self.joints = two_layers(senses.joints, config.width)
        furthest = config.hindsight.furthest
        self.distance = TemporalDistance(self.world.count, config.latents, furthest)

    def fit(self, columns: Mapping[str, np.ndarray]) -> None:
        """Takes the statistics of a dataset's columns."""
        self.agent_pos.fit(columns["agent_pos"])

    def check_models(self, trained: Mapping[str, str]) -> None:
        """Nothing here is somebody else's."""

    def remembered(self, features: Sequence[Tensor], agent_pos: Tensor) -> list[Tensor]:
        """Memory (B, 3 N + 1, D) of each block: its features, and the joints at (B, J)."""
        joints = self.joints(self.agent_pos(agent_pos))[:, None]
        return [torch.cat([part, joints], 1) for part in features]


class ActionExpert(nn.Module):
    """Denoises chunks; block l attends to the features of block l of the world model.

    Beside attention, each block is modulated by a summary of the same features, since an MLP learns
    sooner than attention what is to be attended to; nothing of one block is read by another.

    Args:
        config: sizes.
        joints: J.
        tokens: T and D of each block's memory.
    """

    def __init__(self, config: Act2GoalConfig, joints: int, tokens: tuple[int, int]) -> None:
        super().__init__()
        width, self.patch, self.horizon = config.hidden, config.patch, config.horizon
        self.hashing = hashing_of(config)
        places = config.horizon // config.patch + self.hashing.far_points
        self.time = TimeEncoder(width)
        self.inward, self.far = nn.Linear(config.patch * joints, width), nn.Linear(joints, width)
        self.place = nn.Parameter(PLACE * torch.randn(places, width))
        self.ahead = nn.Linear(self.hashing.far_points + 1, width)
        self.layers = nn.ModuleList(TransformerLayer(width, tokens[1]) for _ in range(config.depth))
        self.summaries = nn.ModuleList(
            nn.Linear(tokens[0] * tokens[1], width) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, config.patch * joints)
        self.far_outward = nn.Linear(width, joints)
        for last in (self.outward, self.far_outward):
            nn.init.zeros_(last.weight)

    def prefix(self, memories: Sequence[Tensor], steps: Tensor) -> Prefix:
        """The steps to the goal (B,), then keys, values and summary of each block.

        Args:
            memories: (B, T, D) of each block.
            steps: to the goal (B,), as far as known.

        Raises:
            ValueError: not as many memories as blocks.
        """
        parts = zip(self.layers, self.summaries, memories, strict=True)
        read = ((*layer.keys_values(m), summary(m.flatten(1))) for layer, summary, m in parts)  # type: ignore[operator]
        return steps, *(x for part in read for x in part)

    def forward(self, x: Tensor, t: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """The velocity of chunks (B, n, P + M, J), and the first token's features (B, n, W).

        Args:
            x: noisy chunks (B, n, P + M, J).
            t: time in 0..1, (B, n, 1), or (1, 1, 1) where it is the same for all.
            prefix: from `prefix`.
        """
        steps, *memories = prefix
        time = self.time(t)[:, :, None] + self._ahead(steps)[:, None, None]
        near = x[:, :, : self.horizon].unflatten(2, (-1, self.patch)).flatten(3)
        h = torch.cat([self.inward(near), self.far(x[:, :, self.horizon :])], 2) + self.place
        for layer, (keys, values, summary) in zip(self.layers, batched(memories, 3), strict=True):
            h = layer(h, functional.silu(time + summary[:, None, None]), keys, values)
        h = self.norm(h)
        near, far = h[:, :, : near.shape[2]], h[:, :, near.shape[2] :]
        rows = self.outward(near).unflatten(3, (self.patch, -1)).flatten(2, 3)
        return torch.cat([rows, self.far_outward(far)], 2), h[:, :, 0]

    def _ahead(self, steps: Tensor) -> Tensor:
        """How far goal and far actions are, (B, W)."""
        goal = within(steps, self.hashing.furthest)
        far = torch.from_numpy(self.hashing.far_offsets(goal.cpu().numpy())[0]).to(goal)
        known = torch.cat([goal[:, None], far], 1).float()
        return self.ahead(known.log() / np.log(self.hashing.furthest + 1))


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
        planner = Planner(self.config, senses)
        tokens = (GROUPS * planner.world.count + 1, self.config.width)
        return planner, ActionExpert(self.config, senses.joints, tokens)

    @property
    def auxiliary(self) -> int:
        """The far actions; see `ChunkPolicy`."""
        return hashing_of(self.config).far_points

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return True

    def fit(self, dataset: "EpisodeDataset") -> None:
        """Also trains the autoencoder, which takes a minute or two; see `ChunkPolicy`.

        Raises:
            DatasetError: no episode is long enough for the chunk and the far points, or the
                cameras' pictures have different sizes.
        """
        if len({*self.cameras.values()}) > 1:
            raise DatasetError(
                f"{dataset.root} has pictures of several sizes; record all cameras in one for "
                "act2goal"
            )
        needed, longest = self.horizon + self.auxiliary + 1, int(dataset.episodes.length.max())
        if longest < needed:
            raise DatasetError(
                f"{dataset.root} has no episode of more than {longest} frames, and a horizon of "
                f"{self.horizon} with {self.auxiliary} points beyond needs {needed}; record longer "
                "ones, or give a smaller --policy.horizon"
            )
        self.backbone.fit(dataset.columns)
        frames = {camera: dataset.frames(camera) for camera in self.cameras}
        seed = torch.initial_seed()
        self.backbone.world.fit(frames, self.config.autoencoder_steps, seed)
        windows = Hindsight(
            dataset.windows(self.horizon), self.config.hindsight, hashing_of(self.config)
        )
        self.chunk.fit(self._rows(windows, seed))

    def _rows(self, windows: Hindsight, seed: int) -> np.ndarray:
        """Rows of random chunks, relative to the arm, (n, P + M, J); NaN where there are none."""
        indices, steps = windows.pairs(stream(seed, "statistics"), FITTED)
        batch = windows.get(indices, steps)
        far = np.where(batch["far_valid"][..., None], batch["far_action"], np.nan)
        rows = np.concatenate([batch["action"], far], 1)
        return rows - batch["agent_pos"][:, None] * self.relative.numpy()

    def windows(self, dataset: "EpisodeDataset") -> Hindsight:
        """With the latents of what lies between now and goal; see `Policy`."""
        sizes = self.cameras
        (size,) = {*sizes.values()}
        features = self.backbone.world.autoencoder.features(size)
        latents = dataset.windows(1, tuple(sizes), features=features)
        seen = dataset.windows(self.horizon, tuple(sizes))
        return Hindsight(seen, self.config.hindsight, hashing_of(self.config), latents)

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """L_v + 0.1 L_a in the first stage, 0.1 L_v + L_a in the second; the distance in both."""
        planner, c = self.backbone, self.config
        now, goal = planner.world.see(batch["pixels"]), planner.world.see(batch["goal_pixels"])
        first = batch.get("trained", 1.0) < c.first_stage
        videos, actions = (1.0, c.action_weight) if first else (c.video_weight, 1.0)
        video, features = self._imagining(now, goal, batch, rng, imagines=videos > 0.0)
        memories = planner.remembered(features, batch["agent_pos"])
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
        self, now: Tensor, goal: Tensor, batch: Batch, rng: np.random.Generator, *, imagines: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """L_v, and the features of each block; without a video, those of pure noise.

        Velocities weigh by the square of the way that is left: as the frames would.

        Half of the examples begin at pure noise, which is all that the expert gets when it acts.
        """
        world = self.backbone.world
        noise = draws_of(rng.standard_normal, (len(now), *world.start.shape[1:])).to(now.device)
        t = torch.zeros(len(now), 1, device=now.device)
        if not imagines:
            return noise.new_zeros(()), world(now, goal, noise, t, batch["steps"])[1]
        # In full: autocast on a CPU cannot join the halves that the dataset keeps.
        frames = world.joined({name: x.float() for name, x in batch["future"].items()})
        later, often = (draws_of(rng.random, (len(now), 1)).to(now.device) for _ in range(2))
        t = torch.where(often < PURE, 0.0, later)
        noisy = between(noise, frames, t[..., None, None])
        velocity, features = world(now, goal, noisy, t, batch["steps"])
        error = (velocity.float() - (frames - noise)) * (1.0 - t)[..., None, None]
        return error.square().mean(), features

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Outlook:
        """The world model's features, and what the expert keeps of them; see `Policy`."""
        del instructions  # the goal is shown
        world = self.backbone.world
        now, goal, steps = self._seen(observation)
        noise, t = world.start.expand(len(now), -1, -1, -1), torch.zeros(len(now), 1).to(now)
        known = within(steps, world.hashing.furthest)
        features = world(now, goal, noise, t, known)[1]
        agent_pos = observation["agent_pos"]
        memories = self.backbone.remembered(features, agent_pos)
        prefix = self.head.prefix(memories, steps)
        ends = {"now": now, "goal": goal, "steps": steps, "known": known}
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

    def follow(self, context: Context, n: int, noise: Generators, overlap: Overlap) -> Chunks:
        """See `Policy`, and `planning`."""
        if not self.planning:
            return super().follow(context, n, noise, overlap)
        apart, plans = planned(self, context, n, noise)
        return replace(super().follow(apart, n, noise, overlap), plans=plans)

    def denoise(
        self, x: Tensor, start: int, prefix: Prefix, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Candidates that have a prefix each are rows of their own; see `DenoisingPolicy`."""
        if (n := len(prefix[0]) // len(x)) == 1:
            return super().denoise(x, start, prefix, guide)
        if guide:
            guide = replace(guide, towards=guide.towards.repeat_interleave(n, 0))
        clean, features = super().denoise(x.flatten(0, 1)[:, None], start, prefix, guide)
        return clean.view(x.shape), features.view(*x.shape[:2], -1)

    def finished(self, context: Context, clean: Tensor, features: Tensor) -> Chunks:
        """Where there is no plan, the arm stays where it is; see `ChunkPolicy`."""
        chunks = super().finished(context, clean, features)
        stay = context.agent_pos[:, None, None].expand_as(chunks.actions)
        found = self.notes(context)["plan_found"].bool()[:, None, None, None]
        return Chunks(torch.where(found, chunks.actions, stay), features)

    def notes(self, context: Context) -> dict[str, Tensor]:
        """See `Policy`."""
        assert isinstance(context, Outlook)
        steps = context.steps
        limit = self.config.limit * self.config.hindsight.furthest
        return {"steps_to_goal": steps, "plan_found": (steps <= limit).float()}

    def gist(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """The autoencoder's latents; see `Policy`."""
        encode = self.backbone.world.autoencoder.encoder
        return torch.cat([encode(pixels[name]).flatten(1) for name in self.cameras], 1)

    def imagine(self, observation: Batch) -> Imagined:
        """The frames at the hashed steps; see `Policy`."""
        now, goal, steps = self._seen(observation)
        world = self.backbone.world
        known = within(steps, world.hashing.furthest)
        latents = world.imagine(now, goal, known, self.config.sample_steps)
        offsets = torch.from_numpy(world.hashing.offsets(known.cpu().numpy()))
        return Imagined(world.decode(latents), offsets)
