"""envs/reach.py: what counts as success, how episodes start, what the camera sees."""

from collections import Counter
from itertools import product

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs import reach
from robolearn.envs.expert import Demonstrator, Hand, Style
from robolearn.envs.reach import MARKERS, OVER, PHRASES, Reach
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

BLUE = {"instruction": "reach for the blue marker"}
RED_INDEX, BLUE_INDEX = 0, 2


@pytest.fixture(scope="module")
def env():
    return Reach(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Ten episodes of the expert: the infos of their steps."""
    env = make_env("robolearn/Reach-v0", obs_type="state")
    return [demonstrate(env, seed) for seed in range(10)]


@pytest.fixture
def solved(env):
    """Just after success in an episode that asks for the blue marker."""
    env.reset(seed=0, options=BLUE)
    for action in env.expert(stream(0, "expert")):
        if env.step(action)[2]:
            return env
    pytest.fail("the expert never ends")


def rows_of(env, n):
    """Copies of the present state and goal, to be spoilt row by row."""
    state = State(*(np.repeat(part, n, axis=0) for part in env.state))
    return state, np.repeat(env.goal[None], n, axis=0)


def test_the_expert_solves_it(demonstrations):
    assert sum(infos[-1][Info.IS_SUCCESS] for infos in demonstrations) >= 9


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = []
    for infos in demonstrations:
        progress = np.array([info[Info.PROGRESS] for info in infos])
        assert ((progress >= 0.0) & (progress <= 1.0)).all()
        thirds.append([part.mean() for part in np.array_split(progress, 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.05 < second < third - 0.05


def test_each_condition_of_success_counts(solved):
    """From a state that succeeds, each row but the first spoils one condition."""
    state, goal = rows_of(solved, 3)
    state.sensordata[1, reach.VELOCITY] = [0.0, 0.0, 1.1 * reach.SLOW]
    goal[2, reach.PLACE] = state.mocap_pos[2, RED_INDEX]
    success, progress = solved.evaluate(state, goal)
    assert success.tolist() == [True, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_the_edge_of_the_tolerance(env):
    env.reset(seed=0, options=BLUE)
    state, goal = rows_of(env, 8)
    place = env.data.mocap_pos[BLUE_INDEX] + OVER
    axes = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    offsets = np.concatenate([0.98 * axes, 1.02 * axes]) * reach.TOLERANCE
    state.sensordata[:, reach.TOOL], state.sensordata[:, reach.VELOCITY] = place + offsets, 0.0
    assert env.evaluate(state, goal)[0].tolist() == [True] * 4 + [False] * 4


def test_what_passes_by_does_not_count(env):
    env.reset(seed=0, options=BLUE)
    hand = Hand(env, Style.draw(np.random.default_rng(0), Demonstrator()))
    place = env.data.mocap_pos[BLUE_INDEX] + OVER
    for action in hand.move(place + [0.0, 0.03, 0.0], None, 0.0, seconds=2.0):
        env.step(action)
    ended, there = [], []
    for action in hand.move(place - [0.0, 0.03, 0.0], None, 0.0, seconds=1.0):
        ended.append(env.step(action)[2])
        off = env.data.sensordata[reach.TOOL] - place
        there.append(np.linalg.norm(off) < reach.TOLERANCE)
    assert any(there)
    assert not any(ended)


def test_evaluation_of_a_batch_is_that_of_its_rows(solved):
    state, goal = rows_of(solved, 3)
    state.sensordata[1, reach.VELOCITY] = 1.0
    goal[2] = [RED_INDEX, *np.eye(len(MARKERS))[RED_INDEX], *state.mocap_pos[2, RED_INDEX]]
    whole = *solved.evaluate(state, goal), solved.environment_state(state, goal)
    for i in range(3):
        row = State(*(part[i : i + 1] for part in state)), goal[i : i + 1]
        alone = *solved.evaluate(*row), solved.environment_state(*row)
        for one, other in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(one[i], other[0])


def test_nothing_overlaps_at_the_start(env):
    ids = [env.model.body(colour).id for colour in MARKERS]
    markers = [g for g in range(env.model.ngeom) if env.model.geom_bodyid[g] in ids]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    assert len(markers) == 2 * len(MARKERS)
    for seed in range(100):
        env.reset(seed=seed)
        gaps = [
            mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None)
            for pair in product(markers, arm)
        ]
        assert min(gaps) > 0.003, f"seed {seed}"


def test_the_markers_are_apart_and_each_is_asked_for(env):
    starts = [env.draw(seed, None) for seed in range(200)]
    for start in starts:
        off = start.mocap_pos[:, None, :2] - start.mocap_pos[None, :, :2]
        distance = np.linalg.norm(off, axis=-1) + np.eye(len(MARKERS))
        assert distance.min() >= reach.APART
    asked = Counter(int(start.goal[reach.NAMED]) for start in starts)
    assert min(asked[k] for k in range(len(MARKERS))) > 25
    heights = np.concatenate([start.mocap_pos[:, 2] for start in starts])
    assert np.ptp(heights) > 0.08


def test_the_same_scene_whatever_is_asked_for(env):
    one, other = env.draw(3, None), env.draw(3, "please show me the green marker")
    np.testing.assert_array_equal(one.qpos, other.qpos)
    np.testing.assert_array_equal(one.mocap_pos, other.mocap_pos)
    assert other.goal[reach.NAMED] == MARKERS.index("green")
    assert not PHRASES.all("train").keys() & PHRASES.all("held_out").keys()


def test_the_goal_picture_is_a_solved_scene(env):
    for seed in range(10):
        env.reset(seed=seed)
        env._place(env.data, env.goal_scene(env._start))
        assert env.evaluate(env.state, env.goal[None])[0][0], f"seed {seed}"


def test_markers_cover_four_pixels_and_are_in_view(env):
    """All of them, wherever they stand; `top` draws pictures of 48 x 84."""
    height, width = env.image_size
    view = env.data.camera("top")
    focal = height / 2 / np.tan(np.radians(env.model.cam_fovy[env.model.camera("top").id]) / 2)
    for seed in range(50):
        env.reset(seed=seed)
        local = (env.data.mocap_pos - view.xpos) @ view.xmat.reshape(3, 3)
        assert (2 * reach.RADIUS * focal / -local[:, 2]).min() >= 4.0
        pixels = focal * local[:, :2] / -local[:, 2:]
        assert (np.abs(pixels) + 2 <= [width / 2, height / 2]).all()
