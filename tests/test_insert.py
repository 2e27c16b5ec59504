"""envs/insert.py: what counts as success, how tight it is, how episodes start."""

from itertools import combinations, product

import mujoco
import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.envs import insert, scene
from robolearn.envs.insert import CLEARANCE, FLOOR, PHONE, PHRASES, RIM, TRAY, TRAYS, Insert
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

ENV_ID = "robolearn/Insert-v0"
SEAT = FLOOR + PHONE[2] / 2  # m: height of the phone's middle in a tray


@pytest.fixture(scope="module")
def env():
    return Insert(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Eight episodes of the expert: steps of (info, contacts of the phone with the gripper)."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(8)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    task, steps = env.unwrapped, []
    for action in task.expert(stream(seed, "expert")):
        _, _, terminated, truncated, info = env.step(action)
        steps.append((info, task.data.sensordata[task._touch][0]))
        if terminated or truncated:
            break
    return steps


def place(env, along=0.0, sideways=0.0, turn=0.0, *, height=SEAT, tray=None):
    """Lays the phone down so far from its place in the named tray, or in another."""
    x, y, yaw = env.goal[TRAY] if tray is None else tray
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = x + c * along - s * sideways, y + s * along + c * sideways
    pose = np.array([x, y, height, *scene.about_z(yaw + turn)])
    scene.put(env.model, env.data, "phone", pose)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def test_the_expert_solves_it(demonstrations):
    assert sum(steps[-1][0][Info.IS_SUCCESS] for steps in demonstrations) >= 7


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = []
    for steps in demonstrations:
        progress = np.array([info[Info.PROGRESS] for info, _ in steps])
        assert (progress >= 0.0).all()
        assert (progress <= 1.0).all()
        thirds.append([part.mean() for part in np.array_split(progress, 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.05 < second < third - 0.05


def test_the_gripper_feels_the_phone_it_carries(demonstrations):
    for steps in demonstrations:
        touch = [touch for _, touch in steps]
        assert touch[0] == 0
        assert max(touch) > 0
        if steps[-1][0][Info.IS_SUCCESS]:
            assert touch[-1] == 0


@pytest.mark.parametrize("turn", [0.0, np.pi])
def test_a_phone_in_its_tray_succeeds_after_the_hold_time(env, turn):
    env.reset(seed=2)
    place(env, turn=turn)
    ended, info = hold(env, env.hold_steps)
    assert ended == [False] * (env.hold_steps - 1) + [True]
    assert info[Info.PROGRESS] == 1.0


@pytest.mark.parametrize(
    ("along", "sideways", "turn"),
    [(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 0.03)],
)
def test_the_tray_is_as_tight_as_it_says(env, along, sideways, turn):
    """Let down a little inside the clearance the phone is seated, beyond it it is not."""
    for share, fits in ((0.4, True), (1.5, False)):
        env.reset(seed=2)
        off = share * CLEARANCE
        place(env, along * off, sideways * off, share * turn, height=RIM + PHONE[2] / 2 + 0.0005)
        ended, info = hold(env, 20)
        assert any(ended) == fits
        assert (info[Info.PROGRESS] == 1.0) == fits


def test_the_other_tray_and_the_table_fail(env):
    env.reset(seed=2)
    other = 1 - int(env.goal[insert.ONE_HOT].argmax())
    quat = env.data.mocap_quat[other]
    yaw = 2 * np.arctan2(quat[3], quat[0])
    place(env, tray=[*env.data.mocap_pos[other, :2], yaw])
    ended, info = hold(env, 10)
    assert not any(ended)
    assert info[Info.PROGRESS] < 0.5
    place(env, sideways=0.05, height=PHONE[2] / 2)
    assert not any(hold(env, 10)[0])


def test_a_fall_into_the_tray_counts_only_once_it_is_over(env):
    env.reset(seed=2)
    place(env, height=SEAT + 0.03)
    ended, _ = hold(env, 20)
    assert not any(ended[: env.hold_steps])
    assert ended[-1]


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=2)
    place(env)
    hold(env, 3)
    state = State(*(np.repeat(part, 6, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 6, axis=0)
    q, v = env.model.joint("phone").qposadr[0], env.model.joint("phone").dofadr[0]
    state.sensordata[1, env._touch] = 1  # the gripper touches it
    state.qvel[2, v + 1] = 2 * insert.AT_REST
    state.qpos[3, q + 2] += 1.2 * insert.SEATED  # it lies on the rim or is still held
    yaw, tilt = goal[0, 2], 1.5 * insert.FLAT
    (cy, sy), (ct, st) = ((np.cos(a / 2), np.sin(a / 2)) for a in (yaw, tilt))
    state.qpos[4, q + 3 : q + 7] = [cy * ct, cy * st, sy * st, sy * ct]
    state.qpos[5, q : q + 2] += 0.03
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True, False, False, False, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    states, goals = [], []
    for seed in range(6):
        env.reset(seed=seed)
        place(env, sideways=0.02 * (seed % 2))
        hold(env, 2)
        states.append([part[0].copy() for part in env.state])
        goals.append(env.goal)
    batch, goals = State(*map(np.stack, zip(*states, strict=True))), np.stack(goals)
    success, progress = env.evaluate(batch, goals)
    for i in range(6):
        row = State(*(part[i : i + 1] for part in batch))
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
    assert success.any()
    assert not success.all()


def geoms(model, body):
    """The colliding geoms of a body."""
    own = model.body(body).id
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] == own and model.geom_contype[g]]


def test_nothing_overlaps_or_moves_at_the_start(env):
    things = [geoms(env.model, name) for name in ("phone", *(f"{c} tray" for c in TRAYS))]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    pairs = [pair for a, b in combinations([*things, arm], 2) for pair in product(a, b)]
    for seed in range(100):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
    before = env.data.joint("phone").qpos.copy()
    hold(env, 10)
    np.testing.assert_allclose(env.data.joint("phone").qpos, before, atol=1e-3)


def test_every_tray_is_asked_for_in_words_of_the_training_set(env):
    known = PHRASES.all("train")
    drawn = [env.draw(seed, None) for seed in range(100)]
    trays = [known[start.instruction][0] for start in drawn]
    assert 30 < sum(trays) < 70
    for start, tray in zip(drawn, trays, strict=True):
        assert start.goal[insert.ONE_HOT].argmax() == tray
        np.testing.assert_array_equal(start.goal[:2], start.mocap_pos[tray, :2])


def test_the_goal_picture_shows_a_solved_scene(env):
    env.reset(seed=4)
    env._place(env.data, env.goal_scene(env._start))
    assert hold(env, env.hold_steps)[0][-1]
