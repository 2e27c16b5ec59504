"""Decisions that take time: what is executed meanwhile, and how the next chunk goes on with it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from test_agent import HORIZON, JOINTS, Scripted, first_joint, observation

from robolearn.agent import PolicyAgent
from robolearn.plans import RealTime, overlapping
from robolearn.policies.base import Chunks, Context, Overlap, Policy
from robolearn.seeding import stream

KINDS = pytest.mark.parametrize("config", toy.TINIES.values(), ids=toy.TINIES.keys())


def acting(policy, **options):
    agent = PolicyAgent(policy, **options)
    agent.reset(0, 1, "go")
    return agent


def test_the_running_chunk_goes_on_until_the_next_one_arrives():
    """Chunk 1 is decided on at step 3 and arrives at step 5; its first two steps are past."""
    agent = acting(Scripted(), replan_every=3, delay=2, guided=False)
    assert first_joint(agent, 9) == [0, 1, 2, 3, 4, 102, 103, 104, 202]


def test_what_an_arm_is_late_by_is_left_out_as_well():
    agent = acting(Scripted(), replan_every=2, lead=1, delay=1, guided=False)
    assert first_joint(agent, 6) == [1, 2, 3, 102, 103, 202]


def test_a_starved_plan_holds():
    agent = acting(Scripted(), replan_every=3, delay=5, guided=False)
    assert first_joint(agent, 10) == [0, 1, 2, 3, 4, 5, 5, 5, 105, 105]


class Following(Scripted):
    """Keeps what it was told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def follow(self, context, n, noise, overlaps):
        self.told += overlaps
        return self.sample(context, n, noise)


def test_a_decision_is_told_what_is_under_way():
    policy = Following()
    assert first_joint(acting(policy, replan_every=3, delay=2), 4) == [0, 1, 2, 3]
    (overlap,) = policy.told
    assert overlap.actions[:3, 0].tolist() == [3, 4, 5]
    assert overlap.weights[:2].tolist() == [1, 1]
    assert overlap.weights[3:].tolist() == [0, 0, 0]
    assert 0 < overlap.weights[2] < 1


def test_a_decision_is_told_where_a_starved_arm_will_be():
    policy = Following()
    first_joint(acting(policy, replan_every=5, delay=4), 6)
    (overlap,) = policy.told
    assert overlap.actions[:4, 0].tolist() == [5, 5, 5, 5]
    assert overlap.weights.tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("left", "lead", "delay"), [(12, 0, 3), (9, 2, 4), (3, 0, 6), (16, 0, 0)])
def test_weights_fall_from_one_to_nothing(left, lead, delay):
    overlap = overlapping(np.ones((left, 2)), 16, lead, delay)
    late = min(delay, left)
    np.testing.assert_array_equal(overlap.weights[:lead], 0)
    np.testing.assert_array_equal(overlap.weights[lead : lead + late], 1)
    between = overlap.weights[lead + late : lead + left]
    assert (np.diff(between) < 0).all()
    assert ((between > 0) & (between < 1)).all()
    np.testing.assert_array_equal(overlap.weights[lead + left :], 0)
    np.testing.assert_array_equal(overlap.actions[lead : lead + left], 1)


def test_weights_are_those_of_the_paper():
    """Black et al. 2025, eq. 5, with H = 16, s = 4, d = 3."""
    c = (16 - 4 - np.arange(3, 12)) / (16 - 4 - 3 + 1)
    expected = c * (np.exp(c) - 1) / (np.e - 1)
    np.testing.assert_allclose(
        overlapping(np.ones((12, 1)), 16, 0, 3).weights[3:12], expected, rtol=1e-6
    )


class OfGaussian(torch.nn.Module):
    """What a head predicts that has learned all there is to know of chunks from N(0, 1)."""

    def __init__(self, policy):
        super().__init__()
        self.prefix, self.policy = policy.head.prefix, [policy]

    def forward(self, x, t, prefix):
        (policy,) = self.policy
        if policy.kind == "flow":
            return x * (2 * t - 1)[..., None] / (t**2 + (1 - t) ** 2)[..., None], x.flatten(2)
        level = (t * policy.config.train_steps).round().long()[..., 0]
        signal, spread = policy._shares(level)
        factor = {"epsilon": spread, "sample": signal, "v_prediction": 0.0}
        return x * factor[policy.config.prediction], x.flatten(2)


def knowing(config):
    policy = toy.tiny_policy(config=replace(config, sample_steps=10)).eval()
    policy.head = OfGaussian(policy)
    return policy


def draw(policy, overlap=None, n=2):
    seen = toy.observations(1, 0)
    noise = [stream(0, "policy")]
    with torch.inference_mode():
        context = policy.encode(seen, ["go to the red dot"])
        if overlap is None:
            return policy.sample(context, n, noise)
        return policy.follow(context, n, noise, [overlap])


@KINDS
def test_guided_chunks_go_on_with_the_running_one(config):
    policy = knowing(config)
    free = draw(policy)
    planned = free.actions[0, 0].numpy() + 0.1
    weights = np.linspace(1.5, -0.5, policy.horizon).clip(0, 1).astype(np.float32)
    guided = draw(policy, Overlap(planned, weights))
    off = [(chunks.actions[0] - torch.from_numpy(planned)).abs() for chunks in (free, guided)]
    told = torch.from_numpy(weights == 1)
    assert off[1][:, told].mean() < 0.4 * off[0][:, told].mean()
    assert not guided.actions.requires_grad


@KINDS
def test_without_weight_nothing_changes(config):
    policy = knowing(config)
    nothing = Overlap(
        np.ones((policy.horizon, toy.TOY_ARM.size), np.float32),
        0 * np.ones(policy.horizon, np.float32),
    )
    torch.testing.assert_close(draw(policy, nothing).actions, draw(policy).actions)


class Unguided(Policy):
    """Draws zeros, and knows nothing of guidance."""

    horizon, cameras = HORIZON, {}

    def encode(self, observation, instructions):
        return Context(torch.zeros(1, 1, 1), observation["agent_pos"])

    def sample(self, context, n, noise):
        return Chunks(torch.zeros(1, n, HORIZON, JOINTS), torch.zeros(1, n, 1))


def test_chunks_of_other_policies_are_blended():
    overlap = Overlap(
        np.ones((HORIZON, JOINTS), np.float32), np.array([1, 0.5, 0.2, 0, 0, 0], np.float32)
    )
    policy = Unguided()
    context = policy.encode({"agent_pos": torch.zeros(1, JOINTS)}, ["go"])
    chunks = policy.follow(context, 2, [stream(0, "policy")], [overlap])
    for chunk in chunks.actions[0]:
        np.testing.assert_allclose(chunk[:, 0], overlap.weights)


class Slow(Scripted):
    """Takes its time for every chunk but the first."""

    def __init__(self):
        super().__init__()
        self.may_go_on, self.error = threading.Event(), None

    def sample(self, context, n, noise):
        if len(self.encoded) > 1:
            assert self.may_go_on.wait(20)
            if self.error:
                raise self.error
        return super().sample(context, n, noise)


def let_finish(policy, agent):
    policy.may_go_on.set()
    agent._slots[0].arrival._running.exception(20)


def test_an_arm_goes_on_while_a_thread_decides():
    policy = Slow()
    agent = acting(policy, replan_every=2, background=True, guided=False)
    assert first_joint(agent, 4) == [0, 1, 2, 3]  # chunk 1 was begun at step 2
    let_finish(policy, agent)
    assert len(agent.latency(0)) == 2
    assert first_joint(agent, 1) == [102]


def test_a_thread_keeps_what_it_was_shown():
    """The environment writes its observations into the same memory again and again."""
    policy = Slow()
    agent = acting(policy, replan_every=1, background=True, guided=False)
    seen = observation()
    for step in range(2):
        seen["agent_pos"][:] = step
        agent.act(seen)
    seen["agent_pos"][:] = 7
    let_finish(policy, agent)
    assert policy.encoded[1][0]["agent_pos"].unique().tolist() == [1]


def test_a_new_episode_waits_for_the_decision_that_nobody_wants_any_more():
    policy = Slow()
    agent = acting(policy, replan_every=1, background=True, guided=False)
    first_joint(agent, 2)
    left = agent._slots[0].arrival._running
    assert not left.done()
    threading.Timer(0.2, policy.may_go_on.set).start()
    agent.reset(0, 2, "go")
    assert left.done()


def test_what_goes_wrong_in_the_thread_is_told():
    policy = Slow()
    agent = acting(policy, replan_every=1, background=True, guided=False)
    first_joint(agent, 2)
    policy.error = RuntimeError("out of memory")
    let_finish(policy, agent)
    with pytest.raises(RuntimeError, match="out of memory"):
        agent.act(observation())


def test_the_delay_is_that_of_the_slowest_of_late(monkeypatch):
    agent = acting(Scripted(), replan_every=1, background=True, guided=False)
    arrival = agent._slots[0].arrival
    seconds = iter([0.0, 0.12, 1.0, 1.01])
    monkeypatch.setattr("robolearn.arrival.time.perf_counter", lambda: next(seconds))
    arrival.begin(lambda: np.zeros((1, 1)), wait=True)  # the first, which warms everything up
    assert arrival.take() is not None
    assert arrival.delay() == 0
    for steps in (3, 3):  # 0.12 s and 0.01 s are both at most three steps of 50 ms
        arrival.begin(lambda: np.zeros((1, 1)), wait=False)
        arrival._running.exception(20)
        assert arrival.take() is not None
        assert arrival.delay() == steps


def test_no_chunk_yet_is_no_jump():
    plan = RealTime(slice(0, 2), guided=True)
    assert plan.is_due()
    assert plan.is_empty()
    assert plan.begin(3) is None


@pytest.mark.parametrize(
    "options",
    [
        {"delay": -1},
        {"delay": 1, "ensemble": 0.1},
        {"background": True, "ensemble": 0.1},
        {"background": True, "delay": 1},
    ],
)
def test_options_that_exclude_each_other(options):
    with pytest.raises(ValueError, match="give 0 or more, and only one"):
        PolicyAgent(Scripted(), **options)
