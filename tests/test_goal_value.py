"""The value of goals, and what HIQL and SAW make of it, in small worlds without pictures."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from robolearn.policies.goal_configs import HiqlConfig, SawConfig, ValuedConfig
from robolearn.policies.goal_value import (
    CAP,
    Advantages,
    GoalValue,
    Way,
    advantages,
    lowest,
    reached,
    temporal_error,
    weights_of,
)
from robolearn.policies.hiql import hierarchical_errors
from robolearn.policies.mode import squared_error
from robolearn.policies.saw import flattened_errors

# A chain whose states are followed by their neighbours, as often by either one.
STATES = 6
CHAIN = SawConfig(executed=1, discount=0.8, hidden=32, representation=4, polyak=0.1)


def followers(size):
    """States and what followed: each way once, and the ends stay."""
    states = torch.arange(size).repeat(2)
    moved = torch.tensor([-1, 1]).repeat_interleave(size)
    return states, moved, (states + moved).clamp(0, size - 1)


def exact(config):
    """Values (S, S) of states and goals: where each is the expectile of what follows it."""
    states, _, then = followers(STATES)
    value = torch.zeros(STATES, STATES, dtype=torch.float64)
    for _ in range(150):
        kept = config.discount * value[then]
        kept[then[:, None] == torch.arange(STATES)] = 0.0
        targets = (kept - 1.0).view(2, STATES, STATES)
        for _ in range(20):
            share = torch.where(targets < value, 1.0 - config.expectile, config.expectile)
            value = (share * targets).sum(0) / share.sum(0)
    return value


def learned(config, steps=400):
    """The same of a network that was shown one-hot states."""
    torch.manual_seed(0)
    hot = torch.eye(STATES)
    states, _, then = (x.repeat_interleave(STATES) for x in followers(STATES))
    goals = torch.arange(STATES).repeat(2 * STATES)
    value = GoalValue(config, STATES, STATES)
    slow = copy.deepcopy(value)
    optimizer = torch.optim.Adam(value.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1.0 - step / steps)
        with torch.no_grad():
            before = slow(hot[states], hot[goals])
            after = reached(slow(hot[then], hot[goals]), then == goals)
        found = value(hot[states], hot[goals])
        loss = temporal_error(found, before, after, torch.ones(len(goals)), config).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(slow.parameters()), list(value.parameters()), config.polyak)
    everywhere = torch.arange(STATES).repeat_interleave(STATES)
    with torch.no_grad():
        found = value(hot[everywhere], hot[torch.arange(STATES).repeat(STATES)])
    return found.view(-1, STATES, STATES).double()


@pytest.mark.parametrize("expectile", [0.5, 0.9], ids=["mean", "the better"])
def test_a_chain_is_worth_the_expectile_of_what_follows(expectile):
    config = replace(CHAIN, expectile=expectile)
    wanted, found = exact(config), learned(config)
    apart = ~torch.eye(STATES, dtype=torch.bool)
    for head in found:
        assert (head - wanted)[apart].abs().max() < 0.15
        for goal in (0, STATES - 1):  # the farther, the worse
            order = head[:, goal] if goal else head.flip(0)[:, goal]
            assert (order[:-1].diff() > 0.0).all()


def test_the_better_continuations_count_the_higher_the_expectile():
    values = [exact(replace(CHAIN, expectile=tau))[0, -1] for tau in (0.5, 0.7, 0.9, 0.99)]
    assert values == sorted(values)
    shortest = lowest(CHAIN) * (1.0 - CHAIN.discount ** (STATES - 1))
    assert values[-1] == pytest.approx(shortest, abs=0.3)


def test_steps_cost_one_each_and_nothing_follows_the_goal():
    config = replace(CHAIN, expectile=0.5)
    now = torch.tensor([[-1.0, -3.0]])
    kept = config.discount**3
    for following, wanted in ((0.0, lowest(config) * (1 - kept)), (-2.0, None)):
        wanted = lowest(config) * (1 - kept) - 2.0 * kept if wanted is None else wanted
        assert wanted == pytest.approx(-(1 + 0.8 + 0.64) + 0.8**3 * following)
        after = torch.full((1, 2), following)
        found = temporal_error(now, now, after, torch.tensor([3, 3]), config)
        expected = 0.5 * ((wanted - now[0]) / lowest(config)) ** 2
        torch.testing.assert_close(found, expected)
    assert reached(now, torch.tensor([True, False])).tolist() == [[0.0, -3.0]]


def test_values_are_of_steps_and_representations_of_one_length():
    config = replace(CHAIN, representation=9, heads=3)
    value = GoalValue(config, 5, 4)
    state, goal = 100.0 * torch.randn(7, 5), 100.0 * torch.randn(7, 4)
    found = value(state, goal)
    assert found.shape == (3, 7)
    assert ((found >= lowest(config)) & (found <= 0.0)).all()
    assert value.represent(state, goal).norm(dim=1).tolist() == pytest.approx([3.0] * 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(value(state, goal), found)


def test_no_weight_is_above_the_cap():
    advantage = torch.tensor([-100.0, 0.0, 1.0, np.log(CAP) / 3.0, 2.0, 1e6])
    found = weights_of(advantage, 3.0)
    wanted = [0.0, 1.0, np.exp(3.0), CAP, CAP, CAP]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)


def example(count=6, seed=0):
    """Random chunks and values, and a value that tells of numbers (B,) as states and goals."""
    rng = np.random.default_rng(seed)
    chunks = [torch.from_numpy(rng.normal(size=(count, 1, 4, 3))).float() for _ in range(3)]
    places = torch.from_numpy(rng.uniform(0.0, 40.0, (3, count))).float()
    return chunks, places


def distance(state, goal):
    return -(state - goal).abs()[None]


def test_with_the_goal_as_subgoal_saw_is_awr_and_distils_itself():
    config = SawConfig()
    (clean, mode, nearby), (state, then, goal) = example()
    steps = torch.full((6,), config.ahead)  # within reach
    found = advantages(distance, Way(state, then, goal, goal, goal, steps), config)
    assert torch.equal(found.of_chunk, found.of_chunk_nearby)
    torch.testing.assert_close(found.of_subgoal, (state - goal).abs() / config.executed)
    parts = flattened_errors(mode, nearby, clean, found, config)
    awr = weights_of(found.of_chunk, config.alpha)
    taught = weights_of((state - goal).abs() / config.executed, config.beta)
    imitation = awr * (mode - clean).square().flatten(1).mean(1)
    distillation = taught * (mode - nearby).square().flatten(1).mean(1)
    torch.testing.assert_close(parts["flat"], (imitation + distillation).mean())
    # Once sub does what the flat policy does, nothing but advantage-weighted regression is left.
    alike = flattened_errors(mode, mode, clean, found, config)
    torch.testing.assert_close(alike["flat"], imitation.mean())
    torch.testing.assert_close(alike["nearby"], imitation.mean())


def test_advantages_are_of_the_executed_steps_and_the_goal_is_worth_nothing():
    config = SawConfig(executed=4, ahead=8)
    state, then, there = torch.zeros(3), torch.full((3,), 3.0), torch.full((3,), 6.0)
    goal, steps = torch.full((3,), 20.0), torch.tensor([20, 8, 4])
    found = advantages(distance, Way(state, then, there, there, goal, steps), config)
    assert found.of_chunk.tolist() == pytest.approx([3 / 4, 3 / 4, 20 / 4])
    assert found.of_subgoal.tolist() == pytest.approx([6 / 4, 20 / 4, 20 / 4])
    assert found.of_chunk_nearby.tolist() == pytest.approx([3 / 4, 3 / 4, 6 / 4])


def test_the_flat_policy_is_taught_and_teaches_nobody():
    (clean, mode, nearby), _ = example()
    flat, closer = (x.clone().requires_grad_() for x in (mode, nearby))
    equal = Advantages(*torch.zeros(3, 6))
    parts = flattened_errors(flat, closer, clean, equal, SawConfig())
    parts["flat"].backward()
    assert closer.grad is None
    assert flat.grad.any()
    parts["nearby"].backward()
    torch.testing.assert_close(closer.grad, 2.0 * (nearby - clean) / clean.numel())


# A line too long for a value that errs by a share of the distance (HIQL, section 4).
LINE, AHEAD = 36, 8
BOTH = {"executed": 1, "ahead": AHEAD, "horizon": 1, "alpha": 1.0}


def noisy_line(seed):
    """Ways between all places and all goals, what was done there, and advantages."""
    places = torch.arange(LINE).float()
    rng = torch.Generator().manual_seed(seed)
    errs = 1.0 + 0.07 * torch.randn(LINE, LINE, generator=rng)
    table = -(places[:, None] - places).abs() * errs
    states, moved, then = (x.repeat_interleave(LINE) for x in followers(LINE))
    goals = torch.arange(LINE).repeat(2 * LINE)
    towards = (goals - states).sign() == moved
    steps = torch.where(towards, (goals - states).abs(), 10 * LINE)
    subgoals = states + moved * torch.minimum(steps, torch.tensor(AHEAD))
    subgoals = subgoals.clamp(0, LINE - 1)
    way = Way(states, then, subgoals, subgoals, goals, steps)
    found = advantages(lambda state, goal: table[state, goal][None], way, SawConfig(**BOTH))
    return way, moved.float()[:, None], found


def minimised(tables, loss, steps=150):
    """Tables (S, G, 1), one entry for each place and goal, so that no neighbour helps out."""
    optimizer = torch.optim.Adam(tables, lr=0.2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.2 * (1.0 - step / steps)
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def fresh():
    return torch.zeros(LINE, LINE, 1, requires_grad=True)


def arrivals(action):
    """How often goals at three times the way to a subgoal are reached, given (state, goal)."""
    begin, goal = (x.flatten() for x in torch.meshgrid(*[torch.arange(LINE)] * 2, indexing="ij"))
    far = (begin - goal).abs() >= 3 * AHEAD
    state, goal = begin[far], goal[far]
    there = state == goal
    for _ in range(2 * LINE):
        state = torch.where(there, state, state + action(state, goal).sign().long())
        state = state.clamp(0, LINE - 1)
        there = there | (state == goal)
    return float(there.float().mean())


def awr_on_the_line(seed):
    way, done, found = noisy_line(seed)
    flat = fresh()
    weights = weights_of(found.of_chunk, BOTH["alpha"])
    minimised([flat], lambda: (weights * squared_error(flat[way.state, way.goal], done)).mean())
    return arrivals(lambda state, goal: flat[state, goal, 0])


def saw_on_the_line(seed):
    way, done, found = noisy_line(seed)
    flat, nearby = fresh(), fresh()

    def loss():
        modes = flat[way.state, way.goal], nearby[way.state, way.subgoal]
        return sum(flattened_errors(*modes, done, found, SawConfig(**BOTH)).values())

    minimised([flat, nearby], loss)
    return arrivals(lambda state, goal: flat[state, goal, 0])


def hiql_on_the_line(seed):
    way, done, found = noisy_line(seed)
    high, low = fresh(), fresh()
    phi = way.subgoal.float()[:, None] / LINE

    def loss():
        modes = high[way.state, way.goal], phi, low[way.state, way.subgoal]
        return sum(hierarchical_errors(*modes, done, found, HiqlConfig(**BOTH)).values())

    def action(state, goal):
        subgoal = (LINE * high[state, goal, 0]).round().long().clamp(0, LINE - 1)
        return low[state, subgoal, 0]

    minimised([high, low], loss)
    return arrivals(action)


def test_far_goals_are_reached_by_way_of_subgoals_where_plain_regression_gets_stuck():
    plain, flat, hierarchy = (
        np.mean([on_the_line(seed) for seed in range(3)])
        for on_the_line in (awr_on_the_line, saw_on_the_line, hiql_on_the_line)
    )
    assert plain < 0.5
    assert flat > 0.9
    assert hierarchy > 0.9


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"executed": 17}, "executed"),
        ({"ahead": 0}, "ahead"),
        ({"discount": 1.0}, "discount"),
        ({"expectile": 0.0}, "expectile"),
        ({"beta": -1.0}, "beta"),
        ({"spread": -0.1}, "spread"),
        ({"history": 2}, "history"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, word):
    for kind in (HiqlConfig, SawConfig):
        assert issubclass(kind, ValuedConfig)
        with pytest.raises(ValueError, match=word):
            kind(**changes)
