"""How the faults of the matrix are provoked: functions that do something to a rig.

The ways of the twin itself are in `robolearn.hardware.twin_faults`.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal
from unittest.mock import patch

import numpy as np

from robolearn.config import save_config
from robolearn.contract import SO101
from robolearn.hardware.bus import Bus, BusError
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.camera import Cameras
from robolearn.hardware.client import DriverError
from robolearn.hardware.fault_rig import IMAGE_SIZE, Ask, Rig
from robolearn.hardware.leader import Leader
from robolearn.hardware.twin import Twin

Act = Callable[[Rig], object]
HOME: Final = np.array(SO101.home)
# Python runs this before anything else.
STEPPING: Final = """
import itertools, time
hours, real = itertools.cycle((0, 1, -1)), time.time
time.time = lambda: real() + 3600.0 * next(hours)
"""


def nothing(rig: Rig) -> None:
    """Nothing more than what was prepared."""


def twin(name: str, **options: object) -> Act:
    """A fault of the twin; see `robolearn.hardware.twin_faults`."""
    return lambda rig: rig.twin.fault(name, **options)


def ask(learner: Ask) -> Act:
    """The learner asks for something else from now on."""
    return lambda rig: setattr(rig, "ask", learner)


def always(*values: float) -> Act:
    """The learner asks for this pose, or for one value for all joints, whatever its shape."""
    goal = np.array(values if len(values) > 1 else values * SO101.size)
    return ask(lambda _: goal)


def jump(seconds: float) -> np.ndarray:
    """Chunks whose ends do not meet: far to the left and far to the right in turns."""
    side = 1.0 if int(seconds / 0.4) % 2 else -1.0
    return HOME + side * np.array([0.8, 0.1, 0.1, 0.3, 1.0, 0.2])


def refuse(name: str, **options: object) -> Act:
    """A twin's fault that is there when a new driver starts."""

    def act(rig: Rig) -> None:
        rig.stop()
        rig.twin.fault(name, **options)
        with suppress(DriverError):
            rig.start()

    return act


def intrude(rig: Rig) -> None:
    """Another program opens the port."""
    try:
        with Bus(str(rig.folder / "port"), rig.calibration.ids):
            pass
    except BusError as error:
        rig.refusal = str(error)


def kill(number: signal.Signals, whom: Literal["learner", "driver", "guardian"]) -> Act:
    """A signal for one of the processes."""

    def act(rig: Rig) -> None:
        if whom == "learner":
            assert rig.process is not None
            os.kill(rig.process.pid, number)
        else:
            os.kill(rig.driver_process if whom == "driver" else rig.guardian_process, number)

    return act


def step_clock(rig: Rig) -> None:
    """A new driver's clock on the wall goes an hour forward and back at every look at it."""
    rig.stop()
    folder = rig.folder / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(STEPPING)
    with patch.dict(os.environ, PYTHONPATH=str(folder)):
        rig.start()
    rig.engage()


def start_learner(rig: Rig) -> None:
    """A process of its own drives."""
    save_config(rig.config, rig.folder)
    rig.hand_over()


def open_camera(rig: Rig) -> None:
    """The learner looks at a stream."""
    rig.cameras = Cameras({"top": rig.twin.cameras["top"]}, IMAGE_SIZE)


def age_pictures(rig: Rig) -> None:
    """No picture comes any more: with each cycle the newest one is older."""
    ask_before, period = rig.ask, 1.0 / rig.config.hz

    def act(seconds: float) -> np.ndarray | None:
        rig.camera_age += period
        return ask_before(seconds)

    rig.ask = act


def open_leader(rig: Rig) -> None:
    """A human swings a second arm and this one follows."""
    twin = Twin(lockstep=True, pose=SO101.home)
    calibration = Calibration.from_dict(twin.calibration(), SO101)
    leader = Leader(Bus(twin.port, calibration.ids, lockstep=True), calibration)
    rig.leader, held = (twin, leader), HOME

    def follow(seconds: float) -> np.ndarray:
        nonlocal held
        pan, wrist = SO101.joints[0], SO101.joints[3]
        twin.push({pan: 0.6 * np.sin(3.0 * seconds), wrist: SO101.home[3]})
        sample = leader.read(held)
        held = held if sample.action is None else sample.action
        return held

    rig.ask = follow


def cut_leader(rig: Rig) -> None:
    """The leader's cable is out."""
    assert rig.leader is not None
    rig.leader[0].fault("unplug")


def jam(rig: Rig) -> None:
    """A joint is stuck, and the learner wants it far away."""
    rig.twin.fault("stuck", servo=1)
    always(1.2, *SO101.home[1:])(rig)


def stop(rig: Rig) -> None:
    """Somebody stops the arm, and the learner goes on."""
    assert rig.driver is not None
    rig.driver.stop()


def press_estop(rig: Rig) -> None:
    """Somebody presses the emergency stop."""
    assert rig.driver is not None
    rig.driver.press_estop()
