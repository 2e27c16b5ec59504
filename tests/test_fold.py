"""envs/fold.py: what counts as folded, how episodes start, how the expert does it."""

from itertools import islice, product

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs import fold
from robolearn.envs.fold import ACROSS, ALONG, BALLS, COUNT, LAST, Fold, vertex
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

WAYS = list(product(ACROSS, ALONG))


@pytest.fixture(scope="module")
def env():
    return Fold(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Three episodes of the expert: the info of every step."""
    env = make_env("robolearn/Fold-v0", obs_type="state")
    return [demonstrate(env, seed) for seed in range(3)]


def begin(env, way=WAYS[0], seed=0):
    env.reset(seed=seed, options={"instruction": "fold it twice: {}, then {}".format(*way)})


def lay(env, qpos):
    """Puts the cloth somewhere else, at rest."""
    env.data.qpos[:], env.data.qvel[:] = qpos, 0.0
    mujoco.mj_forward(env.model, env.data)


def folded(env):
    """Puts the cloth where the running episode wants it."""
    lay(env, env.goal_scene(env._start).qpos)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


def rows(env, n):
    """The running simulation n times, writable, and its goal."""
    state = State(*(np.repeat(part, n, axis=0) for part in env.state))
    return state, np.repeat(env.goal[None], n, axis=0)


def axis(env, number, direction):
    """Where a coordinate of a vertex is in qpos and in qvel."""
    q, v = env._cloth
    return q.start + 3 * number + direction, v.start + 3 * number + direction


def test_the_expert_solves_it(demonstrations):
    assert sum(infos[-1][Info.IS_SUCCESS] for infos in demonstrations) >= 2


def test_progress_grows_along_the_experts_way(demonstrations):
    thirds = np.array(
        [
            [part.mean() for part in np.array_split([i[Info.PROGRESS] for i in infos], 3)]
            for infos in demonstrations
        ]
    )
    first, second, third = thirds.mean(0)
    assert first + 0.1 < second < third - 0.1
    assert all(infos[0][Info.PROGRESS] < 0.02 for infos in demonstrations)


@pytest.mark.parametrize("way", WAYS)
def test_a_folded_cloth_succeeds_after_the_hold_time(env, way):
    begin(env, way)
    folded(env)
    ended, info = hold(env, env.hold_steps + 1)
    assert not any(ended[: env.hold_steps - 1])
    assert ended[-1]
    assert info[Info.PROGRESS] == 1.0


def test_one_fold_or_folds_the_other_way_fail(env):
    begin(env)
    reached = []
    for across, along in WAYS[1:]:
        other = env.draw(0, f"fold it twice: {across}, then {along}")
        lay(env, env.goal_scene(other).qpos)
        ended, info = hold(env, env.hold_steps + 1)
        assert not any(ended)
        reached.append(info[Info.PROGRESS])
    lay(env, once(env))
    ended, info = hold(env, env.hold_steps + 1)
    assert not any(ended)
    assert 0.3 < info[Info.PROGRESS] < 0.7
    assert max(reached) < 0.8


def once(env):
    """qpos of the cloth after the first fold of left to right."""
    qpos = env._start.qpos.copy()
    where = env._vertices(State(qpos[None], *env.state[1:]))[0, :, :2].reshape(COUNT, COUNT, 2)
    where[:, LAST // 2 :] = where[:, : LAST // 2 + 1][:, ::-1]
    env._put(qpos, where.reshape(-1, 2))
    return qpos


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    begin(env)
    folded(env)
    hold(env, 2)
    state, goal = rows(env, 9)
    state.qpos[1, axis(env, vertex(0, 0), 0)[0]] += 0.04  # a corner is off
    state.qvel[2, axis(env, vertex(3, 3), 2)[1]] = 2 * fold.AT_REST
    state.sensordata[3, env._touches[-1]] = 1  # still held, by a ball at the crease
    state.qpos[4, axis(env, vertex(LAST // 2, 1), 1)[0]] -= 0.08  # an edge sticks out
    state.qpos[5, env._cloth[0]] -= np.tile([0.0, 0.05, 0.0], COUNT**2)  # all of it elsewhere
    state.qpos[6, axis(env, BALLS[-1], 2)[0]] += 0.05  # a ball at the crease is in the air
    state.qpos[7, axis(env, vertex(3, 3), 2)[0]] += 0.06  # the cloth's middle is
    state.sensordata[8, env._touches[0]] = 2  # still held, by a corner
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True] + [False] * 8
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_the_gripper_feels_each_ball_of_the_cloth_it_carries(env):
    begin(env)
    felt = np.zeros(len(BALLS), bool)
    for action in islice(env.expert(stream(0, "expert")), 300):
        env.step(action)
        touch = env.data.sensordata[env._touches] > 0
        high = env._vertices(env.state)[0, BALLS, 2] > 1.5 * fold.HELD
        assert (touch | ~high).all() or not touch.any()  # falling
        felt |= touch & high
    assert felt.sum() >= 3


def test_the_tolerance_of_the_corners(env):
    begin(env)
    folded(env)
    state, goal = rows(env, 2)
    corner = axis(env, vertex(0, 0), 0)[0]
    apart = env._corners(state)[:, 0, :2] - goal[:, fold.PLACE]
    away = np.array([[0.97, 0.0], [1.03, 0.0]]) * fold.TOLERANCE
    # Towards the middle of the cloth, so that the covered area stays.
    inwards = np.sign(env._vertices(state)[:, :, 0].mean(1) - goal[:, 2])
    state.qpos[:, corner : corner + 2] += away * inwards[:, None] - apart
    assert env.evaluate(state, goal)[0].tolist() == [True, False]


def test_a_dropped_cloth_counts_only_once_it_lies_still(env):
    begin(env)
    qpos = env.goal_scene(env._start).qpos
    lay(env, qpos)
    env.data.qvel[env._cloth[1]] = np.tile([0.0, 0.0, 0.6], COUNT**2)  # thrown up
    ended, _ = hold(env, 30)
    assert not any(ended[: env.hold_steps + 1])
    assert ended[-1]


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    states, goals = [], []
    for seed in range(6):
        begin(env, WAYS[seed % 4], seed)
        if seed % 2:
            folded(env)
        hold(env, 2)
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


@pytest.mark.parametrize("split", ["train", "novel_object"])
def test_nothing_moves_or_touches_at_the_start(split):
    env = Fold(obs_type="state", split=split)
    balls = {int(env.model.body(f"cloth_{ball}").geomadr[0]) for ball in BALLS}
    arm = np.flatnonzero(env.model.geom_contype == 2)
    for seed in range(12):
        env.reset(seed=seed)
        gaps = [
            mujoco.mj_geomDistance(env.model, env.data, a, b, 0.05, None)
            for a in arm
            for b in balls
        ]
        assert min(gaps) > 0.002
        before = env._vertices(env.state).copy()
        hold(env, 10)
        assert np.abs(env._vertices(env.state) - before).max() < 0.0015


def test_every_way_is_asked_for(env):
    known = fold.PHRASES.all("train")
    asked = {known[env.draw(seed, None).instruction] for seed in range(60)}
    assert asked == set(product(range(2), range(2)))
