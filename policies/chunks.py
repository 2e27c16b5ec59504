"""What all policies that make chunks upon a backbone share, however they make them.

Chunks are learned relative to the present joint positions (a gripper stays absolute) and normalised
for each chunk step, because a late step moves much further than the first. "Clean" chunks are those
in that form.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.config import from_json, to_json
from robolearn.hindsight import Hindsight
from robolearn.policies import BACKBONES
from robolearn.policies.backbone import Backbone, Senses
from robolearn.policies.base import Batch, Chunks, Context, Normaliser, TrainablePolicy
from robolearn.policies.configs import ChunkConfig
from robolearn.policies.language import vocabulary_of

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.windows import Sampler


class ChunkPolicy(TrainablePolicy):
    """See the module's docstring.

    Args:
        config: sizes and sampling.
        cameras: camera name -> (height, width) of the pictures it will get.
        arm: the fields of the `ArmSpec` that it was trained on.
        vocabulary: the words that training knows.
        state: size of "environment_state", for a policy that looks at it; 0 for none.
    """

    config_type: ClassVar[type[ChunkConfig]]
    backbone: Any  # makes the tokens; `Backbone`, unless a method has its own
    head: Any  # makes chunks of them; what it keeps of an observation is its `prefix`
    relative: Tensor  # (J,): 1 where a chunk is learned relative to the present position

    def __init__(
        self,
        config: ChunkConfig,
        cameras: Mapping[str, tuple[int, int]],
        arm: Mapping[str, Any],
        vocabulary: Sequence[str],
        state: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.horizon, self.arm = config, config.horizon, dict(arm)
        self.history, self._cameras = config.history, dict(cameras)
        joints = len(arm["joints"])
        senses = Senses(self._cameras, joints, tuple(vocabulary), state, config.history)
        self.backbone, self.head = self.networks(senses)
        self.chunk = Normaliser((config.horizon + self.auxiliary, joints))
        relative = torch.tensor([float(i not in arm["grippers"]) for i in range(joints)])
        self.register_buffer("relative", relative, persistent=False)

    @abstractmethod
    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """What makes tokens of these senses, and what makes chunks of the tokens."""

    def eyes(self, senses: Senses) -> Backbone:
        """A fresh backbone, for which goals are further cameras."""
        if self.goals:
            senses = replace(senses, cameras=with_goals(senses.cameras))
        return BACKBONES[self.config.backbone.kind]()(self.config.backbone, senses)

    @property
    def auxiliary(self) -> int:
        """Rows of a chunk beyond its horizon, which are learned and never executed."""
        return 0

    @classmethod
    def for_dataset(
        cls,
        config: Any,  # noqa: ANN401 (the method's own)
        dataset: "EpisodeDataset",
        cameras: Mapping[str, tuple[int, int]],
    ) -> Self:
        """See `Policy`; without cameras it looks at the simulator's state.

        Raises:
            ValueError: it is shown its goals, and has no cameras.
        """
        arm = asdict(dataset.arm) | {"control_hz": dataset.fps}
        state = 0 if cameras else dataset.columns["environment_state"].shape[1]
        policy = cls(config, cameras, arm, vocabulary_of(dataset.episodes.instruction), state)
        if policy.goals and not cameras:
            raise ValueError("goals are shown in pictures; leave out --obs-type state")
        recorded = set(dataset.episodes.env_id)
        policy.env_id = recorded.pop() if len(recorded) == 1 else ""
        policy.fit(dataset)
        return policy

    def fit(self, dataset: "EpisodeDataset") -> None:
        """Takes from a dataset what is there before the first step: its statistics."""
        self.backbone.fit(dataset.columns)
        windows = dataset.windows(self.horizon)
        batch = windows.get(np.arange(len(windows)))
        chunks = batch["action"] - batch["agent_pos"][:, None] * self.relative.numpy()
        self.fit_chunks(np.where(batch["mask"][..., None], chunks, np.nan))

    def fit_chunks(self, rows: np.ndarray) -> None:
        """Takes the statistics of chunks (N, H, J), relative to the arm, NaN where there are none.

        A gripper is absolute and has one scale for all steps of a chunk: demonstrations may always
        have it still at some of them, where practice will not.
        """
        self.chunk.fit(rows, alike=self.relative.numpy() == 0.0)

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Policy`."""
        return self._cameras

    @property
    def state_size(self) -> int:
        """See `Policy`."""
        return self.backbone.senses.state

    def windows(self, dataset: "EpisodeDataset") -> "Sampler":
        """See `Policy`; with what a frozen model sees in place of pictures, if that is all."""
        cameras, features = tuple(self.cameras), self.backbone.features()
        seen = dataset.windows(self.horizon, cameras, history=self.history, features=features)
        return Hindsight(seen, self.config.hindsight) if self.goals else seen

    @property
    def spread(self) -> Tensor:
        """See `Policy`: that of the joint positions."""
        return self.backbone.agent_pos.std

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Tokens of B observations, and what the head keeps of them; see `Policy`."""
        tokens = self.tokens_of(observation, instructions)
        return Context(tokens, self.present_of(observation), self.head.prefix(tokens))

    def encoder(self) -> nn.Module:
        """See `Policy`."""
        return self.backbone

    def tokens_of(
        self, seen: Batch, instructions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Tensor:
        """Tokens (B, T, D), unless somebody encoded the observations before."""
        if "tokens" in seen:
            return seen["tokens"]
        if self.goals:  # nothing is said
            seen = beside_goal(seen, seen["goal_pixels"])
            instructions = [""] * len(instructions)
        return self.backbone(seen, instructions, rng)

    def present_of(self, seen: Batch) -> Tensor:
        """Joint positions now (B, J), which is all that is kept beside tokens."""
        return seen["agent_pos"] if "tokens" in seen else self.present(seen["agent_pos"])

    def clean_of(self, batch: Batch) -> Tensor:
        """The recorded chunks (B, 1, H, J), in the form that is learned."""
        return self._learned(batch["action"][:, None], self.present_of(batch))

    def _learned(self, actions: Tensor, agent_pos: Tensor) -> Tensor:
        """Chunks (B, n, H, J) as they are learned, for arms at (B, J)."""
        rows = torch.cat([actions, actions[:, :, -1:].expand(-1, -1, self.auxiliary, -1)], 2)
        return self.chunk(rows - (agent_pos * self.relative)[:, None, None])

    def finished(self, context: Context, clean: Tensor, features: Tensor) -> Chunks:
        """Chunks for the arm, of clean ones (B, n, H, J)."""
        base = (context.agent_pos * self.relative)[:, None, None]
        rows = self.chunk.inverse(clean) + base
        return Chunks(rows[:, :, : self.horizon], features)

    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return {
            "config": to_json(self.config),
            "cameras": {k: list(v) for k, v in self.cameras.items()},
            "arm": self.arm,
            "vocabulary": list(self.backbone.senses.vocabulary),
            "state": self.state_size,
            "env": self.env_id,
            "goals": self.goals,
            "models": {k: model.fingerprint for k, model in self.backbone.models.items()},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Policy`."""
        config = from_json(cls.config_type, description["config"])
        cameras = {k: tuple(v) for k, v in description["cameras"].items()}
        state = description.get("state", 0)  # older checkpoints have none
        policy = cls(config, cameras, description["arm"], description["vocabulary"], state)
        policy.env_id = description.get("env", "")  # older checkpoints do not say
        policy.backbone.check_models(description.get("models", {}))
        return policy


def with_goals[T](cameras: Mapping[str, T]) -> dict[str, T]:
    """What there is of each camera, and the same of the further one that sees its goal."""
    return {**cameras, **{f"goal {name}": found for name, found in cameras.items()}}


def beside_goal(seen: Batch, goal: Mapping[str, Tensor]) -> Batch:
    """Observations with goal pictures (B, h, w, 3) of each camera as further cameras."""
    further = {f"goal {name}": pixels for name, pixels in goal.items()}
    return {**seen, "pixels": {**seen["pixels"], **further}}
