"""A simulated task at the speed of the clock on the wall, perhaps in a window, for a human."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np


class Live(gymnasium.Wrapper):
    """Makes each step last one control period.

    Args:
        env: a simulated task.
        viewer: shows it in MuJoCo's viewer.
        now: the clock, s.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        viewer: bool = False,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(env)
        self._period = 1.0 / env.metadata["render_fps"]
        self._now, self._sleep, self._next = now, sleep, 0.0
        task: Any = env.unwrapped
        self._window = _open_window(task) if viewer else None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        print(f"\r\n{info['task']}\r")  # a terminal that reads single keys wants both
        self._show()
        self._next = self._now() + self._period
        return observation, info

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period; a human who is late begins a new count."""
        result = self.env.step(action)
        self._show()
        self._sleep(max(0.0, self._next - self._now()))
        self._next = max(self._next, self._now()) + self._period
        observation, reward, terminated, truncated, info = result
        return observation, float(reward), terminated, truncated, info

    def _show(self) -> None:
        if self._window is not None:
            self._window.sync()

    def close(self) -> None:
        """Closes the window and the task."""
        if self._window is not None:
            with suppress(Exception):  # the human may have closed it
                self._window.close()
        self.env.close()


def _open_window(task: Any) -> Any:  # noqa: ANN401 (MuJoCo's viewer has no types)
    """MuJoCo's passive viewer.

    Raises:
        ValueError: there is no screen.
    """
    import mujoco.viewer

    try:
        return mujoco.viewer.launch_passive(task.model, task.data, show_left_ui=False)
    except Exception as error:
        raise ValueError(
            f"MuJoCo's viewer cannot open a window ({error}); set DISPLAY, or leave --viewer out"
        ) from error
