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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from robolearn.contract import SO101, ArmSpec, Info
from robolearn.hardware.client import ARRIVED, PACE, DriverError
from robolearn.hardware.lerobot_arm import LeRobotArm, Observation
from robolearn.hardware.safe_env import SafeEnv
from robolearn.hardware.safety import Request, SafetyConfig
from robolearn.hardware.workspace import Workspace

if TYPE_CHECKING:
    from lerobot.robots import Robot, RobotConfig

ARMS: Final = {"so101_follower": SO101}  # LeRobot's type of robot -> the arm
CAPTURE: Final = {"fps": 30, "width": 640, "height": 480}  # asked of a camera
SETTLE: Final = 0.5  # s at home before an episode begins


class LeRobotEnv(SafeEnv):
    """A robot of LeRobot as an environment, guarded.

    An episode begins at `ArmSpec.home`, where the arm goes by itself. A fault ends the episode as
    truncated and stays until `reset_fault`. Closing parks the arm before LeRobot lets go of it.

    Args:
        robot: see `LeRobotArm`.
        arm: the arm that it is.
        safety: the thresholds; None takes the defaults.
        workspace: what poses are allowed; None: the default for an SO-101, all for other arms.
        options: of `LeRobotArm`.

    Attributes:
        fault: why the arm stopped, "" if it did not.
        problem: the same in words.

    Raises:
        ValueError, OSError: see `LeRobotArm`.
    """

    def __init__(
        self,
        robot: "Robot",
        arm: ArmSpec = SO101,
        *,
        safety: SafetyConfig | None = None,
        workspace: Workspace | None = None,
        **options: Any,  # noqa: ANN401 (of `LeRobotArm`)
    ) -> None:
        if workspace is None and arm.joints == SO101.joints:
            workspace = Workspace(arm)
        self._robot_arm = LeRobotArm(robot, arm, **options)
        super().__init__(self._robot_arm, safety, workspace)
        self.fault = self.problem = ""
        self._open, self._ready = True, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Brings the arm to the start of an episode; arrange the objects before.

        Raises:
            DriverError: a fault is latched, the robot does not answer, or the arm does not get to
                its start.
            RuntimeError: the arm is where it may not be engaged.
        """
        if self.fault:
            raise DriverError(
                f"the fault {self.fault} is latched ({self.problem}); look at the arm, then call "
                "reset_fault()"
            )
        observation, _ = super().reset(seed=seed, options=options)
        self._ready = True
        return self._go_home(observation["agent_pos"].astype(float))

    def _go_home(self, start: np.ndarray) -> tuple[Observation, dict[str, Any]]:
        home, dt = np.array(self.arm.home), 1 / self.arm.control_hz
        seconds = float((np.abs(home - start) / (PACE * self.supervisor.limits.velocity)).max())
        steps = max(1, round(seconds / dt))
        shares = np.minimum(np.arange(1, steps + 1 + round(SETTLE / dt)) / steps, 1.0)
        for share in shares:
            goal = (start + (home - start) * share).astype(np.float32)
            observation, *_, info = self.step(goal)
            if self.fault:
                raise DriverError(f"{self.fault} on the way home: {self.problem}")
        if np.abs(info[Info.ACTION_SENT] - home).max() > ARRIVED:
            said = self.events[-1] if self.events else ""
            raise DriverError(f"the arm does not get home: {said}")
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Sends joint targets, as far as they are safe, and waits for the end of the period.

        Raises:
            ActionError: wrong shape, NaN or infinity; the arm keeps its last target.
        """
        outcome = super().step(action)
        if fault := outcome[-1][Info.FAULT]:
            self.fault = self.fault or fault
            self.problem = self.problem or self._robot_arm.problem or self.supervisor.reason
        return outcome

    def reset_fault(self) -> None:
        """Ends a fault; somebody has looked at the arm."""
        self.fault = self.problem = ""

    def close(self) -> None:
        """Parks the arm, or what `SafetyConfig.on_exit` says, and disconnects it.

        Raises:
            DriverError: LeRobot did not switch the torque off.
        """
        if not self._open:
            return
        self._open = False
        try:
            self._rest()
        finally:
            self.env.close()

    def _rest(self) -> None:
        if not self._ready:
            return
        self.supervisor.exit()
        while not self.supervisor.finished:
            command = self._tick(self._observation, Request())
            if command.goal is not None:
                self._observation = self.env.step(command.goal.astype(np.float32))[0]
            if self._robot_arm.problem:
                return  # nobody knows where the arm is, so it is not moved


def open_lerobot(
    kind: str,
    *,
    port: str,
    calibration: Path | None = None,
    cameras: Mapping[str, str] | None = None,
    **options: Any,  # noqa: ANN401 (of `LeRobotEnv`)
) -> LeRobotEnv:
    """Opens an arm by LeRobot's type of robot, such as "so101_follower".

    Args:
        kind: what LeRobot's commands call `--robot.type`; plugins count too.
        port: its serial device.
        calibration: LeRobot's file of this arm; None: the one without an id in LeRobot's folder.
        cameras: name -> device or its number, opened by LeRobot through OpenCV.
        options: of `LeRobotEnv`; `arm` is needed for other robots than an SO-101.

    Raises:
        ValueError: no such robot, or `arm` is missing.
        OSError: the robot does not connect.
    """
    from lerobot.robots import make_robot_from_config

    config = _config_class(kind)
    if "arm" not in options and kind not in ARMS:
        raise ValueError(f"what is a {kind}? give its ArmSpec as `arm`")
    settings: dict[str, Any] = {"port": port}
    if calibration is not None:
        settings |= {"id": calibration.stem, "calibration_dir": calibration.parent}
    if cameras:
        settings["cameras"] = {name: _camera(source) for name, source in cameras.items()}
    robot = make_robot_from_config(config(**settings))
    return LeRobotEnv(robot, options.pop("arm", ARMS.get(kind, SO101)), **options)


def _config_class(kind: str) -> type["RobotConfig"]:
    """LeRobot knows a robot once its package is imported, and each needs other libraries."""
    from lerobot import robots
    from lerobot.utils.import_utils import register_third_party_plugins

    register_third_party_plugins()
    known: dict[str, type[RobotConfig]] = robots.RobotConfig.get_known_choices()
    for module in pkgutil.iter_modules(robots.__path__, f"{robots.__name__}."):
        if kind in known:
            break
        with suppress(ImportError):
            importlib.import_module(module.name)
    if kind not in known:
        raise ValueError(f"LeRobot has no robot {kind!r}; it has {', '.join(sorted(known))}")
    return known[kind]


def _camera(source: str) -> object:
    from lerobot.cameras.opencv import OpenCVCameraConfig

    return OpenCVCameraConfig(int(source) if source.isdigit() else Path(source), **CAPTURE)
