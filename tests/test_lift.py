"""envs/lift.py: what counts as success, how episodes start, what the splits change."""

from itertools import combinations, product

import mujoco
import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.envs import lift, scene
from robolearn.envs.expert import Demonstrator, Hand, Style
from robolearn.envs.lift import KINDS, PHRASES, Lift
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

CUBE_8 = {"instruction": "lift the cube to 8 cm"}
CUBE, CAN = 0, 1


@pytest.fixture(scope="module")
def env():
    return Lift(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Ten episodes of the expert: the infos of their steps."""
    env = make_env("robolearn/Lift-v0", obs_type="state")
    return [demonstrate(env, seed) for seed in range(10)]


def demonstrate(env, seed, steps=400):
    env.reset(seed=seed)
    infos = []
    for action, _ in zip(env.unwrapped.expert(stream(seed, "expert")), range(steps), strict=False):
        _, _, terminated, truncated, info = env.step(action)
        infos.append(info)
        if terminated or truncated:
            break
    return infos


@pytest.fixture
def solved(env):
    """Just after success in an episode that asks for the cube at 8 cm."""
    env.reset(seed=0, options=CUBE_8)
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
    state, goal = rows_of(solved, 6)
    state.sensordata[1, [lift.TOUCH.start + CUBE, lift.JAW.start + CUBE]] = 0  # thrown
    state.sensordata[2, lift.JAW.start + CUBE] = 0  # only leans on the fixed jaw
    state.qvel[3, solved.model.joint("cube").dofadr[0] + 2] += 1.1 * lift.SLOW
    state.qpos[4, solved.model.joint("can").qposadr[0]] += 1.1 * lift.OTHERS_MAY_MOVE
    goal[5, lift.NAMED] = CAN
    success, progress = solved.evaluate(state, goal)
    assert success.tolist() == [True, False, False, False, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_the_edge_of_the_tolerance(solved):
    offsets = lift.TOLERANCE * np.array([-1.02, -0.98, 0.0, 0.98, 1.02])
    state, goal = rows_of(solved, len(offsets))
    state.sensordata[:, lift.POINTS.start + 3 * (1 + CUBE) + 2] = goal[:, lift.CENTRE] + offsets
    success, progress = solved.evaluate(state, goal)
    assert success.tolist() == [False, True, True, True, False]
    assert ((progress == 1.0) == success).all()


def test_the_height_is_that_of_the_base_over_the_table(solved):
    base = solved.data.body("cube").xpos[2] - lift.TRAIN[CUBE].size[2] / 2
    assert base == pytest.approx(0.08, abs=lift.TOLERANCE)


def test_what_passes_by_does_not_count(solved):
    """From below the goal to above it, held and slower than the limit, without a stop."""
    hand = Hand(solved, Style.draw(np.random.default_rng(0), Demonstrator()))
    low, high = hand.position - [0, 0, 0.03], hand.position + [0, 0, 0.03]
    for action in hand.move(low, None, 0.0, seconds=1.0):
        solved.step(action)
    ended, held = [], []
    for action in hand.move(high, None, 0.0, seconds=2.0):
        ended.append(solved.step(action)[2])
        held.append(solved.evaluate(solved.state, solved.goal[None])[0][0])
    assert any(held)
    assert not held[-1]
    assert not any(ended)


def test_dropped_at_the_height_does_not_count(solved):
    opened = solved.joints.position(solved.data.qpos)
    opened[-1] = 0.6
    ended = [solved.step(opened)[2] for _ in range(10)]
    assert not any(ended[4:])


def test_out_of_range_names_the_range(env):
    with pytest.raises(ValueError, match="the height in cm is 40; give 3 to 15"):
        env.reset(seed=0, options={"instruction": "lift the cube to 40 cm"})


def test_the_same_scene_whatever_is_asked_for(env):
    one, other = env.draw(3, None), env.draw(3, "raise the bar by 9.5 cm")
    np.testing.assert_array_equal(one.qpos, other.qpos)
    assert other.goal[lift.ASKED] == pytest.approx(0.095)


def test_splits():
    heights = {
        split: {value for _, value in PHRASES.all("all", split).values()}
        for split in ("train", "novel_state")
    }
    assert not heights["train"] & heights["novel_state"]
    train, novel = (Lift(obs_type="state", split=s).model for s in ("train", "novel_object"))
    for kind in KINDS:
        assert not np.array_equal(train.geom(kind).size, novel.geom(kind).size)
        assert not np.array_equal(train.geom(kind).rgba, novel.geom(kind).rgba)


def test_evaluation_of_a_batch_is_that_of_its_rows(solved):
    state, goal = rows_of(solved, 3)
    state.qvel[1] = 1.0
    goal[2] = solved.draw(5, None).goal
    whole = *solved.evaluate(state, goal), solved.environment_state(state, goal)
    for i in range(3):
        row = State(*(part[i : i + 1] for part in state)), goal[i : i + 1]
        alone = *solved.evaluate(*row), solved.environment_state(*row)
        for one, other in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(one[i], other[0])


def test_nothing_overlaps_or_moves_at_the_start(env):
    things = [[env.model.geom(kind).id] for kind in KINDS]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    pairs = [pair for a, b in combinations([*things, arm], 2) for pair in product(a, b)]
    for seed in range(100):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        before = env._bodies.poses(env.data.qpos)[:, :3].copy()
        mujoco.mj_step(env.model, env.data, nstep=20)
        np.testing.assert_allclose(env._bodies.poses(env.data.qpos)[:, :3], before, atol=3e-4)


@pytest.mark.parametrize("split", ["train", "novel_object"])
def test_the_goal_picture_has_the_object_in_the_hand(split):
    env = Lift(obs_type="state", split=split)
    for seed in range(5):
        env.reset(seed=seed)
        env._place(env.data, env.goal_scene(env._start))
        (success,), (progress,) = env.evaluate(env.state, env.goal[None])
        assert success or progress > 0.8
        assert env._pose()[2] == env.goal[lift.CENTRE]


def test_objects_cover_four_pixels(env):
    """The narrowest of them does, from where the camera stands."""
    height = np.tan(np.radians(env.model.cam_fovy[env.model.camera("top").id]) / 2) * 2
    distance = np.hypot(*scene.TOP_EYE)
    smallest = min(min(thing.size[:2]) for thing in lift.TRAIN)
    assert smallest / (height * distance) * env.image_size[0] >= 4.0
