"""`robolearn train --init`: fine-tuning, and policies that look at the state."""

import shutil
from dataclasses import replace

import pytest
import torch
import toy
from test_resume import assert_same_run, newest

from robolearn import checkpoint
from robolearn.agent import open_agent
from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.deploy import deploy
from robolearn.episodes import DatasetError
from robolearn.evaluate import evaluate
from robolearn.options import DeployConfig, EvalConfig, RecordConfig, TrainConfig
from robolearn.policies.configs import DiffusionConfig
from robolearn.record import record
from robolearn.sources import source_of
from robolearn.train import train
from robolearn.workers import make_vector

REACH = "robolearn/Reach-v0"


def tune(data, run, base, **changes):
    return replace(toy.train_config(data, run, **changes), init=base)


def test_fine_tuning_begins_with_the_weights_words_and_statistics(toy_run, toy_data, tmp_path):
    train(tune(toy_data, tmp_path / "still", toy_run, steps=1, learning_rate=0.0))
    before, after = load_policy(toy_run).state_dict(), load_policy(tmp_path / "still").state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    train(tune(toy_data, tmp_path / "moved", toy_run, steps=2))
    moved = load_policy(tmp_path / "moved").state_dict()
    assert any(not torch.equal(before[name], moved[name]) for name in before)
    assert torch.equal(before["chunk.mean"], moved["chunk.mean"])


def test_fine_tuning_resumes_without_its_base(toy_run, toy_data, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(toy_run, base)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tune(toy_data, whole, base, steps=6, save_every=3))
    shutil.copytree(whole, parts)
    shutil.rmtree(newest(parts))
    lines = (parts / "log.jsonl").read_text().splitlines(keepends=True)
    (parts / "log.jsonl").write_text("".join(lines[:3]))
    shutil.rmtree(base)
    train(tune(toy_data, parts, base, steps=6, save_every=3, resume=True))
    assert_same_run(whole, parts)


def test_settings_of_another_policy_are_refused(toy_run, toy_data, tmp_path):
    with pytest.raises(ValueError, match="the policy's settings are those of .*; leave out --pol"):
        train(replace(tune(toy_data, tmp_path / "r", toy_run), policy=DiffusionConfig()))
    toy.tiny_policy(cameras={"front": toy.SIZE}).save(tmp_path / "front")
    with pytest.raises(CheckpointError, match="trained on camera 'front'"):
        train(tune(toy_data, tmp_path / "r", tmp_path / "front"))
    assert not (tmp_path / "r").exists()


def test_a_run_of_an_older_version_is_not_resumed(toy_run, toy_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    state = checkpoint.load_tensors(newest(run) / "state.safetensors")
    state.pop("format")
    checkpoint.save_tensors(newest(run) / "state.safetensors", state)
    config = toy.train_config(toy_data, run, resume=True)
    with pytest.raises(CheckpointError, match="begun by an older version; .* --init"):
        train(config)


def test_a_policy_that_looks_at_the_state_is_trained_and_evaluated_and_kept_off_arms(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    record(RecordConfig(out=data, env=REACH, episodes=2, obs_type="state", workers=0))
    small = {"steps": 2, "batch_size": 4, "threads": 1}
    train(TrainConfig(data, run, obs_type="state", **small))
    assert source_of(run).observation_options() == {"obs_type": "state"}
    result = evaluate(EvalConfig(policy=str(run), episodes=2, videos=0, workers=0))
    assert (result["n"], result["env_id"]) == (2, REACH)
    with pytest.raises(CheckpointError, match="looks at the simulator's state, which no arm can"):
        source_of(run).picture_options()
    with pytest.raises(CheckpointError, match="looks at the simulator's state, which no arm can"):
        next(deploy(DeployConfig(policy=str(run))))
    drawn = make_vector(REACH, 1)
    with pytest.raises(CheckpointError, match="looks at the simulator's state, .*obs_type='state'"):
        open_agent(EvalConfig(policy=str(run)), drawn)
    drawn.close()


def test_data_without_the_state_teaches_nothing_about_it(toy_data, tmp_path):
    with pytest.raises(DatasetError, match="does not hold the simulator's state; record it with"):
        train(replace(toy.train_config(toy_data, tmp_path / "r"), obs_type="state"))
