"""Post-training: rounds of collecting, judging and imitating, which go on where they were cut."""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from chain import Chain, Known
from cutting import cut_off_at

from robolearn import checkpoint, fit
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import EpisodeWriter
from robolearn.experience import Experience
from robolearn.improve import Improvement, improve
from robolearn.improve_report import write_improve_report
from robolearn.learn_options import ImproveConfig
from robolearn.policies.advantage import imitate, weights_of
from robolearn.policies.aloe import evaluate_policy
from robolearn.policies.awr import fitted_value, value_at
from robolearn.policies.base import as_tensors
from robolearn.policies.bc import Bc
from robolearn.policies.dagger import Dagger
from robolearn.policies.improver import rank_correlation
from robolearn.policies.improver_configs import (
    ActorConfig,
    AdvantageConfig,
    AloeConfig,
    AwrConfig,
    BcConfig,
    CriticConfig,
    DaggerConfig,
    IqlConfig,
    QChunkingConfig,
)
from robolearn.policies.iql import taught
from robolearn.replay import Reward, replay_of
from robolearn.rounds import demonstrations_of
from robolearn.train import train

SMALL = CriticConfig(heads=2, hidden=16, depth=1, steps=8, batch_size=16, samples=2)
ALOE = AloeConfig(critic=SMALL, actor=ActorConfig(steps=6, batch_size=16))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("improve")
    data = toy.record_demonstrations(folder / "data", 6)
    train(toy.train_config(data, folder / "base", steps=30))
    return folder / "base"


def config(base, out, **changes):
    plain = {"rounds": 2, "episodes": 5, "replan_every": 4, "stride": 2, "evaluate": 2}
    plain |= {"videos": 0}
    settings = {"algo": ALOE, "candidates": 2, "workers": 0, **plain, **changes}
    return ImproveConfig(base=base, out=out, **settings)


@pytest.fixture(scope="module")
def whole(base):
    """A run of two rounds, and its result."""
    out = base.parent / "whole"
    return out, improve(config(base, out))


def test_rounds_collect_judge_and_imitate(base, whole):
    out, figures = whole
    assert [row["round"] for row in figures["rounds"]] == [1, 2]
    assert all(row["n"] == 5 and row["fragments"] > 20 for row in figures["rounds"])
    first = EpisodeDataset(out / "rounds/1/rollouts").episodes.seed
    second = EpisodeDataset(out / "rounds/2/rollouts").episodes.seed
    assert not set(first) & set(second)
    assert set(figures["selected"]) >= {"n", "success", "latency_ms"}
    weights = [
        checkpoint.load_policy(path).state_dict()
        for path in (base, out / "checkpoints/0000001", out / "checkpoints/0000002")
    ]
    changed = {k for k, v in weights[0].items() if not torch.equal(v, weights[1][k])}
    assert changed
    assert all(name.startswith("head.") for name in changed)  # the encoder stays
    assert any(not torch.equal(v, weights[2][k]) for k, v in weights[1].items())


def cut(run, where):
    """A run as a crash would leave it."""
    if where == "before judging":
        shutil.rmtree(run / "rounds/2/critic")
    if where != "before the figures":
        shutil.rmtree(run / "checkpoints/0000002")
    (run / "rounds/2/figures.json").unlink()


@pytest.mark.parametrize("where", ["before judging", "before imitating", "before the figures"])
def test_a_run_that_was_cut_off_ends_with_the_same_table(base, whole, tmp_path, where):
    done, figures = whole
    run = tmp_path / "run"
    shutil.copytree(done, run)
    cut(run, where)
    again = Improvement(config(base, run)).run()
    assert again == figures["rounds"]
    for name in ("checkpoints/0000002/model", "rounds/2/critic", "critic"):
        assert checkpoint.fingerprint(run / name) == checkpoint.fingerprint(done / name), name


@pytest.mark.parametrize("episode", [2, 8])
def test_so_does_one_that_was_cut_off_while_acting(base, whole, tmp_path, monkeypatch, episode):
    _, figures = whole
    with cut_off_at(episode, monkeypatch):
        Improvement(config(base, tmp_path / "run")).run()
    assert Improvement(config(base, tmp_path / "run")).run() == figures["rounds"]


def test_other_settings_are_refused(base, whole):
    out, _ = whole
    with pytest.raises(ValueError, match="other settings"):
        improve(config(base, out, episodes=6))


def test_the_folder_of_another_run_is_refused(base):
    before = checkpoint.checkpoints(base)
    with pytest.raises(ValueError, match=r"holds another run; take another --out"):
        improve(config(base, base))
    assert checkpoint.checkpoints(base) == before
    assert not (base / "improve.json").exists()


def test_a_verifier_is_fitted_to_what_a_run_was_improved_with(base, whole):
    assert demonstrations_of(whole[0]) == (base.parent / "data", None)
    assert fit._demonstrations(checkpoint.resolve(whole[0])) == (base.parent / "data", None)


def test_the_base_must_say_what_it_was_trained_on(base, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(checkpoint.resolve(base), alone)
    with pytest.raises(ValueError, match="does not say what it was trained on; give --data"):
        improve(config(alone, tmp_path / "out"))
    assert not (tmp_path / "out" / "improve.json").exists()  # a mistake reserves no folder


def test_an_improved_run_can_be_improved(base, whole, tmp_path):
    run = Improvement(config(whole[0], tmp_path / "out"))
    assert run.config.data == base.parent / "data"


def test_steps_beyond_the_chunk_are_refused_before_anything_is_collected(base, tmp_path):
    with pytest.raises(ValueError, match="--judged is 8 .* has 4 steps"):
        Improvement(config(base, tmp_path / "out", judged=8))
    assert not (tmp_path / "out" / "improve.json").exists()


ACTOR = ActorConfig(steps=3, batch_size=8)
QUICK = {"steps": 5, "batch_size": 8}


@pytest.mark.parametrize(
    "algo",
    [
        BcConfig(actor=ACTOR),
        BcConfig(successes=True, actor=ACTOR),
        DaggerConfig(actor=ACTOR),
        AwrConfig(actor=ACTOR, hidden=8, **QUICK),
        QChunkingConfig(critic=replace(SMALL, backup="best", **QUICK), actor=ACTOR),
        IqlConfig(critic=replace(SMALL, **QUICK), hidden=8, actor=ACTOR),
    ],
    ids=["bc", "filtered-bc", "dagger", "awr", "q-chunking", "iql"],
)
def test_other_methods_go_the_same_way(base, tmp_path, algo):
    settings = config(base, tmp_path / "out", algo=algo, rounds=1)
    (row,) = Improvement(settings).run()
    assert row["n"] == 5
    assert "actor_loss" in row
    assert (tmp_path / "out/critic").exists() == (algo.kind in ("q-chunking", "iql"))


def test_filtered_cloning_keeps_what_succeeded(base):
    experience, policy = experienced(base)
    replay = experience.replay
    replay.success[::2] = False
    weights = Bc(BcConfig(successes=True)).judge(policy, experience, None, 0).weights
    np.testing.assert_array_equal(weights > 0, replay.success[replay.episode[replay.starts]])
    assert weights.mean() == pytest.approx(1.0)


def test_dagger_keeps_demonstrations_and_corrections(base):
    experience, policy = experienced(base)
    replay, experience.demonstrations = experience.replay, 2
    replay.columns["intervention"][replay.ends[3] - 4 : replay.ends[3]] = True
    weights = Dagger(DaggerConfig()).judge(policy, experience, None, 0).weights
    corrected = replay.columns["intervention"][replay.starts]
    shown = replay.episode[replay.starts] < 2
    np.testing.assert_array_equal(weights > 0, corrected | shown)
    assert corrected.any()


def test_a_state_value_is_learned_from_returns():
    known = Known(Chain(5), 1, (0.9,), episodes=200)
    settings = AwrConfig(hidden=32, steps=300, learning_rate=5e-3)
    nobody = np.zeros(200, bool)
    value = fitted_value(settings, known, known.replay.returns(), nobody, seed=0)
    found = value_at(value, known, known.replay.starts)
    by_state = [found[known.states[known.replay.starts] == s].mean() for s in range(5)]
    assert (np.diff(by_state) > 0).all()
    q = known.exact(0.9)
    exact = [0.9 * q[s, (1.0,)] + 0.1 * q[s, (-1.0,)] for s in range(5)]
    np.testing.assert_allclose(by_state, exact, atol=0.25)


def test_an_expectile_of_one_half_values_who_acted_and_a_higher_one_more():
    """Of one policy's data; the state value of the one that acted is known."""
    known = Known(Chain(5), 1, (0.6,), episodes=300)
    samples, nobody = known.samples(0.6, count=1), np.zeros(300, bool)
    q = known.exact(0.6)
    exact = np.array([0.6 * q[s, (1.0,)] + 0.4 * q[s, (-1.0,)] for s in range(5)])
    found = {}
    for expectile in (0.5, 0.9):
        critic = known.critic(
            heads=1, prior=0.0, steps=800, learning_rate=5e-3, polyak=0.05, hidden=16
        )
        settings = IqlConfig(expectile=expectile, hidden=32)
        both = taught(settings, critic, known, samples, nobody, seed=0)
        with torch.inference_mode():
            found[expectile] = both.value(torch.eye(5)[:, None]).numpy()
    np.testing.assert_allclose(found[0.5], exact, atol=0.15)
    assert (found[0.9] > found[0.5]).all()


def test_the_best_of_several_chunks_is_worth_more_than_any():
    known = Known(Chain(5), 3, (0.3, 0.7))
    quick = {"steps": 400, "learning_rate": 5e-3, "polyak": 0.05, "hidden": 16}
    values = {}
    for backup in ("policy", "best"):
        critic = known.critic(backup=backup, **quick)
        evaluate_policy(critic, known, known.samples(0.5, count=8), np.zeros(400, bool), seed=0)
        values[backup] = known.wrong(critic, known.exact(0.999))
    assert values["best"] < 0.1  # of 8 chunks one is mostly the best there is
    assert values["policy"] > 2 * values["best"]


def test_the_unit_of_reward_stays_when_demonstrations_are_added(base, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(base.parent / "data", data)
    settings = config(base, tmp_path / "out", data=data)
    before = Improvement(settings).reward
    with EpisodeWriter(data, arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writer:
        writer.append(toy.example(length=90))
    assert Improvement(settings).reward == before
    assert Improvement(replace(settings, out=tmp_path / "other")).reward != before


def test_a_judge_without_an_opinion_is_behaviour_cloning_bitwise(base):
    experience, policy = experienced(base)
    starts, actor = experience.replay.starts, ActorConfig(steps=4, batch_size=8)
    cloned = Bc(BcConfig()).judge(policy, experience, None, 0).weights
    indifferent = weights_of(np.full(len(starts), -0.7), AdvantageConfig())
    opinionated = weights_of(np.arange(len(starts), dtype=float), AdvantageConfig())
    one, two, other = (
        imitate(policy, experience, starts, weights, actor, seed=3)[0].state_dict()
        for weights in (cloned, indifferent, opinionated)
    )
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_adapters_learn_and_become_part_of_the_head(base):
    experience, policy = experienced(base)
    starts = experience.replay.starts
    actor = ActorConfig(steps=4, batch_size=8, learning_rate=0.01, ema=0.0, lora=2)
    plain = {name: value.clone() for name, value in policy.state_dict().items()}
    taught = imitate(policy, experience, starts, np.ones(len(starts)), actor, seed=3)[0]
    after = taught.state_dict()
    assert after.keys() == plain.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, plain[name])}
    assert changed
    assert all(name.startswith("head.") and name.endswith("weight") for name in changed)
    for name in changed:  # a change of two dimensions
        assert torch.linalg.matrix_rank(after[name] - plain[name], rtol=1e-3) <= 2
    assert all(torch.equal(value, plain[name]) for name, value in policy.state_dict().items())


def experienced(base):
    policy = checkpoint.load_policy(base)
    dataset = EpisodeDataset(base.parent / "data")
    replay = replay_of([dataset], Reward(10.0), executed=4, stride=2)
    return Experience(policy, [dataset], replay), policy


def test_two_runs_that_begin_at_once_share_the_tokens(base, monkeypatch):
    """The second waits for the first, and reads what it wrote."""
    from concurrent.futures import ThreadPoolExecutor

    from robolearn import experience

    policy, dataset = checkpoint.load_policy(base), EpisodeDataset(base.parent / "data")
    shutil.rmtree(dataset.cache)
    written, write = [], experience._write_tokens

    def slowly(*args):
        written.append(args[-1])
        time.sleep(0.3)
        write(*args)

    monkeypatch.setattr(experience, "_write_tokens", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: experience.cached_tokens(policy, dataset, 2), range(2))
    assert len(written) == 1
    np.testing.assert_array_equal(one, two)


def test_cached_tokens_are_what_the_policy_sees(base):
    experience, policy = experienced(base)
    dataset = EpisodeDataset(base.parent / "data")
    frames = experience.replay.frames[::7]
    windows = dataset.windows(policy.horizon, cameras=tuple(policy.cameras))
    batch = as_tensors(windows.get(frames), "cpu")
    with torch.inference_mode():
        fresh = policy.encode(batch, batch["instruction"])
    torch.testing.assert_close(experience.tokens(frames), fresh.tokens, atol=2e-3, rtol=2e-3)
    rebuilt = experience.batch(frames, policy.horizon)
    assert torch.equal(rebuilt["action"], batch["action"])
    assert torch.equal(rebuilt["agent_pos"], batch["agent_pos"])


def test_a_policy_that_looks_back_improves_too(base, tmp_path):
    settings = replace(toy.TINY, history=2)
    data = base.parent / "data"
    train(replace(toy.train_config(data, tmp_path / "base"), policy=settings))
    (row,) = Improvement(config(tmp_path / "base", tmp_path / "out", rounds=1)).run()
    assert row["n"] == 5
    better = checkpoint.load_policy(tmp_path / "out")
    assert better.history == 2


def test_two_datasets_are_gathered_in_any_order(base):
    policy = checkpoint.load_policy(base)
    data = base.parent / "data"
    both = [EpisodeDataset(data), EpisodeDataset(data)]
    experience = Experience(policy, both, replay_of(both, Reward(10.0), executed=4, stride=2))
    frames = experience.replay.frames
    half = len(frames) // 2
    mixed = np.stack([frames[:half], frames[half:]], 1).ravel()
    tokens = experience.tokens(mixed).unflatten(0, (-1, 2))
    assert torch.equal(tokens[:, 0], tokens[:, 1])


def test_a_critic_of_another_encoder_is_refused(base, whole, tmp_path):
    from robolearn.policies.scorers import open_scorer
    from robolearn.sources import source_of

    out, _ = whole
    other = toy.tiny_policy()
    other.save(tmp_path / "other")
    critic = str(out / "critic")
    with pytest.raises(checkpoint.CheckpointError, match="tokens of another policy"):
        open_scorer(critic, other, source_of(tmp_path / "other"))
    better = checkpoint.load_policy(out)
    open_scorer(critic, better, source_of(out))  # the encoder is the base's
    open_scorer(critic, better, source_of(out), slice(0, 4))
    for other_pace in (slice(0, 3), slice(1, 5)):
        with pytest.raises(checkpoint.CheckpointError, match="was taught with --replan-every 4"):
            open_scorer(critic, better, source_of(out), other_pace)


def test_bad_counts_are_refused(base, tmp_path):
    with pytest.raises(ValueError, match="--episodes is 0"):
        config(base, tmp_path, episodes=0)
    with pytest.raises(ValueError, match="--seed is 0; seeds below 3000000 belong to"):
        config(base, tmp_path, seed=0)
    with pytest.raises(ValueError, match="--stride 3; the stride must divide"):
        config(base, tmp_path, stride=3)


def test_the_table_is_written(whole):
    out, figures = whole
    assert json.loads((out / "result.json").read_text())["rounds"] == figures["rounds"]


def test_a_column_that_does_not_differ_has_no_rank():
    assert rank_correlation(np.ones(5), np.arange(5)) is None
    assert rank_correlation(np.arange(5), np.arange(5) ** 2) == pytest.approx(1.0)


def test_the_page_stands_alone(whole):
    out, figures = whole
    page = (out / "report.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    for row in figures["rounds"]:
        assert f"{100 * row['success']:.1f} %" in page
    assert "the critic&#39;s choice" in page
    assert "aloe, Toy-v0" in page
    assert page.count("<svg") == 1


def test_the_page_shows_how_right_the_critic_was(whole, tmp_path):
    summary = json.loads((whole[0] / "result.json").read_text())
    summary["rounds"][-1]["calibration"] = [[-2.0, -2.5], [-0.5, -0.4]]
    (tmp_path / "result.json").write_text(json.dumps(summary))
    write_improve_report(tmp_path / "result.json", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("<svg") == 2
