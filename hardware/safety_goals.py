"""`Inbox`: the goals that arrive, checked before anything is computed with them."""

import numpy as np

from robolearn.contract import ActionError, ArmSpec, check_action
from robolearn.hardware.safety_types import Request, SafetyConfig


class Inbox:
    """Keeps the newest valid goal and knows how stale it is.

    Args:
        arm: the arm.
        config: the thresholds.

    Attributes:
        goal: the newest valid goal, (J,); None: there was none since `clear`.
        rejected: how many goals were rejected so far.
    """

    def __init__(self, arm: ArmSpec, config: SafetyConfig) -> None:
        self._arm, self._config = arm, config
        self.rejected = 0
        self.clear(0.0)

    def clear(self, now: float) -> None:
        """Forgets the goal; goals that were made before now will not count."""
        self.goal: np.ndarray | None = None
        self._opened = self._arrived = now
        self._heard = np.nan  # the time stamp of the last goal, valid or not
        self._rejects = 0  # in a row
        self._camera_age = 0.0

    def take(self, now: float, request: Request) -> str:
        """Takes the goal of a request if it is valid; says why if it is not.

        The same goal may lie there for many ticks: it becomes stale, and is rejected only once.
        """
        if request.goal is None or request.goal_time < self._opened:
            return ""
        new, self._heard = request.goal_time != self._heard, request.goal_time
        try:
            if not np.isfinite(request.goal_time):
                raise ActionError(f"the goal's time is {request.goal_time}")
            check_action(self._arm, request.goal)
        except (ValueError, TypeError) as error:  # the second: not even numbers
            self.rejected += new
            self._rejects += new
            return str(error) if new and self._rejects == 1 else ""
        self.goal = np.array(request.goal, float)
        if new:
            # A time stamp of the future must not keep a goal fresh for ever.
            self._arrived, self._rejects = min(request.goal_time, now), 0
            self._camera_age = request.camera_age
        return ""

    def why_hold(self, now: float) -> str:
        """Why the goal should not be followed; "" if it should."""
        config = self._config
        if self._rejects >= config.max_rejects:
            return f"{self._rejects} invalid goals in a row"
        if now - self._arrived > config.stale_goal:
            return f"no goal for {now - self._arrived:.2f} s"
        if not self._camera_age <= config.stale_camera:  # NaN, too
            return f"the newest picture is {self._camera_age:.2f} s old"
        return ""

    @property
    def camera_is_dead(self) -> bool:
        """Whether goals keep arriving although a camera is frozen."""
        return not self._camera_age <= self._config.dead_camera
