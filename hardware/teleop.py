"""Teleoperation: what a human asks of the arm, whatever device is used for it.

A device is engaged while its deadman switch is held. Engaged, it gives absolute joint targets that
begin where the robot is, so that taking over never makes the arm jump; released, or gone, it gives
none and the arm holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np

from robolearn.contract import ArmSpec, limit_action

# What a human can tell besides motion. "end" ends an episode without a verdict.
MARKS: Final = ("success", "failure", "rerecord", "end", "estop")
LONGEST_STEP: Final = 0.1  # s of motion that one read may add, however late it comes
PLAY: Final = 0.01  # contract units; smaller motions of a pickup joint are noise


class TeleopError(OSError):
    """A device cannot be used; the message says what to do."""


@dataclass(frozen=True)
class TeleopSample:
    """What a device says at one moment."""

    time: float  # s, monotonic clock
    action: np.ndarray | None  # float32 (J,), contract units; None unless engaged
    engaged: bool  # the human drives
    marks: frozenset[str] = frozenset()  # some of `MARKS`, each once per press
    alive: bool = True  # False: the device is gone

    @classmethod
    def of(
        cls, time: float, target: np.ndarray | None, marks: frozenset[str] = frozenset()
    ) -> "TeleopSample":
        """The sample of a device that is there: engaged if it has a target."""
        action = None if target is None else target.astype(np.float32)
        return cls(time, action, target is not None, marks)

    @classmethod
    def lost(cls, time: float, marks: frozenset[str] = frozenset()) -> "TeleopSample":
        """The sample of a device that is gone."""
        return cls(time, None, engaged=False, marks=marks, alive=False)


class Teleop(Protocol):
    """A device to drive the arm with; also a context manager."""

    def read(self, position: np.ndarray) -> TeleopSample:
        """What the human asks now, at once.

        Args:
            position: float (J,), where a takeover begins, in contract units. The goal that was
                last sent is best: from the measured position, the arm would first sink by what
                gravity bends it.
        """

    def close(self) -> None:
        """Lets go of the device; doing it twice is no error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        self.close()


class Clutch:
    """Lets the robot follow a device from wherever the two are when it is engaged.

        target = device + offset,   offset = robot - device at the moment of engaging

    With that alone, a gripper that is engaged half open could never close. So the offset of the
    `pickup` joints shrinks as much as the device moves, until robot and device agree: the target
    stands still or moves at up to twice the device's speed, but never jumps.

    Args:
        pickup: indices of such joints.
    """

    def __init__(self, pickup: Sequence[int] = ()) -> None:
        self._pickup = list(pickup)
        self._offset: np.ndarray | None = None
        self._device: np.ndarray = np.empty(0)  # follows the device with some play

    def follow(self, device: np.ndarray, robot: np.ndarray) -> np.ndarray:
        """Returns the target, float64 (J,); the first call after a release engages.

        Args:
            device: (J,) where the device is.
            robot: (J,) where the robot is; looked at only on engaging.
        """
        if self._offset is None:
            self._offset = np.subtract(robot, device, dtype=float)
            self._device = np.array(device, float)
        before, self._device = self._device, np.clip(self._device, device - PLAY, device + PLAY)
        moved = np.abs(self._device - before)[self._pickup]
        self._offset[self._pickup] -= np.clip(self._offset[self._pickup], -moved, moved)
        return device + self._offset

    def release(self) -> None:
        """Forgets the offset."""
        self._offset = None


class Jog:
    """Moves a target by joint velocities.

    Args:
        arm: the target stays within its limits.
    """

    def __init__(self, arm: ArmSpec) -> None:
        self._arm = arm
        self._target: np.ndarray | None = None
        self._time = 0.0

    def follow(self, velocity: np.ndarray, robot: np.ndarray, now: float) -> np.ndarray:
        """Returns the target, float64 (J,); the first call after a release engages.

        Args:
            velocity: (J,), contract units per second.
            robot: (J,), where the target begins; looked at only on engaging.
            now: s.
        """
        if self._target is None:
            self._target, self._time = np.array(robot, float), now
        step = min(now - self._time, LONGEST_STEP)
        self._target = limit_action(self._arm, self._target + velocity * step)
        self._time = now
        return self._target

    def release(self) -> None:
        """Forgets the target."""
        self._target = None


def hands_of(arm: ArmSpec) -> list[range]:
    """The joints of each arm: those up to its gripper."""
    ends = [gripper + 1 for gripper in arm.grippers] or [arm.size]
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]
