"""`Driver`: the client of the driver process, with which everything else moves the arm."""

import atexit
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from robolearn.config import save_config
from robolearn.contract import ActionError
from robolearn.hardware.channel import Channel
from robolearn.hardware.driver import DriverConfig
from robolearn.hardware.guardian import guard
from robolearn.hardware.limiter import Limits
from robolearn.hardware.process import spawn
from robolearn.hardware.safety_types import State, Verb

# A disk that is memory, where there is one.
SHARED_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
START_PATIENCE: Final = 60.0  # s until the process runs, imports on a busy machine included
CLOSE_PATIENCE: Final = 60.0  # s besides parking; in lockstep on a busy machine it takes long
VERB_PATIENCE: Final = 7.0  # s of the driver's clock besides parking
# States on the way to another one.
PASSING: Final = (State.ENGAGING, State.PARKING, State.HOLD, State.ENGAGED)
POLL: Final = 0.0003  # s between looks at the status; a cycle takes 20 ms
PACE: Final = 0.7  # of the speed limit, for moves that nobody steers
MIN_JERK_PEAK: Final = 1.875  # its greatest speed over its mean speed
SETTLE: Final = 0.3  # s
DETOURS: Final = 2  # rounds in which the joints go one after the other
ARRIVED: Final = 0.02  # contract units from the goal to its sent form


class DriverError(OSError):
    """The arm cannot be driven; the message says why and what to do."""


@dataclass(frozen=True)
class Snapshot:
    """The arm after one cycle, in contract units; arrays (J,)."""

    cycle: int
    time: float  # s, of the driver's clock
    state: State
    fault: str  # "" or a code
    reason: str  # of the fault, or why the last request was refused
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    goal: np.ndarray  # as last sent to the servos
    temperature: np.ndarray  # deg C
    torque: bool  # whether the servos may have torque
    age: float  # s since the servos last answered
    limited: int  # cycles so far in which a goal was not executed as asked
    lost: int  # cycles so far in which not all servos answered
    missed: int  # ticks so far that were skipped
    verbs: int  # of those that were posted so far, how many this state comes after
    lateness: np.ndarray  # cycles by how late they began, bins of `channel.LATENESS_EDGES`


class Driver:
    """Drives an arm through a process of its own; use it as a context manager.

    Leaving the context parks the arm (or does what `SafetyConfig.on_exit` says). The same happens
    when this process ends in whatever way: the driver notices.

    Args:
        config: the arm.

    Attributes:
        while_waiting: called again and again while a method waits for the arm.

    Raises:
        DriverError: no port, wrong servos, a calibration that is not the servos' own.
    """

    def __init__(self, config: DriverConfig) -> None:
        self.config = config
        self._folder = Path(tempfile.mkdtemp(prefix="robolearn-", dir=SHARED_MEMORY))
        save_config(config, self._folder)
        self._channel = Channel(self._folder, config.arm.size)
        self._process = spawn(guard, self._folder)
        self.while_waiting: Callable[[], None] = _nothing
        self._closed = False
        atexit.register(self.close)
        self._wait_for_start()

    def _wait_for_start(self) -> None:
        patience = time.monotonic() + START_PATIENCE
        if self.config.lockstep:
            self._channel.permit(1)
        while self.read().cycle == 0:
            if self._process.poll() is not None or time.monotonic() > patience:
                snapshot = self.read()
                self.close()
                raise DriverError(
                    snapshot.reason or f"no driver for {self.config.port} has started"
                )
            time.sleep(0.005)

    def read(self) -> Snapshot:
        """The newest state."""
        record: Any = self._channel.status.read()
        values = {field.name: record[field.name] for field in fields(Snapshot)}
        for name in ("state", "fault", "reason"):
            values[name] = values[name].decode(errors="ignore")
        values["state"] = State(values["state"] or State.DISCONNECTED)
        return Snapshot(**values)

    def send(self, goal: np.ndarray, camera_age: float = 0.0) -> None:
        """Asks for joint targets (J,), contract units; the safety layer limits them on the way.

        Raises:
            ActionError: another shape; the arm keeps its last goal.
        """
        arm = self.config.arm
        if np.shape(goal) != (arm.size,):
            raise ActionError(
                f"the goal has shape {np.shape(goal)}; {arm.name} takes ({arm.size},)"
            )
        self._channel.set_goal(goal, self.read().time, camera_age)

    def advance(self, cycles: int = 1) -> Snapshot:
        """Waits for some cycles; in lockstep it lets them happen.

        Raises:
            DriverError: the driver is gone.
        """
        return self.advance_to(self.read().cycle + cycles)

    def advance_to(self, cycle: int) -> Snapshot:
        """Waits for a cycle; see `advance`."""
        if self.config.lockstep:
            self._channel.permit(max(cycle - self.read().cycle, 0))
        while (snapshot := self.read()).cycle < cycle:
            if self._process.poll() is not None:
                raise DriverError(f"the driver of {self.config.port} has ended: {snapshot.reason}")
            self.while_waiting()
            time.sleep(POLL)
        return snapshot

    def engage(self) -> Snapshot:
        """Switches the torque on where the arm is; it does not move. One that parks does so first.

        Raises:
            DriverError: refused; the message says why.
        """
        while self.read().state is State.PARKING:
            self.advance()
        return self._reach(Verb.ENGAGE, State.ENGAGED)

    def stop(self) -> Snapshot:
        """Brakes and holds."""
        return self._reach(Verb.STOP, State.HOLD)

    def park(self) -> Snapshot:
        """Moves to the resting pose and lets go."""
        return self._reach(Verb.PARK, State.LIMP)

    def limp(self) -> Snapshot:
        """Lets go at once: the arm sinks. A fault stays latched."""
        return self._reach(Verb.LIMP, State.LIMP, State.FAULT)

    def estop(self) -> Snapshot:
        """Switches the torque off and latches; `reset_fault` ends it."""
        self.press_estop()
        return self.advance(2)

    def press_estop(self) -> None:
        """The same without waiting for it."""
        self._channel.set_estop(pressed=True)

    def reset_fault(self) -> Snapshot:
        """Ends a fault; the arm holds then, or is limp if that was the fault's reaction.

        Raises:
            DriverError: the cause is still there.
        """
        self._channel.set_estop(pressed=False)
        return self._reach(Verb.RESET_FAULT, State.LIMP, State.HOLD)

    def _reach(self, verb: Verb, *states: State) -> Snapshot:
        """Posts a verb and waits until the arm is in one of the states.

        Raises:
            DriverError: refused, or a fault came in between; the message says why.
        """
        count = self._channel.ask(verb)
        patience = VERB_PATIENCE + self.config.safety.parking
        for _ in range(round(patience * self.config.hz)):
            snapshot = self.advance()
            if snapshot.verbs < count:
                continue
            if snapshot.state in states:
                return snapshot
            if snapshot.state not in PASSING:
                break
        wanted = " or ".join(states)
        raise DriverError(f"the arm is {snapshot.state}, not {wanted}: {snapshot.reason}")

    def move_to(self, goal: np.ndarray) -> Snapshot:
        """Moves all joints together to a pose (J,), and waits until they are told to be there.

        Where something is in the way of that, as the table is for an arm that lies folded, the
        joints go one after the other.

        Raises:
            DriverError: a fault, or something is in the way all the same.
        """
        limits = Limits.of(self.config.arm)  # nearer to an end of its range no joint ever goes
        goal = np.clip(np.asarray(goal, float), limits.low, limits.high)
        snapshot = self._go(goal)
        for _ in range(DETOURS):
            for joint in range(self.config.arm.size):
                if abs(snapshot.goal[joint] - goal[joint]) > ARRIVED:
                    snapshot = self._go(
                        np.where(np.arange(len(goal)) == joint, goal, snapshot.goal)
                    )
        if np.abs(snapshot.goal - goal).max() > ARRIVED:
            where = np.round(goal, 2).tolist()
            raise DriverError(f"the arm cannot get to {where}: {snapshot.reason}")
        return snapshot

    def _go(self, goal: np.ndarray) -> Snapshot:
        """Takes the straight way to a pose (J,), as far as that goes, and settles there."""
        snapshot, still = self.read(), 0
        for goal_now in self._path(snapshot.goal, goal):
            before = snapshot
            self.send(goal_now)
            snapshot = self.advance()
            if snapshot.fault:
                raise DriverError(f"{snapshot.fault}: {snapshot.reason}")
            still = still + 1 if np.array_equal(snapshot.goal, before.goal) else 0
            if still > SETTLE * self.config.hz:
                break
        return snapshot

    def _path(self, start: np.ndarray, goal: np.ndarray) -> Iterator[np.ndarray]:
        """Minimum-jerk goals for every cycle, slow enough not to be limited; then the pose itself.

        For as long as it takes: a program that is too busy to send in time falls behind.

        Reference: Flash and Hogan 1985, "The coordination of arm movements", equation 3.
        """
        limits = Limits.of(self.config.arm, velocity=self.config.safety.velocity)
        seconds = float((np.abs(goal - start) / (PACE * limits.velocity)).max()) * MIN_JERK_PEAK
        steps = max(1, round(seconds * self.config.hz))
        for share in np.arange(1, steps + 1) / steps:
            yield start + (goal - start) * share**3 * (10 - 15 * share + 6 * share**2)
        yield from repeat(goal)

    def close(self) -> None:
        """Ends the driver; what the arm does is `SafetyConfig.on_exit`. Twice is no error."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._channel.close()
        self._join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self) -> None:
        """Waits for the arm to come to rest; Ctrl-C does not shorten that."""
        give_up = time.monotonic() + CLOSE_PATIENCE + self.config.safety.parking
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                self.while_waiting()
                if self.config.lockstep:
                    self._channel.permit(1)
                time.sleep(0.001 if self.config.lockstep else 0.02)
            except KeyboardInterrupt:
                print("the arm is being put to rest; it takes a few seconds", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()


def _nothing() -> None:
    """Nothing to do while waiting."""
