"""What the tests of LeRobot's commands need: a scripted human, a camera and a clock of the twin.

LeRobot finds both devices by the names of their configs once this module is imported.
"""

import json
import time
from dataclasses import dataclass

import numpy as np
from lerobot.cameras import Camera, CameraConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

FOLDED = {
    "shoulder_lift.pos": -90.0,
    "elbow_flex.pos": 85.0,
    "wrist_flex.pos": 55.0,
    "wrist_roll.pos": 0.0,
    "gripper.pos": 50.0,
}


def servos(twin, register):
    return np.array([servo[register] for servo in twin.state()["servos"].values()])


def save_calibration(twin, folder):
    path = folder / "black.json"
    path.write_text(json.dumps(twin.calibration()))
    return path


class TwinClock:
    """Lets the time of a twin in lockstep pass."""

    def __init__(self, twin):
        self.twin, self.time = twin, 0.0

    def now(self):
        return self.time

    def wait_until(self, deadline):
        if deadline > self.time:
            self.twin.advance(deadline - self.time)
            self.time = deadline
        return True


@TeleoperatorConfig.register_subclass("scripted")
@dataclass
class ScriptedConfig(TeleoperatorConfig):
    pan: float = 20.0  # degrees


class Scripted(Teleoperator):
    """Wants the shoulder to turn."""

    config_class, name = ScriptedConfig, "scripted"
    action_features = feedback_features = {}
    is_connected = is_calibrated = True

    def __init__(self, config):
        super().__init__(config)
        self.pan = config.pan

    def connect(self, *, calibrate=True):
        pass

    def calibrate(self):
        pass

    def configure(self):
        pass

    def get_action(self):
        return {"shoulder_pan.pos": self.pan, **FOLDED}

    def send_feedback(self, feedback):
        pass

    def disconnect(self):
        pass


@CameraConfig.register_subclass("grey")
@dataclass
class GreyConfig(CameraConfig):
    pass


class Grey(Camera):
    """Sees grey, and is never late."""

    is_connected = False

    @staticmethod
    def find_cameras():
        return []

    @property
    def latest_timestamp(self):
        return time.perf_counter()

    def connect(self, *, warmup=True):
        self.is_connected = True

    def read(self):
        return np.full((self.height, self.width, 3), 128, np.uint8)

    def async_read(self, timeout_ms=200):
        return self.read()

    def read_latest(self, max_age_ms=500):
        return self.read()

    def disconnect(self):
        self.is_connected = False
