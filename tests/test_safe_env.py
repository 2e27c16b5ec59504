"""hardware/safe_env.py: simulated arms behind the safety layer of the real one."""

from dataclasses import replace

import numpy as np
import pytest
import toy

from robolearn.contract import SO101, ActionError, Info
from robolearn.hardware.safe_env import SafeEnv
from robolearn.hardware.safety import Fault, SafetyConfig, State
from robolearn.hardware.workspace import Workspace
from robolearn.registry import make_env
from robolearn.seeding import stream

DT = 1 / SO101.control_hz


@pytest.fixture(scope="module")
def env():
    base = make_env("robolearn/PickPlace-v0", obs_type="state")
    return SafeEnv(base, workspace=Workspace())


def test_an_episode_begins_engaged_and_where_the_arm_is(env):
    observation, info = env.reset(seed=3)
    assert env.supervisor.state is State.ENGAGED
    assert info[Info.FAULT] == ""
    _, _, _, _, info = env.step(observation["agent_pos"])
    np.testing.assert_allclose(info[Info.ACTION_SENT], observation["agent_pos"], atol=1e-6)


def test_actions_are_limited_and_reported(env):
    begin = env.reset(seed=0)[0]["agent_pos"]
    high = env.action_space.high
    sent = [begin]
    for _ in range(8):
        _, _, terminated, truncated, info = env.step(high)
        np.testing.assert_array_equal(info[Info.ACTION_REQUESTED], high)
        assert info[Info.LIMITED]
        assert not terminated
        assert not truncated
        sent.append(info[Info.ACTION_SENT])
    rate = np.abs(np.diff(sent, axis=0)) / DT
    assert (rate <= env.supervisor.limits.velocity + 1e-4).all()
    assert rate.max() > 1.4


def test_an_action_that_can_be_sent_as_it_is_is_not_limited(env):
    rest = env.reset(seed=0)[0]["agent_pos"]
    for _ in range(5):
        info = env.step(rest)[-1]
    assert not info[Info.LIMITED]


def test_an_invalid_action_raises_as_in_any_environment(env):
    env.reset(seed=0)
    with pytest.raises(ActionError, match="elbow_flex is nan"):
        env.step(np.where(np.arange(6) == 2, np.nan, 0.0))
    env.step(env.action_space.high)


def test_the_table_is_not_reached(env):
    env.reset(seed=0)
    workspace = Workspace()
    for _ in range(60):
        info = env.step(np.float32([0.0, 1.5, 0.0, 1.2, 0.0, 0.3]))[-1]
        assert workspace.objection(info[Info.ACTION_SENT].astype(float) - 1e-6) == ""
    assert any(event.startswith("held back") for event in env.events)


def test_a_fault_truncates_and_keeps_its_code():
    config = SafetyConfig(block_current=0.01, block_lag=0.0, trip_seconds=0.2)
    env = SafeEnv(make_env("robolearn/PickPlace-v0", obs_type="state"), config)
    env.reset(seed=0)
    for _ in range(30):
        *_, terminated, truncated, info = env.step(env.action_space.high)
        if truncated:
            break
    assert truncated
    assert not terminated
    assert info[Info.FAULT] == Fault.BLOCKED
    env.reset(seed=0)
    assert env.step(env.action_space.high)[-1][Info.FAULT] == ""


def test_an_arm_that_cannot_begin_is_an_error():
    crooked = SafetyConfig(engage_margin=-3.0)
    env = SafeEnv(make_env("robolearn/PickPlace-v0", obs_type="state"), crooked)
    with pytest.raises(RuntimeError, match="the arm cannot begin: engaging refused"):
        env.reset(seed=0)


def test_the_expert_succeeds_behind_it(env):
    for seed in range(3):
        env.reset(seed=seed)
        expert = env.unwrapped.expert(stream(seed, "expert"))
        done = False
        while not done:
            *_, terminated, truncated, info = env.step(next(expert))
            done = terminated or truncated
        assert info[Info.IS_SUCCESS]


def test_other_arms_work_too():
    env = SafeEnv(toy.Toy(), replace(SafetyConfig(), on_exit="limp"))
    env.reset(seed=1)
    for _ in range(40):
        info = env.step(np.float32([0.5, -0.5, 0.9]))[-1]
    np.testing.assert_allclose(info[Info.ACTION_SENT], [0.5, -0.5, 0.9], atol=1e-6)
