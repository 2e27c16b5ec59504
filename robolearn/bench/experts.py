"""`robolearn bench --parts experts`: how often every task's scripted expert succeeds."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from robolearn.agent import ExpertAgent
from robolearn.bench.speed import BenchConfig, chosen_tasks, name_of, with_other_rows
from robolearn.episodes import Episode
from robolearn.options import worker_options
from robolearn.stats import wilson
from robolearn.workers import Job, run_seeds


def measure(config: BenchConfig) -> dict[str, Any]:
    """Success with its interval over seeds from 0, and the mean length in control steps."""
    return {
        "tasks": {name_of(env_id): _expert(env_id, config) for env_id in chosen_tasks(config)},
        "seeds": [0, config.expert_episodes - 1],
    }


merged = with_other_rows


def _expert(env_id: str, config: BenchConfig) -> dict[str, float]:
    job = Job(env_id, ExpertAgent, {"obs_type": "state"}, reduce=_outcome)
    seeds = range(config.expert_episodes)
    outcomes = run_seeds(job, seeds, **worker_options(config))
    label = name_of(env_id)
    seen = list(track(outcomes, label, len(seeds), console=Console(stderr=True)))
    rows, grades = np.array([row for row, _ in seen]), [graded for _, graded in seen]
    successes = int(rows[:, 0].sum())
    low, high = wilson(successes, len(rows))
    return {
        "success": successes / len(rows),
        "success_low": low,
        "success_high": high,
        "n": len(rows),
        "mean_length": float(rows[:, 1].mean()),
        "mean_progress": float(rows[:, 2].mean()),
        **{f"mean_{name}": float(np.mean([g[name] for g in grades])) for name in grades[0]},
    }


def _outcome(episode: Episode) -> tuple[tuple[bool, int, float], dict[str, float]]:
    """Success, length in control steps, best progress; the grades, of tasks that have them."""
    row = bool(episode.success.any()), len(episode), float(episode.progress.max())
    return row, episode.grades
