"""Temporal hashing: whole numbers, in order, up to the goal, for all K, P, M and r."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.policies.hashing import Hashing, far_points

SPACINGS = ("geometric", "printed", "exponential", "uniform")


@st.composite
def hashings(draw, spacings=(*SPACINGS, "none")):
    stride = draw(st.integers(1, 9))
    return Hashing(
        near=stride * draw(st.integers(1, 9)),
        stride=stride,
        far=draw(st.integers(1, 12)),
        furthest=draw(st.integers(1, 400)),
        spacing=draw(st.sampled_from(spacings)),
    )


@given(hashings(), st.data())
def test_offsets_are_whole_numbers_in_order_up_to_the_goal(hashing, data):
    goal = data.draw(st.integers(1, hashing.furthest))
    offsets = hashing.offsets(np.array([goal]))[0]
    assert offsets.dtype == np.int64
    assert offsets.shape == (hashing.frames,)
    assert offsets.min() >= 1
    assert offsets.max() <= goal
    assert (np.diff(offsets) >= 0).all()


@given(hashings(), st.data())
def test_the_near_part_is_dense_and_clamped_to_the_goal(hashing, data):
    goal = data.draw(st.integers(1, hashing.furthest))
    wanted = [min(k, goal) for k in range(1, hashing.near + 1) if k % hashing.stride == 0]
    assert hashing.near_offsets(np.array([goal]))[0].tolist() == wanted


@given(hashings(SPACINGS), st.data())
def test_far_points_increase_strictly_where_they_are_and_end_at_the_goal(hashing, data):
    goal = data.draw(st.integers(1, hashing.furthest))
    (far,), (valid,) = hashing.far_offsets(np.array([goal]))
    assert valid.sum() == min(hashing.far, max(goal - hashing.near, 0))
    there = [*far[valid].tolist()]
    assert all(a < b for a, b in pairwise([hashing.near, *there]))
    assert far[-1] == goal
    assert (far[~valid] == goal).all()


@given(st.integers(1, 60), st.integers(0, 400), st.integers(1, 12), st.sampled_from(SPACINGS))
def test_a_goal_within_reach_has_no_far_points(near, beyond, count, spacing):
    points = far_points(near + beyond, near, count, spacing)
    assert len(points) == min(count, beyond)
    assert far_points(near, near, count, spacing) == []


@given(st.integers(1, 60), st.integers(1, 400), st.integers(2, 12))
def test_gaps_shrink_as_printed_and_grow_geometrically(near, beyond, count):
    goal = near + beyond * count  # so that no guard moves a point
    for spacing, sign in (("printed", -1), ("geometric", 1)):
        gaps = np.diff([near, *far_points(goal, near, count, spacing)])
        kept = gaps[gaps > 1] if spacing == "geometric" else gaps  # one step is the least there is
        assert (sign * np.diff(kept) >= -1).all(), (spacing, gaps)


@pytest.mark.parametrize(
    ("spacing", "goal", "wanted"),
    [
        ("printed", 100, [50, 69, 81, 91, 100]),
        ("geometric", 100, [28, 38, 53, 72, 100]),
        ("exponential", 100, [21, 25, 33, 53, 100]),
        ("uniform", 100, [36, 52, 68, 84, 100]),
        ("printed", 23, [21, 22, 23]),
    ],
)
def test_far_points_of_a_known_case(spacing, goal, wanted):
    assert far_points(goal, 20, 5, spacing) == wanted


def test_a_short_way_reaches_the_goal_where_a_rounded_logarithm_misses_it():
    (far,), (valid,) = Hashing(54, 6, 9, 300, "printed").far_offsets(np.array([58]))
    assert far.tolist() == [55, 56, 57, 58, 58, 58, 58, 58, 58]
    assert valid.sum() == 4


def test_goals_beyond_the_furthest_count_as_the_furthest():
    hashing = Hashing(4, 2, 2, 10)
    assert (hashing.offsets(np.array([99, 0])) == hashing.offsets(np.array([10, 1]))).all()


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"stride": 3}, "divide"), ({"far": 0}, "far"), ({"spacing": "log"}, "spacing")],
)
def test_settings_that_give_no_whole_numbers_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        Hashing(**{"near": 4, "stride": 2, "far": 2, "furthest": 10, **changes})
