"""What all policies that make chunks upon a backbone share, however they make them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight
from robolearn.policies import BACKBONES
from robolearn.policies.arm_policy import ArmPolicy
from robolearn.policies.backbone import Backbone, Senses
from robolearn.policies.base import Batch, Chunks, Context
from robolearn.policies.configs import ChunkConfig
from robolearn.policies.language import vocabulary_of

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.windows import Sampler


class ChunkPolicy(ArmPolicy):
    """See the module's docstring, and `ArmPolicy`.

    Args:
        config: sizes and sampling.
        cameras: see `ArmPolicy`.
        arm: likewise.
        vocabulary: the words that training knows.
        state: size of "environment_state", for a policy that looks at it; 0 for none.
    """

    config_type: ClassVar[type[ChunkConfig]]
    backbone: Any  # makes the tokens; `Backbone`, unless a method has its own
    head: Any  # makes chunks of them; what it keeps of an observation is its `prefix`

    def __init__(
        self,
        config: ChunkConfig,
        cameras: Mapping[str, tuple[int, int]],
        arm: Mapping[str, Any],
        vocabulary: Sequence[str],
        state: int = 0,
    ) -> None:
        super().__init__(config, cameras, arm)
        self.history = config.history
        senses = Senses(self._cameras, self.joints, tuple(vocabulary), state, config.history)
        self.backbone, self.head = self.networks(senses)

    @abstractmethod
    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """What makes tokens of these senses, and what makes chunks of the tokens."""

    def eyes(self, senses: Senses) -> Backbone:
        """A fresh backbone, for which goals are further cameras."""
        if self.goals:
            senses = replace(senses, cameras=with_goals(senses.cameras))
        return BACKBONES[self.config.backbone.kind]()(self.config.backbone, senses)

    @classmethod
    def made_with(
        cls, dataset: "EpisodeDataset", cameras: Mapping[str, tuple[int, int]]
    ) -> dict[str, Any]:
        """See `ArmPolicy`; without cameras it looks at the simulator's state."""
        state = 0 if cameras else dataset.columns["environment_state"].shape[1]
        return {"vocabulary": vocabulary_of(dataset.episodes.instruction), "state": state}

    @classmethod
    def was_made_with(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        """See `ArmPolicy`."""
        state = description.get("state", 0)  # older checkpoints have none
        return {"vocabulary": description["vocabulary"], "state": state}

    def fit(self, dataset: "EpisodeDataset") -> None:
        """See `ArmPolicy`.

        Raises:
            DatasetError: no episode is as long as a chunk.
        """
        chunks, inside = self.recorded(dataset)
        if not inside.any(axis=0).all():
            raise DatasetError(
                f"{dataset.root} has no episode of {self.horizon} frames; record longer ones, or "
                "give a smaller --policy.horizon"
            )
        self.backbone.fit(dataset.columns)
        self.fit_chunks(np.where(inside[..., None], chunks, np.nan))

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
        return Chunks(self.targets(clean, context.agent_pos)[:, :, : self.horizon], features)

    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return super().description() | {
            "vocabulary": list(self.backbone.senses.vocabulary),
            "state": self.state_size,
            "models": {k: model.fingerprint for k, model in self.backbone.models.items()},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Policy`."""
        policy = super().from_description(description)
        policy.backbone.check_models(description.get("models", {}))
        return policy


def with_goals[T](cameras: Mapping[str, T]) -> dict[str, T]:
    """What there is of each camera, and the same of the further one that sees its goal."""
    return {**cameras, **{f"goal {name}": found for name, found in cameras.items()}}


def beside_goal(seen: Batch, goal: Mapping[str, Tensor]) -> Batch:
    """Observations with goal pictures (B, h, w, 3) of each camera as further cameras."""
    further = {f"goal {name}": pixels for name, pixels in goal.items()}
    return {**seen, "pixels": {**seen["pixels"], **further}}
