"""A thread that keeps Python busy, beside what is measured."""

import threading
import time
from typing import Any

import gymnasium


class Busy:
    """A thread that holds Python's lock as much as it can, as a learner does; a context manager.

    Attributes:
        resting: it lets the others work.
    """

    def __init__(self) -> None:
        self._over = False
        self.resting = True
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self._over:
            if self.resting:
                time.sleep(0.01)
            else:
                sum(range(10_000))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over = True
        self._thread.join()


class Beside(gymnasium.Wrapper):
    """Lets the thread be busy while steps are taken, and rest while the arm goes to its start.

    A program that has no time to send cannot lead the arm anywhere: it holds, as it should.
    """

    def __init__(self, env: gymnasium.Env, busy: Busy) -> None:
        super().__init__(env)
        self.busy = busy

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode while the thread rests."""
        self.busy.resting = True
        try:
            return self.env.reset(seed=seed, options=options)
        finally:
            self.busy.resting = False
