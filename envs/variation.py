"""`Variation`: what all wrappers share that make a task harder, and their levels.

See `robolearn.envs.randomize` for worlds that differ, `robolearn.envs.disturb` for what happens in
the middle of an episode, and `robolearn.envs.variations` for all of them by name.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar, Final, cast

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from robolearn.contract import Info, check_action, limit_action
from robolearn.envs.task import Task
from robolearn.seeding import stream

MAX_LEVEL: Final = 4  # full strength; level 0 leaves everything as it is


def variation_stream(seed: int, name: str) -> np.random.Generator:
    """The random generator of one variation in the episode of `seed`."""
    return stream(seed, f"variation/{name}")


def check_level(name: str, level: int) -> int:
    """The level.

    Raises:
        ValueError: there is no such level.
    """
    if isinstance(level, bool) or level not in range(MAX_LEVEL + 1):
        raise ValueError(f"{name} has no level {level!r}; choose one from 0 to {MAX_LEVEL}")
    return int(level)


class Variation(gymnasium.Wrapper, RecordConstructorArgs):
    """What all variations share: a name and a level; at level 0 they do nothing.

    Args:
        env: a task of one of `kinds`, perhaps wrapped.
        name: what it is called, and its random stream.
        level: from 0, nothing, to `MAX_LEVEL`.

    Raises:
        ValueError: no such level, or the environment is of another kind, such as an arm.
    """

    kinds: ClassVar[tuple[type, ...]] = (Task,)  # what it can act on: by default tasks of ours

    def __init__(self, env: gymnasium.Env, name: str, level: int) -> None:
        RecordConstructorArgs.__init__(self, **self._constructed_with(name, level))
        super().__init__(env)
        self.name, self.level = name, check_level(name, level)
        if not isinstance(env.unwrapped, self.kinds):
            raise ValueError(f"{name} varies simulated tasks, and {env} is none")

    def _constructed_with(self, name: str, level: int) -> dict[str, Any]:
        """The constructor's arguments, so that `gymnasium.make(env.spec)` makes another one."""
        del name
        return {"level": level}

    @property
    def task(self) -> Any:  # noqa: ANN401 (a ManipulationEnv, whose type would be a circle)
        """The task itself."""
        return self.env.unwrapped

    @property
    def strength(self) -> float:
        """The level as a share of the highest."""
        return self.level / MAX_LEVEL


def step_late(
    env: gymnasium.Env, action: np.ndarray, late: Callable[[np.ndarray], np.ndarray]
) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
    """A step with another action than was asked for; `info` tells what was asked.

    As on an arm, where the sender of an action does not see what becomes of it on its way.

    Args:
        env: steps.
        action: what is asked for.
        late: gives the action (J,) that arrives instead; never called with a bad action.

    Raises:
        ActionError: wrong shape, NaN or infinity; nothing has moved.
    """
    arm = cast(Any, env.unwrapped).arm
    asked = check_action(arm, action)
    sent = limit_action(arm, asked)
    observation, reward, terminated, truncated, info = env.step(late(sent))
    info |= {
        Info.ACTION_REQUESTED: asked,
        Info.ACTION_SENT: sent,
        Info.LIMITED: np.count_nonzero(asked != sent) > 0,
        Info.TELEOP_ACTION: sent,
    }
    return observation, float(reward), terminated, truncated, info


class DelayLine:
    """Targets of N arms that arrive late; between control steps they are interpolated.

    Args:
        count: the number of arms, N.
        joints: the number of joints of each, J.
    """

    STEPS: ClassVar[int] = 8  # a delay is shorter than this

    def __init__(self, count: int, joints: int) -> None:
        self._past = np.zeros((count, self.STEPS + 1, joints), np.float32)
        self._rows, self.steps = np.arange(count), np.zeros(count, np.float32)

    def begin(self, rows: np.ndarray | int, targets: np.ndarray, steps: np.ndarray | float) -> None:
        """An episode begins in some rows: their past is at rest at `targets` (..., J)."""
        self._past[rows] = np.asarray(targets)[..., None, :]
        self.steps[rows] = steps

    def push(self, targets: np.ndarray) -> np.ndarray:
        """Takes the newest targets (N, J), float32, and returns those that arrive now."""
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = targets
        whole = self.steps.astype(int)
        part = (self.steps - whole)[:, None]
        newer, older = self._past[self._rows, whole], self._past[self._rows, whole + 1]
        return np.where(part > 0, newer + part * (older - newer), newer).astype(np.float32)


def next_seed(task: gymnasium.Env, seed: int | None) -> int:
    """The seed that the next `reset(seed=seed)` of a task will take; it does not change that."""
    # A look ahead at what `ManipulationEnv.reset` draws.
    return int(deepcopy(task.np_random).integers(2**31)) if seed is None else int(seed)
