"""envs/pick_place.py: what counts as success, how episodes start, what the cameras see."""

from collections import Counter
from itertools import combinations, product

import mujoco
import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.envs import pick_place, scene
from robolearn.envs.pick_place import BINS, CUBES, PHRASES, PickPlace
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

ENV_ID = "robolearn/PickPlace-v0"
RED_INTO_BLUE = {"instruction": "put the red cube in the blue bin"}
RED, GREEN, BLUE_BIN, YELLOW_BIN = 0, 1, 0, 1


@pytest.fixture(scope="module")
def env():
    return PickPlace(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Ten episodes of the expert: steps of (info, contacts of the cubes with the gripper)."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(10)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    steps = []
    for action in env.unwrapped.expert(stream(seed, "expert")):
        _, _, terminated, truncated, info = env.step(action)
        steps.append((info, env.unwrapped.data.sensordata[pick_place.TOUCH].copy()))
        if terminated or truncated:
            break
    return int(env.unwrapped.goal[0]) - pick_place.FIRST_CUBE, steps


def put_cube(env, cube, place, height=0.0):
    """Lays a cube down, at rest."""
    pose = scene.upright(place, yaw=0.2)
    pose[2] += height
    scene.put(env.model, env.data, f"{CUBES[cube]} cube", pose)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def in_bin(env, goal_bin):
    return env.data.mocap_pos[goal_bin][:2]


def test_the_expert_solves_it(demonstrations):
    solved = [steps[-1][0][Info.IS_SUCCESS] for _, steps in demonstrations]
    assert sum(solved) >= 9


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = []
    for _, steps in demonstrations:
        progress = np.array([info[Info.PROGRESS] for info, _ in steps])
        assert (progress >= 0.0).all()
        assert (progress <= 1.0).all()
        thirds.append([part.mean() for part in np.array_split(progress, 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.05 < second < third - 0.05


def test_the_gripper_feels_the_cube_it_carries(demonstrations):
    for cube, steps in demonstrations:
        touch = np.array([touch for _, touch in steps])
        assert not touch[0].any()
        assert touch[:, cube].any()
        if steps[-1][0][Info.IS_SUCCESS]:
            assert touch[-1, cube] == 0


def test_a_cube_that_rests_in_its_bin_succeeds_after_the_hold_time(env):
    env.reset(seed=0, options=RED_INTO_BLUE)
    put_cube(env, RED, in_bin(env, BLUE_BIN), height=2 * scene.BIN_WALL)
    ended, info = hold(env, steps=env.hold_steps)
    assert env.hold_steps == 5  # 0.25 s
    assert ended == [False] * 4 + [True]
    assert info[Info.PROGRESS] == 1.0


def test_a_fall_into_the_bin_counts_only_once_it_is_over(env):
    env.reset(seed=0, options=RED_INTO_BLUE)
    put_cube(env, RED, in_bin(env, BLUE_BIN), height=0.1)
    ended, _ = hold(env, steps=20)
    assert not any(ended[: env.hold_steps + 1])
    assert ended[-1]


def test_the_wrong_bin_and_the_wrong_cube_fail(env):
    for cube, goal_bin in [(RED, YELLOW_BIN), (GREEN, BLUE_BIN)]:
        env.reset(seed=0, options=RED_INTO_BLUE)
        put_cube(env, cube, in_bin(env, goal_bin), height=2 * scene.BIN_WALL)
        ended, info = hold(env, steps=10)
        assert not any(ended)
        assert info[Info.PROGRESS] < 0.5


def test_beside_the_bin_fails(env):
    env.reset(seed=0, options=RED_INTO_BLUE)
    outside = scene.BIN_INNER + 2 * scene.BIN_WALL + scene.CUBE_SIDE
    put_cube(env, RED, in_bin(env, BLUE_BIN) + [outside, 0.0])
    assert not any(hold(env, steps=10)[0])


def test_moving_another_cube_away_fails(env):
    env.reset(seed=0, options=RED_INTO_BLUE)
    green = env.data.joint("green cube").qpos[:2].copy()
    put_cube(env, RED, in_bin(env, BLUE_BIN), height=2 * scene.BIN_WALL)
    put_cube(env, GREEN, green + [0.07, 0.0])
    assert not any(hold(env, steps=10)[0])
    put_cube(env, GREEN, green + [0.02, 0.0])  # a nudge is forgiven
    assert any(hold(env, steps=10)[0])


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=0, options=RED_INTO_BLUE)
    put_cube(env, RED, in_bin(env, BLUE_BIN), height=2 * scene.BIN_WALL)
    hold(env, steps=env.hold_steps)
    state = State(*(np.repeat(part, 5, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 5, axis=0)
    state.sensordata[1, pick_place.TOUCH.start + RED] = 1  # the gripper still touches it
    state.qvel[2, env.model.joint("red cube").dofadr[0]] = 2 * pick_place.AT_REST
    state.qpos[3, env.model.joint("green cube").qposadr[0]] += 1.1 * pick_place.OTHERS_MAY_MOVE
    state.sensordata[4, 3 * (pick_place.FIRST_CUBE + RED) + 2] += 0.03  # above the bin
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True, False, False, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    states, goals = [], []
    for seed in range(6):
        env.reset(seed=seed)
        put_cube(env, seed % 3, in_bin(env, seed % 2), height=0.004)
        hold(env, steps=2)
        states.append([part[0].copy() for part in env.state])
        goals.append(env.goal)
    batch, goals = State(*map(np.stack, zip(*states, strict=True))), np.stack(goals)
    success, progress = env.evaluate(batch, goals)
    rows = [State(*(part[i : i + 1] for part in batch)) for i in range(6)]
    for i, row in enumerate(rows):
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
        np.testing.assert_array_equal(
            env.environment_state(batch, goals)[i], env.environment_state(row, goals[i : i + 1])[0]
        )
    assert success.any()
    assert not success.all()


def geoms(model, *bodies):
    """The colliding geoms of some bodies."""
    ids = [model.body(name).id for name in bodies]
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] in ids and model.geom_contype[g]]


def test_nothing_overlaps_at_the_start(env):
    names = [f"{c} cube" for c in CUBES] + [f"{b} bin" for b in BINS]
    things = [geoms(env.model, name) for name in names]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    assert all(things)
    assert len(arm) > 5
    pairs = [pair for a, b in combinations([*things, arm], 2) for pair in product(a, b)]
    for seed in range(200):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"


def test_every_pair_is_asked_for_in_words_of_the_training_set(env):
    drawn = [env.draw(seed, None) for seed in range(300)]
    known = PHRASES.all("train")
    pairs = Counter(known[start.instruction] for start in drawn)
    assert pairs.keys() == set(product(range(len(CUBES)), range(len(BINS))))
    assert min(pairs.values()) > 300 / 6 / 2
    for start in drawn:
        goal = tuple(start.goal[:2] - [pick_place.FIRST_CUBE, pick_place.FIRST_BIN])
        assert known[start.instruction] == goal


def test_held_out_words_stay_out():
    train, held_out = PHRASES.all("train"), PHRASES.all("held_out")
    assert not train.keys() & held_out.keys()
    assert PHRASES.all("all") == train | held_out
    other = PickPlace(obs_type="state", paraphrases="held_out")
    assert all(other.draw(seed, None).instruction in held_out for seed in range(50))


def test_the_same_start_whatever_is_asked_for(env):
    """So that two instructions can be compared on one scene."""
    one, other = env.draw(3, None), env.draw(3, "drop the green cube into the yellow box")
    np.testing.assert_array_equal(one.qpos, other.qpos)
    np.testing.assert_array_equal(one.mocap_pos, other.mocap_pos)


def test_a_novel_scene_has_the_same_episodes_at_another_table(env):
    other = PickPlace(obs_type="state", split="novel_scene")
    for seed in range(5):
        one, two = env.draw(seed, None), other.draw(seed, None)
        assert one.instruction == two.instruction
        np.testing.assert_array_equal(one.qpos, two.qpos)
    assert not np.array_equal(env.model.geom_rgba, other.model.geom_rgba)
    np.testing.assert_array_equal(env.model.geom_size, other.model.geom_size)


def projected(env, camera, points):
    """Pixel coordinates (N, 2), x to the right and y down, of points (N, 3)."""
    view, model = env.data.camera(camera), env.model
    height, width = env.image_size
    local = (points - view.xpos) @ view.xmat.reshape(3, 3)
    focal = height / 2 / np.tan(np.radians(model.cam_fovy[model.camera(camera).id]) / 2)
    return focal * local[:, :2] / -local[:, 2:] * [1, -1] + [width / 2, height / 2]


def corners(env, body, half, bottom, top):
    """The corners (8, 3) of an upright box around a body."""
    frame = env.data.body(body)
    box = np.array(list(product((-half, half), (-half, half), (bottom, top))))
    return frame.xpos + box @ frame.xmat.reshape(3, 3).T


def test_cubes_cover_four_pixels(env):
    """Below four pixels a policy no longer sees a cube well enough to grasp it."""
    half = scene.CUBE_SIDE / 2
    for seed in range(50):
        env.reset(seed=seed)
        for colour in CUBES:
            pixels = projected(env, "top", corners(env, f"{colour} cube", half, -half, half))
            assert np.ptp(pixels, axis=0).min() >= 4.0


def test_the_top_camera_sees_everything(env):
    height, width = env.image_size
    half = scene.CUBE_SIDE / 2
    boxes = [(f"{c} cube", half, -half, half) for c in CUBES]
    wall = scene.BIN_INNER + 2 * scene.BIN_WALL
    boxes += [(f"{b} bin", wall, 0.0, scene.BIN_HEIGHT) for b in BINS]
    for seed in range(50):
        env.reset(seed=seed)
        for box in boxes:
            pixels = projected(env, "top", corners(env, *box))
            assert (pixels >= 0).all()
            assert (pixels <= [width, height]).all()


def test_cubes_are_drawn_where_they_are():
    """The projection above is that of the pictures: each cube's middle has its colour."""
    env = PickPlace(cameras=["top"])
    right, hidden = [], 0
    for seed in range(12):
        picture = env.reset(seed=seed)[0]["pixels"]["top"].astype(int)
        for channel, colour in enumerate(CUBES):
            if seen_first(env, "top", f"{colour} cube"):
                place = env.data.body(f"{colour} cube").xpos[None]
                x, y = np.floor(projected(env, "top", place))[0].astype(int)
                others = np.delete(picture[y, x], channel)
                right.append(picture[y, x, channel] > others.max() + 30)
            else:
                hidden += 1
    assert np.mean(right) > 0.95  # the edge of the arm may take a pixel
    assert hidden < 0.25 * len(right)


def seen_first(env, camera, body):
    """Whether nothing stands between a camera and a body."""
    eye, place = env.data.camera(camera).xpos, env.data.body(body).xpos
    hit = np.zeros(1, np.int32)
    shown = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    mujoco.mj_ray(env.model, env.data, eye, place - eye, shown, 1, -1, hit)
    return env.model.geom_bodyid[hit[0]] == env.model.body(body).id
