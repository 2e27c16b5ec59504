"""Learning by trying: an encoder and a decoder that learn at two paces."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from robolearn import checkpoint
from robolearn.contract import SO101
from robolearn.learn_options import OnlineConfig
from robolearn.policies import gorl
from robolearn.policies.gorl import (
    Decisions,
    Gorl,
    fresh_policy,
    generalised_advantages,
    joined,
    went_well,
)
from robolearn.policies.improver_configs import GorlConfig

SMALL = GorlConfig(
    horizon=4, width=8, hidden=16, depth=1, learning_rate=5e-3, batch_size=64, decoder_steps=60
)


def learner(config=SMALL):
    rng = np.random.default_rng(0)
    states = {
        "agent_pos": rng.normal(size=(50, SO101.size)),
        "environment_state": rng.normal(size=(50, 5)),
    }
    return Gorl(config, fresh_policy(config, SO101, states, ("go", "red"), seed=0).eval())


def decided(ours, count=128, seed=0):
    """Decisions, each of an episode of its own, that are paid for a latent's first number."""
    rng = np.random.default_rng(seed)
    seen = {
        "agent_pos": torch.from_numpy(rng.normal(size=(count, SO101.size)).astype(np.float32)),
        "environment_state": torch.from_numpy(rng.normal(size=(count, 5)).astype(np.float32)),
    }
    told = ["go red"] * count
    noise = torch.from_numpy(rng.normal(size=(count, 1, 1, SO101.size)).astype(np.float32))
    with torch.no_grad():
        context = ours.policy.encode(seen, told)
        chunks, latent, density = ours.decide(context, noise)
    relative = chunks - seen["agent_pos"].numpy()[:, None] * ours.policy.inner.relative.numpy()
    moved = (relative / ours.policy.inner.chunk.std.numpy())[:, -1, 0]
    everywhere = np.ones(count, bool)
    return Decisions(seen, told, latent, density, moved, everywhere, everywhere), moved


def test_at_first_the_decoder_changes_nothing():
    ours = learner()
    decisions, _ = decided(ours)
    whole = decisions.latent[:, None].expand(-1, -1, SMALL.horizon, -1)
    torch.testing.assert_close(ours.clean(decisions, np.arange(128)), whole)


def test_the_encoder_learns_what_pays_and_the_decoder_stays():
    ours = learner()
    before = {k: v.clone() for k, v in ours.policy.inner.head.state_dict().items()}
    _, first = decided(ours)
    for k in range(8):
        ours.update(decided(ours, seed=k)[0], np.random.default_rng(k))
    _, last = decided(ours)
    assert last.mean() > first.mean() + 0.3
    after = ours.policy.inner.head.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in ours.policy.inner.head.parameters())


def test_after_the_decoder_has_learned_plain_noise_is_as_good():
    ours = learner()
    for k in range(8):
        ours.update(decided(ours, seed=k)[0], np.random.default_rng(k))
    decisions, paid = decided(ours, count=512)
    backbone = {k: v.clone() for k, v in ours.policy.inner.backbone.state_dict().items()}
    ours.refine(decisions, seed=0)
    drawn, _ = decided(ours, count=512, seed=99)
    assert drawn.latent.mean().abs() < 0.1  # the encoder began anew
    assert float(drawn.latent.std()) == pytest.approx(0.87, abs=0.1)  # N(0, 1) within the bound
    assert decided(ours, count=512, seed=99)[1].mean() > paid.mean() - 0.1
    ours.update(drawn, np.random.default_rng(0))
    after = ours.policy.inner.backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in backbone.items())


def test_before_it_has_learned_nothing_has_become_likelier():
    """Also of latents that are nearly as large as they can be."""
    ours = learner(replace(SMALL, prior=0.0))
    with torch.no_grad():
        ours.policy.actor.out.bias[: SO101.size] = 9.0
    decisions, _ = decided(ours)
    assert float(decisions.latent.max()) > 0.998 * SMALL.bound
    loss = ours.loss(decisions, np.arange(128), torch.ones(128), ours.expected(decisions))
    assert float(loss.detach()) == pytest.approx(-1.0, abs=0.01)


def test_advantages_end_with_the_task_and_go_on_behind_a_time_limit():
    config = GorlConfig(discount=0.5, trace=0.5)
    value = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    last = np.array([False, True, False, True])
    terminated = np.array([False, True, False, False])
    decisions = Decisions({}, [], None, None, np.ones(4, np.float32), last, terminated)
    found = generalised_advantages(decisions, value, config)
    second = 1.0 - 2.0
    fourth = 1.0 + 0.5 * 8.0 - 8.0
    first, third = 1.0 + 0.5 * 2.0 - 1.0, 1.0 + 0.5 * 8.0 - 4.0
    expected = [first + 0.25 * second, second, third + 0.25 * fourth, fourth]
    np.testing.assert_allclose(found, expected)


def test_the_best_episodes_are_those_that_were_paid_most():
    last = np.array([False, True, True, False, False, True])
    reward = np.array([0.0, 1.0, 0.9, 1.0, 0.0, 0.0], np.float32)
    decisions = Decisions({}, [], None, None, reward, last, last)
    nothing = np.zeros(6)
    assert went_well(decisions, nothing, 0.3, 0.5).tolist() == [False] * 3 + [True] * 3
    promised = np.array([0.0, 9.0, 0.0, 0.7, -9.0, -9.0])  # of which only beginnings count
    assert went_well(decisions, promised, 0.3, 0.5).tolist() == [False] * 2 + [True] + [False] * 3


def test_iterations_lie_one_behind_the_other():
    ours = learner()
    parts = [decided(ours, count=5, seed=seed)[0] for seed in (1, 2)]
    both = joined(parts)
    assert both.instructions == ["go red"] * 10
    torch.testing.assert_close(both.seen["agent_pos"][5:], parts[1].seen["agent_pos"])
    torch.testing.assert_close(both.latent[:5], parts[0].latent)
    np.testing.assert_array_equal(both.reward[5:], parts[1].reward)


def test_the_decoder_learns_from_the_noise_that_a_fresh_encoder_draws(monkeypatch):
    config = replace(SMALL, bound=0.8)
    ours = learner(config)
    begun = []

    def looked(x, t, prefix):
        begun.append(x)
        return x, x

    monkeypatch.setattr(ours.policy.inner.head, "forward", looked)
    tokens = torch.zeros(4000, 3, config.width)
    clean = torch.zeros(4000, 1, config.horizon, SO101.size)
    from_noise = np.random.default_rng(0)
    monkeypatch.setattr(gorl, "draws_of", lambda draw, shape: at_the_beginning(from_noise, shape))
    ours.matching(tokens, clean, from_noise)
    drawn = decided(learner(config), count=4000)[0].latent
    (noise,) = begun
    for share in (0.1, 0.3, 0.7, 0.9):
        found = float(noise[:, 0, 0].quantile(share))
        assert found == pytest.approx(float(drawn[:, 0].quantile(share)), abs=0.03)


def at_the_beginning(rng, shape):
    """Noise of a normal distribution, and times of zero."""
    return torch.from_numpy(rng.normal(size=shape) * (len(shape) == 4)).float()


def test_the_units_of_what_is_seen_are_those_of_all_that_was_seen():
    ours = learner()
    decisions, _ = decided(ours)
    before = decided(ours, seed=1)[0]
    decisions.seen["environment_state"] *= 40.0
    ours.fit(decisions)
    backbone = ours.policy.inner.backbone
    seen = backbone.environment_state(decisions.seen["environment_state"])
    assert float(seen.std(0).max()) == pytest.approx(1.0, abs=0.02)
    # As long as the encoder knows nothing, what it did is as likely in any units.
    torch.testing.assert_close(decided(ours, seed=1)[0].density, before.density)


def test_a_run_leaves_checkpoints_that_act(tmp_path):
    from robolearn.online import Online

    config = OnlineConfig(
        out=tmp_path / "run", algo=SMALL, stages=2, iterations=1, episodes=2, slots=2
    )
    run = Online(config)
    run.run()
    tool = run.policy.inner.backbone.environment_state.std[12:15]
    assert float(tool.min()) > 0.02  # m: at the beginnings it has moved by millimetres
    lines = [json.loads(line) for line in (tmp_path / "run/online.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [0, 1]
    policy = checkpoint.load_policy(tmp_path / "run")
    assert policy.env_id == "robolearn/Reach-v0"
    with pytest.raises(ValueError, match="holds a run already; take another --out"):
        Online(config)
    with pytest.raises(ValueError, match="--slots is 0"):
        OnlineConfig(out=tmp_path, slots=0)
