"""Every registered environment, simulated or real, keeps the contract of `robolearn.contract`.

The real arm is its digital twin here, in lockstep.
"""

import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv
from observing import assert_same, digest, flat, go_on, run

from robolearn.contract import ActionError, Info
from robolearn.registry import env_ids, make_env

IDS = env_ids()
INFO_TYPES = {
    Info.TASK: str,
    Info.SEED: int,
    Info.IS_SUCCESS: bool,
    Info.SUCCESS: bool,
    Info.PROGRESS: float,
    Info.ACTION_REQUESTED: np.ndarray,
    Info.ACTION_SENT: np.ndarray,
    Info.LIMITED: bool,
    Info.IS_INTERVENTION: bool,
    Info.TELEOP_ACTION: np.ndarray,
    Info.FAULT: str,
}
# What check_env recommends against and the contract wants: joint targets, unbounded state.
ACCEPTED = ("symmetric and normalized space", "infinity")
OBS_TYPES = ("pixels_agent_pos", "state")


@pytest.fixture(params=IDS, scope="module")
def env_id(request):
    return request.param


@pytest.fixture(scope="module")
def pictures(env_id):
    """An environment that draws, for tests that leave it as they like."""
    with closing(make_env(env_id)) as env:
        yield env


@pytest.fixture(scope="module")
def states(env_id):
    """An environment without pictures."""
    with closing(make_env(env_id, obs_type="state")) as env:
        yield env


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_gymnasium_checks(env_id, obs_type):
    with (
        closing(make_env(env_id, obs_type=obs_type)) as env,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    unexpected = [str(w.message) for w in caught if not any(a in str(w.message) for a in ACCEPTED)]
    assert not unexpected


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_every_observation_is_in_its_space(env_id, obs_type):
    with closing(make_env(env_id, obs_type=obs_type)) as env:
        leaves = flat(env.observation_space)
        env.reset(seed=1)
        for action in [env.action_space.low, env.action_space.high] * 5:
            observation = env.step(action)[0]
            assert env.observation_space.contains(observation)
            for key, value in flat(observation).items():
                assert (value.shape, value.dtype) == (leaves[key].shape, leaves[key].dtype)


def test_observations_and_infos_are_not_reused(states):
    states.reset(seed=0)
    action = states.action_space.low.copy()
    first, _, _, _, info = states.step(action)
    kept = {k: v.copy() for k, v in (first | info).items() if isinstance(v, np.ndarray)}
    action[:] = states.action_space.high
    states.step(action)
    for key, value in kept.items():
        np.testing.assert_array_equal((first | info)[key], value, err_msg=key)


def test_same_seed_same_bits(pictures, env_id):
    expected = run(pictures, seed=7)
    with closing(make_env(env_id)) as other:
        assert_same(run(other, seed=7), expected)
    run(pictures, seed=8)
    assert_same(run(pictures, seed=7), expected)  # whatever ran before
    np.random.seed(123)
    assert_same(run(pictures, seed=7), expected)  # whatever the global generator is


def test_same_seed_same_bits_in_another_process(env_id):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(digest, env_id, 7).result() == digest(env_id, 7)


def test_other_seed_other_episode(pictures):
    one, other = run(pictures, seed=7, steps=0)[0], run(pictures, seed=8, steps=0)[0]
    for key in one:
        if key.startswith(("pixels", "agent_pos")):
            assert not np.array_equal(one[key], other[key]), key


def test_seeds_that_an_environment_draws_itself(states):
    def drawn():
        states.reset(seed=3)
        return [states.reset()[1][Info.SEED] for _ in range(3)]

    seeds = drawn()
    assert len({3, *seeds}) == 4
    assert drawn() == seeds
    observation, info = states.reset()
    again, _ = states.reset(seed=info[Info.SEED])
    assert_same([flat(observation)], [flat(again)])


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_a_vector_environment(env_id, pictures, method):
    low = pictures.action_space.low
    vector = AsyncVectorEnv([partial(make_env, env_id)] * 2, context=method)
    try:
        first, _ = vector.reset(seed=[5, 6])
        later = vector.step(np.stack([low] * 2))[0]
    finally:
        vector.close()
    for slot, seed in enumerate((5, 6)):
        alone = [pictures.reset(seed=seed)[0], pictures.step(low)[0]]
        together = [{k: v[slot] for k, v in flat(o).items()} for o in (first, later)]
        assert_same(together, [flat(o) for o in alone])


def test_time_limit_truncates(states):
    observation, _ = states.reset(seed=0)
    still = observation["agent_pos"]
    ends = [states.step(still)[2:4] for _ in range(states.spec.max_episode_steps)]
    assert ends == [(False, False)] * (len(ends) - 1) + [(False, True)]


def test_info_has_every_key_with_its_type(states):
    _, info = states.reset(seed=11)
    action = states.action_space.high
    for each in (info, states.step(action)[4]):
        grades = {key: float for key in each if key.startswith(Info.GRADE)}
        assert {key: type(value) for key, value in each.items()} == INFO_TYPES | grades
        assert each[Info.TASK] == states.unwrapped.task_description
        assert each[Info.SEED] == 11
        assert each[Info.FAULT] == ""
        assert 0.0 <= each[Info.PROGRESS] <= 1.0
        for key in (Info.ACTION_REQUESTED, Info.ACTION_SENT, Info.TELEOP_ACTION):
            assert (each[key].shape, each[key].dtype) == (action.shape, np.float32)


def test_one_step_is_one_control_period(states):
    assert states.metadata["render_fps"] == states.unwrapped.arm.control_hz


def test_the_arm_obeys(states):
    observation, _ = states.reset(seed=0)
    target, arm = observation["agent_pos"].copy(), states.unwrapped.arm
    pans = [k for k, joint in enumerate(arm.joints) if joint.endswith("shoulder_pan")]
    target[pans] += 0.3
    target[list(arm.grippers)] = 0.8
    for _ in range(30):
        observation = states.step(target)[0]
    moved = [*pans, *arm.grippers]
    np.testing.assert_allclose(observation["agent_pos"][moved], target[moved], atol=0.02)


def test_cameras(pictures, env_id):
    observation, _ = pictures.reset(seed=2)
    every = pictures.unwrapped.active_cameras
    assert tuple(observation["pixels"]) == every
    for camera in every:
        with closing(make_env(env_id, cameras=[camera])) as single:
            one, _ = single.reset(seed=2)
        assert list(one["pixels"]) == [camera]
        np.testing.assert_array_equal(one["pixels"][camera], observation["pixels"][camera])
        assert one["pixels"][camera].std() > 10


def test_close_twice(env_id):
    env, other = make_env(env_id), make_env(env_id)
    before = other.reset(seed=4)[0]
    env.reset(seed=0)
    env.close()
    env.close()
    assert_same([flat(other.reset(seed=4)[0])], [flat(before)])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda a: a[1:], r"shape \(\d+,\).* \(\d+,\).*shoulder_pan.*gripper"),
        (lambda a: np.stack([a, a]), r"shape \(2, \d+\)"),
        (lambda a: a[0], r"shape \(\)"),
        (lambda a: np.where(np.arange(a.size) == 3, np.nan, a), "wrist_flex is nan"),
        (
            lambda a: np.where(np.arange(a.size) == 0, np.inf, np.where(a == a[5], -np.inf, a)),
            "shoulder_pan is inf, .*gripper is -inf",
        ),
    ],
)
def test_bad_action_moves_nothing(states, bad, words):
    expected = run(states, seed=9)
    states.reset(seed=9)
    with pytest.raises(ActionError, match=words):
        states.step(bad(np.array(states.unwrapped.arm.home, np.float32)))
    assert_same(go_on(states, seed=9), expected[1:])  # as if nothing had been asked


def test_action_out_of_range_is_limited(states):
    states.reset(seed=0)
    low, high = states.unwrapped.arm.limits
    asked = np.where(np.arange(low.size) % 2, high + 0.3, low - 0.3).astype(np.float32)
    info = states.step(asked)[4]
    assert info[Info.LIMITED]
    np.testing.assert_array_equal(info[Info.ACTION_REQUESTED], asked)
    assert np.all((info[Info.ACTION_SENT] >= low) & (info[Info.ACTION_SENT] <= high))
    np.testing.assert_array_equal(info[Info.TELEOP_ACTION], info[Info.ACTION_SENT])


def test_unknown_id_names_the_nearest(env_id):
    for wrong in (env_id.replace("-v0", "-v7"), env_id.lower(), env_id.split("/")[1]):
        with pytest.raises(ValueError, match=f"{wrong!r}; near matches: .*{env_id}"):
            make_env(wrong)


def test_unknown_instruction_names_a_near_one(states):
    _, info = states.reset(seed=5)
    known = info[Info.TASK]
    with pytest.raises(ValueError, match=f"try for example {known!r}"):
        states.reset(seed=6, options={"instruction": known + "s"})
    assert states.reset(seed=6, options={"instruction": known})[1][Info.TASK] == known


def test_a_misspelt_option_is_refused_and_an_unknown_one_let_pass(states):
    before, _ = states.reset(seed=5)
    with pytest.raises(ValueError, match="no option 'instructions'; give {'instruction': text}"):
        states.reset(seed=6, options={"instructions": "go"})
    observation, _ = states.reset(seed=5, options={"some_tool": 1})
    np.testing.assert_allclose(observation["agent_pos"], before["agent_pos"], atol=0.01)
