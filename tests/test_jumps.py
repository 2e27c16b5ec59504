"""Jumps: found where the agent begins a chunk, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import toy
from test_agent import Scripted, first_joint

from robolearn.agent import PolicyAgent
from robolearn.jumps import jumps, moves_of


@pytest.mark.parametrize(
    ("every", "delay"), [(1, 0), (2, 0), (3, 0), (2, 1), (3, 2), (2, 2), (1, 3), (3, 5)]
)
def test_borders_are_where_the_agent_changes_over(every, delay):
    """Chunks of this policy differ by a hundred, and their steps by one or, starved, by nothing."""
    agent = PolicyAgent(Scripted(), replan_every=every, delay=delay, guided=False)
    agent.reset(0, 1, "go")
    moves = np.abs(np.diff(first_joint(agent, 30)))
    found = jumps([moves], every, delay)
    assert found["border_p50"] > 90
    assert found.get("inside_p99", 0.0) <= 1
    assert ("inside_p99" in found) == (every > 1 or delay > 0)


def test_a_move_is_the_largest_share_of_a_joints_range():
    episode = toy.example()
    action = np.zeros_like(episode.action)
    action[1] = [0.1, 0.0, 0.1]  # the gripper's range is half of that of the others
    action[2] = [0.5, 0.0, 0.1]
    moves = moves_of(replace(episode, action=action))
    np.testing.assert_allclose(moves[:3], [0.1, 0.2, 0.25], atol=1e-6)


def test_episodes_are_counted_each_from_its_own_start():
    assert jumps([np.array([0.0, 9.0, 0.0]), np.array([0.0, 9.0])], 2, 0) == {
        "border_p50": 9.0,
        "border_p99": 9.0,
        "inside_p50": 0.0,
        "inside_p99": 0.0,
    }
