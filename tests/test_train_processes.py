"""Training in several processes, as `accelerate launch` starts them; here on the CPU, with gloo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from robolearn import checkpoint
from robolearn.seeding import stream
from robolearn.train import Trainer, train

SCRIPT = """
import sys
from pathlib import Path
import toy
from robolearn.train import train
data, run, resume = sys.argv[1:]
train(toy.train_config(Path(data), Path(run), save_every=2, resume=resume == "resume"))
"""


def launch(script, *arguments):
    """Two processes that know of each other."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launcher, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def run(script, tmp_path_factory, toy_data):
    """What two processes trained; read only."""
    folder = tmp_path_factory.mktemp("two") / "run"
    launch(script, toy_data, folder, "new")
    return folder


def test_gradients_are_averaged_over_both(run, toy_data, tmp_path, monkeypatch):
    """The first step, done again by one process with the batches of both."""
    trainer = Trainer(toy.train_config(toy_data, tmp_path / "run"))
    for index in range(2):
        monkeypatch.setattr(Trainer, "_id", f"0 {index}")
        loss, _ = trainer.model(trainer.batch(0), stream(0, f"loss 0 {index}"))
        (loss / 2).backward()
    gradients = [p.grad.flatten() for p in trainer.policy.parameters() if p.grad is not None]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert lines[0]["gradient"] == pytest.approx(float(torch.cat(gradients).norm()), rel=0.02)
    assert [line["samples"] for line in lines] == [16, 32, 48, 64]  # 8 of each, once


def test_an_interrupted_run_goes_on_bit_exactly(run, script, toy_data, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / "0000004")
    with pytest.raises(ValueError, match="was begun with 2 processes, and these are 1; resume it"):
        train(toy.train_config(toy_data, again, save_every=2, resume=True))
    launch(script, toy_data, again, "resume")
    one, other = (
        checkpoint.load_tensors(folder / "checkpoints" / "0000004" / "state.safetensors")
        for folder in (run, again)
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(other[name].numpy(), value.numpy(), name)
