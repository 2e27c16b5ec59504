"""`LeRobotEnv`: an arm that LeRobot drives, behind our environment and our safety layer.

For arms that `robolearn.hardware.driver` cannot drive itself. The spaces, units, rate and info keys
are those of `robolearn.contract`, and every goal goes through the supervisor before LeRobot's
`Robot.send_action` gets it: NaN is rejected, speed and reach are limited, a fault ends the episode.

What LeRobot's interface does not tell cannot be guarded: current, temperature, voltage and alarms
of the servos. And nothing watches between two steps, because the loop runs in this process. An
SO-101 is safer as `robolearn/SO101-v0`.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gymnasium
import numpy as np

from robolearn.contract import (
    SO101,
    ArmSpec,
    Info,
    action_space,
    check_action,
    limit_action,
    observation_space,
)
from robolearn.hardware.camera import fit
from robolearn.hardware.client import ARRIVED, PACE, DriverError
from robolearn.hardware.clock import Clock, WallClock
from robolearn.hardware.safe_env import SafeEnv
from robolearn.hardware.safety import Fault, Request, SafetyConfig
from robolearn.hardware.workspace import Workspace
from robolearn.units import UNITS, Units, unit_map

if TYPE_CHECKING:
    from lerobot.robots import Robot, RobotConfig

Observation = dict[str, Any]
ARMS: Final = {"so101_follower": SO101}  # LeRobot's type of robot -> the arm
CAPTURE: Final = {"fps": 30, "width": 640, "height": 480}  # asked of a camera
SETTLE: Final = 0.5  # s at home before an episode begins
SAME: Final = 1e-4  # contract units; what the way through LeRobot's units rounds away


class LeRobotArm(gymnasium.Env[Observation, np.ndarray]):
    """A robot of LeRobot in the form of `robolearn.contract`, with nothing in front of it.

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
        arm: ArmSpec = SO101,
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
        self._position = np.zeros(arm.size)
        self._observation: Observation = {}

    def _connect(self) -> None:
        """Never with LeRobot's own calibration, which asks questions on the terminal."""
        if not self.robot.is_connected:
            self.robot.connect(calibrate=False)
        if not self.robot.is_calibrated:
            self.close()
            raise ValueError(
                f"{self.robot} is not calibrated; run `lerobot-calibrate --robot.type={_kind(self.robot)}`"
            )

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
            velocity = np.zeros(self.arm.size)
            if self._observation and now > self._time:
                velocity = (position - self._position) / (now - self._time)
            self._time, self._position = now, position
            self._observation = self._bounded(position, velocity, pixels)

    def _losses(self) -> suppress:
        """Turns every error of the robot into `problem`.

        Every `Exception`, because LeRobot lets through what its libraries raise: a cable that is
        pulled out is a `termios.error`, which is not an `OSError`.
        """
        return _Losses(self)

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
