"""Replay: everything that was ever recorded, as fragments that a critic learns from.

A fragment is what one decision led to: the actions that were executed until the next one, the
reward meanwhile, and where it ended. Demonstrations, rollouts of older policies and corrections lie
in datasets of one form (`EpisodeDataset`), so a replay is their frames behind each other, by
integer number. Only columns are in memory; pictures stay in the datasets' caches on disk.

Where a fragment ends
    Inside an episode, H steps on.
    At the end of a task (terminated), however few steps that is; nothing follows.
    Not at a time limit (truncated): what would have followed counts, so the last fragments are
    those whose end was observed. A takeover is no end: a fragment holds what was sent, whoever
    meant it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError


@dataclass(frozen=True)
class Reward:
    """Time costs, until the task is done; a failure costs as if the task were never done.

    A step costs 1 / mean_length, so the value of a state is minus the mean episodes that are still
    to go; and steps are discounted such that going on for ever costs `patience` of them.

    Attributes:
        mean_length: control steps of a mean demonstration. It is fixed once: a unit that drifts
            would move all values.
        patience: mean episodes that a failure costs.

    Raises:
        ValueError: values below one step, or a patience that no task could be done in.
    """

    mean_length: float
    patience: float = 3.0

    def __post_init__(self) -> None:
        """Checks."""
        if self.mean_length < 1 or self.patience < 1 or self.patience * self.mean_length <= 1:
            raise ValueError(
                f"mean_length is {self.mean_length} and patience {self.patience}; both must be at "
                "least 1, and one of them more"
            )

    @property
    def gamma(self) -> float:
        """The discount of one control step."""
        return 1.0 - 1.0 / (self.patience * self.mean_length)

    @property
    def lowest(self) -> float:
        """The value of never being done; the highest is 0."""
        return -self.patience

    def of(self, success: np.ndarray, terminated: np.ndarray) -> np.ndarray:
        """The reward after each step, float32 (F,)."""
        running = np.where(success, 0.0, -1.0 / self.mean_length)
        return np.where(terminated & ~success, self.lowest, running).astype(np.float32)


@dataclass(frozen=True)
class Fragments:
    """What B decisions led to.

    Attributes:
        action: float32 (B, H, J), what was sent; anything beyond the end.
        valid: bool (B, H), the steps that were executed.
        reward: float32 (B, H), after each of them; 0 beyond the end.
        total: float32 (B,), their discounted sum.
        discount: float32 (B,), of the value of what follows; 0 where the task has ended.
        following: int64 (B,), the frame of the observation that follows; at an end, the last one
            that is looked at.
        terminated: bool (B,), whether the task has ended.
        intervention: bool (B, H), the steps that a human or a corrector meant.
    """

    action: np.ndarray
    valid: np.ndarray
    reward: np.ndarray
    total: np.ndarray
    discount: np.ndarray
    following: np.ndarray
    terminated: np.ndarray
    intervention: np.ndarray


class Replay:
    """Episodes behind each other; see the module's docstring.

    Args:
        lengths: int (E,), frames of each episode.
        columns: "action" (F, J), "success", "terminated" and perhaps "intervention" bool (F,), with
            F the sum of the lengths.
        reward: what steps cost.
        executed: H, steps of a chunk that are executed before the next decision.
        stride: only every so many frames of an episode are looked at; it divides H.
        numbers: int (E,), of each episode in its dataset; by default they are of one.
        tasks: int (E,), which task each episode is of; by default one.

    Attributes:
        frames: int64 (K,), the frames that are looked at: fragments begin and end there.
        starts: int64 (N,), those of them where a fragment begins.
        episode: int64 (F,), the episode of each frame.
        ends: int64 (E,), the frame behind each episode.
        lengths, numbers, tasks: as given.
        last_seen: int64 (E,), the last frame of each episode that is looked at.
        finished: bool (E,), whether its task ended, by success or failure.
        success: bool (E,), whether the episode succeeded.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        columns: dict[str, np.ndarray],
        reward: Reward,
        *,
        executed: int,
        stride: int = 1,
        numbers: np.ndarray | None = None,
        tasks: np.ndarray | None = None,
    ) -> None:
        if executed < 1 or stride < 1 or executed % stride:
            raise ValueError(
                f"executed is {executed} and stride {stride}; give steps from 1 on, and a stride "
                "that divides the executed ones"
            )
        self.lengths, self.executed, self.stride, self.reward = lengths, executed, stride, reward
        self.columns = columns
        self.numbers = np.arange(len(lengths)) if numbers is None else numbers
        self.tasks = np.zeros(len(lengths), int) if tasks is None else tasks
        self.ends = np.cumsum(lengths)
        self.episode = np.repeat(np.arange(len(lengths)), lengths)
        self.success = np.logical_or.reduceat(columns["success"], self.ends - lengths)
        self._rewards = reward.of(columns["success"], columns["terminated"])
        age = np.arange(len(self.episode)) - (self.ends - lengths)[self.episode]
        self.frames = np.flatnonzero(age % stride == 0)
        self.last_seen = self.ends - 1 - (lengths - 1) % stride
        self.finished = columns["terminated"][self.ends - 1]
        # The last observation is of the last frame; what followed it is known only of an end.
        last = np.where(self.finished, self.ends - 1, self.ends - 1 - executed)
        self.starts = self.frames[self.frames <= last[self.episode[self.frames]]]

    def starts_of(self, episodes: np.ndarray) -> np.ndarray:
        """Those of `starts` (N,) that lie in chosen episodes, bool (E,)."""
        return self.starts[episodes[self.episode[self.starts]]]

    def fragments(self, frames: np.ndarray) -> Fragments:
        """The fragments that begin at these frames (B,), which are among `starts`."""
        episode = self.episode[frames]
        stop = np.minimum(frames + self.executed, self.ends[episode])
        ended = (stop == self.ends[episode]) & self.finished[episode]
        steps = frames[:, None] + np.arange(self.executed)
        valid = steps < stop[:, None]
        steps = np.minimum(steps, stop[:, None] - 1)
        reward = self._rewards[steps] * valid
        discounts = (self.reward.gamma ** np.arange(self.executed)).astype(np.float32)
        human = self.columns.get("intervention", np.zeros(len(self.episode), bool))
        return Fragments(
            action=self.columns["action"][steps],
            valid=valid,
            reward=reward,
            total=reward @ discounts,
            discount=(self.reward.gamma ** (stop - frames) * ~ended).astype(np.float32),
            following=np.where(ended, self.last_seen[episode], stop),
            terminated=ended,
            intervention=human[steps] & valid,
        )

    def returns(self) -> np.ndarray:
        """What followed each frame, discounted, float32 (F,): what a Monte-Carlo critic learns.

        An episode that was cut off counts as never done, since nobody saw how it went on.
        """
        result = np.empty(len(self.episode), np.float32)
        value = np.where(self.finished, 0.0, self.reward.lowest)
        first = self.ends - self.lengths
        for back in range(int(self.lengths.max())):  # all episodes at once, from their ends
            frame = self.ends - 1 - back
            alive = frame >= first
            value[alive] = self._rewards[frame[alive]] + self.reward.gamma * value[alive]
            result[frame[alive]] = value[alive]
        return result


def replay_of(
    datasets: Sequence[EpisodeDataset], reward: Reward, *, executed: int, stride: int = 1
) -> Replay:
    """All episodes of several datasets.

    Args:
        datasets: of one arm.
        reward: what steps cost.
        executed: see `Replay`.
        stride: see `Replay`.

    Raises:
        DatasetError: a dataset does not say what succeeded, or is of another arm.
    """
    for dataset in datasets:
        datasets[0].check_arm(dataset.arm)
        missing = {"success", "terminated"} - set(dataset.columns)
        if missing:
            raise DatasetError(
                f"{dataset.root} does not say {' or '.join(sorted(missing))} of its steps, so "
                "nothing can be learned from its outcome; record it with robolearn"
            )
    lengths = np.concatenate([dataset.episodes.length for dataset in datasets])
    names = ["action", "agent_pos", "success", "terminated", "intervention"]
    columns: dict[str, Any] = {
        name: np.concatenate([_column(dataset, name) for dataset in datasets]) for name in names
    }
    numbers = np.concatenate([np.arange(len(dataset.episodes)) for dataset in datasets])
    tasks = np.concatenate([np.asarray(dataset.episodes.env_id) for dataset in datasets])
    return Replay(
        lengths,
        columns,
        reward,
        executed=executed,
        stride=stride,
        numbers=numbers,
        tasks=np.unique(tasks, return_inverse=True)[1],
    )


def _column(dataset: EpisodeDataset, name: str) -> np.ndarray:
    if name == "intervention" and name not in dataset.columns:  # a script or a policy alone
        return np.zeros(len(dataset), bool)
    return dataset.columns[name]
