"""GCBC, HIQL and SAW: what they learn of pictures of goals, what moves what, and candidates."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn.adapt import adapt
from robolearn.checkpoint import load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.evaluate import evaluate
from robolearn.hindsight import Hindsight
from robolearn.learn_options import AdaptConfig
from robolearn.options import EvalConfig
from robolearn.policies import POLICIES
from robolearn.policies.base import as_tensors
from robolearn.policies.valued import ValuedPolicy
from robolearn.seeding import stream
from robolearn.train import train
from robolearn.windows import Windows

KINDS = pytest.mark.parametrize("config", toy.TINY_MODES.values(), ids=toy.TINY_MODES.keys())
VALUED = pytest.mark.parametrize("kind", ["hiql", "saw"])
WIDE = {"top": toy.SIZE}
LENGTH, EPISODES = 16, 12


def policy_of(config, cameras=toy.CAMERAS):
    made = toy.tiny_policy(config=config, cameras=cameras)
    if isinstance(made, ValuedPolicy):
        positions = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
        for judge in (made.judge, made.slow):
            judge.backbone.fit({"agent_pos": positions})
    return made


def observations(count, seed=0):
    seen = toy.observations(count, seed)
    return {**seen, "goal_pixels": toy.observations(count, seed + 100)["pixels"]}


def batch_of(count):
    rng = np.random.default_rng(0)
    chunk = rng.normal(size=(count, 4, toy.TOY_ARM.size)).astype(np.float32)
    batch = {"action": chunk, "steps": rng.integers(1, 13, count), "episode": np.arange(count)}
    ahead = {"then": toy.observations(count, 1), "subgoal": toy.observations(count, 2)}
    return {
        **observations(count),
        **as_tensors(batch, "cpu"),
        **ahead,
        "instruction": [""] * count,
    }


def noise(count, seed=0):
    return [stream(seed, str(k)) for k in range(count)]


def acted(policy, seen, n=1):
    with torch.inference_mode():
        count = len(seen["agent_pos"])
        return policy.sample(policy.encode(seen, [""] * count), n, noise(count)).actions


def picture(place):
    """A bright bar where the first joint is, -1..1."""
    view = np.zeros((*toy.SIZE, 3), np.uint8)
    column = round((place + 1.0) / 2.0 * (toy.SIZE[1] - 3))
    view[:, column : column + 3] = 230
    return view


def sweeps(config):
    """Recordings that go all the way, one half to each side: only the goal tells which."""
    way = np.linspace(-0.8, 0.8, LENGTH, dtype=np.float32)
    places = np.concatenate([way if k % 2 else way[::-1] for k in range(EPISODES)])
    joints = np.stack([places, 0.0 * places, 0.5 + 0.0 * places], 1)
    following = np.stack(
        [joints[min(i + 1, (i // LENGTH + 1) * LENGTH - 1)] for i in range(len(joints))]
    )
    columns = {"agent_pos": joints, "action": following}
    views = {"pixels": {"top": np.stack([picture(place) for place in places])}}
    lengths, told = np.full(EPISODES, LENGTH), ["go"] * EPISODES
    windows = Windows(config.horizon, lengths, told, columns, views)
    ahead = {"then": 2, "subgoal": 4}
    return Hindsight(windows, config.hindsight, waypoints=ahead), columns


def taught(config, steps):
    """A policy that learned of the sweeps, and how far from them it acted before and after."""
    sampler, columns = sweeps(config)
    policy = policy_of(config, WIDE)
    for backbone in (policy.backbone, *(part.backbone for part in judges(policy))):
        backbone.fit(columns)
    known = sampler.get(np.arange(len(sampler)))
    base = known["agent_pos"][:, None] * policy.relative.numpy()
    policy.chunk.fit(known["action"] - base)
    before = error(policy, sampler)
    policy.train()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3, weight_decay=1e-4, fused=True)
    for step in range(steps):
        batch = as_tensors(sampler.draw(stream(step, "sweep"), 32), "cpu")
        loss, _ = policy.loss(batch, stream(step, "loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy.eval()
    return policy, before, error(policy, sampler)


def error(policy, sampler):
    """Mean squared, of what it does beside what was done."""
    seen = as_tensors(sampler.draw(stream(0, "seen"), 200), "cpu")
    return float((acted(policy, seen)[:, 0] - seen["action"]).square().mean())


def judges(policy):
    return (policy.judge, policy.slow) if isinstance(policy, ValuedPolicy) else ()


# Steps until the goal tells the way; a hierarchy learns what to propose once there is a value.
ENOUGH = {"gcbc": 60, "saw": 200, "hiql": 300}


@KINDS
def test_it_learns_what_was_done_and_the_goal_tells_which_way(config):
    changes = {"hidden": 32, "hindsight": replace(toy.GOALS, jitter=0.0)}
    policy, before, after = taught(replace(config, **changes), ENOUGH[config.kind])
    assert after < 0.5 * before
    middle = np.float32([0.0, 0.0, 0.5])
    for place in (-0.8, 0.8):
        seen = {"agent_pos": middle[None], "pixels": {"top": picture(0.0)[None]}}
        seen |= {"goal_pixels": {"top": picture(place)[None]}}
        moved = float(acted(policy, as_tensors(seen, "cpu"))[0, 0, -1, 0])
        assert place * moved > 0.0
        assert abs(moved) > 0.1


@KINDS
def test_another_goal_is_another_action_and_words_are_none(config):
    policy, seen = policy_of(config), observations(2)
    other = {**seen, "goal_pixels": toy.observations(2, 7)["pixels"]}
    assert not torch.allclose(acted(policy, seen), acted(policy, other))
    one, two = (policy.encode(seen, words).tokens for words in (["go left", "go up"], ["", ""]))
    assert torch.equal(one, two)


@VALUED
def test_the_value_is_not_moved_by_the_policy_nor_the_policy_by_the_value(kind):
    policy, batch = policy_of(toy.TINY_MODES[kind]), batch_of(6)
    way = policy._way(batch)
    found = policy.advantages(way)
    sum(policy.errors(batch, way, found, stream(0, "loss")).values()).backward()
    assert still(policy.judge) == all_of(policy.judge)
    assert not still(policy.backbone)
    assert not still(policy.head)
    policy.zero_grad()
    policy._value_loss(batch, way).backward()
    assert not still(policy.judge)
    assert still(policy.backbone) == all_of(policy.backbone)
    assert still(policy.head) == all_of(policy.head)


def still(module):
    """The weights that no gradient reached, but such as weigh words, of which there is one."""
    return [
        n for n in all_of(module) if (p := module.get_parameter(n)).grad is None or not p.grad.any()
    ]


def all_of(module):
    return [name for name, _ in module.named_parameters() if "attention" not in name]


@KINDS
def test_every_weight_learns_but_those_of_the_slow_copy(config):
    policy = policy_of(config).train()
    policy.loss(batch_of(6), stream(0, "loss"))[0].backward()
    assert all(name.startswith("slow.") for name in still(policy))
    assert all(p.grad is None for n, p in policy.named_parameters() if n.startswith("slow."))


@VALUED
def test_the_slow_copy_follows_in_training_alone(kind):
    policy = policy_of(toy.TINY_MODES[kind])
    before = [p.clone() for p in policy.slow.parameters()]
    with torch.no_grad():
        for weight in policy.judge.parameters():
            weight.add_(1.0)
    for training, pace in ((False, 0.0), (True, policy.config.polyak)):
        policy.train(training).loss(batch_of(4), stream(0, "loss"))
        gap = zip(before, policy.slow.parameters(), policy.judge.parameters(), strict=True)
        for old, slow, ahead in gap:
            torch.testing.assert_close(slow, old.lerp(ahead, pace))


@VALUED
def test_goals_of_the_same_episode_are_no_strangers(kind):
    policy, batch = policy_of(toy.TINY_MODES[kind]), batch_of(6)
    losses = []
    for episode in (torch.arange(6), torch.zeros(6, dtype=torch.long)):
        told = {**batch, "episode": episode}
        losses.append(float(policy._value_loss(told, policy._way(told)).detach()))
    assert losses[0] > losses[1] > 0.0


@KINDS
def test_the_first_candidate_is_the_mode_however_many_there_are(config):
    policy, seen = policy_of(config), observations(2)
    one, many = acted(policy, seen), acted(policy, seen, 16)
    torch.testing.assert_close(many[:, :1], one)
    torch.testing.assert_close(many[:, :4], acted(policy, seen, 4))
    assert torch.unique(many.flatten(2), dim=1).shape[1] == 16
    alone = policy_of(replace(config, spread=0.0))
    torch.testing.assert_close(acted(alone, seen, 3), acted(alone, seen).expand(-1, 3, -1, -1))


@pytest.mark.parametrize("kind", ["gcbc", "saw"])
def test_candidates_are_as_far_apart_as_told(kind):
    policy = policy_of(replace(toy.TINY_MODES[kind], spread=0.2))
    apart = acted(policy, observations(1), 2000)[0]
    deviation = apart.std(0) / policy.chunk.std
    torch.testing.assert_close(deviation, torch.full_like(deviation, 0.2), atol=0.01, rtol=0.0)
    clean = policy.chunk(apart)
    torch.testing.assert_close(clean - clean[:1], (clean - clean[:1])[:, :1].expand_as(clean))


@KINDS
@torch.inference_mode()
def test_chunks_are_drawn_towards_candidates_by_the_level(config):
    policy, seen = policy_of(config), observations(2)
    context = policy.encode(seen, [""] * 2)
    shown = torch.zeros(2, 3, policy.horizon, 3)
    drawn = policy.sample(context, 3, noise(2))
    for level in (0.0, 0.5, 1.0):
        found = policy.refine(context, shown, noise(2), level)
        torch.testing.assert_close(found.actions, shown.lerp(drawn.actions, level))
        assert found.features.shape == drawn.features.shape


@KINDS
def test_it_trains_resumes_and_acts_as_any_other(config, toy_data, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    settings = {"policy": config, "save_every": 2}
    train(toy.train_config(toy_data, whole, **settings))
    train(toy.train_config(toy_data, run, **settings))
    (newest,) = (run / "checkpoints").glob("0000004")
    shutil.rmtree(newest)
    assert train(toy.train_config(toy_data, run, resume=True, **settings)).name == "0000004"
    one, other = load_policy(run), load_policy(whole)
    assert one.config == config
    assert torch.equal(acted(one, observations(2)), acted(other, observations(2)))
    options = {"replan_every": 2, "episodes": 1, "videos": 0, "workers": 0, "candidates": 3}
    chosen = EvalConfig(
        policy=str(run), env=toy.ENV_ID, out=tmp_path / "eval", scorer="medoid", **options
    )
    assert evaluate(chosen)["goal"] == ["demonstration"]


@pytest.mark.parametrize("kind", ["gcbc", "hiql"])
def test_it_practises(kind, toy_data, tmp_path):
    config = toy.TINY_MODES[kind]
    base, out = tmp_path / "base", tmp_path / "out"
    train(toy.train_config(toy_data, base, policy=config))
    small = {"episodes": 2, "steps": 5, "updates": 2, "batch_size": 8, "rank": 2, "evaluate": 1}
    small |= {"replan_every": 2, "rounds": 1, "workers": 0}
    figures = adapt(AdaptConfig(policy=base, out=out, **small))
    assert np.isfinite(figures["rounds"][1]["loss"])
    before, after = (load_policy(folder).state_dict() for folder in (base, out))
    moved = {n for n, value in before.items() if not torch.equal(value, after[n])}
    assert any(name.startswith("head.") for name in moved)
    assert all(name.endswith(".weight") for name in moved)  # adapters alone


def test_recordings_without_pictures_are_refused(toy_data):
    dataset = EpisodeDataset(toy_data)
    dataset.columns["environment_state"] = np.zeros((len(dataset.columns["action"]), 5), np.float32)
    for config in toy.TINY_MODES.values():
        with pytest.raises(ValueError, match="goals are shown in pictures"):
            POLICIES[config.kind]().for_dataset(config, dataset, {})
