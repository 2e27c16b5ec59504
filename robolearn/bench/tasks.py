"""`robolearn bench --parts tasks`: the speed of every task, measured as by `env.py`."""

import time
from functools import partial
from typing import Any, Final

import gymnasium
import numpy as np
from rich.console import Console

from robolearn.bench.env import (
    Block,
    batched_figures,
    pixel_figures,
    single_figures,
    take_turns,
)
from robolearn.bench.speed import BenchConfig, chosen_tasks, name_of
from robolearn.doctor import usable_cores
from robolearn.registry import make_env

SEEDS: Final = 4  # different blocks
RESETS: Final = 50
# Blocks of a task for each of the part `env`, which measures one task more thoroughly.
SHARE: Final = 4


def measure(config: BenchConfig) -> dict[str, Any]:
    """A row for each task."""
    rows = {}
    for env_id in chosen_tasks(config):
        Console(stderr=True).print(name_of(env_id))
        rows[name_of(env_id)] = _task(env_id, config)
    return {"tasks": rows}


def _task(env_id: str, config: BenchConfig) -> dict[str, Any]:
    count = max(2, config.blocks // SHARE)
    env = make_env(env_id, obs_type="state")
    blocks = [Block(env, seed) for seed in range(SEEDS)]
    return {
        **single_figures(env, blocks, count),
        **batched_figures(env_id, blocks, config.num_envs, count),
        "batched_scaling": scaling(env_id, blocks, config.num_envs, count),
        **pixel_figures(env_id, count),
        "reset_ms": reset_ms(env),
    }


def reset_ms(env: gymnasium.Env) -> float:
    """Median time of a reset, ms."""
    seconds = []
    for seed in range(RESETS):
        begin = time.perf_counter()
        env.reset(seed=seed)
        seconds.append(time.perf_counter() - begin)
    return 1000.0 * float(np.median(seconds))


def scaling(env_id: str, blocks: list[Block], num_envs: int, count: int) -> float:
    """How many times faster the batched environment is on all cores than on one."""
    vectors = [
        gymnasium.make_vec(
            env_id,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            obs_type="state",
            threads=threads,
        )
        for threads in (1, usable_cores())
    ]
    steps = min(len(block.actions) for block in blocks)
    actions = np.stack([blocks[k % len(blocks)].actions[:steps] for k in range(num_envs)], axis=1)

    def run(vector: gymnasium.vector.VectorEnv) -> None:
        for action in actions:
            vector.step(action)

    seconds = []
    for k in range(count):
        for vector in vectors:
            vector.reset(seed=0)
        turns = [partial(run, vector) for vector in vectors]
        seconds.append(take_turns(turns, backwards=k % 2 == 1))
    for vector in vectors:
        vector.close()
    one, all_cores = np.array(seconds).T
    return float(np.median(one / all_cores))
