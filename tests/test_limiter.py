"""hardware/limiter.py: whatever the targets do, the goals keep their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.contract import SO101
from robolearn.hardware.limiter import Limits, MotionLimiter, units_per_rad

LIMITS = Limits.of(SO101)
PERIODS = st.sampled_from([0.01, 0.02, 0.05])
# Where a target is, in shares of the range: also beyond it, at its ends, and very near together.
SHARES = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([0.0, 1.0, 0.5, 0.5 + 1e-9, 1e30, -1e30]))
# Targets, each kept for some ticks; None brakes.
PLANS = st.lists(st.tuples(st.none() | SHARES, st.integers(1, 30)), min_size=1, max_size=12)


def within(share):
    """A pose at a share of every joint's range."""
    return LIMITS.low + share * (LIMITS.high - LIMITS.low)


def run(limiter, plan):
    """The goals that a plan makes, (ticks, J)."""
    goals = []
    for share, ticks in plan:
        # Joints far from each other, so that they do not all move alike.
        target = None if share is None else within(share) * [1, -1, 0.3, 1, -0.1, 1]
        goals += [limiter.stop() if share is None else limiter.next(target) for _ in range(ticks)]
    return np.array(goals)


@given(PLANS, st.floats(0, 1), PERIODS)
def test_goals_keep_velocity_acceleration_jerk_and_range(plan, start, dt):
    limiter = MotionLimiter(LIMITS, dt)
    at_rest = [limiter.reset(within(start))] * 3
    goals = np.vstack([at_rest, run(limiter, plan)])
    for order, bound in enumerate((LIMITS.velocity, LIMITS.acceleration, LIMITS.jerk), start=1):
        steps = np.abs(np.diff(goals, order, axis=0))
        assert (steps <= bound * dt**order + 1e-9).all()
    assert (goals >= LIMITS.low).all()
    assert (goals <= LIMITS.high).all()


@given(st.floats(0, 1), st.floats(-0.5, 1.5), PERIODS)
def test_a_constant_target_is_reached_exactly_and_without_overshoot(start, share, dt):
    limiter = MotionLimiter(LIMITS, dt)
    begin, end = limiter.reset(within(start)), within(np.clip(share, 0, 1))
    goals = [limiter.next(within(share)) for _ in range(round(5 / dt))]
    np.testing.assert_array_equal(goals[-1], end)
    assert limiter.at_rest
    low, high = np.minimum(begin, end), np.maximum(begin, end)
    assert (goals >= low - 1e-12).all()
    assert (goals <= high + 1e-12).all()


def test_a_target_that_stays_does_not_drift():
    limiter = MotionLimiter(LIMITS, 0.02)
    limiter.reset(within(0.1))
    target = within(1 / 3)
    held = [limiter.next(target) for _ in range(3000)][300:]
    assert (np.array(held) == target).all()


def test_a_long_way_is_gone_at_the_allowed_speed():
    """1 rad/s^2 and 1 rad/s over 3 rad would take 1 + 3 seconds; the average adds half a window."""
    limits = Limits.of(SO101, velocity=1.0, acceleration=1.0, jerk=20.0, margin=0.0)
    limiter = MotionLimiter(limits, 0.01)
    start = limiter.reset(np.array([-1.5, 0, 0, 0, 0, 0.5]))
    target = start + [3, 0, 0, 0, 0, 0]
    goals = np.array([limiter.next(target) for _ in range(500)])
    arrived = np.flatnonzero(goals[:, 0] == target[0])[0] * 0.01
    assert arrived == pytest.approx(4.0 + 0.1, abs=0.03)
    assert np.diff(goals[:, 0]).max() == pytest.approx(0.01)


@given(PLANS, PERIODS)
def test_the_braking_path_is_what_stop_does(plan, dt):
    limiter = MotionLimiter(LIMITS, dt)
    limiter.reset(within(0.5))
    run(limiter, plan)
    path = limiter.braking_path()
    np.testing.assert_allclose([limiter.stop() for _ in path], path, atol=1e-12)
    np.testing.assert_allclose(limiter.stop(), path[-1], atol=1e-12)
    assert (path >= LIMITS.low - 1e-12).all()
    assert (path <= LIMITS.high + 1e-12).all()


@given(PLANS, st.floats(0.01, 0.3))
def test_from_outside_the_range_the_goal_only_comes_back(plan, beyond):
    limiter = MotionLimiter(LIMITS, 0.02)
    start = limiter.reset(np.where(np.arange(6) % 2, LIMITS.high + beyond, LIMITS.low - beyond))
    np.testing.assert_array_equal(limiter.goal, start)
    goals = np.vstack([[start] * 3, run(limiter, plan)])
    outside = np.maximum(np.maximum(goals - LIMITS.high, LIMITS.low - goals), 0)
    assert (np.diff(outside, axis=0) <= 1e-12).all()
    assert (np.abs(np.diff(goals, 2, axis=0)) <= LIMITS.acceleration * 0.02**2 + 1e-9).all()


def test_a_kept_motion_can_be_put_back():
    limiter = MotionLimiter(LIMITS, 0.02)
    limiter.reset(within(0.2))
    run(limiter, [(0.9, 10)])
    kept = limiter.motion
    goals = run(limiter, [(0.9, 5), (0.0, 5)])
    limiter.motion = kept
    np.testing.assert_array_equal(run(limiter, [(0.9, 5), (0.0, 5)]), goals)


def test_limits_of_an_arm():
    limits = Limits.of(SO101, velocity=2.0, margin=0.1)
    jaw = 1.92  # rad between closed and open
    np.testing.assert_allclose(limits.velocity, [2, 2, 2, 2, 2, 2 / jaw])
    np.testing.assert_allclose(limits.low, [*(np.array(SO101.low[:5]) + 0.1), 0.0])
    np.testing.assert_allclose(limits.high, [*(np.array(SO101.high[:5]) - 0.1), 1.0])
    doubled = Limits.of(SO101, scale=-2 * units_per_rad(SO101))  # a servo that counts backwards
    np.testing.assert_allclose(doubled.jerk, 2 * LIMITS.jerk)
    np.testing.assert_allclose(doubled.low[5], 0.0)
