"""What goes to the servos: `SafeMotion` makes the goals, `TorqueLimits` the torque limits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.limiter import Limits, MotionLimiter
from robolearn.hardware.safety_types import SafetyConfig

if TYPE_CHECKING:
    from robolearn.hardware.workspace import Workspace

ARRIVED: Final = 1e-6  # units of `agent_pos`: what is no way to go


class SafeMotion:
    """Goals that keep the limits and from which the arm can brake inside its workspace.

    Args:
        arm: the arm.
        config: the thresholds.
        dt: seconds per tick.
        workspace: what poses are allowed; None allows all.
        scale: units of `agent_pos` per rad, (J,).

    Attributes:
        limits: what goals keep.
        objection: why the last `step` did not go where it was told, "" if it did.
    """

    def __init__(
        self,
        arm: ArmSpec,
        config: SafetyConfig,
        dt: float,
        workspace: "Workspace | None",
        scale: np.ndarray,
    ) -> None:
        self.limits = Limits.of(
            arm,
            velocity=config.velocity,
            acceleration=config.acceleration,
            jerk=config.jerk,
            margin=config.range_margin,
            scale=scale,
        )
        self.objection = ""
        self._limiter = MotionLimiter(self.limits, dt)
        self._workspace = workspace
        self._grippers = list(arm.grippers)

    @property
    def goal(self) -> np.ndarray:
        """The last goal, (J,)."""
        return self._limiter.goal

    @property
    def at_rest(self) -> bool:
        """Whether the goal stays where it is unless there is a new target."""
        return self._limiter.at_rest

    def reset(self, position: np.ndarray) -> None:
        """Starts afresh, at rest, at a measured position (J,)."""
        self._limiter.reset(position)
        self.objection = ""

    def step(self, target: np.ndarray | None, *, detour: bool = False) -> np.ndarray:
        """The goal (J,) of this tick on the way to a target (J,); None brakes.

        The arm brakes, too, when the step towards the target would lead to where it could no longer
        brake inside the workspace. The way from here was looked at before the last step.

        Args:
            target: where to go.
            detour: when all joints together cannot go on, try them one by one.
        """
        self.objection = ""
        if target is None:
            return self._limiter.stop()
        before = self._limiter.motion
        for way in (target, *(self._joint_by_joint(target) if detour else ())):
            goal = self._limiter.next(way)
            objection = self._look_ahead(before.goal)
            if not objection:
                self.objection = ""
                return goal
            self.objection = self.objection or objection
            self._limiter.motion = before
        return self._limiter.stop()

    def rest(self, pose: np.ndarray) -> np.ndarray:
        """A pose (J,) in range to rest in; a gripper keeps its goal, as it may hold something."""
        pose = np.array(pose, float)
        pose[self._grippers] = self._limiter.braking_path()[-1, self._grippers]
        return np.clip(pose, self.limits.low, self.limits.high)

    def _joint_by_joint(self, target: np.ndarray) -> Iterator[np.ndarray]:
        """Targets at which one joint goes on and the others brake."""
        rest = self._limiter.braking_path()[-1]
        for joint in np.flatnonzero(np.abs(target - rest) > ARRIVED):
            way = rest.copy()
            way[joint] = target[joint]
            yield way

    def _look_ahead(self, start: np.ndarray) -> str:
        """What the workspace has against this goal or the way on which the arm would brake."""
        if self._workspace is None or np.array_equal(start, self.goal):
            return ""
        since = self._workspace.depths(start)
        for pose in (self.goal, *self._limiter.braking_path()):
            if objection := self._workspace.objection(pose, since):
                return objection
        return ""


class TorqueLimits:
    """Torque limits that come up slowly, go down at once, and go down with heat.

    Args:
        arm: the arm.
        config: the thresholds.
        dt: seconds per tick.

    Attributes:
        share: of the full limits, as of the last tick.
    """

    def __init__(self, arm: ArmSpec, config: SafetyConfig, dt: float) -> None:
        self._config = config
        self._full = np.full(arm.size, config.torque)
        self._full[list(arm.grippers)] = config.gripper_torque
        self._rise = (1.0 - config.engage_torque) * dt / config.ramp_seconds  # per tick
        self.share = config.engage_torque

    def step(self, share: float, temperature: np.ndarray) -> np.ndarray:
        """The limits of this tick, share of stall, (J,).

        Args:
            share: of the full limits that is wanted.
            temperature: deg C, (J,).
        """
        self.share = min(share, self.share + self._rise)
        heat = [self._config.hot, self._config.too_hot]
        return self._full * self.share * np.interp(temperature, heat, [1.0, 0.5])
