"""`foreign:ID`: a task of another gymnasium package behind robolearn's contract.

The id is gymnasium's own, such as `foreign:gym_pusht/PushT-v0`, or "module:id" of an environment
that a module registers. What a package calls an action need be no joint target: the `ArmSpec` names
the actions, and lists as `grippers` all that policies shall learn as they are, since they are no
targets in the units of `agent_pos`. The rest is the contract's: success ends an episode with reward
1, and `info["grade/return"]` sums the rewards that the package itself gives.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from robolearn.contract import (
    ArmSpec,
    Info,
    action_space,
    check_action,
    limit_action,
    observation_space,
    wish,
)
from robolearn.envs.foreign_packages import PREFIX, kind_of, python_for, versions_for
from robolearn.envs.foreign_worker import Away, door_of

OBS_TYPES: Final = ("pixels_agent_pos", "state")


class Foreign(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A task of another package; see the module.

    Args:
        name: the id without "foreign:".
        obs_type: "pixels_agent_pos", or "state", which draws nothing.
        cameras: which to draw; None takes the usual ones.
        image_size: height and width of the pictures, pixels.
        render_mode: None or "rgb_array".
        paraphrases: has no effect; these tasks have one wording.
        others: options that only robolearn's tasks have.

    Raises:
        ValueError: no such task or option, or a package is missing; the message names it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        name: str,
        obs_type: str = "pixels_agent_pos",
        cameras: Sequence[str] | None = None,
        image_size: Sequence[int] = (48, 84),
        render_mode: str | None = None,
        paraphrases: str = "all",
        **others: object,
    ) -> None:
        del paraphrases
        if obs_type not in OBS_TYPES:
            raise ValueError(f"obs_type is {obs_type!r}; choose one of {', '.join(OBS_TYPES)}")
        if others:
            raise ValueError(f"{PREFIX}{name} has no option {', '.join(others)}")
        self.obs_type, self.render_mode = obs_type, render_mode
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self._door = open_door(name, () if obs_type == "state" else cameras, self.image_size)
        told = self._door.describe()
        self.arm, self.active_cameras = _arm(name, told), tuple(told["cameras"])
        self.metadata = {**self.metadata, "render_fps": told["control_hz"]}
        self.action_space = action_space(self.arm)
        state_size = told["state_size"] if obs_type == "state" else 0
        self.observation_space = _space(self.arm, self.active_cameras, self.image_size, state_size)
        self._names, self._draw_every = tuple(self.observation_space), 1
        self.task_description, self.episode_seed, self._return = "", 0, 0.0

    @property
    def draw_every(self) -> int:
        """See `contract`."""
        return self._draw_every

    @draw_every.setter
    def draw_every(self, steps: int) -> None:
        self._draw_every = steps
        self._door.spare(steps)

    @property
    def task(self) -> str:
        """The instruction, under the name that LeRobot's evaluation asks for."""
        return self.task_description

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts the episode that belongs to `seed`.

        Args:
            seed: the episode's seed; None draws the next one from the environment's generator.
            options: {"instruction": text} asks for a certain one of several tasks.

        Raises:
            ValueError: an instruction that the task does not know, or another option.
        """
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        told = self._door.reset(self.episode_seed, wish(options) or "")
        self.task_description, self._return = told["task"], 0.0
        still = limit_action(self.arm, told["agent_pos"])
        return self._observe(told), self._info(still, still, told)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Acts for one control period.

        Raises:
            ActionError: wrong shape, NaN or infinity; nothing has moved and the episode goes on.
        """
        requested = check_action(self.arm, action)
        sent = limit_action(self.arm, requested)
        told = self._door.step(sent)
        self._return += told["reward"]
        success = told["success"]
        ends, stops = success or told["terminated"], told["truncated"] or bool(told["fault"])
        info = self._info(requested, sent, told)
        return self._observe(told), float(success), ends, stops, info

    def _observe(self, told: dict[str, Any]) -> dict[str, Any]:
        told = {**told, "agent_effort": np.zeros(self.arm.size, np.float32)}  # no package tells any
        return {name: told[name] for name in self._names}

    def _info(
        self, requested: np.ndarray, sent: np.ndarray, told: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            Info.TASK: self.task_description,
            Info.SEED: self.episode_seed,
            Info.IS_SUCCESS: told["success"],
            Info.SUCCESS: told["success"],
            Info.PROGRESS: told["progress"],
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: requested.tolist() != sent.tolist(),
            Info.IS_INTERVENTION: False,
            Info.TELEOP_ACTION: sent,
            Info.FAULT: told["fault"],
            Info.GRADE + "return": self._return,
        }

    def render(self) -> np.ndarray | None:
        """A picture for videos, uint8 (h, w, 3), or None without `render_mode="rgb_array"`."""
        return None if self.render_mode is None else self._door.film()

    def close(self) -> None:
        """Lets go of the task, and of its process if it has one."""
        self._door.close()


class ScriptedForeign(Foreign):
    """A task of another package for which there is a script that solves it."""

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The script's actions (J,), one for each step of the running episode."""
        del rng  # these scripts draw nothing
        while True:
            yield self._door.expert()


def make(name: str, **options: Any) -> Foreign:  # noqa: ANN401
    """The environment; see `Foreign`."""
    kind = kind_of(name)
    return (ScriptedForeign if kind and kind.scripted else Foreign)(name, **options)


def spec(env_id: str) -> EnvSpec:
    """What `gymnasium.make` needs to make the environment of an id.

    Raises:
        ValueError: no such environment, or the module that registers it is missing.
    """
    name = env_id.removeprefix(PREFIX)
    try:
        kind = kind_of(name)
        steps = kind.steps if kind else _registered(name).max_episode_steps
        return EnvSpec(
            id=env_id,
            entry_point=f"{__name__}:{make.__name__}",
            max_episode_steps=steps,
            kwargs={"name": name},
        )
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"no environment {env_id!r}: {error}; see `robolearn envs`") from error


def _registered(name: str) -> EnvSpec:
    module, _, plain = name.rpartition(":")
    if module:
        import_module(module)
    return gymnasium.spec(plain)


def package_of(env_id: str) -> str:
    """The known package of a task; "" for one of any other."""
    kind = kind_of(env_id.removeprefix(PREFIX))
    return kind.package if kind else ""


def versions(env_id: str) -> dict[str, str]:
    """The versions that a task depends on, where it runs.

    Raises:
        ValueError: its package is not installed.
    """
    kind = kind_of(env_id.removeprefix(PREFIX))
    return versions_for(kind.package) if kind else {}


def open_door(name: str, cameras: Sequence[str] | None, size: Sequence[int]) -> Any:  # noqa: ANN401
    """The door of a task, here or in a process of its own; see `foreign_doors.Door`.

    Raises:
        ValueError: as the door does, or its package is missing.
    """
    kind = kind_of(name)
    if kind and (python := python_for(kind.package)):
        return Away(python, kind.door, name, cameras, size)
    return door_of(kind.door if kind else "foreign_doors:Door")(name, cameras, size)


def _arm(name: str, told: dict[str, Any]) -> ArmSpec:
    return ArmSpec(
        name=name,
        joints=tuple(told["joints"]),
        low=tuple(map(float, told["low"])),
        high=tuple(map(float, told["high"])),
        home=tuple(map(float, told["home"])),
        grippers=tuple(told["grippers"]),
        control_hz=float(told["control_hz"]),
        effort_unit="none",
    )


def _space(
    arm: ArmSpec, cameras: Sequence[str], size: tuple[int, int], state_size: int
) -> spaces.Dict:
    """That of the contract, without its bounds: they are those of an arm in rad."""
    space = observation_space(arm, cameras, size, state_size)
    for key in ("agent_pos", "agent_vel"):
        space[key] = spaces.Box(-np.inf, np.inf, (arm.size,), np.float32)
    return space
