"""Transitions: what was seen after each part of a chunk."""

import numpy as np
import pytest
from test_hindsight import EPISODE, hindsight, windows

from robolearn.episodes import DatasetError
from robolearn.transitions import Transitions

HORIZON, PART = 4, 2  # steps of test_hindsight's chunks


def transitions():
    """Position and picture tell the frame's number; each action leads to the next one."""
    return Transitions(hindsight(), windows("features"), PART, HORIZON)


def visited(batch):
    return batch["visited"]["agent_pos"][..., 0].astype(int)


def test_what_was_seen_is_the_frames_at_the_ends_of_the_parts():
    batch = transitions().draw(np.random.default_rng(0), 300)
    seen = visited(batch)
    assert (seen - seen[:, :1] == [0, 2, 4]).all()
    assert (EPISODE[seen] == EPISODE[seen[:, :1]]).all()
    assert (EPISODE[seen[:, 0]] == batch["episode"]).all()
    assert (batch["visited"]["features"]["top"][..., 0, 0, 0] == seen).all()
    assert (batch["action"][..., 0] == seen[:, :1] + np.arange(1, 5)).all()


def test_chunks_that_reach_beyond_their_episode_are_never_drawn():
    starts = {*visited(transitions().draw(np.random.default_rng(0), 2000))[:, 0].tolist()}
    longer = np.flatnonzero(
        [
            EPISODE[min(k + 4, len(EPISODE) - 1)] == e and k + 4 < len(EPISODE)
            for k, e in enumerate(EPISODE)
        ]
    )
    assert starts == {*longer.tolist()}


def test_whoever_asks_for_a_window_gets_pictures_and_a_goal_too():
    batch = transitions().get(np.array([0, 28]))
    assert visited(batch).tolist() == [[0, 2, 4], [28, 29, 29]]  # the last one is repeated
    assert {"pixels", "goal_pixels", "steps", "mask", "instruction"} <= {*batch}


def test_episodes_that_are_all_too_short_say_so():
    with pytest.raises(DatasetError, match="no episode goes on for more than 40 steps"):
        Transitions(hindsight(), windows("features"), PART, 40)
