"""envs/stack.py: what counts as a tower, which orders are asked for, how episodes start."""

from collections import Counter
from itertools import combinations, permutations, product

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs import scene, stack
from robolearn.envs.stack import CUBES, PHRASES, Stack
from robolearn.envs.task import State
from robolearn.registry import make_env

TOWER = {"instruction": "put the green cube on the red cube, then the blue one on top"}
RED, GREEN, BLUE = 0, 1, 2


@pytest.fixture(scope="module")
def env():
    return Stack(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Eight episodes of the expert: the infos of their steps."""
    env = make_env("robolearn/Stack-v0", obs_type="state")
    return [demonstrate(env, seed) for seed in range(8)]


def put(env, *cubes, aside=0.0, lift=0.0):
    """Stacks cubes, from the bottom up, where the first of them is; each so far aside, m."""
    place = env._pose(cubes[0])[:2].copy()
    for storey, cube in enumerate(cubes):
        pose = scene.upright(place + [storey * aside, 0.0], 0.2, env._side, storey * env._side)
        pose[2] += lift * (storey > 0)
        scene.put(env.model, env.data, CUBES[cube], pose)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def test_the_expert_solves_it(demonstrations):
    assert sum(infos[-1][Info.IS_SUCCESS] for infos in demonstrations) >= 7


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = []
    for infos in demonstrations:
        progress = np.array([info[Info.PROGRESS] for info in infos])
        assert ((progress >= 0.0) & (progress <= 1.0)).all()
        thirds.append([part.mean() for part in np.array_split(progress, 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.05 < second < third - 0.05


def test_the_named_tower_succeeds_after_the_hold_time(env):
    env.reset(seed=0, options=TOWER)
    put(env, RED, GREEN, BLUE)
    ended, info = hold(env, steps=env.hold_steps + 2)
    assert not any(ended[: env.hold_steps - 1])
    assert ended[-1]
    assert info[Info.PROGRESS] == 1.0


@pytest.mark.parametrize("order", list(permutations((RED, GREEN, BLUE)))[1:])
def test_every_other_order_fails(env, order):
    env.reset(seed=0, options=TOWER)
    put(env, *order)
    ended, info = hold(env, steps=10)
    assert not any(ended)
    assert info[Info.PROGRESS] < 1.0


def test_two_of_three_fail(env):
    for cubes, least in (((RED, GREEN), 0.45), ((GREEN, BLUE), 0.0)):
        env.reset(seed=0, options=TOWER)
        put(env, *cubes)
        ended, info = hold(env, steps=10)
        assert not any(ended)
        assert least <= info[Info.PROGRESS] < 0.9


def test_a_tower_that_falls_from_above_counts_only_once_it_rests(env):
    env.reset(seed=0, options=TOWER)
    put(env, RED, GREEN, BLUE, lift=0.01)
    ended, _ = hold(env, steps=20)
    assert not any(ended[: env.hold_steps])
    assert ended[-1]


def test_how_far_aside_a_cube_may_be(env):
    for aside, counts in ((0.45, True), (0.55, False)):
        env.reset(seed=0, options=TOWER)
        put(env, RED, GREEN)
        pose = scene.upright(env._pose(GREEN)[:2], 0.2, env._side, 2 * env._side)
        pose[0] += aside * env._side
        scene.put(env.model, env.data, CUBES[BLUE], pose)
        mujoco.mj_forward(env.model, env.data)
        assert env.evaluate(env.state, env.goal[None])[0][0] == counts


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=0, options=TOWER)
    put(env, RED, GREEN, BLUE)
    hold(env, steps=env.hold_steps)
    state = State(*(np.repeat(part, 5, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 5, axis=0)
    state.sensordata[1, stack.TOUCH.start + BLUE] = 1  # still held
    state.qvel[2, env.model.joint("red").dofadr[0]] = 2 * stack.AT_REST
    state.sensordata[3, 3 * (1 + BLUE) + 2] += 2 * stack.FLAT
    state.sensordata[4, 3 * (1 + GREEN)] += env._side
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True, False, False, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()
    for i in range(5):  # and the batch is its rows
        row = State(*(part[i : i + 1] for part in state))
        alone = env.evaluate(row, goal[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])


def test_every_order_is_asked_for_and_none_names_a_cube_twice(env):
    known = PHRASES.all("train")
    assert set(known.values()) == set(permutations(range(3)))
    drawn = Counter(known[env.draw(seed, None).instruction] for seed in range(300))
    assert min(drawn.values()) > 300 / 6 / 2
    with pytest.raises(ValueError, match="names a cube twice; try for example"):
        env.reset(seed=0, options={"instruction": "make a tower with red on red on blue"})
    assert not known.keys() & PHRASES.all("held_out").keys()


def test_the_same_scene_whatever_is_asked_for(env):
    one, other = env.draw(3, None), env.draw(3, TOWER["instruction"])
    np.testing.assert_array_equal(one.qpos, other.qpos)
    assert (other.goal[stack.ORDER] - stack.FIRST).tolist() == [RED, GREEN, BLUE]


def test_nothing_overlaps_or_moves_at_the_start(env):
    cubes = [[env.model.geom(colour).id] for colour in CUBES]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    pairs = [pair for a, b in combinations([*cubes, arm], 2) for pair in product(a, b)]
    for seed in range(60):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        before = env._cubes.poses(env.data.qpos)[:, :3].copy()
        mujoco.mj_step(env.model, env.data, nstep=20)
        np.testing.assert_allclose(env._cubes.poses(env.data.qpos)[:, :3], before, atol=3e-4)


@pytest.mark.parametrize("split", stack.Stack.splits)
def test_the_goal_picture_is_a_solved_scene(split):
    env = Stack(obs_type="state", split=split)
    for seed in range(4):
        env.reset(seed=seed)
        env._place(env.data, env.goal_scene(env._start))
        assert env.evaluate(env.state, env.goal[None])[0][0]
