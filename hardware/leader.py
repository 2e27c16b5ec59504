"""A leader arm: a second, limp SO-101 that the human moves and the robot follows."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from robolearn.contract import limit_action
from robolearn.hardware.bus import Bus, BusError, BusLost
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.teleop import Clutch, Teleop, TeleopError, TeleopSample

MAX_LOST: Final = 3  # cycles in a row without an answer until the leader counts as gone
RECONNECT: Final = 1.0  # s between attempts to open a lost port


class Leader(Teleop):
    """Follows a leader arm from wherever the two arms are when it is engaged.

    The gripper is the exception: it comes to agree with the leader's as that is moved; see
    `Clutch`. A leader that was gone and comes back is engaged anew.

    Args:
        bus: the leader's own; it is opened here, and closed with the pedal, also after an error.
        calibration: of the leader.
        pedal: its deadman switch and its marks count, such as a keyboard's. Without one the leader
            drives all the time, and sets no marks.
        clock: s.

    Raises:
        BusError: the leader does not answer.
        CalibrationError: the calibration is of another arm.
        TeleopError: a joint would not go limp.
    """

    def __init__(
        self,
        bus: Bus,
        calibration: Calibration,
        pedal: Teleop | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus, self._calibration, self._arm = bus, calibration, calibration.arm
        self._pedal, self._clock = pedal, clock
        self._clutch = Clutch(pickup=self._arm.grippers)
        self._position: np.ndarray | None = None
        self._lost, self._retry_at = 0, 0.0
        try:
            self._connect()
            calibration.check_servos(bus)
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        self._bus.connect()
        if stiff := self._bus.release():
            self._bus.close()
            ids = ", ".join(map(str, stiff))
            raise TeleopError(f"servos {ids} of the leader did not go limp; check cables and power")

    def read(self, position: np.ndarray) -> TeleopSample:
        """See `Teleop.read`."""
        now = self._clock()
        device = self._measure(now)
        held = None if self._pedal is None else self._pedal.read(position)
        marks = held.marks if held else frozenset()
        if device is None or (held and not held.alive):
            self._clutch.release()
            return TeleopSample.lost(now, marks)
        if held and not held.engaged:
            self._clutch.release()
            return TeleopSample.of(now, None, marks)
        target = limit_action(self._arm, self._clutch.follow(device, position))
        return TeleopSample.of(now, target, marks)

    def _measure(self, now: float) -> np.ndarray | None:
        """Where the leader is, or was a moment ago; None if it is gone."""
        try:
            self._reconnect(now)
            ticks = self._bus.read_states().position
        except (BusLost, TeleopError):
            self._lost = MAX_LOST
        except BusError:
            self._lost += 1
        else:
            self._lost, self._position = 0, self._calibration.position(ticks)
        return self._position if self._lost < MAX_LOST else None

    def _reconnect(self, now: float) -> None:
        """Opens a lost port again, but not all the time."""
        if not self._bus.is_connected and now >= self._retry_at:
            self._retry_at = now + RECONNECT
            self._connect()

    def close(self) -> None:
        """Closes the bus and the pedal."""
        self._bus.close()
        if self._pedal is not None:
            self._pedal.close()
