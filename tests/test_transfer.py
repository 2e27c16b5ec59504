"""envs/transfer.py: which bowl gets how many beads. What it shares with Pour: tests/pouring.py."""

import mujoco
import numpy as np
import pytest
from pouring import PouringTests, still

from robolearn.envs.beads import COUNT, RADIUS
from robolearn.envs.pouring import AT_REST
from robolearn.envs.task import State
from robolearn.envs.transfer import BOWLS, PHRASES, Transfer

GREEN, RED = range(len(BOWLS))
HALF_INTO_GREEN = "pour 50 percent of the cup into the green bowl"


@pytest.fixture(scope="module")
def env():
    return Transfer(obs_type="state")


def solve(env, green, red=0, spilt=0, seed=0):
    """Puts so many beads into each bowl and onto the table; the others stay in the cup."""
    start = env.draw(seed, HALF_INTO_GREEN)
    env.reset(seed=seed, options={"instruction": HALF_INTO_GREEN})
    env.data.qpos[:] = env.poured(start, (green + red + spilt) / COUNT, target=GREEN).qpos
    places = env.beads.places(env.data.qpos)
    moved = np.flatnonzero(env.vessels.hold(env.state, places[None])[0, 1 + GREEN])[green:]
    places[moved] += start.mocap_pos[RED] - start.mocap_pos[GREEN]
    for k, bead in enumerate(moved[:spilt]):
        places[bead] = [0.15 + 0.015 * k, 0.0, RADIUS]
    mujoco.mj_forward(env.model, env.data)


class TestTransfer(PouringTests):
    task = Transfer
    shares = (4, 3)


@pytest.mark.parametrize(
    ("green", "red", "spilt", "right"),
    [
        (12, 0, 0, True),
        (10, 0, 0, True),  # half of 25 beads, give or take 2.5
        (9, 0, 0, False),
        (15, 0, 0, True),
        (16, 0, 0, False),
        (12, 2, 0, True),  # the other bowl counts as spilt: less than a tenth
        (12, 1, 1, True),
        (12, 3, 0, False),
        (12, 0, 3, False),
        (0, 12, 0, False),
    ],
)
def test_what_counts(env, green, red, spilt, right):
    solve(env, green, red, spilt)
    shares = env.shares(env.state)[0]
    inside = [COUNT - green - red - spilt, green, red]
    np.testing.assert_allclose(shares, np.array(inside) / COUNT)
    ended, progress = still(env, steps=20)
    assert ended[-1] == right
    assert (progress == 1.0) == right


def test_it_counts_only_after_the_hold_time(env):
    solve(env, green=12)
    ended, _ = still(env, steps=20)
    assert ended.index(True) >= env.hold_steps - 1


def test_each_condition_of_success_counts(env):
    """From a state that succeeds, each row but the first spoils one condition."""
    solve(env, green=12)
    still(env, steps=20)
    state = State(*(np.repeat(part, 6, axis=0) for part in env.state))
    goal = np.repeat(env.goal[None], 6, axis=0)
    axis = env.model.sensor("cup axis").adr[0]
    state.sensordata[1, axis : axis + 3] = [np.sin(0.6), 0.0, np.cos(0.6)]  # tilted by 34 degrees
    state.qvel[2, env.model.joint("cup").dofadr[0]] = 2 * AT_REST  # the cup moves
    state.qvel[3, env.beads.qvel.start + 5] = -2 * AT_REST  # a bead moves
    goal[4, 0] = 0.75  # another share was asked for
    goal[5, 1:] = [0.0, 1.0]  # the other bowl was asked for
    success, progress = env.evaluate(state, goal)
    assert success.tolist() == [True, *[False] * 5]
    assert (progress[1:] < 1.0).all()
    rows = [State(*(part[i : i + 1] for part in state)) for i in range(6)]
    alone = [env.evaluate(row, goal[i : i + 1]) for i, row in enumerate(rows)]
    assert [bool(one[0][0]) for one in alone] == success.tolist()
    assert [one[1][0] for one in alone] == progress.tolist()


def test_a_cup_put_into_the_bowl_has_transferred_nothing(env):
    env.reset(seed=0, options={"instruction": HALF_INTO_GREEN})
    way = env.data.mocap_pos[GREEN] - env.data.joint("cup").qpos[:3] + [0.0, 0.0, 0.004]
    env.data.joint("cup").qpos[:3] += way
    env.beads.places(env.data.qpos)[:] += way
    mujoco.mj_forward(env.model, env.data)
    assert env.shares(env.state)[0].tolist() == [1.0, 0.0, 0.0]


def test_nothing_moves_at_the_start_and_nothing_is_in_a_bowl(env):
    for seed in range(5):
        env.reset(seed=seed)
        before = env.beads.places(env.data.qpos).copy()
        assert env.shares(env.state)[0].tolist() == [1.0, 0.0, 0.0]
        still(env, steps=10)
        assert np.abs(env.beads.places(env.data.qpos) - before).max() < 0.0015


def test_every_bowl_and_share_is_asked_for_on_either_side(env):
    drawn = [env.draw(seed, None) for seed in range(200)]
    asked = {(*start.goal, np.sign(start.mocap_pos[GREEN, 1])) for start in drawn}
    assert len(asked) == 4 * 2 * 2
    for start in drawn:
        share, bowl = PHRASES.parse(start.instruction)
        assert start.goal.tolist() == [share, *np.eye(2)[bowl]]


def test_a_share_out_of_range_is_refused(env):
    with pytest.raises(ValueError, match="the share to transfer, in percent, is 5; give 20 to 100"):
        env.reset(options={"instruction": HALF_INTO_GREEN.replace("50", "5")})
