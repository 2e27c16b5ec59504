"""envs/reorient.py: what counts as success, how episodes start, what the splits change."""

from itertools import product

import mujoco
import numpy as np
import pytest
from observing import demonstrate

from robolearn.contract import Info
from robolearn.envs import reorient, scene
from robolearn.envs.lookup import wrapped, yaw_of
from robolearn.envs.reorient import KINDS, PHRASES, Reorient
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

ARROW_30 = {"instruction": "turn the arrow to 30 degrees"}
ARROW, PEN = 0, 1


@pytest.fixture(scope="module")
def env():
    return Reorient(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """Ten episodes of the expert: the infos of their steps."""
    env = make_env("robolearn/Reorient-v0", obs_type="state")
    return [demonstrate(env, seed) for seed in range(10)]


def lay(env, kind, degrees, lift=0.0):
    """Turns a thing to an angle where it is, at rest."""
    k = KINDS.index(kind)
    place = env._bodies.poses(env.data.qpos)[k, :2].copy()
    pose = scene.upright(place, np.radians(degrees), 2 * env._lying[k], lift)
    scene.put(env.model, env.data, kind, pose)


def hold(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last info."""
    still = env.joints.position(env.data.qpos)
    results = [env.step(still) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4]


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


@pytest.mark.parametrize(
    ("degrees", "counts"), [(30, True), (11, True), (9, False), (49, True), (51, False)]
)
def test_the_edge_of_the_tolerance(env, degrees, counts):
    env.reset(seed=0, options=ARROW_30)
    lay(env, "arrow", degrees)
    ended, info = hold(env, steps=env.hold_steps)
    assert ended == [False] * (env.hold_steps - 1) + [counts]
    assert (info[Info.PROGRESS] == 1.0) == counts


def test_the_wrong_thing_and_the_wrong_way_round_fail(env):
    for kind, degrees in (("pen", 30), ("arrow", -150)):
        env.reset(seed=0, options=ARROW_30)
        lay(env, "arrow", 100)
        lay(env, kind, degrees)
        ended, info = hold(env, steps=15)
        assert not any(ended)
        assert info[Info.PROGRESS] < 0.9


def test_turning_through_the_goal_does_not_count(env):
    env.reset(seed=0, options=ARROW_30)
    lay(env, "arrow", -30, lift=0.05)
    env.data.joint("arrow").qvel[5] = 14.0  # rad/s
    still, off = env.joints.position(env.data.qpos), []
    for _ in range(20):
        assert not env.step(still)[2]
        off.append(np.degrees(env._missing()))
    assert np.abs(off).min() < 20
    assert off[-1] < -20


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    env.reset(seed=0, options=ARROW_30)
    lay(env, "arrow", 30)
    hold(env, steps=3)
    arrow, pen = (env.model.joint(kind) for kind in KINDS)
    q, v = arrow.qposadr[0], arrow.dofadr[0]
    state = State(*(np.repeat(part, 9, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 9, axis=0)
    state.sensordata[1, reorient.TOUCH.start + ARROW] = 1  # still held
    state.qvel[2, v] = 2 * reorient.AT_REST
    state.qvel[3, v + 5] = 2 * reorient.STILL
    state.qpos[4, q + 2] += 2 * reorient.FLAT  # in the air
    state.qpos[5, q + 3 : q + 7] = [0.5, 0.5, 0.0, 0.0]  # on its side
    state.qpos[6, q] += 1.1 * reorient.MAY_MOVE
    state.qpos[7, pen.qposadr[0]] += 1.1 * reorient.MAY_MOVE
    goal[8, reorient.NAMED] = PEN
    goal[8, reorient.ANGLE_AT] = yaw_of(env._bodies.poses(env.data.qpos)[PEN, 3:]) + 1.0
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True] + [False] * 8
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()
    for i in range(9):  # and the batch is its rows
        row = State(*(part[i : i + 1] for part in state))
        alone = env.evaluate(row, goal[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])


@pytest.mark.parametrize("split", Reorient.splits)
def test_a_drawn_goal_must_be_turned_to(split):
    env = Reorient(obs_type="state", split=split)
    for seed in range(50):
        start = env.draw(seed, None)
        yaw = yaw_of(env._bodies.poses(start.qpos)[int(start.goal[reorient.NAMED]), 3:])
        off = np.degrees(abs(wrapped(yaw - start.goal[reorient.ANGLE_AT])))
        low, high = reorient.TURN
        assert low - 0.01 <= off <= high + 0.01


def test_the_expert_turns_half_round_in_more_than_one_grasp(env):
    env.reset(seed=1)
    turned = 90.0 if env._missing() < 0 else -90.0
    text = f"turn the {KINDS[int(env.goal[0])]} to {turned:g} degrees"
    env.reset(seed=1, options={"instruction": text})
    script = env.expert(stream(1, "expert"))
    assert any(env.step(next(script))[2] for _ in range(240))


def test_out_of_range_names_the_range(env):
    with pytest.raises(ValueError, match="the angle in degrees is 120; give -90 to 90"):
        env.reset(seed=0, options={"instruction": "turn the pen to 120 degrees"})


def test_the_same_scene_whatever_is_asked_for(env):
    one, other = env.draw(3, None), env.draw(3, "point the pen at -12.5 degrees")
    np.testing.assert_array_equal(one.qpos, other.qpos)
    assert other.goal[reorient.ANGLE_AT] == pytest.approx(np.radians(-12.5))


def test_what_is_asked_for_must_be_turned_to(env):
    for seed in range(30):
        for named, angle in product(KINDS, range(-90, 91, 30)):
            start = env.draw(seed, f"turn the {named} to {angle} degrees")
            drawn, poses = (
                env._bodies.poses(env.draw(seed, None).qpos),
                env._bodies.poses(start.qpos),
            )
            np.testing.assert_array_equal(poses[:, :3], drawn[:, :3])
            yaw = yaw_of(poses[KINDS.index(named), 3:])
            assert np.degrees(abs(wrapped(yaw - np.radians(angle)))) > reorient.TURN[0] - 0.01


def test_novel_angles_are_never_drawn_in_training():
    drawn = [{a for _, a in PHRASES.all("all", s).values()} for s in ("train", "novel_state")]
    assert not drawn[0] & drawn[1]


def test_nothing_overlaps_or_moves_at_the_start(env):
    ids = [env.model.body(kind).id for kind in KINDS]
    arrow, pen = ([g for g in range(env.model.ngeom) if env.model.geom_bodyid[g] == i] for i in ids)
    arm = [g for g in range(env.model.ngeom) if env.model.geom_contype[g] == 2]
    pairs = [*product(arrow, pen), *product(arrow + pen, arm)]
    for seed in range(60):
        env.reset(seed=seed)
        gaps = [mujoco.mj_geomDistance(env.model, env.data, *pair, 0.05, None) for pair in pairs]
        assert min(gaps) > 0.001, f"seed {seed}"
        before = env._bodies.poses(env.data.qpos)[:, :3].copy()
        mujoco.mj_step(env.model, env.data, nstep=20)
        np.testing.assert_allclose(env._bodies.poses(env.data.qpos)[:, :3], before, atol=3e-4)


def test_the_goal_picture_is_a_solved_scene(env):
    for seed in range(10):
        env.reset(seed=seed)
        env._place(env.data, env.goal_scene(env._start))
        assert env.evaluate(env.state, env.goal[None])[0][0]
