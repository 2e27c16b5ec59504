"""Our SO-101 as a robot of LeRobot, so that its own commands drive the arm through our safety.

    lerobot-record --robot.discover_packages_path=robolearn.hardware \
        --robot.type=robolearn_so101 --robot.port=/dev/ttyACM0 --robot.id=black ...

Calibration file, cameras, feature names and units (degrees from the middle of the range, the
gripper 0..100) are those of LeRobot's `so101_follower`; only the type has another name. What is
different is that a process of its own drives the arm, with the safety layer of `robolearn.hardware`
(see `robolearn.hardware.driver`), and that leaving parks the arm before the torque goes off.

This is the one module of `hardware/` that needs LeRobot, which finds a robot's class by its name:
in a module that is called like the class, in small letters.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from lerobot.cameras import CameraConfig, make_cameras_from_configs
from lerobot.robots import Robot, RobotConfig
from lerobot.utils.constants import HF_LEROBOT_CALIBRATION, ROBOTS
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from robolearn.contract import SO101, check_action, limit_action
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.client import Driver, DriverError, Snapshot
from robolearn.hardware.driver import DriverConfig
from robolearn.hardware.safety_types import ExitPolicy, SafetyConfig
from robolearn.units import unit_map

TYPE: Final = "robolearn_so101"
FOLLOWER: Final = "so_follower"  # LeRobot's robot whose calibration files we share
JOINTS: Final = tuple(f"{joint}.pos" for joint in SO101.joints)


@RobotConfig.register_subclass(TYPE)
@dataclass(kw_only=True)
class SO101RobotConfig(RobotConfig):
    """What can be set on the command line of LeRobot."""

    port: str  # serial device
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    speed: float = 1.5  # rad/s that a joint may do
    on_exit: ExitPolicy = "park"  # what becomes of the arm at the end
    check_poses: bool = True  # against the table, the workspace and the arm itself
    blackbox: Path = Path("runs/blackbox")  # where faults leave a recording of what led to them
    estop: Path | None = None  # a pipe or device: any byte from it is an emergency stop


class SO101Robot(Robot):
    """See the module's docstring.

    Args:
        config: the arm.
    """

    config_class = SO101RobotConfig
    name = TYPE

    def __init__(self, config: SO101RobotConfig) -> None:
        if config.calibration_dir is None:
            config.calibration_dir = HF_LEROBOT_CALIBRATION / ROBOTS / FOLLOWER
        super().__init__(config)
        self.config = config
        self.cameras: dict[str, Any] = make_cameras_from_configs(config.cameras)
        self.driver: Driver | None = None
        self._open = ExitStack()
        self._scale, self._offset = unit_map(SO101, "degrees")

    @cached_property
    def action_features(self) -> dict[str, type]:
        """A number for each joint."""
        return dict.fromkeys(JOINTS, float)

    @cached_property
    def observation_features(self) -> dict[str, type | tuple[int, int, int]]:
        """The same, and a shape (H, W, 3) for each camera."""
        shapes = {name: (camera.height, camera.width, 3) for name, camera in self.cameras.items()}
        return {**self.action_features, **shapes}

    @property
    def is_connected(self) -> bool:
        """Whether there is a driver."""
        return self.driver is not None

    @property
    def is_calibrated(self) -> bool:
        """Whether there is a calibration file; `connect` compares it with the servos."""
        return bool(self.calibration)

    def connect(self, calibrate: bool = True) -> None:  # noqa: FBT001, FBT002 (LeRobot's)
        """Starts the driver and switches the torque on; nothing moves.

        Args:
            calibrate: ignored; the arm must be calibrated before.

        Raises:
            OSError, ValueError: no arm, no camera, no calibration; the message says what to do.
        """
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self} is already connected.")
        try:
            self._connect()
        except BaseException:
            self.disconnect_all()
            raise

    def _connect(self) -> None:
        for camera in self.cameras.values():
            camera.connect()
            self._open.callback(camera.disconnect)
        driver = self._open.enter_context(Driver(self._driver_config()))
        driver.engage()
        self.driver = driver

    def _driver_config(self) -> DriverConfig:
        if not self.calibration:
            self.calibrate()
        return DriverConfig(
            self.config.port,
            Calibration.load(self.calibration_fpath, SO101),
            safety=SafetyConfig(velocity=self.config.speed, on_exit=self.config.on_exit),
            check_poses=self.config.check_poses,
            blackbox=self.config.blackbox,
            estop=self.config.estop,
        )

    def calibrate(self) -> None:
        """Is left to `robolearn calibrate`, which checks what it finds.

        Raises:
            ValueError: always; the message says what to do.
        """
        raise ValueError(
            f"{self.calibration_fpath} is not there or old: make it with `robolearn calibrate "
            f"--port {self.config.port}`, or with `lerobot-calibrate --robot.type=so101_follower`"
        )

    def configure(self) -> None:
        """Nothing: the driver leaves the servos' own settings alone."""

    def get_observation(self) -> dict[str, Any]:
        """The newest state, and the newest picture of every camera.

        Raises:
            DeviceNotConnectedError: `connect` comes first.
            DriverError: a fault; the arm has stopped by itself.
        """
        observation = self._to_features(self._read().position)
        return observation | {name: camera.read_latest() for name, camera in self.cameras.items()}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Asks for joint targets; the safety layer limits them on the way.

        Returns:
            The goal that the servos have at this moment, on the way to these targets.

        Raises:
            ActionError: NaN or infinity; the arm keeps its last target.
            DeviceNotConnectedError, DriverError: see `get_observation`.
        """
        snapshot = self._read()
        values = np.array([action[name] for name in JOINTS], float)
        goal = limit_action(SO101, check_action(SO101, values * self._scale + self._offset))
        self._driver().send(goal, self._camera_age())
        return self._to_features(snapshot.goal)

    def _driver(self) -> Driver:
        if self.driver is None:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
        return self.driver

    def _read(self) -> Snapshot:
        snapshot = self._driver().read()
        if snapshot.fault:
            raise DriverError(f"the arm has stopped: {snapshot.reason}")
        return snapshot

    def _camera_age(self) -> float:
        """Seconds since the oldest of the newest pictures; 0 without cameras."""
        stamps = [camera.latest_timestamp for camera in self.cameras.values()]
        return max((time.perf_counter() - stamp for stamp in stamps if stamp), default=0.0)

    def _to_features(self, position: np.ndarray) -> dict[str, Any]:
        values = (position - self._offset) / self._scale
        return dict(zip(JOINTS, values.tolist(), strict=True))

    def disconnect(self) -> None:
        """Parks the arm, or what `on_exit` says, and lets go of everything.

        Raises:
            DeviceNotConnectedError: it is not connected.
        """
        if not self.is_connected:
            raise DeviceNotConnectedError(f"{self} is not connected.")
        self.disconnect_all()

    def disconnect_all(self) -> None:
        """The same, in any state: the arm first, and whatever the cameras do."""
        self.driver = None
        self._open.close()
