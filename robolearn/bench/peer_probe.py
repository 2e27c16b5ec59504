"""Measures one environment of another package; `peers.py` runs it in that package's environment.

It imports nothing of robolearn, since it runs where robolearn is not installed:

    python peer_probe.py fetch

prints one JSON object. The share of `mj_step` is the share of the time of `env.step` that is spent
inside of it, which is what bare `mj_step` would take for the same physics.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import gymnasium
import mujoco
import numpy as np

STEPS = 1000
RESETS = 30
PICTURES = 30
SIZE = 84  # pixels


def fetch() -> gymnasium.Env:
    """FetchPickAndPlace of gymnasium-robotics."""
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    return gymnasium.make("FetchPickAndPlace-v4", render_mode="rgb_array", width=SIZE, height=SIZE)


def metaworld() -> gymnasium.Env:
    """pick-place-v3 of Meta-World, seeded as its documents say."""
    from metaworld import MT1

    benchmark = MT1("pick-place-v3", seed=42)
    env = benchmark.train_classes["pick-place-v3"](
        render_mode="rgb_array", width=SIZE, height=SIZE, camera_name="corner"
    )
    env.set_task(benchmark.train_tasks[0])
    return env


def aloha() -> gymnasium.Env:
    """TransferCube of gym-aloha."""
    import gym_aloha  # noqa: F401 (registers)

    return gymnasium.make(
        "gym_aloha/AlohaTransferCube-v0",
        obs_type="pixels_agent_pos",
        render_mode="rgb_array",
        observation_width=SIZE,
        observation_height=SIZE,
    )


class Stopwatch:
    """Adds up the seconds that a function of a module takes, whoever calls it."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self.seconds, self.calls = 0.0, 0
        self._function: Callable = getattr(module, name)
        setattr(module, name, self)

    def __call__(self, *arguments: object, **options: object) -> object:
        """Calls the function."""
        begin = time.perf_counter()
        try:
            return self._function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - begin
            self.calls += 1


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def measure(env: gymnasium.Env, *, draws_in_step: bool) -> dict[str, Any]:
    """The figures; an environment that draws in every step is measured by its steps alone."""
    env.reset(seed=0)
    watch = Stopwatch(mujoco, "mj_step")
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(STEPS // (20 if draws_in_step else 1))]

    seconds = inside = 0.0
    for k, action in enumerate(actions):
        before = watch.seconds
        seconds += seconds_of(partial(env.step, action))
        inside += watch.seconds - before
        if k % 100 == 99:
            env.reset()
    resets = [seconds_of(env.reset) for _ in range(RESETS // (5 if draws_in_step else 1))]
    figures = {
        "steps_per_s": len(actions) / seconds,
        "mj_step_share": inside / seconds,
        "reset_ms": 1000.0 * float(np.median(resets)),
        "mujoco": mujoco.__version__,
    }
    env.render()
    pictures = [seconds_of(env.render) for _ in range(PICTURES)]
    return {**figures, "pictures_per_s": 1.0 / float(np.median(pictures))}


def main() -> None:
    """Prints the figures of the package that the argument names."""
    name = sys.argv[1]
    env = {"fetch": fetch, "metaworld": metaworld, "aloha": aloha}[name]()
    print(json.dumps(measure(env, draws_in_step=name == "aloha")))


if __name__ == "__main__":
    main()
