"""`robolearn bench --parts train`: how fast we learn, beside LeRobot's ACT and Diffusion policies.

All train on the same dataset from the same cameras and joint positions, for the same wall-clock
time on the same machine, one after the other. At equal distances each is evaluated on the same
unseen seeds, worded as training never was. Seconds are those of the training loop: opening the
dataset, choosing a thread count, and evaluating do not count; LeRobot's decoding, which it does
for every sample, does. Ours is decoded once; the part `data` tells how long that takes.
"""

import gc
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from rich.console import Console

from robolearn.bench import ENV, BenchConfig, demonstrations
from robolearn.dataset import EpisodeDataset
from robolearn.doctor import usable_cores
from robolearn.episodes import Episode
from robolearn.evaluate import evaluate
from robolearn.options import EvalConfig, TrainConfig
from robolearn.results import save_result
from robolearn.rollout import rollout
from robolearn.stats import wilson
from robolearn.train import train
from robolearn.workers import make_vector

if TYPE_CHECKING:
    from robolearn.bench_lerobot import Learner

TARGET: Final = Fraction(4, 5)  # exact, so that 80 of 100 reach it
PROBE_STEPS: Final = 30  # of training, to see how many fit into the budget
LOG_EVERY: Final = 10  # steps
SLOTS: Final = 20  # episodes side by side while LeRobot's policies are evaluated
WORDING: Final = "held_out"


@dataclass(frozen=True)
class Point:
    """A checkpoint: what training had cost, and what it could do."""

    seconds: float  # of training
    samples: int  # trained on
    successes: int
    n: int  # episodes

    def summary(self) -> dict[str, float]:
        """With the success rate and its Wilson interval."""
        low, high = wilson(self.successes, self.n)
        rate = {"success": self.successes / self.n, "success_low": low, "success_high": high}
        return {**asdict(self), **rate}


@dataclass(frozen=True)
class Curve:
    """What became of one policy."""

    points: list[Point]
    notes: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Rate, time to the target (null: not reached) and all checkpoints."""
        last = self.points[-1]
        reached = (p.seconds for p in self.points if p.successes >= TARGET * p.n)
        return {
            "samples_per_s": last.samples / last.seconds,
            "time_to_80_percent_s": next(reached, None),
            "at_end": last.summary(),
            "checkpoints": [point.summary() for point in self.points],
            **self.notes,
        }


def measure(config: BenchConfig) -> dict[str, Any]:
    """The figures of this part; each policy's own are kept in `out` as soon as it is done."""
    data, threads = demonstrations(config), torch.get_num_threads()
    learned = {}
    for name in ("ours", "act", "diffusion"):
        Console(stderr=True).print(f"{name}: {config.minutes:g} minutes of training")
        torch.set_num_threads(threads)  # each chooses anew
        curve = train_ours(config, data) if name == "ours" else train_lerobot(name, config, data)
        learned[name] = curve.summary()
        save_result(config.out, f"train-{name}", config, learned[name])
    torch.set_num_threads(threads)
    return {
        "train_samples_per_s": {k: v["samples_per_s"] for k, v in learned.items()},
        "time_to_80_percent_s": {k: v["time_to_80_percent_s"] for k, v in learned.items()},
        "train_success_at_end": {k: v["at_end"] for k, v in learned.items()},
        "train_budget_s": 60.0 * config.minutes,
        "train_seeds": [0, config.evaluate - 1],
        "train_episodes": len(EpisodeDataset(data).episodes),
        "train_cores": usable_cores(),
        "train_wording": WORDING,
        "training": learned,
    }


def train_ours(config: BenchConfig, data: Path) -> Curve:
    """Trains for as many steps as fit into the budget, then evaluates every checkpoint."""
    probe = run_training(config, data, config.out / "probe", PROBE_STEPS, PROBE_STEPS)
    batch = TrainConfig(data, config.out).batch_size
    fitting = 60.0 * config.minutes * probe[-1]["samples_per_s"] / batch
    every = max(1, round(fitting / config.checkpoints / LOG_EVERY)) * LOG_EVERY
    run = config.out / "ours"
    lines = run_training(config, data, run, every * config.checkpoints, every)
    points = []
    for line in (line for line in lines if line["step"] % every == 0):
        result = evaluate(
            EvalConfig(
                policy=str(run / "checkpoints" / f"{line['step']:07d}" / "model"),
                out=run / f"eval-{line['step']:07d}",
                env=ENV,
                episodes=config.evaluate,
                paraphrases=WORDING,
                videos=0,
                workers=config.workers,
            )
        )
        points.append(Point(line["seconds"], line["samples"], result["successes"], result["n"]))
    return Curve(points, {"batch_size": batch, "steps": lines[-1]["step"]})


def run_training(
    config: BenchConfig, data: Path, run: Path, steps: int, every: int
) -> list[dict[str, Any]]:
    """Runs `robolearn train` afresh and returns the lines of its log."""
    shutil.rmtree(run, ignore_errors=True)
    train(
        TrainConfig(data, run, steps=steps, save_every=every, log_every=LOG_EVERY, seed=config.seed)
    )
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def train_lerobot(name: str, config: BenchConfig, data: Path) -> Curve:
    """Trains for the budget, stopping the clock for the evaluations."""
    from robolearn.bench_lerobot import BATCH_SIZE, SETTINGS, Learner  # noqa: PLC0415 (slow)

    budget = 60.0 * config.minutes
    learner = Learner(name, data, budget, loader_workers=config.loader_workers, seed=config.seed)
    points = []
    for k in range(1, config.checkpoints + 1):
        learner.train(budget * k / config.checkpoints)
        last = k == config.checkpoints
        successes, n = evaluate_lerobot(learner, data, config.evaluate, complete=last)
        points.append(Point(learner.seconds, learner.samples, successes, n))
    notes = {
        "batch_size": BATCH_SIZE,
        "steps": learner.samples // BATCH_SIZE,
        "threads": learner.threads,
        "settings": SETTINGS[name],
        "goal": "one-hot vectors of cube and bin appended to observation.state",
        "backbone": "random initial weights",
    }
    del learner
    gc.collect()  # Diffusion and its optimiser hold gigabytes
    return Curve(points, notes)


def evaluate_lerobot(
    learner: "Learner", data: Path, episodes: int, *, complete: bool
) -> tuple[int, int]:
    """Successes and episodes of an evaluation, see `count_successes`."""
    from robolearn.bench_lerobot import LeRobotActor  # noqa: PLC0415

    cameras = EpisodeDataset(data).cameras
    env = make_vector(
        ENV,
        min(SLOTS, episodes),
        cameras=tuple(cameras),
        image_size=next(iter(cameras.values())),
        paraphrases=WORDING,
    )
    played = rollout(env, LeRobotActor(learner), range(episodes))
    try:
        return count_successes(played, episodes, complete=complete)
    finally:
        env.close()


def count_successes(played: Iterable[Episode], episodes: int, *, complete: bool) -> tuple[int, int]:
    """Successes and episodes; unless complete, ends as soon as the target is out of reach.

    Playing on would cost Diffusion half an hour, for what is known. Episodes come as they end,
    failures last, so a rate over fewer than all is only good for "not reached".
    """
    successes = n = 0
    for n, episode in enumerate(played, start=1):
        successes += bool(episode.success.any())
        if not complete and n - successes > (1 - TARGET) * episodes:
            break
    return successes, n
