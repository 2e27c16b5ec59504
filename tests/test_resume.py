"""A run that was stopped goes on as if nothing had happened."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import toy

from robolearn import checkpoint
from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.config import ConfigError
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.options import TrainConfig
from robolearn.train import STATE, Trainer, train

TIMING = {"seconds", "samples_per_s"}


def newest(run):
    return checkpoint.checkpoints(run)[-1]


def state_of(run):
    """Weights, averaged weights, optimiser moments, step."""
    return checkpoint.load_tensors(newest(run) / "state.safetensors")


def log_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def assert_same_run(one, other):
    a, b = state_of(one), state_of(other)
    assert a.keys() == b.keys()
    assert {name.partition(".")[0] for name in a} >= {"policy", "average", "optimizer", "step"}
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different
    acting = [load_policy(run).state_dict() for run in (one, other)]
    assert all(torch.equal(acting[0][name], acting[1][name]) for name in acting[0])
    assert log_of(one) == log_of(other)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, toy_data):
    """Forty steps without an interruption."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(toy.train_config(toy_data, run, steps=40, save_every=20))
    return run


COMMAND = """
import sys, toy
from pathlib import Path
from robolearn.train import STATE, Trainer, train
data, run, slow = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if slow == "slow":
    batch = Trainer.batch
    def slowly(self, step):
        print("step", step, flush=True)
        sys.stdin.readline()
        return batch(self, step)
    Trainer.batch = slowly
train(toy.train_config(data, run, steps=40, save_every=20, resume=slow == "resume"))
"""


def start(data, run, how):
    """A process that trains; "slow" waits for a line of its input before every step."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(data), str(run), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def interrupt_after(process, steps, number):
    """Lets it take so many steps, then sends the signal; returns what it said."""
    for _ in range(steps):
        assert process.stdout.readline().startswith("step")
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.stdout.readline() == f"step {steps}\n"
    process.send_signal(number)
    return process.communicate("\n" * 40, timeout=300)[1]


def test_forty_steps_are_twenty_a_kill_and_twenty_more(tmp_path, toy_data, whole_run):
    run = tmp_path / "run"
    said = interrupt_after(process := start(toy_data, run, "slow"), 23, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    resume = f"robolearn train --data {toy_data} --out {run} --resume"
    assert f"saved step 24; go on with: {resume}" in said
    assert "Traceback" not in said
    assert int(state_of(run)["step"]) == 24
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 25, "loss": 9.9}\n{"step": 26, "lo')  # what a crash may leave
    with start(toy_data, run, "resume") as process:
        assert process.wait(timeout=300) == 0, process.stderr.read()
    assert [line["step"] for line in log_of(run)] == list(range(1, 41))
    assert_same_run(run, whole_run)


def test_ctrl_c_saves_too(tmp_path, toy_data, whole_run):
    run = tmp_path / "run"
    said = interrupt_after(process := start(toy_data, run, "slow"), 2, signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT
    assert "saved step 3" in said
    train(toy.train_config(toy_data, run, steps=40, save_every=20, resume=True))
    assert_same_run(run, whole_run)


def test_a_kill_without_warning_costs_the_steps_since_the_last_checkpoint(
    tmp_path, toy_data, whole_run
):
    run = tmp_path / "run"
    interrupt_after(process := start(toy_data, run, "slow"), 24, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [folder.name for folder in checkpoint.checkpoints(run)] == ["0000020"]
    train(toy.train_config(toy_data, run, steps=40, save_every=20, resume=True))
    assert_same_run(run, whole_run)


def test_a_run_that_is_over_stays_as_it_is(toy_data, toy_run, tmp_path):
    run = copy_of(toy_run, tmp_path)
    before = (newest(run) / "state.safetensors").read_bytes()
    assert train(toy.train_config(toy_data, run, resume=True)) == newest(run)
    assert (newest(run) / "state.safetensors").read_bytes() == before
    assert log_of(run) == log_of(toy_run)


def copy_of(run, folder):
    return Path(shutil.copytree(run, folder / "run"))


def test_all_checkpoints_can_act_and_the_last_two_can_be_resumed(tmp_path, toy_data, toy_run):
    run = tmp_path / "run"
    train(toy.train_config(toy_data, run, save_every=1))
    folders = checkpoint.checkpoints(run)
    assert [int(folder.name) for folder in folders] == [1, 2, 3, 4]
    assert [(f / "state.safetensors").exists() for f in folders] == [False, False, True, True]
    weights = torch.stack([load_policy(folder).head.outward.weight for folder in folders])
    assert len(weights.unique(dim=0)) == 4
    shutil.rmtree(folders[-1])  # damaged, say
    train(toy.train_config(toy_data, run, save_every=1, resume=True))
    assert_same_run(run, toy_run)


def test_there_must_be_something_to_resume(tmp_path, toy_data):
    with pytest.raises(CheckpointError, match="no checkpoint to resume; leave out --resume"):
        train(toy.train_config(toy_data, tmp_path / "run", resume=True))
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_with_its_own_settings(tmp_path, toy_data, toy_run):
    run = copy_of(toy_run, tmp_path)
    with pytest.raises(ValueError, match="was started with steps 4, not 90; resume it without"):
        train(toy.train_config(toy_data, run, steps=90, resume=True))
    # The dataset and the run may have moved, and what is not said is as it was.
    moved = Path(shutil.copytree(toy_data, tmp_path / "data"))
    assert train(TrainConfig(moved, run, resume=True)) == newest(run)


def test_an_unknown_key_in_a_saved_config_is_an_error(tmp_path, toy_data, toy_run):
    run = copy_of(toy_run, tmp_path)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "optimiser": "magic"}))
    with pytest.raises(ConfigError, match="unknown key optimiser"):
        train(toy.train_config(toy_data, run, resume=True))


def test_what_was_begun_in_another_precision_is_not_resumed(tmp_path, toy_data, toy_run):
    run = copy_of(toy_run, tmp_path)
    path = newest(run) / STATE
    state = checkpoint.load_tensors(path)
    checkpoint.save_tensors(path, state | {"bf16": ~state["bf16"]})
    with pytest.raises(ValueError, match=r"bf16, unlike what is faster on this machine"):
        train(toy.train_config(toy_data, run, resume=True))


def test_a_damaged_state_is_not_resumed(tmp_path, toy_data, toy_run):
    run = copy_of(toy_run, tmp_path)
    path = newest(run) / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"state\.safetensors is missing or damaged"):
        train(toy.train_config(toy_data, run, resume=True))


def test_a_dataset_with_other_words_is_not_resumed_on(tmp_path, toy_run):
    with EpisodeWriter(tmp_path / "d", arm=toy.TOY_ARM, fps=20, cameras=toy.CAMERAS) as writer:
        writer.append(toy.example(instruction="dance"))
    with pytest.raises(DatasetError, match="is not what .* was trained on"):
        train(toy.train_config(tmp_path / "d", copy_of(toy_run, tmp_path), resume=True))


def test_the_thread_count_is_measured_once_and_kept(tmp_path, toy_data, monkeypatch):
    monkeypatch.setattr("robolearn.train._thread_counts", lambda: [1, 2])
    config = toy.train_config(toy_data, tmp_path / "run", threads=0)
    train(config)
    chosen = int(state_of(config.out)["threads"])
    assert chosen in (1, 2)
    monkeypatch.setattr("robolearn.train._thread_counts", lambda: [3])
    trainer = Trainer(config)
    trainer.restore()
    trainer._choose_threads()
    assert torch.get_num_threads() == chosen
    torch.set_num_threads(1)
