"""robolearn/contract.py: actions and spaces; what environments make of it is in test_envs.py."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robolearn.contract import (
    SO101,
    ActionError,
    action_space,
    check_action,
    limit_action,
    observation_space,
)


@given(arrays(np.float64, 6, elements=st.floats(allow_nan=True, allow_infinity=True, width=32)))
def test_an_action_is_rejected_or_brought_into_range(action):
    if not np.isfinite(action).all():
        with pytest.raises(ActionError):
            check_action(SO101, action)
        return
    low, high = SO101.limits
    sent = limit_action(SO101, check_action(SO101, action))
    assert sent.dtype == np.float32
    assert (low <= sent).all()
    assert (sent <= high).all()
    np.testing.assert_array_equal(limit_action(SO101, sent), sent)


def test_actions_of_several_arms_are_rejected_whole():
    actions = np.zeros((2, 3, SO101.size))
    assert check_action(SO101, actions, batch=(2, 3)).shape == actions.shape
    with pytest.raises(ActionError, match=r"shape \(2, 3, 6\); so101 takes \(3, 6\)"):
        check_action(SO101, actions, batch=(3,))
    actions[0, :2, 4] = np.nan
    with pytest.raises(ActionError, match="wrist_roll of slot 0 is nan, wrist_roll of slot 1 is"):
        check_action(SO101, actions[0], batch=(3,))


def test_a_checked_action_is_a_copy():
    action = np.zeros(SO101.size, np.float32)
    checked = check_action(SO101, action)
    action[:] = 1.0
    assert not checked.any()


def test_spaces_follow_the_arm():
    space = action_space(SO101)
    assert space.contains(np.float32(SO101.home))
    np.testing.assert_array_equal(space.low, np.float32(SO101.low))
    assert (space.low[-1], space.high[-1]) == (0.0, 1.0)
    full = observation_space(SO101, ("top",), (30, 40), 7, depth=True)
    assert full["pixels"]["top"].shape == (30, 40, 3)
    assert full["depth"]["top"].shape == (30, 40)
    assert full["environment_state"].shape == (7,)
    assert "pixels" not in observation_space(SO101).spaces


def test_an_arm_travels_between_processes():
    low, _ = SO101.limits
    again = pickle.loads(pickle.dumps(SO101))
    assert again == SO101
    np.testing.assert_array_equal(again.limits[0], low)
