"""Methods that make another policy: what defines each of them, and that the result acts."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from torch import nn

from robolearn import checkpoint
from robolearn.dataset import EpisodeDataset
from robolearn.experience import Experience
from robolearn.policies import IMPROVERS, dsrl, fql, rlpd
from robolearn.policies.actor_critic import critic_for
from robolearn.policies.advantage import imitate
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.dsrl import DsrlPolicy
from robolearn.policies.fitting import minimise
from robolearn.policies.fql import FqlPolicy
from robolearn.policies.gaussian import SquashedGaussian, Temperature
from robolearn.policies.improver import held_out
from robolearn.policies.improver_configs import (
    ActorConfig,
    CriticConfig,
    DsrlConfig,
    FqlConfig,
    RecapConfig,
    RlpdConfig,
    ValueConfig,
)
from robolearn.policies.recap import BAD, GOOD, NOTHING, RecapPolicy, advantages, are_good
from robolearn.policies.rlpd import RlpdPolicy
from robolearn.replay import Replay, Reward, replay_of
from robolearn.seeding import stream

CRITIC = CriticConfig(heads=3, hidden=16, depth=1, steps=4, batch_size=16)
ACTOR = ActorConfig(steps=4, batch_size=8)
SMALL = {"hidden": 16, "depth": 1}
SETTINGS = {
    "recap": RecapConfig(value=ValueConfig(bins=11, hidden=8, steps=5, batch_size=8), actor=ACTOR),
    "fql": FqlConfig(critic=CRITIC, actor=ACTOR),
    "dsrl": DsrlConfig(critic=CRITIC, **SMALL),
    "rlpd": RlpdConfig(critic=CRITIC, **SMALL),
}
KINDS = {"recap": RecapPolicy, "fql": FqlPolicy, "dsrl": DsrlPolicy, "rlpd": RlpdPolicy}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.record_demonstrations(tmp_path_factory.mktemp("derived") / "data", 6)


@pytest.fixture
def experience(data):
    """A replay whose first two episodes were shown; the policy made the others."""
    policy, dataset = toy.tiny_policy(), EpisodeDataset(data)
    replay = replay_of([dataset], Reward(10.0), executed=4, stride=2)
    found = Experience(policy, [dataset], replay)
    found.demonstrations = 2
    return found, policy


def sampled(policy, seed=0, n=3):
    seen = toy.observations(2)
    with torch.inference_mode():
        context = policy.encode(seen, [toy.INSTRUCTIONS[0]] * 2)
        return policy.sample(context, n, [np.random.default_rng(seed + k) for k in range(2)])


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_comes_out_acts_by_itself_and_can_be_improved_again(experience, tmp_path, kind):
    known, policy = experience
    method = IMPROVERS[kind]()(SETTINGS[kind])
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    first = method.improve(policy, known, None, seed=0)
    assert all(torch.equal(v, policy.state_dict()[k]) for k, v in before.items())
    first.policy.save(tmp_path / "model")
    loaded = checkpoint.load_policy(tmp_path / "model")
    torch.testing.assert_close(sampled(loaded).actions, sampled(first.policy).actions)
    assert sampled(loaded).actions.shape == (2, 3, policy.horizon, policy.joints)
    second = method.improve(loaded, known, first.critic, seed=1)
    assert second.policy.kind == kind
    assert not torch.equal(sampled(second.policy).actions, sampled(loaded).actions)
    frozen = {k: v for k, v in second.policy.state_dict().items() if k.startswith("inner.backbone")}
    assert frozen
    assert all(torch.equal(v, before[k.removeprefix("inner.")]) for k, v in frozen.items())


@pytest.mark.parametrize("kind", SETTINGS)
def test_any_judge_can_teach_it_further(experience, kind):
    known, policy = experience
    ours = KINDS[kind].made_of(policy, SETTINGS[kind])
    starts = known.replay.starts
    better, losses = imitate(ours, known, starts, np.ones(len(starts)), ACTOR, seed=0)
    assert np.isfinite(losses["actor_loss"])
    assert isinstance(better, TrainablePolicy)
    with pytest.raises(ValueError, match="made of another one: robolearn improve --algo"):
        KINDS[kind].for_dataset(policy.config, None, {})


def test_a_policy_of_another_method_is_refused(experience):
    _, policy = experience
    told = RecapPolicy.made_of(policy, SETTINGS["recap"])
    with pytest.raises(ValueError, match="holds a recap policy; --algo fql begins with a flow"):
        FqlPolicy.made_of(told, SETTINGS["fql"])


# RECAP


@pytest.mark.parametrize("kind", list(toy.TINIES))
def test_until_it_is_told_anything_it_does_what_it_did(kind):
    policy = toy.tiny_policy(config=toy.TINIES[kind])
    for guidance in (1.0, 3.0):
        told = RecapPolicy.made_of(policy, replace(SETTINGS["recap"], guidance=guidance))
        torch.testing.assert_close(sampled(told).actions, sampled(policy).actions)


def test_guidance_goes_from_nothing_to_good_and_beyond():
    base = toy.tiny_policy()

    def acting(guidance, words=None):
        policy = RecapPolicy.made_of(base, replace(SETTINGS["recap"], guidance=guidance))
        generator = torch.Generator().manual_seed(0)
        policy.words.data = torch.randn(policy.words.shape, generator=generator)
        policy.words.data[GOOD] = policy.words[words] if words is not None else policy.words[GOOD]
        return sampled(policy).actions

    torch.testing.assert_close(acting(1.0 + 1e-7), acting(1.0))  # two looks, as one
    torch.testing.assert_close(acting(0.0), acting(1.0, words=NOTHING))
    assert not torch.allclose(acting(3.0), acting(1.0))
    assert not torch.allclose(acting(1.0, words=BAD), acting(1.0))


def test_words_are_learned_beside_adapters(experience):
    known, policy = experience
    told, starts = RecapPolicy.made_of(policy, SETTINGS["recap"]), known.replay.starts
    actor = replace(ACTOR, steps=3, lora=2, ema=0.0)
    good = {"good": np.arange(len(starts)) % 2 == 0}
    after, _ = imitate(told, known, starts, np.ones(len(starts)), actor, seed=0, told=good)
    assert not told.words.any()
    assert after.words[[BAD, GOOD]].abs().amin(1).all()


def test_the_word_is_left_out_as_often_as_stated():
    policy = RecapPolicy.made_of(toy.tiny_policy(), replace(SETTINGS["recap"], dropped=0.2))
    good = torch.arange(20_000) % 2 == 0
    heard = policy.heard(good, np.random.default_rng(0))
    assert float((heard == NOTHING).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert (heard[good] != BAD).all()
    assert (heard[~good] != GOOD).all()


def test_what_was_shown_or_corrected_is_good_and_the_best_of_the_rest_by_task():
    rng = np.random.default_rng(0)
    task = np.arange(4000) % 2
    advantage = rng.normal(size=4000) + 10.0 * task  # the second task pays more
    shown, corrected = rng.random((2, 4000)) < 0.1
    good = are_good(advantage, task, shown, corrected, share=0.3)
    assert good[shown | corrected].all()
    for one in (0, 1):
        own = (task == one) & ~shown & ~corrected
        assert good[own].mean() == pytest.approx(0.3, abs=0.01)
        assert advantage[own & good].min() >= advantage[own & ~good].max()


def test_an_advantage_looks_so_many_steps_ahead():
    """Of an episode that succeeds after 5 steps, and one that is cut off after 6."""
    columns = {
        "action": np.zeros((11, 1), np.float32),
        "success": np.arange(11) == 4,
        "terminated": np.arange(11) == 4,
    }
    replay = Replay(np.array([5, 6]), columns, Reward(4.0), executed=2, stride=2)
    value = np.linspace(-2.0, -1.0, 11).astype(np.float32)
    found = advantages(replay, replay.returns(), value, steps=3)  # rounded up to 4
    assert replay.starts.tolist() == [0, 2, 4, 5, 7]
    gamma, cost = replay.reward.gamma, -0.25
    paid = [sum(cost * gamma**k for k in range(n)) for n in range(5)]
    expected = [
        paid[4] + gamma**4 * value[4] - value[0],
        paid[2] - value[2],  # ends by success
        0.0 - value[4],
        paid[4] + gamma**4 * value[9] - value[5],
        paid[2] + gamma**2 * value[9] - value[7],  # cut off: its last observation
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_policy_that_was_told_does_what_is_good(experience):
    """Of the same observations, good actions went one way and bad ones the other."""
    known, policy = experience
    starts, told = known.replay.starts, RecapPolicy.made_of(policy, SETTINGS["recap"])
    optimizer = torch.optim.Adam(told.parameters(), 1e-2)
    for step in range(150):
        rng = stream(0, f"told {step}")
        good = torch.from_numpy(rng.random(32) < 0.5)
        batch = known.batch(rng.choice(starts, 32), policy.horizon) | {"good": good}
        way = torch.where(good, 0.1, -0.1)[:, None, None]
        batch["action"] = (batch["agent_pos"][:, None] + way).expand(-1, policy.horizon, -1)
        loss, _ = told.loss(batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    context = known.context(starts[:8])
    with torch.inference_mode():
        seen = {"tokens": context.tokens, "agent_pos": context.agent_pos}
        noise = [np.random.default_rng(k) for k in range(8)]
        chunks = told.sample(told.encode(seen, [""] * 8), 16, noise)
    moved = (chunks.actions - context.agent_pos[:, None, None])[..., :2]  # not the gripper
    assert float(moved.mean()) > 0.05


# FQL, DSRL, RLPD: what the actor learns


class Likes(nn.Module):
    """A critic that likes joint targets as high as can be."""

    def forward(self, context, actions):
        return -(1.0 - actions[..., :2]).square().mean((2, 3))[None]


def learner_of(kind, experience, **settings):
    known, policy = experience
    module = {"fql": fql, "dsrl": dsrl, "rlpd": rlpd}[kind]
    method = replace(SETTINGS[kind], **settings)
    torch.manual_seed(0)
    ours = KINDS[kind].made_of(policy, method)
    critic = critic_for(CRITIC, ours, known, None, seed=0)
    return module.Learner(ours, critic, known)


def taught(learner, steps=100, critic=None, rate=5e-3):
    """The actor alone, upon a critic that stays as it is."""
    learning = [p for name, p in learner.parts.named_parameters() if not name.startswith("critic")]
    optimizer = torch.optim.Adam(learning, rate)
    for step in range(steps):
        slow = copy.deepcopy(learner.parts).requires_grad_(requires_grad=False)
        slow["critic"] = critic or slow["critic"]
        rng = stream(0, f"taught {step}")
        frames = learner.draw(learner.experience.replay.starts, rng)
        loss = learner.actor_loss(slow, learner.context(frames), frames, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def liked(learner):
    context = learner.context(learner.experience.replay.starts)
    with torch.inference_mode():
        actions = learner.executed(context, np.random.default_rng(0))
    return float(Likes()(context, actions).mean())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("fql", {"alpha": 0.1}), ("dsrl", {"entropy": -3.0}), ("rlpd", {"cloning": 0.0})],
    ids=["fql", "dsrl", "rlpd"],
)
def test_an_actor_does_what_the_critic_likes(experience, kind, settings):
    learner = learner_of(kind, experience, **settings)
    before = liked(learner)
    taught(learner, critic=Likes())
    assert liked(learner) > before + 0.02


def test_close_to_the_flow_one_step_does_what_the_flow_does(experience):
    learner = learner_of("fql", experience, alpha=1000.0)
    policy = learner.policy
    context = learner.context(learner.experience.replay.starts)
    noise = learner.noise(context, np.random.default_rng(0))

    def distance():
        clean, _ = policy.one_step(noise, policy.kept(context.tokens))
        return float(policy.distance(context.tokens, noise, clean))

    with torch.no_grad():
        before = distance()
    taught(learner)
    with torch.no_grad():
        assert distance() < 0.1 * before


def test_no_gradient_goes_through_the_flow(experience):
    learner = learner_of("fql", experience)
    frames = learner.experience.replay.starts[:8]
    context = learner.context(frames)
    learner.actor_loss(learner.parts, context, frames, np.random.default_rng(0)).backward()
    assert all(p.grad is None for p in learner.policy.inner.parameters())
    assert any(p.grad is not None for p in learner.policy.actor.parameters())


def test_without_noise_it_is_a_deterministic_base(experience):
    _, policy = experience
    still = DsrlPolicy.made_of(policy, replace(SETTINGS["dsrl"], bound=0.0))
    one, two = sampled(still, seed=0).actions, sampled(still, seed=50).actions
    torch.testing.assert_close(one, two)
    with torch.inference_mode():
        context = policy.encode(toy.observations(2), [toy.INSTRUCTIONS[0]] * 2)
        zero = torch.zeros(2, 1, policy.horizon, policy.joints)
        middle = policy.finished(context, *policy.denoise(zero, 0, context.cache)).actions
    torch.testing.assert_close(one[:, :1], middle)


@pytest.mark.parametrize("shared", [False, True], ids=["each step", "shared"])
def test_a_chunk_costs_one_decoding_of_bounded_noise(experience, monkeypatch, shared):
    _, policy = experience
    steered = DsrlPolicy.made_of(policy, replace(SETTINGS["dsrl"], shared=shared, bound=0.7))
    nn.init.constant_(steered.actor.out.bias, 3.0)  # it would like to go far
    decoded, denoise = [], steered.inner.denoise

    def counted(x, *args):
        decoded.append(x)
        return denoise(x, *args)

    monkeypatch.setattr(steered.inner, "denoise", counted)
    sampled(steered)
    (noise,) = decoded
    assert float(noise.abs().max()) <= 0.7
    assert float(noise.abs().max()) > 0.5
    alike = (noise == noise[:, :, :1]).all()
    assert bool(alike) == shared


def test_the_policy_that_is_steered_stays(experience):
    learner = learner_of("dsrl", experience)
    before = {k: v.clone() for k, v in learner.policy.inner.state_dict().items()}
    learner.teach(seed=0)
    after = learner.policy.inner.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_noise_is_worth_is_what_its_chunk_is_worth(experience):
    learner = learner_of("dsrl", experience)
    taught(learner, critic=Likes())
    context = learner.context(learner.experience.replay.starts)
    with torch.inference_mode():
        noise = learner.noise(context, np.random.default_rng(5)).clamp(-1.5, 1.5)
        found = learner.parts["noise"](context.tokens, noise)
        true = Likes()(context, learner.rated(learner.policy.decode(context, noise)))[0]
    assert np.corrcoef(found[:, 0], true[:, 0])[0, 1] > 0.9


def test_the_target_is_the_least_of_two_heads_that_change(experience):
    learner = learner_of("rlpd", experience)
    values = torch.tensor([[3.0], [1.0], [2.0]])
    found = [float(learner.ahead(values, np.random.default_rng(k))[0]) for k in range(60)]
    assert set(found) == {1.0, 2.0}  # never the highest, and not always the least
    assert found.count(1.0) / 60 == pytest.approx(2 / 3, abs=0.2)


def test_half_of_a_batch_is_demonstrated(experience):
    learner = learner_of("rlpd", experience)
    replay = learner.experience.replay
    frames = learner.draw(replay.starts, np.random.default_rng(0))
    assert len(frames) == CRITIC.batch_size
    assert (replay.episode[frames] < 2).sum() == CRITIC.batch_size // 2
    learner.experience.demonstrations = 0
    assert len(learner.draw(replay.starts, np.random.default_rng(0))) == CRITIC.batch_size


def test_values_stay_bounded_far_from_the_data(experience):
    learner = learner_of("rlpd", experience)
    context = learner.context(learner.experience.replay.starts[:8])
    far = torch.randn(8, 1, 4, 3, generator=torch.Generator().manual_seed(0))
    critic = learner.critic.eval()
    with torch.inference_mode():
        torch.testing.assert_close(
            critic(context, 1e4 * far), critic(context, 1e6 * far), atol=0.05, rtol=0.05
        )


def test_cloning_alone_imitates(experience):
    learner = learner_of("rlpd", experience, cloning=100.0)
    starts = learner.experience.replay.starts
    batch = learner.experience.batch(starts, 4)

    def error():
        with torch.no_grad():
            return float(learner.policy.cloning_loss(learner.context(starts).cache[0], batch))

    before = error()
    taught(learner)
    assert error() < before - 0.5


def test_a_squashed_gaussian_is_a_density_within_its_bound():
    torch.manual_seed(0)
    actor = SquashedGaussian((2, 3), (1,), bound=1.5, hidden=8, depth=1)
    nn.init.normal_(actor.out.weight, std=0.3)
    features = actor.features(torch.randn(1, 2, 3))
    grid = torch.linspace(-1.4999, 1.4999, 40_001)[None, :, None]
    with torch.inference_mode():
        inside = grid.abs() < 0.98 * 1.5
        density = (actor.log_density(features, grid).exp() * inside).sum() * (
            grid[0, 1] - grid[0, 0]
        )
        drawn, log = actor.draw(features, torch.randn(1, 4000, 1))
        again = actor.log_density(features, drawn)
    share = (drawn.abs() < 0.98 * 1.5).float().mean()
    assert float(density) == pytest.approx(float(share), abs=0.03)
    near = drawn.abs() < 0.98 * 1.5
    torch.testing.assert_close(log[near], again[near], atol=1e-3, rtol=1e-3)


def test_entropy_is_worth_more_where_there_is_too_little():
    for density, rises in ((2.0, True), (-2.0, False)):
        worth = Temperature(entropy=0.0)
        worth.loss(torch.full((4,), density)).backward()
        assert (float(worth.scaled.grad) < 0) == rises


@pytest.mark.parametrize(
    ("density", "low", "high"), [(2.0, 0.5, 99.0), (-2.0, 0.001, 0.02)], ids=["little", "ample"]
)
def test_a_round_is_long_enough_for_entropy_to_count(density, low, high):
    worth, logs = Temperature(entropy=0.0), torch.full((4,), density)
    usual = DsrlConfig().critic
    minimise(worth, lambda _: worth.loss(logs), steps=1500, learning_rate=usual.learning_rate)
    assert usual.steps >= 1500
    assert low < float(worth.log.exp().detach()) < high


def test_a_dataset_that_grows_changes_no_episodes_lot():
    small, grown = (np.concatenate([np.arange(n), np.arange(50)]) for n in (40, 47))
    np.testing.assert_array_equal(held_out(small)[-50:], held_out(grown)[-50:])
    np.testing.assert_array_equal(held_out(small)[:40], held_out(grown)[:40])
    assert 0 < held_out(small).sum() < 30


def test_replays_number_episodes_by_dataset(data):
    both = [EpisodeDataset(data), EpisodeDataset(data)]
    replay = replay_of(both, Reward(10.0), executed=4)
    count = len(both[0].episodes)
    assert replay.numbers.tolist() == [*range(count), *range(count)]
    assert set(replay.tasks) == {0}


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        (RecapConfig, {"share": 1.5}, "share is 1.5"),
        (FqlConfig, {"alpha": -1.0}, "alpha"),
        (DsrlConfig, {"bound": -1.0}, "bound"),
        (RlpdConfig, {"subset": 11}, "subset is 11 of 10 heads"),
    ],
    ids=["share", "alpha", "bound", "subset"],
)
def test_bad_settings_are_named(kind, settings, named):
    with pytest.raises(ValueError, match=named):
        kind(**settings)
