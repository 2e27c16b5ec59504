"""envs/sort.py: what counts as sorted, what the words mean, and how two arms share a table."""

from itertools import combinations, product

import mujoco
import numpy as np
import pytest

from robolearn.contract import SIDES, Info
from robolearn.envs import scene, sort
from robolearn.envs.sort import NAMES, PHRASES, THINGS, Sort
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

CUBES_LEFT = {"instruction": "sort the cubes to the left bin and the cylinders to the right bin"}


@pytest.fixture(scope="module")
def env():
    return Sort(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Eight episodes of the expert, one dict for each."""
    env = make_env("robolearn/Sort-v0", obs_type="state", style="left-first")
    return [demonstrate(env, seed) for seed in range(8)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    task, crashes, touches, progress = env.unwrapped, 0, [], []
    sides = side_of_geoms(task.model)
    for action in task.expert(stream(seed, "expert")):
        *_, terminated, truncated, info = env.step(action)
        crashes += crashed(task.data, sides)
        touches.append(task.data.sensordata[sort.TOUCH].reshape(len(SIDES), -1) > 0)
        progress.append(info[Info.PROGRESS])
        if terminated or truncated:
            break
    return {
        "solved": terminated,
        "crashes": crashes,
        "touches": np.array(touches),  # (T, sides, things)
        "progress": np.array(progress),
        "left": task.goal > 0,
    }


def side_of_geoms(model):
    """1 for the geoms of the left arm, -1 for those of the right one, 0 for others."""
    names = [model.body(body).name.split("_")[0] for body in model.geom_bodyid]
    return np.array([{"left": 1, "right": -1}.get(name, 0) for name in names])


def crashed(data, sides):
    """Whether the arms touch each other."""
    return bool((sides[data.contact.geom].prod(1) < 0).any())


def solve(env):
    """Puts every thing where it belongs."""
    env.data.qpos[:] = env.goal_scene(env._start).qpos
    mujoco.mj_forward(env.model, env.data)


def put(env, thing, place, height):
    pose = np.array([*place, height, 1.0, 0.0, 0.0, 0.0])
    scene.put(env.model, env.data, NAMES[thing], pose)


def hold(env, steps):
    """Whether each step of arms that keep still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def test_the_expert_solves_it(demonstrations):
    assert sum(d["solved"] for d in demonstrations) >= 7


def test_progress_grows_along_the_experts_way(demonstrations):
    for d in demonstrations:
        assert (d["progress"] >= 0.0).all()
        assert (d["progress"] <= 1.0).all()
        first, second, third = (part.mean() for part in np.array_split(d["progress"], 3))
        assert first + 0.05 < second < third - 0.05


def test_the_arms_never_touch_each_other(demonstrations):
    assert all(d["crashes"] == 0 for d in demonstrations)


def test_each_arm_fills_its_own_bin_and_the_chosen_one_begins(demonstrations):
    for d in demonstrations:
        if d["solved"]:
            np.testing.assert_array_equal(d["touches"][:, 0].any(0), d["left"])
            np.testing.assert_array_equal(d["touches"][:, 1].any(0), ~d["left"])
            first = d["touches"].any(2).argmax(0)  # step at which each arm touches something
            assert first[0] < first[1]


def test_sorted_things_succeed_after_the_hold_time(env):
    for seed in range(5):
        env.reset(seed=seed)
        solve(env)
        ended, info = hold(env, env.hold_steps)
        assert ended == [False] * (env.hold_steps - 1) + [True]
        assert info[Info.PROGRESS] == 1.0


def test_the_opposite_plan_is_not_met(env):
    env.reset(seed=0, options=CUBES_LEFT)
    solve(env)
    reached = env.data.qpos.copy()
    for plan in sort.PLANS:
        env.reset(seed=0, options={"instruction": f"sort the {plan}"})
        env.data.qpos[:] = reached
        same = sort.PLANS[plan] == sort.KINDS["cubes"]
        ended, info = hold(env, env.hold_steps)
        assert ended[-1] == same
        assert (info[Info.PROGRESS] == 1.0) == same


def test_a_fall_into_the_bin_counts_only_once_it_is_over(env):
    env.reset(seed=0, options=CUBES_LEFT)
    solve(env)
    put(env, 0, env.data.joint(NAMES[0]).qpos[:2], height=0.12)
    ended, _ = hold(env, 25)
    assert not any(ended[: env.hold_steps + 1])
    assert any(ended)


def test_beside_the_bin_fails(env):
    env.reset(seed=0, options=CUBES_LEFT)
    solve(env)
    outside = scene.BIN_INNER + 2 * scene.BIN_WALL + 0.02
    put(env, 0, env.data.mocap_pos[0, :2] + [outside, 0.0], height=0.0126)
    ended, info = hold(env, 10)
    assert not any(ended)
    assert 0.7 < info[Info.PROGRESS] < sort.WORTH


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=0, options=CUBES_LEFT)
    solve(env)
    hold(env, env.hold_steps)
    state = State(*(np.repeat(part, 6, axis=0) for part in env.state))
    state.sensordata[1, sort.TOUCH.start + 3] = 1  # the left gripper touches a thing
    state.sensordata[2, sort.TOUCH.stop - 1] = 1  # so does the right one
    state.qvel[3, env.model.joint(NAMES[2]).dofadr[0] + 2] = 2 * sort.AT_REST
    state.sensordata[4, 2] += 0.05  # above the bin
    state.sensordata[5, 0:3], state.sensordata[5, 6:9] = (
        state.sensordata[0, 6:9],
        state.sensordata[0, 0:3],
    )  # a cube and a cylinder have changed places
    success, progress = env.evaluate(state, np.repeat(env.goal[None], 6, axis=0))
    assert success.tolist() == [True] + [False] * 5
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    states, goals = [], []
    for seed in range(6):
        env.reset(seed=seed)
        if seed % 2:
            solve(env)
        hold(env, 3)
        states.append([part[0].copy() for part in env.state])
        goals.append(env.goal)
    batch, goals = State(*map(np.stack, zip(*states, strict=True))), np.stack(goals)
    success, progress = env.evaluate(batch, goals)
    assert success.tolist() == [False, True] * 3
    for i in range(6):
        row = State(*(part[i : i + 1] for part in batch))
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
        np.testing.assert_array_equal(
            env.environment_state(batch, goals)[i], env.environment_state(row, goals[i : i + 1])[0]
        )


def test_the_words_say_what_belongs_where():
    for instruction, (plan,) in PHRASES.all("all").items():
        left = list(sort.PLANS.values())[plan]
        one, _, other = instruction.partition(" and ")
        to_left = one if "left" in one else other
        for belongs, (colour, shape) in zip(left, THINGS, strict=True):
            assert belongs == (f"{shape}s" in to_left or f"{colour} things" in to_left)


def test_the_same_start_whatever_is_asked_for(env):
    one, other = env.draw(3, None), env.draw(3, CUBES_LEFT["instruction"])
    np.testing.assert_array_equal(one.qpos, other.qpos)
    np.testing.assert_array_equal(one.mocap_pos, other.mocap_pos)


@pytest.mark.parametrize("split", Sort.splits)
def test_nothing_overlaps_or_moves_at_the_start(split):
    env = Sort(obs_type="state", split=split)
    model = env.model
    solid = [g for g in range(model.ngeom) if model.geom_contype[g]]
    parts = {name: [] for name in (*NAMES, "left bin", "right bin", "arms")}
    for g in solid:
        name = model.body(model.geom_bodyid[g]).name
        parts.get(name, parts["arms"] if name.startswith(SIDES) else []).append(g)
    assert all(parts.values())
    pairs = [pair for a, b in combinations(parts.values(), 2) for pair in product(a, b)]
    for seed in range(20):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        before = env.data.qpos[env._things.qpos].copy()
        hold(env, 10)
        np.testing.assert_allclose(env.data.qpos[env._things.qpos], before, atol=1e-3)


def test_the_top_camera_shows_everything_and_things_at_four_pixels(env):
    half = 0.0125
    for seed in range(20):
        env.reset(seed=seed)
        for name in NAMES[:2]:
            assert np.ptp(pixels(env, name, half, -half, half), axis=0).min() >= 4.0
        wall = scene.BIN_INNER + 2 * scene.BIN_WALL
        for name in ("left bin", "right bin"):
            seen = pixels(env, name, wall, 0.0, scene.BIN_HEIGHT)
            assert (seen >= 0).all()
            assert (seen <= env.image_size[::-1]).all()


def pixels(env, body, half, bottom, top):
    """Where the corners of an upright box around a body are in `top`, pixels (8, 2)."""
    view, frame = env.data.camera("top"), env.data.body(body)
    box = np.array(list(product((-half, half), (-half, half), (bottom, top))))
    local = (frame.xpos + box @ frame.xmat.reshape(3, 3).T - view.xpos) @ view.xmat.reshape(3, 3)
    height, width = env.image_size
    focal = height / 2 / np.tan(np.radians(env.model.cam("top").fovy[0]) / 2)
    return focal * local[:, :2] / -local[:, 2:] * [1, -1] + [width / 2, height / 2]
