"""envs/handover.py: what counts as handed over, and that two arms really hand it over."""

from itertools import combinations, product

import mujoco
import numpy as np
import pytest

from robolearn.contract import SIDES, Info
from robolearn.envs import handover, scene
from robolearn.envs.handover import BARS, Handover
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

RED = {"instruction": "move the red bar to the opposite mat"}


@pytest.fixture(scope="module")
def env():
    return Handover(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Eight episodes of the expert, one dict for each."""
    env = make_env("robolearn/Handover-v0", obs_type="state")
    return [demonstrate(env, seed) for seed in range(8)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    task, crashes, touches, heights, progress = env.unwrapped, 0, [], [], []
    named, receiver = task.goal[:2].astype(int)
    sides = side_of_geoms(task.model)
    for action in task.expert(stream(seed, "expert")):
        *_, terminated, truncated, info = env.step(action)
        crashes += crashed(task.data, sides)
        touches.append(task.data.sensordata[handover.TOUCH].reshape(2, 2)[:, named] > 0)
        heights.append(task.data.body(f"{BARS[named]} bar").xpos[2])
        progress.append(info[Info.PROGRESS])
        if terminated or truncated:
            break
    return {
        "solved": terminated,
        "crashes": crashes,
        "giver": np.array(touches)[:, 1 - receiver],
        "receiver": np.array(touches)[:, receiver],
        "heights": np.array(heights),
        "progress": np.array(progress),
    }


def side_of_geoms(model):
    """1 for the geoms of the left arm, -1 for those of the right one, 0 for others."""
    names = [model.body(body).name.split("_")[0] for body in model.geom_bodyid]
    return np.array([{"left": 1, "right": -1}.get(name, 0) for name in names])


def crashed(data, sides):
    """Whether the arms touch each other."""
    return bool((sides[data.contact.geom].prod(1) < 0).any())


def solve(env):
    """Lays the named bar where it belongs."""
    env.data.qpos[:] = env.goal_scene(env._start).qpos
    mujoco.mj_forward(env.model, env.data)


def lay(env, off=(0.0, 0.0), yaw=0.0, above=0.0):
    """Lays the named bar so far off the middle of its mat, at rest."""
    named, receiver = env.goal[:2].astype(int)
    place = env.data.mocap_pos[receiver, :2] + off
    pose = scene.upright(place, yaw, handover.BAR_WIDTH, above)
    scene.put(env.model, env.data, f"{BARS[named]} bar", pose)


def hold(env, steps):
    """Whether each step of arms that keep still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def test_the_expert_solves_it(demonstrations):
    assert sum(d["solved"] for d in demonstrations) >= 7


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = []
    for d in demonstrations:
        assert (d["progress"] >= 0.0).all()
        assert (d["progress"] <= 1.0).all()
        thirds.append([part.mean() for part in np.array_split(d["progress"], 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.05 < second < third - 0.05


def test_the_bar_changes_hands_in_the_air(demonstrations):
    for d in demonstrations:
        both = d["giver"] & d["receiver"]
        assert both.any()
        assert (d["heights"][both] > 0.06).all()
        assert d["giver"].argmax() < d["receiver"].argmax()
        if d["solved"]:
            last = len(both) - 1 - both[::-1].argmax()
            assert not d["giver"][last + 1 :].any()
            assert not d["receiver"][-1]


def test_the_arms_never_touch_each_other(demonstrations):
    assert all(d["crashes"] == 0 for d in demonstrations)


def test_arms_that_are_driven_into_each_other_do_touch(env):
    env.reset(seed=0)
    sides, target = side_of_geoms(env.model), env.joints.position(env.data.qpos)
    arm = len(target) // 2
    target[[0, arm]] = [1.2, -1.2]  # the pans turn inwards: their axes point down
    target[[1, arm + 1]] = 0.0  # the shoulders lean forward
    touched = False
    for _ in range(40):
        env.step(target)
        touched |= crashed(env.data, sides)
    assert touched
    reached = env.joints.position(env.data.qpos)
    assert (np.abs(reached - target)[[0, arm]] > 0.1).all()  # they have stopped each other


def test_the_mat_is_out_of_the_givers_reach(env):
    model = scene.arm_spec().compile()
    data, rng, reach = mujoco.MjData(model), np.random.default_rng(0), 0.0
    low, high = model.jnt_range[1:4].T
    for joints in rng.uniform(low, high, (20_000, 3)):
        data.qpos[1:4] = joints
        mujoco.mj_kinematics(model, data)
        if 0.0 < data.site("tool").xpos[2] < 0.04:
            reach = max(reach, data.site("tool").xpos[0] - scene.PAN_AXIS)
    assert reach > 0.4
    corner = np.array(handover.MAT_PLACE) - handover.MAT_JITTER - handover.ON_MAT[:2]
    assert np.hypot(corner[0] - scene.PAN_AXIS, corner[1] + scene.PAIR_DISTANCE / 2) > reach


def test_a_bar_on_its_mat_succeeds_after_the_hold_time(env):
    for seed in range(5):
        env.reset(seed=seed)
        solve(env)
        ended, info = hold(env, env.hold_steps)
        assert ended == [False] * (env.hold_steps - 1) + [True]
        assert info[Info.PROGRESS] == 1.0


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"off": (0.0, 0.9 * handover.ON_MAT[1])}, True),
        ({"off": (0.0, 1.1 * handover.ON_MAT[1])}, False),
        ({"off": (-0.9 * handover.ON_MAT[0], 0.0)}, True),
        ({"off": (-1.1 * handover.ON_MAT[0], 0.0)}, False),
        ({"yaw": np.radians(28)}, True),
        ({"yaw": np.radians(32)}, False),
        ({"yaw": np.radians(175)}, True),
    ],
)
def test_where_a_bar_counts_as_on_its_mat(env, options, counts):
    env.reset(seed=1)
    lay(env, **options)
    assert any(hold(env, 10)[0]) == counts


def test_a_fall_onto_the_mat_counts_only_once_it_is_over(env):
    env.reset(seed=1)
    lay(env, above=0.1)
    ended, _ = hold(env, 25)
    assert not any(ended[: env.hold_steps + 1])
    assert any(ended)


def test_the_wrong_bar_and_the_wrong_mat_fail(env):
    env.reset(seed=2, options=RED)
    named, receiver = env.goal[:2].astype(int)
    solve(env)
    reached = env.data.qpos.copy()
    env.reset(seed=2, options={"instruction": RED["instruction"].replace("red", "blue")})
    assert env.goal[:2].astype(int).tolist() == [1 - named, 1 - receiver]
    env.data.qpos[:] = reached
    assert not any(hold(env, 10)[0])
    env.reset(seed=2, options=RED)
    near = env.data.mocap_pos[1 - receiver, :2]
    scene.put(env.model, env.data, "red bar", scene.upright(near, 0.0, handover.BAR_WIDTH))
    ended, info = hold(env, 10)
    assert not any(ended)
    assert info[Info.PROGRESS] < 0.5


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=2, options=RED)
    solve(env)
    hold(env, env.hold_steps)
    state = State(*(np.repeat(part, 6, axis=0) for part in env.state))
    red, blue = (env.model.joint(f"{c} bar") for c in BARS)
    state.sensordata[1, handover.TOUCH.start] = 1  # the left gripper touches it
    state.sensordata[2, handover.TOUCH.start + len(BARS)] = 1  # so does the right one
    state.qvel[3, red.dofadr[0]] = 2 * handover.AT_REST
    state.qpos[4, blue.qposadr[0]] += 1.1 * handover.OTHERS_MAY_MOVE
    state.sensordata[5, 3 * handover.FIRST[0] + 2] += 0.01  # above the mat
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


def test_starts_vary_and_do_not_depend_on_what_is_asked(env):
    one, other = env.draw(3, None), env.draw(3, RED["instruction"])
    np.testing.assert_array_equal(one.qpos, other.qpos)
    drawn = {tuple(env.draw(seed, None).goal[:2]) for seed in range(40)}
    assert drawn == set(product((0.0, 1.0), (0.0, 1.0)))


def test_nothing_overlaps_or_moves_at_the_start(env):
    model = env.model
    names = [model.body(body).name for body in model.geom_bodyid]
    solid = [g for g in range(model.ngeom) if model.geom_contype[g]]
    bars = [[g for g in solid if names[g] == f"{colour} bar"] for colour in BARS]
    arms = [g for g in solid if names[g].startswith(SIDES)]
    assert all([*bars, arms])
    pairs = [pair for a, b in combinations([*bars, arms], 2) for pair in product(a, b)]
    for seed in range(40):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        before = env.data.qpos[env._bars.qpos].copy()
        hold(env, 10)
        np.testing.assert_allclose(env.data.qpos[env._bars.qpos], before, atol=1e-3)


def test_the_top_camera_shows_the_mats_and_the_bars_at_four_pixels(env):
    x, y, z = handover.MAT_SIZE
    for seed in range(40):
        env.reset(seed=seed)
        solve(env)
        half = np.array(handover.BAR_SIZE)
        for colour in BARS:
            assert np.ptp(pixels(env, f"{colour} bar", half), axis=0).min() >= 4.0
        for side in SIDES:
            seen = pixels(env, f"{side} mat", np.array([x, y, z]))
            assert (seen >= 0).all()
            assert (seen <= env.image_size[::-1]).all()


def pixels(env, body, half):
    """Where the corners of a box are in `top`, pixels (8, 2)."""
    view, frame = env.data.camera("top"), env.data.body(body)
    box = np.array(list(product((-1, 1), repeat=3))) * half
    local = (frame.xpos + box @ frame.xmat.reshape(3, 3).T - view.xpos) @ view.xmat.reshape(3, 3)
    height, width = env.image_size
    focal = height / 2 / np.tan(np.radians(env.model.cam("top").fovy[0]) / 2)
    return focal * local[:, :2] / -local[:, 2:] * [1, -1] + [width / 2, height / 2]
