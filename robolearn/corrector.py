"""A scripted corrector: takes over where a policy gets stuck, as a person beside the arm would."""

import time
from collections.abc import Iterator
from typing import Any, Final, Self

import gymnasium
import numpy as np

from robolearn.hardware.intervention import Intervention
from robolearn.hardware.teleop import TeleopSample
from robolearn.seeding import stream

STUCK: Final = 0.45  # of the time limit without progress; experts wait for up to 0.44 of it
PROGRESS: Final = 0.02  # less is none
LIMIT: Final = 400  # steps, of a task without a time limit


class Corrector:
    """Drives with the task's expert once there was no progress for a while, to the episode's end.

    It is a device like a keyboard (`Teleop`), so what it does is recorded as a person's takeover.

    Args:
        task: the simulated task, perhaps wrapped.
        stuck: share of the time limit without progress until it takes over.
    """

    def __init__(self, task: gymnasium.Env, stuck: float = STUCK) -> None:
        unwrapped: Any = task.unwrapped
        self._task = unwrapped
        if not hasattr(unwrapped, "expert"):
            raise ValueError(
                f"{task.spec.id if task.spec else task} has no scripted expert, so nobody can "
                "correct it; leave out --correct"
            )
        limit = task.spec.max_episode_steps if task.spec else None
        self._patience = round(stuck * (limit or LIMIT))
        self._begin()

    def _begin(self) -> None:
        self._time, self._best, self._since = -1.0, 0.0, 0
        self._script: Iterator[np.ndarray] | None = None

    def read(self, position: np.ndarray) -> TeleopSample:
        """See `Teleop`; it is asked once a control step."""
        del position
        task = self._task
        if task.data.time <= self._time:  # a new episode
            self._begin()
        self._time = task.data.time
        progress = float(task.evaluate(task.state, task.goal[None])[1][0])
        self._since += 1
        if progress > self._best + PROGRESS:
            self._best, self._since = progress, 0
        if self._script is None and self._since >= self._patience:
            self._script = task.expert(stream(task.episode_seed, "corrector"))
        target = None if self._script is None else next(self._script)
        return TeleopSample.of(time.monotonic(), target)

    def close(self) -> None:
        """Nothing to let go of."""

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to let go of."""


def corrected(env: gymnasium.Env, stuck: float = STUCK) -> gymnasium.Env:
    """The same task with a corrector beside it."""
    return Intervention(env, Corrector(env, stuck))
