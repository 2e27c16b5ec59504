"""When a decision's chunk arrives: so many control steps later, or as soon as it is made.

In simulation time stands still while a policy computes. On an arm it does not: with `Later(0)` the
arm waits, with `InBackground` it goes on with the chunk before. `Later` with more steps is the same
in simulation, where a result must not depend on how busy the machine is.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, Protocol

import numpy as np

Decision = Callable[[], np.ndarray]  # makes a chunk (H, J)
REMEMBERED: Final = 10  # decisions whose longest says how long the next may take


class Arrival(Protocol):
    """One decision at a time, from its beginning to its chunk."""

    def delay(self) -> int:
        """Control steps until a decision that begins now is there, as far as known."""

    def begin(self, decision: Decision, *, wait: bool) -> None:
        """Begins a decision.

        Args:
            decision: makes the chunk.
            wait: there is nothing to do meanwhile: it shall be there when this returns.
        """

    def is_under_way(self) -> bool:
        """Whether a decision has begun whose chunk was not taken yet."""

    def take(self) -> np.ndarray | None:
        """The chunk, once, when it is there; asked once each control step."""

    def end(self) -> None:
        """The episode is over: nothing goes on that could disturb the next one's decisions."""


class Later:
    """The chunk is there a fixed number of control steps after the observation.

    Args:
        steps: that number; 0: the world waits for the decision.
    """

    def __init__(self, steps: int) -> None:
        self._delay, self._left = steps, 0
        self._chunk: np.ndarray | None = None

    def delay(self) -> int:
        """See `Arrival`."""
        return self._delay

    def begin(self, decision: Decision, *, wait: bool) -> None:
        """See `Arrival`."""
        self._chunk, self._left = decision(), 0 if wait else self._delay

    def is_under_way(self) -> bool:
        """See `Arrival`."""
        return self._chunk is not None

    def take(self) -> np.ndarray | None:
        """See `Arrival`."""
        self._left -= 1
        if self._chunk is None or self._left >= 0:
            return None
        chunk, self._chunk = self._chunk, None
        return chunk

    def end(self) -> None:
        """See `Arrival`."""


class InBackground:
    """The chunk is made in a thread while the arm goes on.

    Args:
        period: seconds of a control step.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._worker = ThreadPoolExecutor(1)
        self._running: Future[np.ndarray] | None = None
        self._seconds: deque[float] = deque([0.0], REMEMBERED)

    def delay(self) -> int:
        """The longest of the last decisions; see `Arrival`.

        One that was waited for does not count: a policy's first is far slower than all others.
        """
        return math.ceil(max(self._seconds) / self._period)

    def begin(self, decision: Decision, *, wait: bool) -> None:
        """See `Arrival`."""
        self._running = self._worker.submit(decision if wait else partial(self._timed, decision))
        if wait:
            self._running.exception()

    def _timed(self, decision: Decision) -> np.ndarray:
        begin = time.perf_counter()
        chunk = decision()
        self._seconds.append(time.perf_counter() - begin)
        return chunk

    def is_under_way(self) -> bool:
        """See `Arrival`."""
        return self._running is not None

    def take(self) -> np.ndarray | None:
        """See `Arrival`.

        Raises:
            Exception: whatever the policy raised.
        """
        if self._running is None or not self._running.done():
            return None
        done, self._running = self._running, None
        return done.result()

    def end(self) -> None:
        """Waits for a decision that nobody wants any more: policies keep what they sample with."""
        self._worker.shutdown(cancel_futures=True)
