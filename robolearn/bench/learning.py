"""Training for a given time, ours and LeRobot's, for `robolearn bench-policies`.

Seconds are those of the training loop: opening the dataset, choosing a thread count, and evaluating
do not count; LeRobot's decoding, which it does for every sample, does. Ours is decoded once;
`robolearn bench --parts data` tells how long that takes.
"""

import gc
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from robolearn.config import to_json
from robolearn.options import TrainConfig
from robolearn.policies.configs import DenoiserConfig
from robolearn.train import train

if TYPE_CHECKING:
    from robolearn.bench.policies import BenchPoliciesConfig

PROBE_STEPS: Final = 30  # of training, to see how many fit into the time
LOG_EVERY: Final = 10  # steps
WARMUP: Final = 0.05  # share of the steps: there may be few
Training = dict[str, Any]


def train_ours(
    config: "BenchPoliciesConfig", policy: DenoiserConfig, data: Path, run: Path
) -> Training:
    """Trains for as many steps as fit into the time, of which a short run tells.

    Returns:
        "checkpoints", each with the name of the policy and the seconds and samples that it took;
        "steps", "batch_size" and "settings" of the policy.
    """
    probe = _run(config, policy, data, run / "probe", PROBE_STEPS, PROBE_STEPS)
    fitting = 60.0 * config.minutes * probe[-1]["samples_per_s"] / config.batch_size
    every = max(1, round(fitting / config.checkpoints / LOG_EVERY)) * LOG_EVERY
    lines = _run(config, policy, data, run / "run", every * config.checkpoints, every)
    points = [
        {
            "policy": str(run / "run" / "checkpoints" / f"{line['step']:07d}" / "model"),
            "seconds": line["seconds"],
            "samples": line["samples"],
        }
        for line in lines
        if line["step"] % every == 0
    ]
    settings = to_json(policy)
    steps = lines[-1]["step"]
    return {
        "checkpoints": points,
        "steps": steps,
        "batch_size": config.batch_size,
        "settings": settings,
    }


def _run(
    config: "BenchPoliciesConfig",
    policy: DenoiserConfig,
    data: Path,
    out: Path,
    steps: int,
    every: int,
) -> list[dict[str, Any]]:
    """Runs `robolearn train` afresh and returns the lines of its log."""
    shutil.rmtree(out, ignore_errors=True)
    plain: Any = {
        "policy": policy,
        "obs_type": config.obs_type,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "warmup": round(WARMUP * steps),
    }
    train(TrainConfig(data, out, steps=steps, save_every=every, log_every=LOG_EVERY, **plain))
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def train_lerobot(
    config: "BenchPoliciesConfig", kind: str, data: Path, run: Path, budget: float
) -> Training:
    """Trains a policy of LeRobot's for so many seconds; see `train_ours`."""
    from robolearn.bench.lerobot import BATCH_SIZE, SETTINGS, Learner  # noqa: PLC0415 (slow)

    threads = torch.get_num_threads()
    plain: Any = {"loader_workers": config.loader_workers, "seed": config.seed}
    learner = Learner(kind, data, config.env, budget, **plain)
    points = []
    for k in range(1, config.checkpoints + 1):
        learner.train(budget * k / config.checkpoints)
        folder = run / f"checkpoint-{k}"
        shutil.rmtree(folder, ignore_errors=True)
        points.append(
            {
                "policy": learner.save(folder),
                "seconds": learner.seconds,
                "samples": learner.samples,
            }
        )
    torch.set_num_threads(threads)  # the next one chooses anew
    del learner.policy
    gc.collect()  # Diffusion and its optimiser hold gigabytes
    return {
        "checkpoints": points,
        "steps": learner.samples // BATCH_SIZE,
        "batch_size": BATCH_SIZE,
        "settings": SETTINGS[kind],
    }
