"""`robolearn bench --parts expert`: how often the scripted expert succeeds, mishaps included."""

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from robolearn.agent import ExpertAgent
from robolearn.bench import ENV
from robolearn.episodes import Episode
from robolearn.stats import wilson
from robolearn.workers import Job, run_seeds

if TYPE_CHECKING:
    from robolearn.bench import BenchConfig


def measure(config: "BenchConfig") -> dict[str, Any]:
    """Success with its interval over seeds from 0, and the mean length in control steps."""
    job = Job(ENV, ExpertAgent, {"obs_type": "state"}, reduce=_outcome)
    seeds = range(config.expert_episodes)
    outcomes = run_seeds(job, seeds, config.workers)
    rows = np.array(list(track(outcomes, "expert", len(seeds), console=Console(stderr=True))))
    successes = int(rows[:, 0].sum())
    low, high = wilson(successes, len(rows))
    return {
        "expert_success": successes / len(rows),
        "expert_success_low": low,
        "expert_success_high": high,
        "expert_n": len(rows),
        "expert_steps": float(rows[:, 1].mean()),
    }


def _outcome(episode: Episode) -> tuple[bool, int]:
    return bool(episode.success.any()), len(episode)
