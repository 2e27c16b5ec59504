"""`robolearn record`: demonstrations of a scripted expert, as a LeRobotDataset v3.0."""

from contextlib import closing
from itertools import count
from typing import Any

from rich.console import Console
from rich.progress import track

from robolearn.agent import ExpertAgent
from robolearn.config import NAME, load_config, save_config
from robolearn.dataset import EpisodeDataset
from robolearn.envs.render import gl_renderer
from robolearn.episodes import Episode, EpisodeWriter
from robolearn.options import RecordConfig
from robolearn.registry import make_env
from robolearn.workers import Job, run_seeds


def record(config: RecordConfig) -> int:
    """Records until the dataset holds `episodes`; returns how many it holds.

    Raises:
        DatasetError: the folder holds something else, is read-only, or the disk is full.
        ValueError: unknown environment, or one without an expert.
    """
    _check_same_task(config)
    with closing(make_env(config.env, image_size=config.image_size)) as env:
        task: Any = env.unwrapped
    if not hasattr(task, "expert"):
        raise ValueError(f"{config.env} has no scripted expert; only simulated tasks have one")
    options = {"image_size": config.image_size}
    job = Job(config.env, ExpertAgent, options)
    cameras = dict.fromkeys(task.active_cameras, config.image_size)
    notes = {"env_options": options, "renderer": gl_renderer()}
    with EpisodeWriter(
        config.out, arm=task.arm, fps=task.arm.control_hz, cameras=cameras, notes=notes
    ) as writer:
        save_config(config, config.out)
        missing = config.episodes - len(writer)
        # Seeds go on where the dataset ends, so that a continued recording repeats nothing.
        recorded = EpisodeDataset(config.out).episodes.seed.tolist() if len(writer) else []
        seeds = count(max([config.seed - 1, *recorded]) + 1)
        with closing(run_seeds(job, seeds, config.workers)) as episodes:
            for _ in track(range(missing), "recording", console=Console(stderr=True)):
                writer.append(next(e for e in episodes if _wanted(e, config)))
        return len(writer)


def _check_same_task(config: RecordConfig) -> None:
    """Refuses to mix two tasks in one dataset.

    Raises:
        ValueError: the folder was recorded with another environment.
    """
    if (config.out / NAME).exists():
        before = load_config(RecordConfig, config.out).env
        if before != config.env:
            raise ValueError(f"{config.out} holds {before}, not {config.env}; take another --out")


def _wanted(episode: Episode, config: RecordConfig) -> bool:
    return config.keep_failures or bool(episode.success.any())


def main(config: RecordConfig) -> int:
    """Runs the command."""
    held = record(config)
    print(f"{config.out} holds {held} episodes; train on it with:")
    print(f"  robolearn train --data {config.out} --out runs/NAME")
    return 0
