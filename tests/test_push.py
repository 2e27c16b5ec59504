"""envs/push.py: what counts as success, how episodes start, what a push is foreseen to do."""

from itertools import product

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs import push, scene
from robolearn.envs.push import ALIGNED, MARKS, NEAR, PHRASES, TARGET, Push
from robolearn.envs.task import State
from robolearn.registry import make_env

ENV_ID = "robolearn/Push-v0"
HEIGHT = push.HEIGHT / 2


@pytest.fixture(scope="module")
def env():
    return Push(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """The infos of eight episodes of the expert."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(8)]


def place(env, off=(0.0, 0.0, 0.0), above=0.0, *, target=None):
    """Lays the T down so far (m, m, rad) from the named mark, or from another one."""
    x, y, yaw = (env.goal[TARGET] if target is None else target) + off
    pose = np.array([x, y, HEIGHT + above, *scene.about_z(yaw)])
    scene.put(env.model, env.data, "T", pose)


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
        assert (progress >= 0.0).all()
        assert (progress <= 1.0).all()
        thirds.append([part.mean() for part in np.array_split(progress, 3)])
    first, second, third = np.mean(thirds, axis=0)
    assert first + 0.1 < second < third - 0.1


def test_a_t_that_rests_on_its_mark_succeeds_after_the_hold_time(env):
    env.reset(seed=1)
    place(env)
    ended, info = hold(env, env.hold_steps)
    assert ended == [False] * (env.hold_steps - 1) + [True]
    assert info[Info.PROGRESS] == 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_tolerance_has_an_edge(env, axis, sign):
    env.reset(seed=1)
    edge = sign * (ALIGNED if axis == 2 else NEAR) * np.eye(3)[axis]
    place(env, 0.93 * edge)
    assert hold(env, env.hold_steps)[0][-1]
    env.reset(seed=1)
    place(env, 1.07 * edge)
    ended, info = hold(env, 2 * env.hold_steps)
    assert not any(ended)
    assert info[Info.PROGRESS] < 1.0


def test_a_half_turn_and_the_other_mark_fail(env):
    env.reset(seed=1)
    other = 1 - int(env.goal[push.ONE_HOT].argmax())
    quat = env.data.mocap_quat[other]
    yaw = 2 * np.arctan2(quat[3], quat[0])
    place(env, target=np.array([*env.data.mocap_pos[other, :2], yaw]))
    assert not any(hold(env, 2 * env.hold_steps)[0])
    env.reset(seed=1)
    place(env, (0.0, 0.0, np.pi))
    assert not any(hold(env, 2 * env.hold_steps)[0])


def test_a_fall_onto_the_mark_counts_only_once_it_is_over(env):
    env.reset(seed=1)
    place(env, above=0.05)
    ended, _ = hold(env, 20)
    assert not any(ended[: env.hold_steps])
    assert ended[-1]


def test_sliding_over_the_mark_does_not_count(env):
    env.reset(seed=1)
    place(env, (-0.03, 0.0, 0.0))
    velocity = int(env.model.joint("T").dofadr[0])
    for _ in range(12):
        env.data.qvel[velocity] = 0.2
        assert not hold(env, 1)[0][0]


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=1)
    place(env)
    hold(env, 3)
    state = State(*(np.repeat(part, 6, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 6, axis=0)
    q, v = env.model.joint("T").qposadr[0], env.model.joint("T").dofadr[0]
    state.sensordata[1] = 1  # the gripper touches it
    state.qvel[2, v] = 2 * push.AT_REST
    state.qvel[3, v + 5] = 2 * push.NOT_TURNING
    (cy, sy), (ct, st) = ((np.cos(a / 2), np.sin(a / 2)) for a in (goal[0, 2], 0.3))
    state.qpos[4, q + 3 : q + 7] = [cy * ct, cy * st, sy * st, sy * ct]  # tilted
    state.qpos[5, q] += 1.1 * NEAR
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True, False, False, False, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    states, goals = [], []
    for seed in range(6):
        env.reset(seed=seed)
        place(env, (0.01 * (seed % 3), 0.0, 0.1))
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


def test_nothing_overlaps_or_moves_at_the_start(env):
    own = env.model.body("T").id
    tee = [g for g in range(env.model.ngeom) if env.model.geom_bodyid[g] == own]
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    for seed in range(100):
        env.reset(seed=seed)
        pairs = product(tee, arm)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        assert push.error_of(env._offset(env.state, env.goal[None]))[0] > NEAR
    before = env.data.joint("T").qpos.copy()
    hold(env, 10)
    np.testing.assert_allclose(env.data.joint("T").qpos, before, atol=1e-3)


def test_every_colour_is_asked_for_in_words_of_the_training_set(env):
    known = PHRASES.all("train")
    drawn = [env.draw(seed, None) for seed in range(100)]
    marks = [known[start.instruction][0] for start in drawn]
    assert 30 < sum(marks) < 70
    for start, mark in zip(drawn, marks, strict=True):
        assert start.goal[push.ONE_HOT].argmax() == mark
        np.testing.assert_array_equal(start.goal[TARGET][:2], start.mocap_pos[mark, :2])
    assert len(MARKS) == 2


def test_the_goal_picture_shows_a_solved_scene(env):
    env.reset(seed=4)
    env._place(env.data, env.goal_scene(env._start))
    assert hold(env, env.hold_steps)[0][-1]


def test_foreseen_pushes():
    """Through the centre of mass a push moves without a turn, beside it the T turns away."""
    places, ways, poses, allowed = push.foresee(np.array([[0.2, 0.0, 0.3]]))
    assert allowed.any()
    normals, middles, levers = push._pushes()
    central = np.flatnonzero((normals[:, 1] == -1) & (np.abs(middles[:, 0]) < push.FINGERS[1]))
    moved = poses[0, central, -1] - [0.2, 0.0, 0.3]
    np.testing.assert_allclose(moved[:, :2], push.LONGEST * push.STEP * ways[0, central], atol=1e-9)
    np.testing.assert_allclose(moved[:, 2], 0.0, atol=1e-9)
    turn = poses[0, :, -1, 2] - 0.3
    torque = levers[:, 0] * normals[:, 1] - levers[:, 1] * normals[:, 0]
    np.testing.assert_array_equal(np.sign(turn.round(9)), np.sign(torque.round(9)))
    assert places.shape == ways.shape == (1, len(normals), 2)
