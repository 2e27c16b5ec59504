"""LeRobot's own commands train and evaluate on the simulated tasks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robolearn.options import RecordConfig
from robolearn.record import record
from robolearn.sources import source_of

pytest.importorskip("lerobot")
ENV = (
    "--env.discover_packages_path=robolearn.envs",
    "--env.type=robolearn",
    "--env.task=Reach-v0",
    "--env.episode_length=6",
    "--eval.n_episodes=2",
    "--eval.batch_size=2",
)
SMALL = ("chunk_size=4", "n_action_steps=4", "dim_model=16", "n_heads=2", "dim_feedforward=16")


def run(command, *arguments, folder):
    """Runs one of LeRobot's commands."""
    path = Path(sys.executable).with_name(command)
    done = subprocess.run(
        [path, *arguments],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


POLICIES = {
    "act": ("pretrained_backbone_weights=null", *SMALL),
    "robolearn_flow": ("discover_packages_path=robolearn.policies", "hidden=16", "chunk_size=4"),
}


@pytest.fixture(scope="module", params=POLICIES)
def trained(request, tmp_path_factory):
    """A folder in which lerobot-train has trained a policy for a step and evaluated it."""
    folder = tmp_path_factory.mktemp("lerobot")
    record(RecordConfig(out=folder / "data", env="robolearn/Reach-v0", episodes=2, workers=0))
    run(
        "lerobot-train",
        f"--policy.type={request.param}",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        *(f"--policy.{setting}" for setting in POLICIES[request.param]),
        "--dataset.repo_id=nobody/reach",
        f"--dataset.root={folder / 'data'}",
        "--output_dir=out",
        "--steps=1",
        "--batch_size=2",
        "--num_workers=0",
        "--env_eval_freq=1",
        "--save_freq=1",
        *ENV,
        folder=folder,
    )
    return folder


def test_lerobot_train_evaluates_here(trained):
    assert list((trained / "out" / "eval").rglob("*.mp4"))


def test_lerobot_eval_runs_its_checkpoint(trained):
    (model,) = (trained / "out" / "checkpoints").glob("*1/pretrained_model")
    options = (f"--policy.path={model}", "--policy.device=cpu", "--output_dir=eval")
    options += ("--eval.discover_packages_path=robolearn.policies",)  # any prefix but policy
    run("lerobot-eval", *options, *ENV, folder=trained)
    overall = json.loads((trained / "eval" / "eval_info.json").read_text())["overall"]
    assert overall["n_episodes"] == 2
    assert source_of(f"lerobot:{model}").load().horizon == 4  # and ours open it


def test_features_are_those_of_the_environment():
    from robolearn.envs.lerobot_env import RobolearnEnv

    config = RobolearnEnv(task="Sort-v0", image_height=24, image_width=42)
    assert config.features["action"].shape == (12,)
    assert config.features["pixels/left_wrist"].shape == (24, 42, 3)
    assert config.features_map["pixels/top"] == "observation.images.top"
    (vector,) = config.create_envs(2)["robolearn"].values()
    observation, _ = vector.reset(seed=[0, 1])
    assert observation["pixels"]["top"].shape == (2, 24, 42, 3)
    vector.close()


def test_observations_get_the_names_of_our_datasets():
    import torch

    from robolearn.envs.lerobot_env import RobolearnEnv

    before, after = RobolearnEnv(task="Reach-v0").get_env_processors()
    renamed = before({"observation.agent_vel": torch.ones(1, 6), "observation.state": 2})
    assert {"observation.velocity", "observation.state"} < set(renamed)
    assert "observation.agent_vel" not in renamed
    np.testing.assert_array_equal(after({"action": torch.zeros(1, 6)})["action"], 0)


def test_an_unknown_task_is_refused():
    from robolearn.envs.lerobot_env import RobolearnEnv

    with pytest.raises(ValueError, match="near matches: .*Reach"):
        RobolearnEnv(task="Reech-v0")
