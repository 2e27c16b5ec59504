"""The films of an evaluation: a few episodes once more, with a good-looking camera.

The same seed gives the same episode, so what is filmed is what was counted.
"""

from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import track

from robolearn.agent import PolicyAgent
from robolearn.episodes import Episode
from robolearn.film import annotate, write_video
from robolearn.imagined import write_strip
from robolearn.options import EvalConfig
from robolearn.results import EpisodeResult
from robolearn.rollout import Actor, Options, rollout
from robolearn.workers import Job, make_vector, one_thread

VIDEO_EVERY: Final = 2  # frames of an episode that are filmed, at as much less frames a second


def film(config: EvalConfig, job: Job, episodes: list[EpisodeResult], out: Path) -> None:
    """Films failures first, then successes, and notes the files in the rows of `episodes`.

    Of every group of failures there is a film before there is a second one of any.

    Args:
        config: tells how many.
        job: what played them.
        episodes: what was counted.
        out: folder of the evaluation.
    """
    failed = _groups_in_turn([e for e in episodes if not e["success"]])
    solved = [e for e in episodes if e["success"]]
    failed = failed[: max(config.videos // 2, config.videos - len(solved))]
    wanted = [*failed, *solved][: config.videos]
    if not wanted:
        return
    env = make_vector(config.env, 1, job.wrap, **job.env_options, render_mode="rgb_array")
    with one_thread(), closing(env):
        actor = job.actor(env)
        _draw_everything(env)
        for episode in track(wanted, "filming", console=Console(stderr=True)):
            video = f"videos/{episode['seed']:07d}.mp4"
            played = _film_episode(env, actor, episode, out / video, job.reset_options)
            if played is None:
                continue
            episode["video"] = video
            strip = f"videos/{episode['seed']:07d}.png"
            if isinstance(actor, PolicyAgent) and write_strip(actor.policy, played, out / strip):
                episode["strip"] = strip


def _groups_in_turn(failed: list[EpisodeResult]) -> list[EpisodeResult]:
    """The first of every group, then the second of each that has one, and so on."""
    groups = Counter[str]()
    turns = []
    for episode in failed:
        group = episode.get("failure", "")
        turns.append(groups[group])
        groups[group] += 1
    return [failed[k] for k in np.argsort(turns, kind="stable")]


def _draw_everything(env: gymnasium.vector.SyncVectorEnv) -> None:
    """A strip shows what was seen between decisions, too, which an evaluation does not draw."""
    for one in env.envs:
        inner: Any = one.unwrapped
        if hasattr(inner, "draw_every"):
            inner.draw_every = 1


def _film_episode(
    env: gymnasium.vector.SyncVectorEnv,
    actor: Actor,
    counted: EpisodeResult,
    path: Path,
    options: Options | None,
) -> Episode | None:
    """Writes the film of an episode; None if it ran differently, as it may on a GPU."""
    pictures: dict[int, Any] = {}
    step = count()

    def watch(vector: gymnasium.vector.VectorEnv) -> None:
        # Counted from the end, so that the last picture shows how it ended.
        if ((now := next(step)) - counted["length"]) % VIDEO_EVERY == 0:
            pictures[now] = vector.render()

    (episode,) = rollout(env, actor, [counted["seed"]], options=options, watch=watch)
    if (len(episode), bool(episode.success.any())) != (counted["length"], counted["success"]):
        return None
    steps = np.arange(len(episode), 0, -VIDEO_EVERY)[::-1]
    pictured = annotate(
        np.stack([pictures[k][0] for k in steps]),
        [counted["agent_instruction"]],
        progress=episode.progress[steps - 1],
        success=episode.success[steps - 1],
    )
    write_video(path, pictured, env.metadata["render_fps"] / VIDEO_EVERY)
    return episode
