"""The agent: receding horizon, candidates, and noise that belongs to the episode."""

import numpy as np
import pytest
import torch

from robolearn.agent import PolicyAgent
from robolearn.policies.base import Chunks, Context

HORIZON, JOINTS = 6, 2


class Scripted:
    """A policy whose k-th chunk counts up from 100 k; candidate c adds 10 c."""

    horizon = HORIZON
    device = torch.device("cpu")
    history = 1
    arm: dict = {}

    def __init__(self):
        self.encoded, self.noises = [], []

    def encode(self, observation, instructions):
        self.encoded.append((observation, list(instructions)))
        return Context(torch.zeros(1, 1, 1), observation["agent_pos"])

    def notes(self, context):
        return {}

    def sample(self, context, n, noise):
        self.noises.append([g.standard_normal() for g in noise])
        steps = torch.arange(HORIZON, dtype=torch.float32)[:, None].expand(HORIZON, JOINTS)
        base = 100 * (len(self.encoded) - 1) + 10 * torch.arange(n)
        return Chunks(base[None, :, None, None] + steps, torch.zeros(1, n, 1))


class Fixed:
    """Scores candidates by a fixed list."""

    def __init__(self, *scores):
        self.scores = torch.tensor([scores])

    def score(self, context, chunks, noise):
        assert chunks.actions.shape == (1, self.scores.shape[1], HORIZON, JOINTS)
        return self.scores


def observation(slots=1):
    positions = np.arange(slots * JOINTS, dtype=np.float32).reshape(slots, JOINTS) / 100
    return {
        "agent_pos": positions,
        "pixels": {
            "top": np.arange(slots, dtype=np.uint8)[:, None, None, None] * np.ones(3, np.uint8)
        },
    }


def first_joint(agent, steps):
    return [float(agent.act(observation())[0, 0]) for _ in range(steps)]


@pytest.mark.parametrize("every", [1, 2, HORIZON])
def test_a_chunk_is_executed_up_to_the_replanning(every):
    policy = Scripted()
    agent = PolicyAgent(policy, replan_every=every)
    agent.reset(0, 1, "go")
    assert first_joint(agent, 7) == [100 * (k // every) + k % every for k in range(7)]
    assert len(policy.encoded) == -(-7 // every)  # never asked while actions are queued
    assert len(agent.latency(0)) == len(policy.encoded)
    assert min(agent.latency(0)) > 0


def test_what_is_under_way_already_is_left_out_of_a_chunk():
    agent = PolicyAgent(Scripted(), replan_every=3, lead=2)
    agent.reset(0, 1, "go")
    assert first_joint(agent, 7) == [2, 3, 4, 102, 103, 104, 202]


def test_overlapping_chunks_are_averaged():
    """Chunk k says 100 k + its own step; the oldest weighs most."""
    agent = PolicyAgent(Scripted(), replan_every=1, ensemble=0.5)
    agent.reset(0, 1, "go")
    expected = []
    for step in range(9):
        begun = np.arange(max(0, step - HORIZON + 1), step + 1)
        weights = np.exp(-0.5 * np.arange(len(begun)))
        expected.append(np.average(100 * begun + step - begun, weights=weights))
    np.testing.assert_allclose(first_joint(agent, 9), expected, rtol=1e-5)


def test_chunks_overlap_as_far_as_they_reach():
    agent = PolicyAgent(Scripted(), replan_every=2, lead=1, ensemble=0.0)
    agent.reset(0, 1, "go")
    # from chunk 0 the steps 1 to 5, from chunk 1 (two steps later) 101 on, from chunk 2 201 on
    assert first_joint(agent, 6) == [1, 2, (3 + 101) / 2, (4 + 102) / 2, (5 + 103 + 201) / 3, 153]


@pytest.mark.parametrize("decay", [-0.1, np.nan, np.inf])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="give a decay of 0 or more"):
        PolicyAgent(Scripted(), ensemble=decay)


def test_the_best_candidate_is_executed():
    agent = PolicyAgent(Scripted(), replan_every=2, candidates=3, scorer=Fixed(0.1, 0.7, 0.3))
    agent.reset(0, 1, "go")
    assert first_joint(agent, 3) == [10, 11, 110]


def test_a_new_episode_forgets_the_queue():
    agent = PolicyAgent(Scripted(), replan_every=4)
    agent.reset(0, 1, "go")
    assert first_joint(agent, 2) == [0, 1]
    agent.reset(0, 2, "go")
    assert first_joint(agent, 1) == [100]
    assert len(agent.latency(0)) == 1


def test_every_slot_is_decided_with_its_own_view_words_and_queue():
    policy = Scripted()
    agent = PolicyAgent(policy, replan_every=3)
    agent.reset(0, 1, "first")
    agent.act(observation(slots=2))
    agent.reset(1, 2, "second")
    action = agent.act(observation(slots=2))
    assert action[:, 0].tolist() == [1, 100]
    seen, words = policy.encoded[1]
    assert words == ["second"]
    assert seen["agent_pos"].tolist() == observation(2)["agent_pos"][1:].tolist()
    assert seen["pixels"]["top"].unique().tolist() == [1]


def test_without_a_plan_an_arm_that_sags_is_not_led_downhill():
    class Lost(Scripted):
        """Finds a plan at its first decision only, and moves little."""

        def sample(self, context, n, noise):
            chunks = super().sample(context, n, noise)
            return Chunks(chunks.actions / 10.0, chunks.features)

        def notes(self, context):
            return {"plan_found": torch.tensor([float(len(self.encoded) == 1)])}

    agent = PolicyAgent(Lost(), replan_every=2)
    agent.reset(0, 1, "go")
    assert first_joint(agent, 7) == pytest.approx([0.0, *[0.1] * 6])
    assert agent.notes(0)["plan_found"] == [1.0, 0.0, 0.0, 0.0]
    agent.reset(0, 2, "go")  # nothing has been told yet in this episode
    assert first_joint(agent, 3) == [0.0, 0.0, 0.0]
    trying = PolicyAgent(Lost(), replan_every=2, keep_trying=True)
    trying.reset(0, 1, "go")
    assert first_joint(trying, 4) == pytest.approx([0.0, 0.1, 10.0, 10.1])
    assert trying.notes(0)["plan_found"] == [1.0, 0.0]


@pytest.mark.parametrize(("told", "still"), [(None, 0.0), (0.1, 0.1), (-0.1, -0.1), (0.4, 0.0)])
def test_an_arm_that_somebody_has_moved_does_not_go_back(told, still):
    agent = PolicyAgent(Scripted())
    agent.reset(0, 1, "go")
    slot = agent._slots[0]
    slot.told = None if told is None else np.array([0.0, told])
    assert slot.still(np.zeros(2), ()).tolist() == [0.0, still]


def test_a_gripper_that_holds_something_does_not_let_go():
    agent = PolicyAgent(Scripted())
    agent.reset(0, 1, "go")
    slot = agent._slots[0]
    slot.told = np.array([0.1, -0.5])  # it closes upon what is as wide as 0
    assert slot.still(np.zeros(2), [1]).tolist() == [0.1, -0.5]


def test_a_slot_without_an_episode_holds_still():
    agent = PolicyAgent(Scripted())
    agent.reset(1, 1, "go")
    action = agent.act(observation(slots=3))
    assert action.dtype == np.float32
    np.testing.assert_array_equal(action[[0, 2]], observation(3)["agent_pos"][[0, 2]])


def test_noise_derives_from_the_seed_of_the_episode_alone():
    def noises(resets, steps=3):
        policy = Scripted()
        agent = PolicyAgent(policy, replan_every=1)
        for slot, seed in resets:
            agent.reset(slot, seed, "go")
        for _ in range(steps):
            agent.act(observation(slots=4))
        slots = [slot for slot, _ in resets]
        return {s: policy.noises[slots.index(s) :: len(slots)] for s in slots}

    alone = noises([(0, 5)])[0]
    assert len({x for (x,) in alone}) == 3
    beside = noises([(3, 9), (2, 5), (0, 7)])
    assert beside[2] == alone
    assert beside[3] != alone
    assert noises([(0, 6)])[0] != alone


def test_every_decision_has_noise_of_its_own():
    class Greedy(Scripted):
        """Draws one number a candidate, as policies do."""

        def sample(self, context, n, noise):
            chunks = super().sample(context, n, noise)
            self.noises[-1] = list(noise[0].standard_normal(n))
            return chunks

    def noises(candidates):
        policy = Greedy()
        scorer = Fixed(*range(candidates)) if candidates > 1 else None
        agent = PolicyAgent(policy, replan_every=1, candidates=candidates, scorer=scorer)
        agent.reset(0, 5, "go")
        first_joint(agent, 3)
        return policy.noises

    one, many = noises(1), noises(8)
    assert len({x for (x,) in one}) == 3
    assert [row[:1] for row in many] == one


def test_fixed_noise_is_the_same_in_every_decision_of_every_episode():
    policy = Scripted()
    agent = PolicyAgent(policy, replan_every=2, fixed_noise=True)
    for seed in (5, 6):
        agent.reset(0, seed, "go")
        first_joint(agent, 4)
    assert len(policy.noises) == 4
    assert len({noise for (noise,) in policy.noises}) == 1


@pytest.mark.parametrize("every", [0, -1, HORIZON + 1])
def test_a_replanning_outside_the_chunk_is_refused(every):
    with pytest.raises(ValueError, match=f"replan_every is {every}; a chunk .* has 6 steps"):
        PolicyAgent(Scripted(), replan_every=every)


@pytest.mark.parametrize("lead", [-1, 3])
def test_a_lead_beyond_the_chunk_is_refused(lead):
    with pytest.raises(ValueError, match=f"lead is {lead}; .* has 2 to leave out"):
        PolicyAgent(Scripted(), replan_every=4, lead=lead)


@pytest.mark.parametrize("candidates", [0, 2])
def test_candidates_need_someone_who_chooses(candidates):
    with pytest.raises(ValueError, match=f"candidates is {candidates}; .* with a scorer"):
        PolicyAgent(Scripted(), candidates=candidates)
