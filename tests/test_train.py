"""Training: it learns, and what it cannot do it says."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from test_resume import log_of, state_of

from robolearn.agent import PolicyAgent
from robolearn.checkpoint import load_policy
from robolearn.config import load_config
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.options import TrainConfig
from robolearn.policies.flow import FlowPolicy
from robolearn.seeding import stream
from robolearn.train import Trainer, train


def test_it_learns_what_was_demonstrated(tmp_path, toy_data):
    """The sampled chunks come much closer to the demonstrated ones than an untrained policy's."""
    config = toy.train_config(
        toy_data, tmp_path / "run", steps=300, batch_size=32, learning_rate=1e-2, log_every=50
    )
    train(config)
    trained, dataset = load_policy(tmp_path / "run"), EpisodeDataset(toy_data)
    torch.manual_seed(0)
    untrained = FlowPolicy.for_dataset(config.policy, dataset, dataset.cameras)
    windows = dataset.windows(config.policy.horizon, tuple(dataset.cameras))
    batch = toy.as_tensors(windows.get(np.arange(len(windows))), "cpu")

    def error(policy):
        with torch.inference_mode():
            noise = [stream(k, "error") for k in range(len(windows))]
            chunks = policy.sample(policy.encode(batch, batch["instruction"]), 1, noise)
        wrong = (chunks.actions[:, 0] - batch["action"]).abs()[..., :2]  # the grip is random
        return float(wrong[batch["mask"]].mean())

    assert error(trained) < 0.5 * error(untrained)
    losses = [line["loss"] for line in log_of(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


def test_what_is_saved_is_what_was_asked(toy_data, toy_run):
    config = toy.train_config(toy_data, toy_run)
    assert load_config(TrainConfig, toy_run) == config
    assert load_policy(toy_run).config == config.policy
    assert sorted(path.name for path in toy_run.iterdir()) == [
        "checkpoints",
        "config.json",
        "log.jsonl",
        "tensorboard",
    ]


def test_the_averaged_weights_are_those_that_act(toy_run):
    state, acting = state_of(toy_run), load_policy(toy_run).state_dict()
    assert all(torch.equal(acting[name], state[f"average.{name}"]) for name in acting)
    assert any(not torch.equal(acting[name], state[f"policy.{name}"]) for name in acting)
    PolicyAgent(load_policy(toy_run), replan_every=2)


def test_the_average_follows_the_weights(tmp_path, toy_data):
    trainer = Trainer(toy.train_config(toy_data, tmp_path, ema=0.5))
    weight = trainer.policy.head.outward.weight
    expected = weight.detach().clone()
    for step, _ in enumerate(trainer._steps(), start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight.detach()
        torch.testing.assert_close(trainer.average.head.outward.weight, expected)


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path, toy_data):
    trainer = Trainer(toy.train_config(toy_data, tmp_path, steps=100, warmup=10, learning_rate=0.2))
    rates = []
    for trainer.step in range(100):
        rates.append(trainer._learning_rate())
    assert rates[0] == pytest.approx(0.02)
    assert rates[4] == pytest.approx(0.1, rel=0.01)
    assert np.argmax(rates) == 9
    assert rates[50] == pytest.approx(0.1)
    assert (np.diff(rates[10:]) < 0).all()
    assert 0 < rates[-1] < 1e-3


def test_a_batch_belongs_to_its_seed_and_step(tmp_path, toy_data):
    def batches(seed):
        trainer = Trainer(toy.train_config(toy_data, tmp_path, seed=seed))
        return [trainer.batch(step)["action"] for step in (0, 1, 0)]

    first, second, again = batches(0)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, batches(1)[0])


def test_a_run_is_not_overwritten(toy_data, toy_run):
    before = sorted(toy_run.rglob("*"))
    with pytest.raises(FileExistsError, match="holds a run; add --resume or choose another --out"):
        train(toy.train_config(toy_data, toy_run))
    assert sorted(toy_run.rglob("*")) == before


def test_there_must_be_episodes_with_pictures(tmp_path, toy_data):
    run = tmp_path / "run"
    with pytest.raises(DatasetError, match="holds no recorded episode"):
        train(toy.train_config(tmp_path / "nothing", run))
    with EpisodeWriter(tmp_path / "empty", arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS):
        pass
    with pytest.raises(DatasetError, match="holds no recorded episode"):
        train(toy.train_config(tmp_path / "empty", run))
    with EpisodeWriter(tmp_path / "blind", arm=toy.TOY_ARM, fps=20) as writer:
        writer.append(toy.example(cameras={}))
    blind = shutil.copytree(toy_data, tmp_path / "lost")
    shutil.rmtree(blind / "videos")
    for folder in (tmp_path / "blind", blind):
        with pytest.raises(DatasetError, match="has no pictures to train on"):
            train(toy.train_config(folder, run))
    assert not run.exists()


@pytest.mark.parametrize("name", ["steps", "batch_size", "log_every", "save_every"])
def test_counts_start_at_one(tmp_path, toy_data, name):
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        train(toy.train_config(toy_data, tmp_path / "run", **{name: 0}))


def test_an_absent_device_is_named_before_anything_is_done(tmp_path, toy_data):
    with pytest.raises(ValueError, match="no device 'warp'"):
        train(toy.train_config(toy_data, tmp_path / "run", device="warp"))
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_ends_with_good_checkpoints(tmp_path, toy_data):
    config = toy.train_config(toy_data, tmp_path / "run", steps=50, save_every=1)
    config = replace(config, learning_rate=1e30, clip=1e30, warmup=1)
    with pytest.raises(ValueError, match=r"step \d+ diverged \(loss .*\): .*--learning-rate"):
        train(config)
    load_policy(config.out)  # which refuses what is not finite


def test_measuring_changes_nothing(tmp_path, toy_data, toy_run):
    trainer = Trainer(toy.train_config(toy_data, tmp_path / "run"))
    trainer._time_loss(1)
    for _ in trainer._steps():
        pass
    expected = state_of(toy_run)
    found = trainer._state() | {"threads": expected["threads"]}
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_read_only_folder_stops_before_training(tmp_path, toy_data):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        train(toy.train_config(toy_data, tmp_path / "file" / "run"))
