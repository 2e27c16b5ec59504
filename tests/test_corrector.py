"""A scripted corrector: when it takes over, and what is recorded of it."""

from functools import partial

import numpy as np
import pytest

from robolearn.contract import Info
from robolearn.corrector import Corrector, corrected
from robolearn.registry import make_env
from robolearn.rollout import rollout
from robolearn.workers import make_vector

CUBES = "robolearn/PickPlace-v0"


class Idle:
    """A policy that leaves the arm where it is."""

    def reset(self, slot, seed, instruction):
        pass

    def act(self, observation):
        return np.array(observation["agent_pos"], np.float32)

    def latency(self, slot):
        return []

    def notes(self, slot):
        return {}


@pytest.fixture(scope="module")
def episodes():
    env = make_vector(CUBES, 1, partial(corrected, stuck=0.2), obs_type="state")
    yield list(rollout(env, Idle(), [0, 1, 0]))
    env.close()


def test_it_takes_over_when_nothing_happens_and_solves_the_task(episodes):
    for episode in episodes:
        begins = int(episode.intervention.argmax())
        assert 40 <= begins <= 60  # 20 % of 200 steps, and some for the arm to settle
        assert episode.intervention[begins:].all()
        assert not episode.intervention[:begins].any()
        assert episode.success[-1]
        assert episode.terminated


def test_a_takeover_belongs_to_its_seed(episodes):
    first, _, again = episodes
    np.testing.assert_array_equal(first.action, again.action)


def test_what_the_policy_wanted_stays(episodes):
    episode = episodes[0]
    helped = episode.intervention
    assert (episode.action[helped] != episode.action_requested[helped]).any()


@pytest.mark.parametrize("task", ["PickPlace", "Insert", "Sort", "Fold"])
def test_whoever_makes_progress_is_left_alone(task):
    env = corrected(make_env(f"robolearn/{task}-v0", obs_type="state"))
    env.reset(seed=2)
    script = env.unwrapped.expert(np.random.default_rng(0))
    done = False
    while not done:
        _, _, terminated, truncated, info = env.step(next(script))
        assert not info[Info.IS_INTERVENTION]
        done = terminated or truncated
    assert info[Info.IS_SUCCESS]
    env.close()


def test_a_task_without_an_expert_has_nobody_to_correct_it():
    class Bare:
        unwrapped, spec = object(), None

    with pytest.raises(ValueError, match="no scripted expert"):
        Corrector(Bare())
