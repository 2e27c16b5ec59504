"""What becomes of an evaluation's episodes: a row of each, and the result of all."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from robolearn.config import config_hash
from robolearn.envs.render import gl_renderer
from robolearn.episodes import Episode
from robolearn.jumps import jumps, moves_of
from robolearn.options import EvalConfig
from robolearn.registry import env_versions
from robolearn.results import FORMAT, EpisodeResult, Result, command, versions
from robolearn.stats import wilson

Row = dict[str, Any]


def row_of(episode: Episode) -> Row:
    """What a result keeps of an episode, and what it is summarised from."""
    latency = 1000.0 * np.asarray(episode.latency)
    return {
        "seed": episode.seed,
        "instruction": episode.instruction,
        "success": bool(episode.success.any()),
        "length": len(episode.action),
        "progress": float(episode.progress.max()),
        "fault": episode.fault,
        "failure": episode.failure,
        "goal_source": episode.goal_source,
        "goal_steps": episode.goal_steps,
        "notes": {name: float(values[0]) for name, values in episode.notes.items()},
        "grades": episode.grades,
        "latency_p50_ms": float(np.median(latency)) if latency.size else 0.0,
        "latencies_ms": [round(float(x), 2) for x in latency],
        "moves": moves_of(episode).tolist(),
        "video": None,
        "strip": None,
    }


def kept(row: Row) -> EpisodeResult:
    """What a result keeps of a row, without what is only summarised over all episodes."""
    return cast(EpisodeResult, {key: row[key] for key in EpisodeResult.__annotations__})


def summarise(
    config: EvalConfig, rows: Sequence[Row], seconds: float, trained: float | None = None
) -> Result:
    """The result: counts, Wilson interval, latency, versions.

    Args:
        config: of the evaluation.
        rows: of `row_of`, each with what the agent was told.
        seconds: that it took.
        trained: seconds of training that led to the policy, if that is known.
    """
    successes = sum(row["success"] for row in rows)
    low, high = wilson(successes, len(rows))
    latency = [x for row in rows for x in row["latencies_ms"]] or [0.0]  # a script takes no time
    episodes = [kept(row) for row in rows]
    return {
        "format": FORMAT,
        "env_id": config.env,
        "policy": config.policy,
        "command": command(),
        "n": len(rows),
        "successes": successes,
        "success": successes / len(rows),
        "success_low": low,
        "success_high": high,
        "seeds": [rows[0]["seed"], rows[-1]["seed"]],
        "replan_every": config.replan_every,
        "lead": config.lead,
        "ensemble": config.ensemble,
        "delay": config.delay,
        "guided": config.guided,
        "candidates": config.candidates,
        "scorer": config.scorer,
        "fixed_noise": config.fixed_noise,
        "keep_trying": config.keep_trying,
        "latency_ms": {f"p{q}": float(np.percentile(latency, q)) for q in (50, 99)},
        "jumps": jumps([np.array(row["moves"]) for row in rows], config.replan_every, config.delay),
        "wall_seconds": seconds,
        "training_seconds": trained,
        "versions": versions() | env_versions(config.env),
        "renderer": gl_renderer(),
        "config_hash": config_hash(config),
        "instructions": "shuffled" if config.shuffle_instructions else "matched",
        "instruction": config.instruction,
        "goal": list(config.goal),
        "held_out_instructions": config.paraphrases == "held_out" and not config.instruction,
        "split": config.split,
        "variations": config.variations,
        "dynamics": config.dynamics,
        "failures": dict(Counter(row["failure"] for row in rows if row["failure"]).most_common()),
        "grades": {
            name: float(np.mean([row["grades"][name] for row in rows]))
            for name in rows[0]["grades"]
        },
        "episodes": episodes,
    }
