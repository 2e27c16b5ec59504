"""`MotionLimiter`: turns any sequence of joint targets into goals that a servo may be sent.

Whatever the targets do, consecutive goals keep a velocity, an acceleration and a jerk, and stay in
the joint range. Each goal is limited against the goal before it, never against the measured
position: an arm that sags under its own weight would otherwise be led downhill step by step.

Two stages. A tracker moves towards the target as fast as it may, and no faster than it can still
stop in time. A moving average over the tracker's last m positions then bounds the jerk: an average
keeps every bound on position, velocity and acceleration, and its acceleration changes by at most
2 a / m per tick. The price is a delay of (m - 1) / 2 ticks.

How fast may the tracker be at distance e from where it must stand? Per tick it moves by v and may
then slow down by d, so from v it needs v + (v - d) + (v - 2 d) + ... With k the number of times
that d can be taken off, this is (k + 1) v - d k (k + 1) / 2, and solved for v

    v = e / (k + 1) + d k / 2,  k = floor((sqrt(1 + 8 e / d) - 1) / 2)

is the greatest speed from which the tracker stops on the spot, exactly.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from robolearn.contract import JAW_RANGE, SAFE_ACCELERATION, SAFE_SPEED, ArmSpec

JERK: Final = 20.0  # 1/s: how much of the acceleration may come in a second


@dataclass(frozen=True)
class Limits:
    """What goals must keep; float64 (J,) each, in the units of `agent_pos`.

    Attributes:
        velocity: units/s.
        acceleration: units/s^2.
        jerk: units/s^3.
        low: the lowest goal.
        high: the highest goal.
    """

    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(
        cls,
        arm: ArmSpec,
        *,
        velocity: float = SAFE_SPEED,
        acceleration: float = SAFE_ACCELERATION,
        jerk: float = JERK * SAFE_ACCELERATION,
        margin: float = 0.02,
        scale: np.ndarray | None = None,
    ) -> Self:
        """The same limits for all joints of an arm.

        Args:
            arm: the arm.
            velocity: rad/s.
            acceleration: rad/s^2.
            jerk: rad/s^3.
            margin: rad to keep from the ends of the range; none for a gripper, which closes fully.
            scale: units of `agent_pos` per rad, (J,); see `units_per_rad`.
        """
        scale = units_per_rad(arm) if scale is None else np.abs(scale)
        inset = np.full(arm.size, margin)
        inset[list(arm.grippers)] = 0.0
        return cls(
            velocity=velocity * scale,
            acceleration=acceleration * scale,
            jerk=jerk * scale,
            low=np.array(arm.low) + inset,
            high=np.array(arm.high) - inset,
        )


def units_per_rad(arm: ArmSpec, jaw_range: float = JAW_RANGE) -> np.ndarray:
    """Units of `agent_pos` per rad, float64 (J,): 1, for a gripper one over the jaw's range."""
    scale = np.ones(arm.size)
    scale[list(arm.grippers)] = 1.0 / jaw_range
    return scale


@dataclass(frozen=True)
class Motion:
    """Where a `MotionLimiter` stands; never changed in place, so it can be kept and put back.

    Attributes:
        at: the tracker's position, (J,).
        rate: the tracker's last step, units per tick, (J,).
        recent: its last m positions, the newest last, (m, J).
    """

    at: np.ndarray
    rate: np.ndarray
    recent: np.ndarray

    @property
    def goal(self) -> np.ndarray:
        """The goal, (J,)."""
        # An average of offsets, so that equal positions average to themselves exactly.
        return self.at + (self.recent - self.at).sum(axis=0) / len(self.recent)


class MotionLimiter:
    """See the module's docstring. Call `next` or `stop` once per tick.

    A start outside the range is kept as it is; from there the goal only moves inwards.

    Args:
        limits: the bounds.
        dt: seconds per tick.

    Attributes:
        motion: where it stands.
    """

    def __init__(self, limits: Limits, dt: float) -> None:
        self.limits = limits
        self._top = limits.velocity * dt  # units per tick
        self._change = limits.acceleration * dt**2  # units per tick, per tick
        self._window = max(1, int(np.ceil((2 * self._change / (limits.jerk * dt**3)).max() - 1e-9)))
        self.reset((limits.low + limits.high) / 2)

    @property
    def goal(self) -> np.ndarray:
        """The last goal, (J,)."""
        return self.motion.goal

    @property
    def at_rest(self) -> bool:
        """Whether `stop` would leave the goal where it is."""
        return not self.motion.rate.any() and bool((self.motion.recent == self.motion.at).all())

    def reset(self, position: np.ndarray) -> np.ndarray:
        """Starts afresh at rest; returns the position (J,) as the goal."""
        at = np.array(position, float)
        self.motion = Motion(at, np.zeros_like(at), np.tile(at, (self._window, 1)))
        return at

    def next(self, target: np.ndarray) -> np.ndarray:
        """The goal (J,) of this tick on the way to a target (J,), which is brought into range."""
        gap = _clip(target, self.limits.low, self.limits.high) - self.motion.at
        return self._move(np.copysign(np.minimum(self._top, self._stoppable(np.abs(gap))), gap))

    def stop(self) -> np.ndarray:
        """The goal (J,) of this tick when braking as fast as allowed; at rest it stays."""
        return self._move(np.zeros_like(self.motion.at))

    def braking_path(self) -> np.ndarray:
        """The goals (K, J), K >= 1, that `stop` would return from here until the arm is at rest."""
        at, rate, recent = self.motion.at, self.motion.rate, self.motion.recent
        ticks = 1 + int(np.ceil((np.abs(rate) / self._change).max()))
        slower = np.abs(rate) - self._change * np.arange(1, ticks + 1)[:, None]
        braking = at + np.cumsum(np.copysign(np.maximum(slower, 0.0), rate), axis=0)
        rest = np.tile(braking[-1], (self._window - 1, 1))
        positions = np.concatenate([recent[1:], braking, rest])
        return sliding_window_view(positions, self._window, axis=0).mean(axis=-1)

    def _move(self, rate: np.ndarray) -> np.ndarray:
        """Steps at the allowed rate that is nearest to the given one, units per tick (J,)."""
        at, last = self.motion.at, self.motion.rate
        rate = _clip(rate, last - self._change, last + self._change)
        # The range is an obstacle to stop at. This never asks for more than `_change` of braking:
        # one tick after the greatest speed that can stop, that speed is smaller by just as much.
        up = self._stoppable(np.maximum(self.limits.high - at, 0.0))
        down = self._stoppable(np.maximum(at - self.limits.low, 0.0))
        rate = _clip(rate, -down, up)
        at = at + rate
        self.motion = Motion(at, rate, np.concatenate([self.motion.recent[1:], at[None]]))
        return self.motion.goal

    def _stoppable(self, distance: np.ndarray) -> np.ndarray:
        """The greatest rate from which the tracker still stops within a distance (J,) >= 0."""
        steps = np.floor((np.sqrt(1 + 8 * distance / self._change) - 1) / 2)
        return distance / (steps + 1) + self._change * steps / 2


def _clip(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(value, low), high)  # np.clip takes twice as long
