"""Tremble: what arrives is not quite what was asked for, and recordings hold what was asked for."""

import numpy as np
import pytest
from observing import assert_same, flat, run

from robolearn.contract import ActionError, Info
from robolearn.envs.tremble import LASTS, OTHERS, TARGETS
from robolearn.envs.variation import MAX_LEVEL
from robolearn.registry import make_env

REACH, TOY = "robolearn/Reach-v0", "foreign:strangers:Slider-v0"


def trembling(env_id=REACH, level=MAX_LEVEL):
    return make_env(env_id, obs_type="state", variations={"tremble": level})


@pytest.fixture
def shaken():
    """An arm, its home (J,), and what becomes of 4000 actions that ask for it, (4000, J)."""
    env = trembling()
    env.reset(seed=0)
    home = np.array(env.unwrapped.arm.home, np.float32)
    return env.unwrapped.arm, home, np.array([env._shaken(home) for _ in range(4000)])


@pytest.mark.parametrize("env_id", [REACH, TOY])
def test_a_seed_has_its_own_noise(env_id):
    env = trembling(env_id)
    expected = run(env, seed=2, steps=9)
    run(env, seed=1, steps=9)
    for other in (env, trembling(env_id)):
        assert_same(run(other, seed=2, steps=9), expected)
    with pytest.raises(AssertionError):
        assert_same(run(make_env(env_id, obs_type="state"), seed=2, steps=9), expected)


@pytest.mark.parametrize("env_id", [REACH, TOY])
def test_level_zero_is_the_plain_task(env_id):
    plain = make_env(env_id, obs_type="state")
    assert_same(run(trembling(env_id, 0), seed=3, steps=9), run(plain, seed=3, steps=9))


def test_moves_and_grippers_tremble_more():
    env = trembling(TOY)  # whose actions are no targets
    env.reset(seed=0)
    still = np.zeros(2, np.float32)
    noise = np.array([env._shaken(still) for _ in range(4000)])
    assert noise.std(0) == pytest.approx(OTHERS * 2.0, rel=0.15)


def test_info_tells_what_was_asked():
    env, plain = trembling(), make_env(REACH, obs_type="state")
    for one in (env, plain):
        one.reset(seed=0)
    asked = np.array(env.unwrapped.arm.home, np.float32) + np.float32(0.05)
    for _ in range(5):
        observation, *_, info = env.step(asked)
        expected, *_, told = plain.step(asked)
        for name in (Info.ACTION_REQUESTED, Info.ACTION_SENT, Info.LIMITED, Info.TELEOP_ACTION):
            np.testing.assert_array_equal(info[name], told[name])
    assert np.abs(flat(observation)["agent_pos"] - flat(expected)["agent_pos"]).max() > 0.01


def test_the_noise_is_as_wide_as_told_and_changes_slowly(shaken):
    arm, home, actions = shaken
    low, high = arm.limits
    shares = np.array([OTHERS if k in arm.grippers else TARGETS for k in range(arm.size)])
    spread = shares * (high - low)
    inner = np.minimum(home - low, high - home) > 3.5 * spread  # never at an end
    assert inner[[k for k in range(arm.size) if k not in arm.grippers]].any()
    noise, lag = (actions - home)[:, inner], round(LASTS * arm.control_hz)
    assert noise.std(0) == pytest.approx(spread[inner], rel=0.15)
    alike = np.array([np.corrcoef(n[:-lag], n[lag:])[0, 1] for n in noise.T])
    assert np.abs(alike - np.exp(-1.0)).max() < 0.12
    assert ((actions >= low) & (actions <= high)).all()


def test_the_task_gets_what_is_shaken(monkeypatch):
    env, got = trembling(), []
    env.reset(seed=0)
    step = env.env.step
    monkeypatch.setattr(env.env, "step", lambda action: got.append(action) or step(action))
    monkeypatch.setattr(env, "_shaken", lambda sent: sent + np.float32(0.01))
    home = np.array(env.unwrapped.arm.home, np.float32)
    env.step(home)
    np.testing.assert_array_equal(got, [home + np.float32(0.01)])


def test_a_bad_action_moves_nothing_and_draws_nothing():
    env, other = trembling(), trembling()
    asked = np.array(env.unwrapped.arm.home, np.float32)
    for one in (env, other):
        one.reset(seed=0)
    with pytest.raises(ActionError):
        env.step(np.full_like(asked, np.nan))
    assert_same([flat(env.step(asked)[0])], [flat(other.step(asked)[0])])
