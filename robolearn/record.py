"""`robolearn record`: demonstrations as a LeRobotDataset v3.0.

A simulated task's scripted expert demonstrates, or a human who drives an arm, real or simulated.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, Final

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import track

from robolearn.agent import ExpertAgent
from robolearn.config import NAME, load_config, save_config
from robolearn.contract import ArmSpec
from robolearn.dataset import EpisodeDataset
from robolearn.envs.render import gl_renderer
from robolearn.episodes import Episode, EpisodeWriter
from robolearn.options import RecordConfig, worker_options
from robolearn.registry import env_versions, make_env
from robolearn.robot import as_vector, kept_episodes, open_robot, open_simulated
from robolearn.rollout import Observation, asking
from robolearn.workers import Job, run_seeds

PATIENCE: Final = 100  # episodes in which a script may fail, one after the other


@dataclass(frozen=True)
class Demonstrator:
    """Who demonstrates, on which arm."""

    arm: ArmSpec
    cameras: dict[str, tuple[int, int]]
    notes: dict[str, Any]  # about the recording, as JSON
    episodes: Callable[[Iterable[int]], Generator[Episode]]  # those to keep, by seed


def record(config: RecordConfig) -> int:
    """Records until the dataset holds `episodes`; returns how many it holds.

    Raises:
        DatasetError: the folder holds something else, is read-only, or the disk is full.
        ValueError, OSError: unknown environment, one without an expert, no arm, no device.
    """
    _check_same_task(config)
    with ExitStack() as stack:
        human = config.robot or config.teleop != "none"
        who = _human(config, stack) if human else _expert(config)
        writer = stack.enter_context(
            EpisodeWriter(
                config.out,
                arm=who.arm,
                fps=who.arm.control_hz,
                cameras=who.cameras,
                notes=who.notes,
            )
        )
        save_config(config, config.out)
        missing = config.episodes - len(writer)
        # Seeds go on where the dataset ends, so that a continued recording repeats nothing.
        recorded = EpisodeDataset(config.out).episodes.seed.tolist() if len(writer) else []
        seeds = count(max([config.seed - 1, *recorded]) + 1)
        episodes = stack.enter_context(closing(who.episodes(seeds)))
        for _ in track(range(missing), "recording", console=Console(stderr=True)):
            writer.append(next(episodes))
        return len(writer)


def _check_same_task(config: RecordConfig) -> None:
    """Refuses to mix two tasks in one dataset.

    Raises:
        ValueError: the folder was recorded with another environment or arm.
    """
    if (config.out / NAME).exists():
        old = load_config(RecordConfig, config.out)
        before, now = old.robot or old.env, config.robot or config.env
        if before != now:
            raise ValueError(f"{config.out} holds {before}, not {now}; take another --out")
        # A human may be asked for one thing after another.
        asked = () if config.robot or config.teleop != "none" else ("instruction",)
        for name in ("split", "variations", "pursued", *asked):
            before, now = getattr(old, name), getattr(config, name)
            if before != now:
                raise ValueError(
                    f"{config.out} was recorded with {name} {before or 'none'}, not "
                    f"{now or 'none'}; take another --out"
                )


def _expert(config: RecordConfig) -> Demonstrator:
    with closing(make_env(config.env, **task_options(config))) as env:
        task: Any = env.unwrapped
    if not hasattr(task, "expert"):
        raise ValueError(
            f"{config.env} has no scripted expert; robolearn's simulated tasks, Meta-World, "
            "gym-aloha and gym-pusht have one (see `robolearn envs`)"
        )
    options = task_options(config)
    if config.pursued and not config.variations.get("label"):
        raise ValueError("--pursued is what wrong labels hide: give --variations label 4, too")
    job = Job(config.env, ExpertAgent, options, asking(config.instruction, config.pursued))

    def episodes(seeds: Iterable[int]) -> Generator[Episode]:
        with closing(run_seeds(job, seeds, **worker_options(config))) as recorded:
            yield from recorded if config.keep_failures else _successes(recorded, config.env)

    cameras = dict.fromkeys(task.active_cameras, config.image_size)
    notes: dict[str, Any] = {"env_options": options, "renderer": gl_renderer()}
    if versions := env_versions(config.env):
        notes["versions"] = versions
    return Demonstrator(task.arm, cameras, notes, episodes)


def _successes(episodes: Iterable[Episode], env_id: str) -> Generator[Episode]:
    """Those that succeeded.

    Raises:
        ValueError: so many failed one after the other that waiting is no use.
    """
    failed = 0
    for episode in episodes:
        failed = 0 if episode.success.any() else failed + 1
        if not failed:
            yield episode
        if failed == PATIENCE:
            raise ValueError(
                f"the script of {env_id} failed {failed} times in a row: make the task easier, "
                "such as by a lower level of --variations, or add --keep-failures"
            )


def task_options(config: RecordConfig) -> dict[str, Any]:
    """The options of the simulated task; an environment of others need not know all of them."""
    options: dict[str, Any] = {"image_size": config.image_size}
    plain = {field.name: field.default for field in fields(RecordConfig)}
    for name in ("split", "style", "quality", "obs_type"):
        if (value := getattr(config, name)) != plain[name]:
            options[name] = value
    return options | ({"variations": config.variations} if config.variations else {})


def _open_arm(config: RecordConfig) -> gymnasium.Env:
    """The arm that a human shall drive: a real one, or that of the simulated task."""
    if config.teleop == "none":
        raise ValueError("a human needs a device: --teleop keyboard, gamepad or leader:PORT")
    if not config.robot:
        return open_simulated(config, config.env, viewer=config.viewer, **task_options(config))
    if config.variations:
        raise ValueError("variations are for simulated tasks, not for an arm: leave them out")
    cameras = config.cameras or None
    return open_robot(config, autonomous=False, cameras=cameras, image_size=config.image_size)


def _human(config: RecordConfig, stack: ExitStack) -> Demonstrator:
    env = _open_arm(config)
    vector = stack.enter_context(closing(as_vector(env)))
    arm: Any = env.unwrapped

    def episodes(seeds: Iterable[int]) -> Generator[Episode]:
        for episode in kept_episodes(env, vector, Onlooker(), seeds):
            if episode.fault:
                raise ValueError(f"{episode.fault}: look at the arm, then record on")
            yield episode

    sizes = dict.fromkeys(arm.active_cameras, config.image_size)
    return Demonstrator(arm.arm, sizes, {"teleop": config.teleop}, episodes)


class Onlooker:
    """An actor that leaves everything to the human; what it says is not done."""

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Nothing to prepare."""

    def act(self, observation: Observation) -> np.ndarray:
        """The measured positions (N, J)."""
        return np.array(observation["agent_pos"], np.float32)

    def latency(self, slot: int) -> list[float]:
        """None."""
        del slot
        return []

    def notes(self, slot: int) -> dict[str, list[float]]:
        """None."""
        del slot
        return {}


def main(config: RecordConfig) -> int:
    """Runs the command."""
    held = record(config)
    print(f"{config.out} holds {held} episodes; train on it with:")
    print(f"  robolearn train --data {config.out} --out runs/NAME")
    return 0
