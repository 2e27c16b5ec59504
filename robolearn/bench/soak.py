"""`robolearn bench --parts soak`: random actions in all tasks, for long, and what becomes of them.

The steps are those of batched environments with state observations; the resets are those of single
environments that draw all their cameras.
"""

import gc
import traceback
from contextlib import closing
from typing import Any, Final

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track

from robolearn.bench.speed import BenchConfig, chosen_tasks, name_of
from robolearn.contract import Info
from robolearn.envs.batch import BatchedEnv
from robolearn.registry import make_env
from robolearn.seeding import stream

NUM_ENVS: Final = 32
WARM_RESETS: Final = 20  # until caches of the process are filled
COUNTS: Final = ("steps", "nans", "diverged", "warnings", "resets", "memory_growth_bytes")


def measure(config: BenchConfig) -> dict[str, Any]:
    """Steps, NaN, divergences, warnings, exceptions, and how much the process has grown by."""
    tasks = chosen_tasks(config)
    share = -(-config.soak_steps // len(tasks)), -(-config.soak_resets // len(tasks))
    return _summary({name_of(env_id): _task(env_id, *share) for env_id in tasks})


def merged(measured: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Some tasks measured anew, with what others of them did before."""
    return _summary({**before.get("tasks", {}), **measured["tasks"]})


def _summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    errors = {name: row["error"] for name, row in rows.items() if "error" in row}
    total = {key: sum(row.get(key, 0) for row in rows.values()) for key in COUNTS}
    return {**total, "exceptions": len(errors), "errors": errors, "tasks": rows}


def _task(env_id: str, steps: int, resets: int) -> dict[str, Any]:
    """One task's counts; an exception ends its part, and is kept."""
    row: dict[str, Any] = {}
    try:
        row |= soak(env_id, steps)
        row |= reset_again_and_again(env_id, resets)
    except Exception:  # noqa: BLE001 (this is what is looked for)
        row["error"] = traceback.format_exc()
    return row


def soak(env_id: str, steps: int) -> dict[str, int]:
    """Steps a batch with random actions; counts what should not happen.

    Args:
        env_id: a simulated task.
        steps: control steps of all slots together, at least.
    """
    rng, rounds = stream(0, env_id), -(-steps // NUM_ENVS)
    nans = diverged = warnings = 0
    with closing(BatchedEnv(env_id, NUM_ENVS)) as vector:
        low, high = vector.arm.limits
        vector.reset(seed=0)
        for _ in _track(range(rounds), f"{name_of(env_id)} steps"):
            actions = rng.uniform(low, high, (NUM_ENVS, low.size)).astype(np.float32)
            observation, _, _, _, info = vector.step(actions)
            nans += sum(int(np.isnan(value).sum()) for value in observation.values())
            diverged += int(np.count_nonzero(_faults(info)))
            warnings += bool(vector.batch.warning[..., 1].any())
    return {"steps": rounds * NUM_ENVS, "nans": nans, "diverged": diverged, "warnings": warnings}


def _faults(info: dict[str, Any]) -> np.ndarray:
    """Whether a slot has a fault, also one that has ended an episode and is being reset."""
    ended = info.get("final_info", {}).get(Info.FAULT, np.array([], object))
    return np.concatenate([info[Info.FAULT], ended]) != ""


def reset_again_and_again(env_id: str, resets: int) -> dict[str, int]:
    """Resets with pictures; bytes that the process has grown by after the first few."""
    process, before = psutil.Process(), 0
    with closing(make_env(env_id)) as env:
        for seed in _track(range(resets), f"{name_of(env_id)} resets"):
            if seed == min(WARM_RESETS, resets - 1):
                before = _bytes(process)
            env.reset(seed=seed)
    return {"resets": resets, "memory_growth_bytes": _bytes(process) - before}


def _bytes(process: psutil.Process) -> int:
    gc.collect()
    return int(process.memory_info().rss)


def _track(rounds: range, label: str) -> Any:  # noqa: ANN401 (an iterable that draws a bar)
    return track(rounds, label, console=Console(stderr=True))
