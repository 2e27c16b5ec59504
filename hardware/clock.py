"""Clocks of the driver: the wall clock, and a lockstep clock for tests and exact repetition."""

import time
from collections.abc import Callable
from typing import Final, Protocol

POLL: Final = 0.0002  # s between looks for a permit
PATIENCE: Final = 0.1  # s to look for one before the caller may look after other things


class Clock(Protocol):
    """What paces the driver's cycles."""

    def now(self) -> float:
        """Seconds; never goes back, whatever is done to the system's clock."""

    def wait_until(self, deadline: float) -> bool:
        """Waits for the deadline; False: not reached yet, ask again."""


class WallClock:
    """The system's monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary moment, the same for all processes of the machine."""
        return time.monotonic()

    def wait_until(self, deadline: float) -> bool:
        """Sleeps until the deadline."""
        if (left := deadline - time.monotonic()) > 0:
            time.sleep(left)
        return True


class LockstepClock:
    """Advances by one period for every cycle that is permitted; else time stands still.

    Args:
        period: s.
        permitted: tells how many cycles are permitted so far.
    """

    def __init__(self, period: float, permitted: Callable[[], float]) -> None:
        self._period, self._permitted, self._ticks = period, permitted, 0

    def now(self) -> float:
        """Seconds of permitted time."""
        return self._ticks * self._period

    def wait_until(self, deadline: float) -> bool:
        """Waits for one more permit, whatever the deadline."""
        del deadline
        give_up = time.monotonic() + PATIENCE
        while self._permitted() <= self._ticks:
            if time.monotonic() > give_up:
                return False
            time.sleep(POLL)
        self._ticks += 1
        return True
