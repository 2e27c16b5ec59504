"""envs/pour.py and envs/beads.py; what Pour shares with Transfer is in tests/pouring.py."""

from itertools import combinations

import mujoco
import numpy as np
import pytest
from pouring import PouringTests, still

from robolearn.envs import beads
from robolearn.envs.beads import COUNT, layout
from robolearn.envs.pour import TRAY, Pour
from robolearn.envs.pouring import AT_REST, CUP, NOVEL_CUP
from robolearn.envs.pouring_expert import AHEAD, PouringExpert
from robolearn.envs.task import State
from robolearn.envs.transfer import Transfer

SOFT = 0.0008  # m: what packed beads sink into each other
HALF = {"instruction": "pour until 50 percent is left in the cup"}


@pytest.fixture(scope="module")
def env():
    return Pour(obs_type="state")


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


class TestPour(PouringTests):
    task = Pour
    shares = (4, 3)


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


@pytest.mark.parametrize("turn", np.arange(8) * np.pi / 4)
def test_beads_that_lean_on_the_tray_are_not_in_it(env, turn):
    """They lie nearer to its middle than its corners do."""
    solve(env, left=12)
    into = env.vessels.hold(env.state, env.beads.places(env.state.qpos))[0, 1]
    aside = np.array([np.cos(turn), np.sin(turn)])
    away = (TRAY.outer + beads.RADIUS * beads.SIZES[0]) / np.abs(aside).max()
    places, tray = env.beads.places(env.data.qpos), env.data.mocap_pos[0]
    places[into] = [*(tray[:2] + away * aside), beads.RADIUS]
    assert env.shares(env.state)[0].tolist() == [12 / COUNT, 0.0]
    corner = 0.9 * (TRAY.inner - beads.RADIUS) / np.abs(aside).max()
    places[into] = [*(tray[:2] + corner * aside), 0.01]
    assert env.shares(env.state)[0].tolist() == [12 / COUNT, 13 / COUNT]


def test_beads_on_their_way_out_count_as_gone_for_the_expert(env):
    env.reset(seed=0)
    expert = PouringExpert(env, np.random.default_rng(0), env.data.mocap_pos[0])
    assert expert.staying(AHEAD) == 1.0
    up = np.array([0.0, 0.0, 2 * CUP.height / AHEAD])
    env.beads.velocities(env.data.qvel)[:5] = up
    assert expert.staying(AHEAD) == pytest.approx(1.0 - 5 / COUNT)
    env.data.joint("cup").qvel[:3] = up  # now the others stay behind, and fall out below
    assert expert.staying(AHEAD) == pytest.approx(5 / COUNT)


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    solve(env, left=12)
    still(env, steps=20)
    state = State(*(np.repeat(part, 5, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 5, axis=0)
    axis = env.model.sensor("cup axis").adr[0]
    state.sensordata[1, axis : axis + 3] = [np.sin(0.6), 0.0, np.cos(0.6)]  # tilted by 34 degrees
    state.qvel[2, env.model.joint("cup").dofadr[0]] = 2 * AT_REST  # the cup moves
    state.qvel[3, env.beads.qvel.start + 5] = -2 * AT_REST  # a bead moves
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


@pytest.mark.parametrize("vessel", [CUP, NOVEL_CUP, TRAY, Transfer.targets["red bowl"]])
def test_beads_are_laid_out_apart_and_inside(vessel):
    places = layout(vessel, COUNT)
    assert len(places) == COUNT
    gaps = [np.linalg.norm(a - b) for a, b in combinations(places, 2)]
    assert min(gaps) > 2 * beads.RADIUS * beads.SIZES[-1] - 1e-9
    assert np.hypot(*places[:, :2].T).max() < vessel.corner - beads.RADIUS


def test_a_share_out_of_range_is_refused(env):
    with pytest.raises(ValueError, match="what is left, in percent, is 95; give 0 to 80"):
        env.reset(options={"instruction": "pour until 95 percent is left in the cup"})
