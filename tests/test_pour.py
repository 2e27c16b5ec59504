"""envs/pour.py and envs/beads.py: beads at rest, what counts as poured, the expert."""

from itertools import combinations

import mujoco
import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.envs import beads
from robolearn.envs.beads import COUNT, CUP, NOVEL_CUP, Vessel, layout
from robolearn.envs.pour import Pour
from robolearn.envs.task import State
from robolearn.registry import make_env
from robolearn.seeding import stream

ENV_ID = "robolearn/Pour-v0"
SOFT = 0.0008  # m: what packed beads sink into each other
HALF = {"instruction": "pour until 50 percent is left in the cup"}


@pytest.fixture(scope="module")
def env():
    return Pour(obs_type="state")


@pytest.fixture(scope="module")
def demonstrations():
    """The infos of each step of six episodes of the expert."""
    env = make_env(ENV_ID, obs_type="state")
    return [demonstrate(env, seed) for seed in range(6)]


def demonstrate(env, seed):
    env.reset(seed=seed)
    infos = []
    for action in env.unwrapped.expert(stream(seed, "expert")):
        *_, terminated, truncated, info = env.step(action)
        infos.append(info)
        if terminated or truncated:
            return infos
    raise AssertionError("an expert acts for ever")


def solve(env, left, spilt=0, seed=0):
    """Leaves so many beads in the cup, puts some on the table and the others into the tray."""
    start = env.draw(seed, HALF["instruction"])
    env.reset(seed=seed, options=HALF)
    env.data.qpos[:] = env.poured(start, (COUNT - left) / COUNT, target=0).qpos
    places = env.beads.places(env.data.qpos)
    moved = np.argsort(-places[:, 1] * np.sign(env.data.mocap_pos[0, 1]))[:spilt]
    for k, bead in enumerate(moved):
        places[bead] = [0.15 + 0.015 * k, 0.0, beads.RADIUS]
    mujoco.mj_forward(env.model, env.data)


def still(env, steps):
    """Whether each step of an arm that keeps still ended in success, and the last progress."""
    action = env.joints.position(env.data.qpos)
    results = [env.step(action) for _ in range(steps)]
    return [terminated for _, _, terminated, _, _ in results], results[-1][4][Info.PROGRESS]


def test_the_expert_solves_it(demonstrations):
    assert sum(infos[-1][Info.IS_SUCCESS] for infos in demonstrations) >= 5


def test_progress_grows_along_the_experts_way(demonstrations):
    progress = [[info[Info.PROGRESS] for info in infos] for infos in demonstrations]
    first, second, third = np.mean(
        [[part.mean() for part in np.array_split(p, 3)] for p in progress], axis=0
    )
    assert first < second < third - 0.05
    assert all(0.0 <= value <= 1.0 for episode in progress for value in episode)


def test_the_right_share_succeeds_after_the_hold_time(env):
    solve(env, left=12)
    ended, progress = still(env, steps=20)
    assert ended.index(True) >= env.hold_steps - 1
    assert progress == 1.0


@pytest.mark.parametrize(("left", "right"), [(9, False), (10, True), (15, True), (16, False)])
def test_the_tolerance_has_two_edges(env, left, right):
    """Half of 25 beads, give or take 2.5."""
    solve(env, left)
    ended, progress = still(env, steps=20)
    assert ended[-1] == right
    assert (progress == 1.0) == right


@pytest.mark.parametrize(("spilt", "right"), [(2, True), (3, False)])
def test_less_than_a_tenth_may_be_spilt(env, spilt, right):
    solve(env, left=12, spilt=spilt)
    assert env.shares(env.state)[0].sum() == pytest.approx(1.0 - spilt / COUNT)
    assert still(env, steps=20)[0][-1] == right


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    solve(env, left=12)
    still(env, steps=20)
    state = State(*(np.repeat(part, 5, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 5, axis=0)
    axis = env.model.sensor("cup axis").adr[0]
    state.sensordata[1, axis : axis + 3] = [np.sin(0.6), 0.0, np.cos(0.6)]  # tilted by 34 degrees
    state.qvel[2, env.model.joint("cup").dofadr[0]] = 2 * beads.AT_REST  # the cup moves
    state.qvel[3, env.beads.qvel.start + 5] = -2 * beads.AT_REST  # a bead moves
    goal[4, 0] = 0.75  # another share was asked for
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True, False, False, False, False]
    assert progress[0] == 1.0
    assert (progress[1:] < 1.0).all()


def test_beads_that_are_falling_into_the_tray_do_not_count(env):
    solve(env, left=12)
    in_tray = env.vessels.hold(env.state, env.beads.places(env.state.qpos))[0, 1]
    env.beads.places(env.data.qpos)[in_tray, 2] += 0.15
    ended, _ = still(env, steps=30)
    assert not any(ended[: env.hold_steps + 2])
    assert ended[-1]


def test_evaluation_of_a_batch_is_that_of_its_rows(env):
    states, goals = [], []
    for seed, left in enumerate((12, 3, 20, 11)):
        solve(env, left, seed=seed)
        still(env, steps=3)
        states.append([part[0].copy() for part in env.state])
        goals.append(env.goal)
    batch, goals = State(*map(np.stack, zip(*states, strict=True))), np.stack(goals)
    success, progress = env.evaluate(batch, goals)
    for i in range(len(goals)):
        row = State(*(part[i : i + 1] for part in batch))
        alone = env.evaluate(row, goals[i : i + 1])
        assert (success[i], progress[i]) == (alone[0][0], alone[1][0])
    assert len(set(progress)) > 2


@pytest.mark.parametrize("split", Pour.splits)
def test_nothing_touches_the_arm_or_moves_at_the_start(split):
    env = Pour(obs_type="state", split=split)
    for seed in range(3):
        env.reset(seed=seed)
        before = env.beads.places(env.data.qpos).copy()
        assert env.shares(env.state)[0, 0] == 1.0
        arm = set(np.flatnonzero(env.model.geom_contype == 2))
        assert not any(arm & {c.geom1, c.geom2} for c in env.data.contact[: env.data.ncon])
        assert env.data.contact.dist[: env.data.ncon].min() > -SOFT
        still(env, steps=10)
        assert np.abs(env.beads.places(env.data.qpos) - before).max() < 0.0015
        assert np.abs(env.data.joint("cup").qvel).max() < 0.002


def test_the_goal_picture_shows_success(env):
    for seed in range(6):
        start = env.draw(seed, None)
        env.reset(seed=seed)
        env.data.qpos[:] = env.goal_scene(start).qpos
        mujoco.mj_forward(env.model, env.data)
        assert still(env, steps=20)[0][-1]


@pytest.mark.parametrize("vessel", [CUP, NOVEL_CUP, Pour.target, Vessel(0.036, 0.03, sides=8)])
def test_beads_are_laid_out_apart_and_inside(vessel):
    places = layout(vessel, COUNT)
    assert len(places) == COUNT
    gaps = [np.linalg.norm(a - b) for a, b in combinations(places, 2)]
    assert min(gaps) > 2 * beads.RADIUS * beads.SIZES[-1] - 1e-9
    assert np.hypot(*places[:, :2].T).max() < vessel.corner - beads.RADIUS


def test_the_top_camera_sees_the_tray_and_every_bead(env):
    """Beads of four pixels: their area, in the picture, at the height of the table."""
    view, (height, width) = env.model.camera("top"), env.image_size
    focal = height / 2 / np.tan(np.radians(env.model.cam_fovy[view.id]) / 2)
    for seed in range(20):
        env.reset(seed=seed)
        edge = Pour.target.outer * np.array([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
        points = np.concatenate([env.data.mocap_pos[0] + edge, env.beads.places(env.data.qpos)])
        eye = env.data.camera("top")
        local = (points - eye.xpos) @ eye.xmat.reshape(3, 3)
        pixels = focal * local[:, :2] / -local[:, 2:]
        assert (np.abs(pixels) < [width / 2, height / 2]).all()
        radius = focal * beads.RADIUS * beads.SIZES[0] / -local[:, 2].min()  # of the farthest
        assert np.pi * radius**2 > 4.0


def test_a_share_out_of_range_is_refused(env):
    with pytest.raises(ValueError, match="what is left, in percent, is 95; give 0 to 80"):
        env.reset(options={"instruction": "pour until 95 percent is left in the cup"})


def test_novel_shares_are_never_trained_on(env):
    novel = Pour(obs_type="state", split="novel_state")
    shares = [{float(e.draw(seed, None).goal[0]) for seed in range(60)} for e in (env, novel)]
    assert not shares[0] & shares[1]
    assert [len(drawn) for drawn in shares] == [4, 3]
