"""What all policies that learn whole chunks of an arm share, whatever they make them of.

Chunks are learned relative to the present joint positions (a gripper stays absolute) and normalised
for each chunk step, because a late step moves much further than the first. "Clean" chunks are those
in that form.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from robolearn.config import from_json, to_json
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.normaliser import Normaliser

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset


class ArmPolicy(TrainablePolicy):
    """See the module's docstring.

    Args:
        config: the method's settings, with a `horizon`.
        cameras: camera name -> (height, width) of the pictures it will get.
        arm: the fields of the `ArmSpec` that it was trained on.
    """

    config_type: ClassVar[type]  # of `config`
    relative: Tensor  # (J,): 1 where a chunk is learned relative to the present position

    def __init__(
        self,
        config: Any,  # noqa: ANN401 (the method's own)
        cameras: Mapping[str, tuple[int, int]],
        arm: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.config, self.horizon, self.arm = config, config.horizon, dict(arm)
        self._cameras, joints = dict(cameras), len(arm["joints"])
        self.chunk = Normaliser((config.horizon + self.auxiliary, joints))
        relative = torch.tensor([float(i not in arm["grippers"]) for i in range(joints)])
        self.register_buffer("relative", relative, persistent=False)

    @property
    def auxiliary(self) -> int:
        """Rows of a chunk beyond its horizon, which are learned and never executed."""
        return 0

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Policy`."""
        return self._cameras

    @classmethod
    def for_dataset(
        cls,
        config: Any,  # noqa: ANN401 (the method's own)
        dataset: "EpisodeDataset",
        cameras: Mapping[str, tuple[int, int]],
    ) -> Self:
        """See `Policy`.

        Raises:
            ValueError: it is shown its goals, and has no cameras.
            DatasetError: see `fit`.
        """
        arm = asdict(dataset.arm) | {"control_hz": dataset.fps}
        policy = cls(config, cameras, arm, **cls.made_with(dataset, cameras))
        if policy.goals and not cameras:
            raise ValueError("goals are shown in pictures; leave out --obs-type state")
        recorded = set(dataset.episodes.env_id)
        policy.env_id = recorded.pop() if len(recorded) == 1 else ""
        policy.fit(dataset)
        return policy

    @classmethod
    def made_with(
        cls, dataset: "EpisodeDataset", cameras: Mapping[str, tuple[int, int]]
    ) -> dict[str, Any]:
        """What else a method is made with, by the names of its arguments, of a dataset."""
        del dataset, cameras
        return {}

    @classmethod
    def was_made_with(cls, description: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a description."""
        del description
        return {}

    @abstractmethod
    def fit(self, dataset: "EpisodeDataset") -> None:
        """Takes from a dataset what is there before the first step: its statistics.

        Raises:
            DatasetError: a method cannot learn of it.
        """

    def recorded(self, dataset: "EpisodeDataset") -> tuple[np.ndarray, np.ndarray]:
        """All chunks of a dataset, relative to the arm (F, H, J), and whether steps exist (F, H).

        Beyond the end of an episode its last action is repeated.
        """
        windows = dataset.windows(self.horizon)
        batch = windows.get(np.arange(len(windows)))
        return self.seen_from(batch["agent_pos"], batch["action"]), batch["mask"]

    def seen_from(self, agent_pos: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Targets (N, H, J) relative to arms at (N, J), where that is how they are learned."""
        return rows - agent_pos[:, None] * self.relative.numpy()

    def fit_chunks(self, rows: np.ndarray) -> None:
        """Takes the statistics of chunks (N, H, J), relative to the arm, NaN where there are none.

        A gripper is absolute and has one scale for all steps of a chunk: demonstrations may always
        have it still at some of them, where practice will not.
        """
        self.chunk.fit(rows, alike=self.absolute)

    @property
    def absolute(self) -> np.ndarray:
        """Which joints are no part of what is relative, bool (J,): the grippers."""
        return self.relative.numpy() == 0.0

    def targets(self, clean: Tensor, agent_pos: Tensor) -> Tensor:
        """Joint targets (B, n, H, J) of clean chunks, for arms at (B, J)."""
        return self.chunk.inverse(clean) + (agent_pos * self.relative)[:, None, None]

    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return {
            "config": to_json(self.config),
            "cameras": {k: list(v) for k, v in self.cameras.items()},
            "arm": self.arm,
            "env": self.env_id,
            "goals": self.goals,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Policy`."""
        config: Any = from_json(cls.config_type, description["config"])
        cameras = {k: tuple(v) for k, v in description["cameras"].items()}
        policy = cls(config, cameras, description["arm"], **cls.was_made_with(description))
        policy.env_id = description.get("env", "")  # older checkpoints do not say
        return policy
