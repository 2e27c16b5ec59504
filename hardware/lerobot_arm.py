"""`LeRobotArm`: a robot of LeRobot in the form of `robolearn.contract`, without any safety.

Only `robolearn.hardware.lerobot_robot` uses it, and puts the safety layer in front.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import gymnasium
import numpy as np

from robolearn.contract import (
    ArmSpec,
    Info,
    action_space,
    check_action,
    limit_action,
    observation_space,
)
from robolearn.hardware.camera import fit
from robolearn.hardware.client import DriverError
from robolearn.hardware.clock import Clock, WallClock
from robolearn.hardware.safety_types import Fault
from robolearn.units import UNITS, Units, unit_map

if TYPE_CHECKING:
    from lerobot.robots import Robot

Observation = dict[str, Any]
SAME: Final = 1e-4  # contract units; what the way through LeRobot's units rounds away


class LeRobotArm(gymnasium.Env[Observation, np.ndarray]):
    """See the module's docstring.

    `agent_vel` is the change of the position between two observations, and `agent_effort` is 0.

    Args:
        robot: a LeRobot robot with one feature `<joint>.pos` for each joint of the arm.
        arm: the arm that it is.
        units: of the robot's features; None: as its config's `use_degrees` says.
        cameras: which of the robot's cameras are observed; None: all.
        image_size: height and width of the pictures, pixels.
        instruction: what the policy is told.
        render_mode: "rgb_array" or None.
        clock: paces the steps.

    Attributes:
        problem: why the robot was last lost, in LeRobot's words.

    Raises:
        ValueError: other joints, unknown units or cameras, or no calibration.
        OSError: the robot does not connect.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        robot: "Robot",
        arm: ArmSpec,
        *,
        units: Units | None = None,
        cameras: Sequence[str] | None = None,
        image_size: tuple[int, int] = (48, 84),
        instruction: str = "",
        render_mode: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.robot, self.arm, self.render_mode = robot, arm, render_mode
        self.metadata = {**self.metadata, "render_fps": round(arm.control_hz)}
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.task_description = self._instruction = instruction
        self.problem, self._seed = "", 0
        self._names = _joint_names(robot, arm)
        self._scale, self._offset = unit_map(arm, units or _units_of(robot))
        self.active_cameras = _chosen(robot, cameras)
        self.action_space = action_space(arm)
        self.observation_space = observation_space(arm, self.active_cameras, self.image_size)
        self._clock = clock or WallClock()
        self._connect()
        self._time = self._deadline = self._clock.now()
        self._position: np.ndarray = np.zeros(arm.size)
        self._observation: Observation = {}

    def _connect(self) -> None:
        """Never with LeRobot's own calibration, which asks questions on the terminal."""
        if not self.robot.is_connected:
            self.robot.connect(calibrate=False)
        if not self.robot.is_calibrated:
            self.close()
            raise ValueError(f"{self.robot} is not calibrated; run `lerobot-calibrate` first")

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode where the arm is.

        Args:
            seed: only told in the info.
            options: {"instruction": text} replaces the instruction for this episode.

        Raises:
            DriverError: the robot does not answer.
        """
        super().reset(seed=seed)
        self._seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self.task_description = (options or {}).get("instruction") or self._instruction
        self.problem, self._observation = "", {}
        self._observe()
        if self.problem:
            raise DriverError(f"{self.robot} does not answer: {self.problem}")
        self._deadline = self._clock.now()
        goal = self._observation["agent_pos"].copy()
        return self._observation, self._info(goal, goal)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Sends joint targets, waits for the end of the control period and observes.

        Raises:
            ActionError: wrong shape, NaN or infinity; nothing was sent.
        """
        requested = check_action(self.arm, action)
        sent = limit_action(self.arm, requested)
        self.problem = ""
        with self._losses():
            sent = self._send(sent)
        self._deadline = max(self._deadline + 1 / self.arm.control_hz, self._clock.now())
        while not self._clock.wait_until(self._deadline):
            pass
        self._observe()
        return self._observation, 0.0, False, bool(self.problem), self._info(requested, sent)

    def _send(self, goal: np.ndarray) -> np.ndarray:
        """Returns what the robot says that it executes, contract units, float32 (J,)."""
        values = (goal - self._offset) / self._scale
        executed = self.robot.send_action(dict(zip(self._names, values.tolist(), strict=True)))
        told = self._to_si(executed)
        return goal if np.abs(told - goal).max() < SAME else told.astype(np.float32)

    def _to_si(self, features: Mapping[str, Any]) -> np.ndarray:
        values = np.array([features[name] for name in self._names], float)
        return values * self._scale + self._offset

    def _observe(self) -> None:
        """Makes a new observation; if the robot is lost, the last one stays."""
        with self._losses():
            features = self.robot.get_observation()
            position = self._to_si(features)
            if not np.isfinite(position).all():
                raise ValueError(f"it reports the position {position.tolist()}")
            pixels = {
                name: fit(np.asarray(features[name]), self.image_size)
                for name in self.active_cameras
            }
            now = self._clock.now()
            moved = position - self._position if self._observation else np.zeros(self.arm.size)
            velocity = moved / (now - self._time) if now > self._time else 0.0 * moved
            self._time, self._position = now, position
            self._observation = self._bounded(position, velocity, pixels)

    @contextmanager
    def _losses(self) -> Iterator[None]:
        """Turns every error of the robot into `problem`.

        Every `Exception`, because LeRobot lets through what its libraries raise: a cable that is
        pulled out is a `termios.error`, which is not an `OSError`.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001 (see above)
            self.problem = str(error) or type(error).__name__

    def _bounded(
        self, position: np.ndarray, velocity: np.ndarray, pixels: dict[str, np.ndarray]
    ) -> Observation:
        space: Any = self.observation_space
        arrays = {"agent_pos": position, "agent_vel": velocity, "agent_effort": 0.0 * position}
        observation: Observation = {
            name: np.clip(value.astype(np.float32), space[name].low, space[name].high)
            for name, value in arrays.items()
        }
        return {**observation, "pixels": pixels} if pixels else observation

    def _info(self, requested: np.ndarray, sent: np.ndarray) -> dict[str, Any]:
        return {
            Info.TASK: self.task_description,
            Info.SEED: self._seed,
            Info.IS_SUCCESS: False,  # nobody can tell
            Info.SUCCESS: False,
            Info.PROGRESS: 0.0,
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: not np.array_equal(requested, sent),
            Info.IS_INTERVENTION: False,
            Info.TELEOP_ACTION: sent.copy(),
            Info.FAULT: str(Fault.COMMUNICATION) if self.problem else "",
        }

    def render(self) -> np.ndarray | None:
        """The newest picture of the first camera, uint8 (H, W, 3), with `render_mode`."""
        if self.render_mode is None:
            return None
        return next(iter(self._observation.get("pixels", {}).values()), None)

    def close(self) -> None:
        """Disconnects the robot, which switches its torque off. Twice is no error.

        Raises:
            DriverError: LeRobot did not get that done.
        """
        if not self.robot.is_connected:
            return
        try:
            self.robot.disconnect()
        except Exception as error:  # noqa: BLE001 (as in `_losses`)
            raise DriverError(
                f"{self.robot} did not disconnect, so there may still be torque; switch the "
                f"arm's power off: {error}"
            ) from error


def _joint_names(robot: "Robot", arm: ArmSpec) -> list[str]:
    """The robot's names of the joints.

    Raises:
        ValueError: it has others.
    """
    names = [f"{joint}.pos" for joint in arm.joints]
    if set(robot.action_features) != set(names):
        has, wants = ", ".join(robot.action_features), ", ".join(names)
        raise ValueError(f"{robot} takes {has}; {arm.name} is driven by {wants}")
    return names


def _units_of(robot: "Robot") -> Units:
    """What the robot's config says.

    Raises:
        ValueError: it says nothing.
    """
    use_degrees = getattr(getattr(robot, "config", None), "use_degrees", None)
    if use_degrees is None:
        raise ValueError(f"{robot} does not tell its units; give one of {', '.join(UNITS)}")
    return "degrees" if use_degrees else "percent"


def _chosen(robot: "Robot", cameras: Sequence[str] | None) -> tuple[str, ...]:
    """The cameras to observe, colour ones.

    Raises:
        ValueError: one that the robot does not have.
    """
    shapes = {n: s for n, s in robot.observation_features.items() if isinstance(s, tuple)}
    found = [name for name, shape in shapes.items() if len(shape) == 3 and shape[-1] == 3]
    for name in cameras or ():
        if name not in found:
            raise ValueError(f"camera is {name!r}; {robot} has {', '.join(found) or 'none'}")
    return tuple(found if cameras is None else cameras)
