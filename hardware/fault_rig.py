"""The rig on which faults are tried: a twin, its driver, and a learner that keeps the arm swaying.

What happened is read from the servos' registers, by the twin's second way in, and not from what the
driver says. Without `realtime` the arm's time passes only cycle by cycle, so that a trial can be
repeated exactly.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from robolearn.contract import SO101, ActionError
from robolearn.hardware.blackbox import Recording, load
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.camera import Cameras
from robolearn.hardware.client import Driver, DriverError
from robolearn.hardware.driver import DriverConfig
from robolearn.hardware.leader import Leader
from robolearn.hardware.safety_types import SafetyConfig, State
from robolearn.hardware.twin import Twin

SWAY: Final = np.array([0.25, 0.1, 0.1, 0.2, 0.3, 0.1])  # contract units to each side of home
SWAY_HZ: Final = 0.5
REACHED: Final = 0.25  # contract units between a joint and what was asked: delay, and droop
PATIENCE: Final = 400  # cycles to come back from wherever a fault has left the arm
FREE_PATIENCE: Final = 20.0  # s until another process lets go of the port
POLL: Final = 0.01  # s between looks at an arm that another process drives
COOL: Final = 25.0  # deg C
IMAGE_SIZE: Final = (48, 84)
Ask = Callable[[float], np.ndarray | None]


def sway(seconds: float) -> np.ndarray:
    """Joint targets (J,), contract units, of a learner whose arm swings about its home pose."""
    return np.array(SO101.home) + SWAY * np.sin(2 * np.pi * SWAY_HZ * seconds)


@dataclass(frozen=True)
class Sample:
    """What the servos' registers show at one moment; arrays (J,)."""

    time: float  # s, of the clock on the wall or, in lockstep, of the arm
    torque: np.ndarray  # bool; off also where there is no power
    goal: np.ndarray  # ticks
    position: np.ndarray  # contract units, true whatever the encoders say
    state: str  # of the driver; "" where another process drives
    fault: str


class Rig:
    """See the module's docstring. Use it as a context manager.

    Args:
        folder: for the port's name and for black boxes.
        realtime: the arm follows the clock on the wall, as is needed where processes die.
        safety: the thresholds; None takes the defaults.

    Attributes:
        twin: the simulated arm.
        driver: its driver; None while it has none, or another process drives.
        process: another process that drives.
        ask: what the learner wants, by its time, s; None is no new goal.
        camera_age: what the learner says of its pictures, s.
        cameras: those that it looks at instead.
        leader: a second, limp arm with its driver's side.
        refusal: why the driver, or a goal, was last refused; "" if it never was.
    """

    def __init__(
        self, folder: Path, *, realtime: bool = False, safety: SafetyConfig | None = None
    ) -> None:
        self.folder, self.realtime = folder, realtime
        self.safety = safety or SafetyConfig()
        folder.mkdir(parents=True, exist_ok=True)
        self.twin = Twin(pose=SO101.home, lockstep=not realtime, image_size=IMAGE_SIZE)
        self.calibration = Calibration.from_dict(self.twin.calibration(), SO101)
        self.driver: Driver | None = None
        self.process: subprocess.Popen | None = None
        self.cameras: Cameras | None = None
        self.leader: tuple[Twin, Leader] | None = None
        self.behave()
        self.refusal, self._steps = "", 0

    # The driver.

    @property
    def config(self) -> DriverConfig:
        """Of the driver."""
        box, port = self.folder / "blackbox", self.folder / "port"
        return DriverConfig(
            str(port),
            self.calibration,
            safety=self.safety,
            blackbox=box,
            lockstep=not self.realtime,
        )

    def plug(self) -> None:
        """Gives the port the name by which the driver knows it, as udev does with /dev/serial."""
        link = self.folder / "port"
        link.unlink(missing_ok=True)
        link.symlink_to(self.twin.port)

    def start(self) -> None:
        """Starts a driver.

        Raises:
            DriverError: refused; also kept in `refusal`.
        """
        self.plug()
        try:
            self.driver = Driver(self.config)
        except DriverError as error:
            self.refusal = str(error)
            raise

    def stop(self) -> None:
        """Ends whatever drives the arm, and waits until it has."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if self.driver is not None:
            self.driver.close()
            self.driver = None
        give_up = time.monotonic() + FREE_PATIENCE
        while self._live() and time.monotonic() < give_up:
            time.sleep(POLL)

    @property
    def driver_process(self) -> int:
        """The id of the driver's process."""
        return int(self._live()[-1].name.removeprefix("live-"))

    @property
    def guardian_process(self) -> int:
        """The id of its guardian's."""
        command = ["ps", "-o", "ppid=", "-p", str(self.driver_process)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def hand_over(self) -> None:
        """Lets another process drive, until it has the arm in motion."""
        if self.driver is not None:
            self.driver.limp()  # parking takes its time
        self.stop()
        self.twin.reset(0, arm="home")
        self.plug()
        moving = self.folder / "moving"
        moving.unlink(missing_ok=True)
        command = [sys.executable, "-m", "robolearn.hardware.fault_learner", str(self.folder)]
        self.process = subprocess.Popen(command, start_new_session=True)
        while not moving.exists():
            if self.process.poll() is not None:
                raise DriverError("the learner's process has died; see its output above")
            time.sleep(POLL)

    # The learner.

    def behave(self) -> None:
        """Makes the learner a good one again."""
        self.ask: Ask = sway
        self.camera_age = 0.0
        if self.cameras is not None:
            self.cameras.close()
            self.cameras = None
        if self.leader is not None:
            self.leader[1].close()
            self.leader[0].close()
            self.leader = None

    def step(self) -> Sample:
        """One cycle of learner and arm."""
        self._steps += 1
        if self.driver is None:
            time.sleep(POLL)
            return self.look()
        goal = self.ask(self._steps / self.driver.config.hz)
        age = self.camera_age if self.cameras is None else self.cameras.age()
        try:
            if goal is not None:
                self.driver.send(goal, age)
            self.driver.advance()
        except ActionError as error:
            self.refusal = str(error)
            self.driver.advance()
        except DriverError as error:  # it is gone, and so is the arm's time in lockstep
            self.refusal = str(error)
            time.sleep(POLL)
        return self.look()

    def look(self) -> Sample:
        """What the registers show now."""
        servos = self.twin.state()["servos"].values()
        snapshot = self.driver.read() if self.driver else None
        return Sample(
            time=time.monotonic() if self.realtime else self._steps / self.config.hz,
            torque=np.array([bool(s["powered"] and s["torque_enable"]) for s in servos]),
            goal=np.array([s["goal_position"] for s in servos]),
            position=np.array([s["position"] for s in servos]),
            state=str(snapshot.state) if snapshot else "",
            fault=snapshot.fault if snapshot else "",
        )

    # From one trial to the next.

    def mend(self) -> None:
        """Takes the cause of a fault away, whoever is to blame."""
        self.behave()
        self.twin.mend()
        self.plug()
        for servo in (1, 2, 3, 4, 5, 6):  # a motor that was heated would need minutes
            self.twin.fault("heat", servo=servo, celsius=COOL)
        self.step()
        self.twin.mend("heat")

    def ready(self) -> None:
        """Brings the arm home, engaged and swaying, whatever was before."""
        self.mend()
        self.refusal = ""
        if self.driver is None:
            self.start()
        assert self.driver is not None
        self.reset()
        self.driver.limp()
        self.engage()

    def reset(self) -> None:
        """Ends the fault, if there is one; what latches in the servos ends with their torque.

        Raises:
            DriverError: its cause is still there.
        """
        assert self.driver is not None
        if not self.driver.read().fault:
            return
        try:
            self.driver.reset_fault()
        except DriverError:
            self.driver.limp()
            self.driver.reset_fault()

    def engage(self) -> None:
        """Engages, where it is or, if it is limp, in the home pose as if a hand had put it there.

        Raises:
            DriverError: refused.
        """
        assert self.driver is not None
        if self.driver.read().state == State.LIMP:
            self.twin.reset(0, arm="home")
        self.driver.engage()

    def works(self) -> bool:
        """Whether the arm can be made to follow the learner, all joints with torque."""
        for _ in range(PATIENCE):
            sample = self.step()
            asked = self.ask(self._steps / self.config.hz)
            near = asked is not None and np.abs(sample.position - asked).max() < REACHED
            if near and sample.torque.all() and sample.state == State.ENGAGED:
                return True
        return False

    # What was recorded.

    def recording(self) -> Recording | None:
        """The black box of the driver that runs, or the newest one that was saved."""
        folders = self._live() or self.saved("")
        return load(folders[-1]) if folders else None

    def _live(self) -> list[Path]:
        """The rings of drivers that run, or that nobody could clean up after, the newest last."""
        live = (self.folder / "blackbox").glob("live-*")
        return sorted((folder for folder in live if _age(folder)), key=_age)

    def saved(self, fault: str) -> list[Path]:
        """The recordings of a fault, or of all, the newest last."""
        return sorted((self.folder / "blackbox").glob(f"*T*-{fault}*"))

    def close(self) -> None:
        """Ends everything."""
        self.behave()
        self.stop()
        self.twin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _age(folder: Path) -> float:
    """When it was last changed; 0 if its driver has just removed it."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
