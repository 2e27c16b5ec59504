"""The loop: what goes into an episode, and that nothing around an episode changes it."""

from itertools import count, islice

import gymnasium
import numpy as np
import pytest
import toy

import robolearn.rollout
from robolearn.agent import ExpertAgent, PolicyAgent
from robolearn.contract import SO101, ActionError
from robolearn.episodes import EpisodeWriter
from robolearn.registry import make_env
from robolearn.rollout import rollout
from robolearn.workers import make_vector

PICK_PLACE = "robolearn/PickPlace-v0"


class Still:
    """Repeats the measured position and notes what it is told."""

    def __init__(self):
        self.told, self.calls = [], 0

    def reset(self, slot, seed, instruction):
        self.told.append((slot, seed, instruction))

    def act(self, observation):
        self.calls += 1
        return observation["agent_pos"].copy()

    def latency(self, slot):
        return [0.25, 0.5]

    def notes(self, slot):
        return {}


def assert_same(a, b):
    """Everything but the clock."""
    for name in ("env_id", "seed", "instruction", "terminated", "truncated", "fault"):
        assert getattr(a, name) == getattr(b, name)
    for name in ("action", "action_requested", "reward", "success", "progress", "intervention"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    assert a.observations.keys() == b.observations.keys()
    for name, values in a.observations.items():
        np.testing.assert_array_equal(values, b.observations[name], name)


def run_with_policy(env_id, env_count, seeds, policy, **options):
    """env_count 0 is a plain environment; the episodes by seed."""
    env = make_vector(env_id, env_count, **options) if env_count else make_env(env_id, **options)
    episodes = list(rollout(env, PolicyAgent(policy, replan_every=3), seeds))
    env.close()
    assert sorted(e.seed for e in episodes) == sorted(seeds)
    return {e.seed: e for e in episodes}


def test_episodes_do_not_depend_on_what_runs_beside_them():
    policy, seeds = toy.tiny_policy(), range(7)
    alone = run_with_policy(toy.ENV_ID, 0, seeds, policy)
    assert len({e.instruction for e in alone.values()}) > 1
    for env_count in (1, 2, 3):
        beside = run_with_policy(toy.ENV_ID, env_count, seeds, policy)
        for seed in seeds:
            assert_same(alone[seed], beside[seed])
    for a, b in [(0, 1), (2, 3)]:
        assert not np.array_equal(alone[a].action[:3], alone[b].action[:3])


def test_simulated_episodes_do_not_depend_on_what_runs_beside_them():
    cameras = {"top": (24, 42), "wrist": (24, 42)}
    policy = toy.tiny_policy(SO101, cameras)
    alone = run_with_policy(PICK_PLACE, 0, [5, 6], policy, image_size=(24, 42))
    beside = run_with_policy(PICK_PLACE, 2, [6, 5], policy, image_size=(24, 42))
    for seed in (5, 6):
        assert_same(alone[seed], beside[seed])


def test_every_slot_gets_its_own_instruction():
    actor, env = Still(), make_vector(toy.ENV_ID, 3)
    texts = {seed: toy.INSTRUCTIONS[seed % len(toy.INSTRUCTIONS)] for seed in range(5)}
    options = {seed: {"instruction": text} for seed, text in texts.items()}
    episodes = list(rollout(env, actor, range(5), options=options.__getitem__))
    assert {e.seed: e.instruction for e in episodes} == texts
    assert {seed: text for _, seed, text in actor.told} == texts
    assert [slot for slot, *_ in actor.told[:3]] == [0, 1, 2]


def test_observations_are_those_before_the_actions():
    (episode,) = rollout(make_env(toy.ENV_ID), Mover(), [1])
    position, action = episode.observations["agent_pos"], episode.action
    assert episode.observations["agent_effort"][:, 0].tolist() == list(range(len(episode)))
    moved = position[:-1] + np.clip(action[:-1] - position[:-1], -0.15, 0.15)
    np.testing.assert_allclose(position[1:], moved, atol=1e-6)


class Mover:
    """Moves by a fixed amount, the gripper beyond its range."""

    def reset(self, slot, seed, instruction):
        pass

    def act(self, observation):
        return observation["agent_pos"] + np.float32([0.1, -0.4, 2.0])

    def latency(self, slot):
        return []

    def notes(self, slot):
        return {}


def test_every_array_has_one_row_a_step_and_suits_a_dataset(tmp_path):
    (episode,) = rollout(make_env(toy.ENV_ID), Mover(), [1])
    with EpisodeWriter(tmp_path / "d", arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writer:
        writer.append(episode)  # checks shapes and dtypes
        assert len(writer) == 1
    assert episode.env_id == "Toy-v0"
    assert episode.arm == toy.TOY_ARM
    # What was sent is what was asked within the limits.
    assert episode.action_requested[:, 2].min() > 1
    np.testing.assert_array_equal(
        episode.action, np.clip(episode.action_requested, toy.TOY_ARM.low, toy.TOY_ARM.high)
    )


def test_frames_are_copies():
    """A vector environment may hand out the same buffer at every step."""
    (episode,) = rollout(make_vector(toy.ENV_ID, 1), Mover(), [1])
    assert np.ptp(episode.observations["agent_pos"][:, 0]) > 0.5


def test_success_terminates_and_the_time_limit_truncates():
    env = make_vector(toy.ENV_ID, 1)
    (solved,) = rollout(env, ExpertAgent(env), [1])
    (stuck,) = rollout(env, Still(), [1])
    assert (solved.terminated, solved.truncated, len(solved) < toy.STEPS) == (True, False, True)
    assert solved.success.tolist() == [False] * (len(solved) - 1) + [True]
    assert (stuck.terminated, stuck.truncated, len(stuck)) == (False, True, toy.STEPS)
    assert not stuck.success.any()


def test_success_at_the_last_moment_is_no_truncation():
    env = make_vector(toy.ENV_ID, 1)
    (solved,) = rollout(env, ExpertAgent(env), [1])
    tight = gymnasium.make(toy.ENV_ID, max_episode_steps=len(solved))
    vector = gymnasium.vector.SyncVectorEnv([lambda: tight], autoreset_mode="Disabled")
    (again,) = rollout(vector, ExpertAgent(vector), [1])
    assert len(again) == len(solved)
    assert (again.terminated, again.truncated) == (True, False)


def test_a_fault_is_recorded_and_truncates():
    (episode,) = rollout(make_env(toy.ENV_ID, fault=1), Still(), [1])
    assert (episode.fault, episode.terminated, episode.truncated) == ("overheated", False, True)
    assert len(episode) == 3
    (fine,) = rollout(make_env(toy.ENV_ID, fault=1), Still(), [2])
    assert (fine.fault, len(fine)) == ("", toy.STEPS)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_vector_environment_that_resets_itself_is_refused(mode):
    vector = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make(toy.ENV_ID)], autoreset_mode=mode
    )
    with pytest.raises(ValueError, match=r"AutoresetMode\.DISABLED"):
        list(rollout(vector, Still(), [1]))


def test_endless_seeds_are_taken_one_at_a_time():
    taken = []
    seeds = (taken.append(seed) or seed for seed in count(10))
    episodes = list(islice(rollout(make_vector(toy.ENV_ID, 2), Still(), seeds), 3))
    assert [e.seed for e in episodes] == [10, 11, 12]
    assert len(taken) <= 5


@pytest.mark.parametrize(("slots", "seeds"), [(3, 4), (3, 1), (2, 0)])
def test_slots_without_a_seed_make_no_episodes(slots, seeds):
    actor = Still()
    episodes = list(rollout(make_vector(toy.ENV_ID, slots), actor, range(seeds)))
    assert sorted(e.seed for e in episodes) == list(range(seeds))
    assert [seed for _, seed, _ in actor.told] == list(range(seeds))
    assert actor.calls == -(-seeds // slots) * toy.STEPS


def test_wall_time_is_when_the_observation_was_captured(monkeypatch):
    clock, asked = count(1000), []
    monkeypatch.setattr(robolearn.rollout.time, "time", lambda: float(next(clock)))

    class Slow(Still):
        def act(self, observation):
            asked.append(next(clock))
            return super().act(observation)

    (episode,) = rollout(make_env(toy.ENV_ID), Slow(), [1])
    assert (np.diff(episode.wall_time) > 0).all()
    assert (episode.wall_time < asked).all()  # thinking comes after seeing
    assert (episode.wall_time[1:] > asked[:-1]).all()


def test_watchers_see_the_start_and_every_step():
    seen = []
    env = make_env(toy.ENV_ID)
    watch = lambda vector: seen.append(vector.get_attr("steps")[0])  # noqa: E731
    (episode,) = rollout(env, Still(), [1], watch=watch)
    assert seen[: len(episode) + 1] == list(range(len(episode) + 1))


def test_the_latency_of_every_decision_is_kept():
    (episode,) = rollout(make_env(toy.ENV_ID), Still(), [1])
    assert episode.latency.dtype == np.float32
    assert episode.latency.tolist() == [0.25, 0.5]


def test_an_action_that_cannot_be_executed_is_an_error_not_a_failed_episode():
    class Broken(Still):
        def act(self, observation):
            return np.full_like(observation["agent_pos"], np.nan)

    with pytest.raises(ActionError, match="left is nan"):
        list(rollout(make_env(toy.ENV_ID), Broken(), [1]))
