"""Critics of chunks: what they converge to, what they must not see, and the weights they give."""

import numpy as np
import pytest
import torch
from chain import Chain, Grid, Known

from robolearn.policies.advantage import effective_share, weights_of
from robolearn.policies.aloe import auc, evaluate_policy, judged, measured
from robolearn.policies.base import Chunks, Context
from robolearn.policies.critic import Critic
from robolearn.policies.improver_configs import (
    AdvantageConfig,
    AloeConfig,
    CriticConfig,
)
from robolearn.replay import Replay, Reward

NONE_HELD = np.zeros(400, bool)
QUICK = {"steps": 800, "learning_rate": 5e-3, "polyak": 0.05, "batch_size": 128, "hidden": 32}
COLLECTED = (0.3, 0.7)  # how often the policies that collected took the good action
CURRENT = 0.9


def taught(known, good=CURRENT, **settings):
    critic = known.critic(**{**QUICK, **settings})
    evaluate_policy(critic, known, known.samples(good), NONE_HELD, seed=0)
    return critic


@pytest.mark.parametrize(
    ("world", "executed"),
    [(Chain(5), 1), (Chain(5), 3), (Grid(4), 3)],
    ids=["chain, one step", "chain", "grid"],
)
def test_the_value_of_the_current_policy_comes_out_of_others_data(world, executed):
    """Chunks of three steps cross the ends of most episodes."""
    known = Known(world, executed, COLLECTED)
    critic = taught(known)
    assert known.wrong(critic, known.exact(CURRENT)) < 0.02
    assert known.wrong(critic, known.exact(np.mean(COLLECTED))) > 0.05


def test_without_the_mask_it_does_not():
    known = Known(Chain(5), 3, COLLECTED)
    assert known.wrong(taught(known, masked=False), known.exact(CURRENT)) > 0.1


def test_the_behaviours_chunks_in_the_target_give_its_value():
    known = Known(Chain(5), 3, (0.5,))
    critic = taught(known, good=0.5)
    assert known.wrong(critic, known.exact(0.5)) < 0.02
    assert known.wrong(critic, known.exact(CURRENT)) > 0.05


def replay(lengths=(5, 4), *, terminated=(True, False), executed=3, stride=1):
    """Two episodes: the first ends by success, the second by its time limit."""
    count, ends = sum(lengths), np.cumsum(lengths) - 1
    columns = {
        "action": np.arange(count, dtype=np.float32)[:, None],
        "success": np.zeros(count, bool),
        "terminated": np.zeros(count, bool),
        "intervention": np.zeros(count, bool),
    }
    columns["success"][ends[0]] = True
    columns["terminated"][ends] = terminated
    reward = Reward(mean_length=4.0, patience=3.0)
    return Replay(np.array(lengths), columns, reward, executed=executed, stride=stride)


def test_a_success_is_seen_by_all_chunks_that_reach_it():
    memory = replay()
    found = memory.fragments(np.arange(5))
    gamma, step = memory.reward.gamma, -0.25
    assert found.valid.sum(1).tolist() == [3, 3, 3, 2, 1]
    assert found.terminated.tolist() == [False, False, True, True, True]
    whole = step * (1 + gamma + gamma**2)
    np.testing.assert_allclose(
        found.total, [whole, whole, step * (1 + gamma), step, 0.0], rtol=1e-6
    )
    np.testing.assert_allclose(found.discount, [gamma**3, gamma**3, 0, 0, 0], rtol=1e-6)
    assert found.following[:2].tolist() == [3, 4]


def test_no_fragment_crosses_a_time_limit_or_two_episodes():
    memory = replay()
    assert memory.starts.tolist() == [0, 1, 2, 3, 4, 5]  # of the second episode only the first
    (last,) = memory.fragments(np.array([5])).action
    assert last[:, 0].tolist() == [5, 6, 7]
    assert memory.fragments(np.array([5])).following.tolist() == [8]
    assert memory.fragments(np.array([5])).discount[0] > 0


def test_a_failure_costs_as_if_it_were_never_done():
    memory = replay(terminated=(True, True))
    assert memory.fragments(np.array([8])).total[0] == pytest.approx(-3.0)
    assert memory.fragments(np.array([8])).discount[0] == 0.0
    returns = memory.returns()
    for_ever = sum(-0.25 * memory.reward.gamma**k for k in range(100_000))
    assert for_ever == pytest.approx(memory.reward.lowest, rel=1e-6)
    assert returns[8] == pytest.approx(-3.0)
    assert returns[4] == 0.0
    assert returns[3] == pytest.approx(-0.25)


def test_a_takeover_ends_nothing():
    plain, helped = replay(), replay()
    helped.columns["intervention"][1:3] = True
    for frames in (np.arange(5), np.array([5])):
        a, b = plain.fragments(frames), helped.fragments(frames)
        for name in ("action", "valid", "total", "discount", "following", "terminated"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert helped.fragments(np.array([0])).intervention.tolist() == [[False, True, True]]


def test_a_stride_looks_at_every_other_frame():
    memory = replay(lengths=(5, 6), executed=2, stride=2)
    assert memory.frames.tolist() == [0, 2, 4, 5, 7, 9]
    assert memory.starts.tolist() == [0, 2, 4, 5, 7]
    assert set(memory.fragments(memory.starts).following) <= set(memory.frames)
    with pytest.raises(ValueError, match="divides"):
        replay(executed=3, stride=2)


def test_what_is_beyond_the_end_never_counts():
    known = Known(Chain(5), 3, COLLECTED)
    critic, samples = known.critic(**QUICK), known.samples(CURRENT)
    starts = known.replay.starts
    ended = starts[known.replay.fragments(starts).valid.sum(1) == 1][:50]
    before, _ = judged(critic, Only(known, ended), samples)
    beyond = np.setdiff1d(ended + 1, ended)  # the next episode's first action
    known.replay.columns["action"][beyond] = 77.0
    after, _ = judged(critic, Only(known, ended), samples)
    np.testing.assert_array_equal(before, after)


class Only:
    """Some fragments of an experience."""

    def __init__(self, known, starts):
        self.device, self.context = known.device, known.context
        self.replay = known.replay
        self.replay.starts = starts


def test_heads_differ_where_there_are_no_data():
    known = Known(Chain(5), 3, COLLECTED)
    near, far = torch.tensor([1.0, -1.0, 1.0]), torch.tensor([9.0, -9.0, 9.0])
    context = Context(torch.eye(5)[:, None], torch.zeros(5, 1))

    def spread(critic):
        with torch.inference_mode():
            values = critic.eval()(
                context, torch.stack([near, far])[None, ..., None].expand(5, -1, -1, -1)
            )
        return values.std(0).mean(0)

    with_priors = spread(taught(known, prior=0.5))
    assert with_priors[1] > 5 * with_priors[0]


def test_the_cautious_value():
    values = torch.tensor([[1.0], [2.0], [3.0], [6.0]])

    def cautious(**settings):
        known = Known(Chain(5), 1, COLLECTED, episodes=10)
        return float(known.critic(**settings).pessimistic(values))

    assert cautious() == 1.0
    assert cautious(aggregation="quantile", pessimism=1 / 3) == pytest.approx(2.0)
    assert cautious(aggregation="deviations", pessimism=1.0) == pytest.approx(3.0 - 3.5**0.5)


@pytest.mark.parametrize("clip", ["weight", "exponent"])
def test_weights_leave_the_share_that_is_asked_for(clip):
    advantage = np.random.default_rng(0).normal(size=4000)
    for effective in (0.2, 0.45, 0.8):
        config = AdvantageConfig(effective=effective, clip=clip, limit=50.0)
        weights = weights_of(advantage, config)
        assert effective_share(weights) == pytest.approx(effective, abs=0.03)
        assert weights.mean() == pytest.approx(1.0)
        assert clip == "exponent" or weights.max() <= 50.5
        order = np.argsort(advantage)
        assert (np.diff(weights[order]) >= 0).all()


def test_a_critic_that_diverged_is_told():
    with pytest.raises(ValueError, match="the critic diverged"):
        weights_of(np.array([0.0, np.nan]), AdvantageConfig())


def test_an_advantage_that_does_not_differ_weighs_all_alike():
    assert weights_of(np.full(10, 3.0), AdvantageConfig()).tolist() == [1.0] * 10


def test_good_actions_weigh_more():
    known = Known(Chain(5), 3, COLLECTED)
    known.replay.columns["agent_pos"] = np.zeros((len(known.states), 1), np.float32)
    critic, samples = taught(known), known.samples(0.5)
    value, baseline = judged(critic, known, samples)
    weights = weights_of(value - baseline, AloeConfig().advantage)
    first = known.replay.columns["action"][known.replay.starts, 0] > 0
    assert weights[first].mean() > 1.5 * weights[~first].mean()


def test_the_judge_reports_on_episodes_that_it_never_saw():
    held = np.arange(400) % 4 == 0
    figures, weights = [], []
    for spoiled in (False, True):
        known = Known(Chain(5), 3, COLLECTED)
        if spoiled:  # what is held out must not matter to what is learned
            frames = held[known.replay.episode]
            known.replay.columns["action"][frames] *= -1.0
        critic = known.critic(**QUICK)
        samples = known.samples(CURRENT)
        evaluate_policy(critic, known, samples, held, seed=0)
        figures.append(measured(critic, known, samples, held))
        weights.append(critic.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert figures[0] != figures[1]
    assert figures[0]["critic_auc"] > 0.8
    assert figures[0]["critic_rank"] > 0.35
    assert figures[0]["critic_bias"] > 0  # the current policy is better than who collected


def test_demonstrations_are_no_part_of_the_report():
    known = Known(Chain(5), 3, COLLECTED, episodes=40)
    critic, samples = known.critic(), known.samples(CURRENT)
    known.demonstrations = 40
    assert measured(critic, known, samples, np.ones(40, bool)) == {}


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    score, positive = rng.normal(size=40).round(1), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert auc(score, positive) == pytest.approx(np.mean(pairs))
    assert auc(score, np.ones(40, bool)) is None


def test_a_critic_chooses_and_survives_a_checkpoint(tmp_path):
    known = Known(Chain(5), 3, COLLECTED)
    critic = taught(known).eval()
    critic.save(tmp_path / "critic")
    context = Context(torch.eye(5)[:, None], torch.zeros(5, 1))
    good, bad = torch.ones(5, 1, 4, 1), -torch.ones(5, 1, 4, 1)  # the policy's chunks are longer
    chunks = Chunks(torch.cat([bad, good], 1), torch.zeros(5, 2, 1))
    with torch.inference_mode():
        score = Critic.load(tmp_path / "critic").score(context, chunks, [])
        torch.testing.assert_close(score, critic.score(context, chunks, []))
    assert score.argmax(1).tolist() == [1] * 5
    with pytest.raises(ValueError, match="rates 3 steps"):
        critic.score(context, Chunks(good[:, :, :2], chunks.features), [])


def test_the_priors_stay_as_they_were_drawn():
    known = Known(Chain(5), 3, COLLECTED)
    critic = known.critic(**QUICK | {"steps": 20})
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    evaluate_policy(critic, known, known.samples(CURRENT), NONE_HELD, seed=0)
    changed = {n for n, value in critic.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert not any(name.startswith("prior.") for name in changed)


def test_a_target_that_follows_at_once_is_no_target():
    """The target network comes after at its own pace, and only by that."""
    known = Known(Chain(5), 3, COLLECTED)
    one, two = (known.critic(**QUICK | {"steps": 30, "polyak": pace}) for pace in (0.01, 1.0))
    for critic in (one, two):
        evaluate_policy(critic, known, known.samples(CURRENT), NONE_HELD, seed=0)
    assert not torch.equal(one.weight, two.weight)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (CriticConfig, {"heads": 0}, "heads"),
        (CriticConfig, {"share": 0.0}, "share"),
        (CriticConfig, {"aggregation": "quantile"}, "pessimism is 1.0; a cautious quantile"),
        (AdvantageConfig, {"effective": 1.0}, "effective"),
        (Reward, {"mean_length": 0.5}, "mean_length"),
    ],
)
def test_bad_settings_are_named(kind, settings, named):
    with pytest.raises(ValueError, match=named):
        kind(**settings)
