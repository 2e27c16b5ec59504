"""Goals in hindsight: later frames of the same episode, and the actions up to them."""

import numpy as np
import pytest

from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight
from robolearn.policies.configs import HindsightConfig
from robolearn.policies.hashing import Hashing
from robolearn.windows import Windows

LENGTHS = np.array([30, 1, 12, 2])
FRAMES = int(LENGTHS.sum())
EPISODE = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
HASHING = Hashing(near=4, stride=2, far=3, furthest=10)


def windows(kind="pixels"):
    """Position and picture tell the frame's number; each action leads to the next one."""
    number = np.arange(FRAMES, dtype=np.float32)
    columns = {"agent_pos": number[:, None], "action": number[:, None] + 1.0}
    shown = number.astype(np.uint8)[:, None, None, None]
    pixels = np.broadcast_to(shown, (FRAMES, 2, 2, 3))
    return Windows(4, LENGTHS, ["go"] * len(LENGTHS), columns, {kind: {"top": pixels}})


def hindsight(**changes):
    settings = {"furthest": 10, "finals": 0.3, "jitter": 0.0, **changes}
    return Hindsight(windows(), HindsightConfig(**settings), HASHING, windows("features"))


def drawn(count=400, **changes):
    return hindsight(**changes).draw(np.random.default_rng(0), count)


def test_a_goal_is_a_later_frame_of_the_same_episode_as_many_steps_away():
    batch = drawn()
    now = batch["agent_pos"][:, 0].astype(int)
    goal = batch["goal_pixels"]["top"][:, 0, 0, 0].astype(int)
    assert (goal - now == batch["steps"]).all()
    assert (EPISODE[goal] == EPISODE[now]).all()
    assert batch["steps"].min() == 1
    assert batch["steps"].max() == 10


def test_distances_are_spread_over_their_logarithm_and_some_are_the_end():
    steps = drawn(4000, finals=0.0)["steps"]
    assert (steps == 1).mean() > 2.0 * (steps == 4).mean() > 0.0
    ends = drawn(4000, finals=1.0)
    goal = ends["goal_pixels"]["top"][:, 0, 0, 0].astype(int)
    last = np.cumsum(LENGTHS)[EPISODE[goal]] - 1
    assert ((goal == last) | (ends["steps"] == 10)).all()


def test_near_actions_lead_from_frame_to_frame_and_stay_at_the_goal():
    batch = drawn()
    moved = batch["action"][:, :, 0] - batch["agent_pos"]
    wanted = np.minimum(np.arange(1, 5), batch["steps"][:, None])
    assert (moved == wanted).all()
    assert batch["mask"].all()


def test_far_actions_and_frames_are_those_of_the_hashed_steps():
    batch = drawn()
    offsets, valid = HASHING.far_offsets(batch["steps"])
    assert (batch["far_action"][:, :, 0] - batch["agent_pos"] == offsets).all()
    assert (batch["far_valid"] == valid).all()
    frames = batch["future"]["top"][:, :, 0, 0, 0] - batch["agent_pos"]
    assert (frames == HASHING.offsets(batch["steps"])).all()


def test_waypoints_are_seen_on_the_way_and_never_beyond_the_goal():
    ahead = {"then": 2, "subgoal": 6}
    settings = HindsightConfig(furthest=10, finals=0.3, jitter=0.0)
    sampler = Hindsight(windows(), settings, waypoints=ahead)
    batch = sampler.draw(np.random.default_rng(0), 400)
    for name, steps in ahead.items():
        seen = batch[name]["agent_pos"][:, 0]
        assert (seen - batch["agent_pos"][:, 0] == np.minimum(steps, batch["steps"])).all()
        assert (seen == batch[name]["pixels"]["top"][:, 0, 0, 0]).all()
        assert "action" not in batch[name]


def test_waypoints_have_a_light_of_their_own():
    sampler = Hindsight(windows(), HindsightConfig(jitter=0.2), waypoints={"then": 0})
    batch = sampler.draw(np.random.default_rng(0), 200)
    here, there = (seen["pixels"]["top"] for seen in (batch, batch["then"]))
    assert (here != there).any()
    assert np.abs(here.astype(float) - there).mean() < 40.0


def test_without_a_choice_the_goal_is_the_end_as_far_as_it_goes():
    batch = hindsight().get(np.arange(FRAMES))
    remaining = np.concatenate([np.arange(n)[::-1] for n in LENGTHS])
    assert (batch["steps"] == np.clip(remaining, 1, 10)).all()
    goal = batch["goal_pixels"]["top"][:, 0, 0, 0].astype(int)
    assert (goal == np.arange(FRAMES) + np.minimum(remaining, 10)).all()


def test_light_changes_otherwise_in_observation_and_goal():
    still = windows()
    still._views["pixels"]["top"] = np.full((FRAMES, 2, 2, 3), 120, np.uint8)
    batch = Hindsight(still, HindsightConfig(furthest=10, jitter=0.2)).draw(
        np.random.default_rng(0), 50
    )
    now, goal = (batch[kind]["top"].astype(float) for kind in ("pixels", "goal_pixels"))
    assert abs(np.corrcoef(now[:, 0, 0, 0], goal[:, 0, 0, 0])[0, 1]) < 0.5
    assert 2.0 < np.abs(now - goal).mean() < 40.0


@pytest.mark.parametrize("changes", [{"furthest": 0}, {"finals": 1.5}, {"jitter": -0.1}])
def test_settings_that_draw_no_goal_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        HindsightConfig(**changes)


def test_episodes_of_one_frame_have_no_goal():
    columns = {"agent_pos": np.zeros((2, 1)), "action": np.zeros((2, 1))}
    single = Windows(4, [1, 1], ["go"] * 2, columns, {})
    with pytest.raises(DatasetError, match="no episode has a later frame"):
        Hindsight(single, HindsightConfig())
