"""`robolearn eval`: success on seeds that training never saw, with an interval, and the videos.

An exception in an episode ends the evaluation with that exception: a crash is an error, not a
failure. The result is the same for any number of workers, since an episode depends on its seed.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import gymnasium
import numpy as np
from rich.console import Console
from rich.progress import track

from robolearn.agent import PolicyAgent, open_agent
from robolearn.config import config_hash, save_config
from robolearn.contract import Info
from robolearn.envs.language import PARAPHRASES
from robolearn.envs.render import gl_renderer
from robolearn.envs.variations import check_names
from robolearn.episodes import Episode
from robolearn.files import check_writable, write_atomic
from robolearn.film import annotate, write_video
from robolearn.goals import goal_wrap
from robolearn.imagined import write_strip
from robolearn.jumps import jumps, moves_of
from robolearn.options import EvalConfig
from robolearn.registry import make_env
from robolearn.results import FORMAT, EpisodeResult, Result, command, versions
from robolearn.rollout import Actor, Options, asking, rollout
from robolearn.sources import source_of
from robolearn.stats import wilson
from robolearn.workers import Job, make_vector, one_thread, run_seeds

VIDEO_EVERY: Final = 2  # frames of an episode that are filmed, at as much less frames a second


class Misled:
    """An actor that is told another instruction than the task's: a policy that listens then fails.

    Args:
        actor: the actor.
        instructions: seed -> what it is told.
    """

    def __init__(self, actor: Actor, instructions: dict[int, str]) -> None:
        self._actor, self._instructions = actor, instructions
        self.act, self.latency, self.notes = actor.act, actor.latency, actor.notes

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Passes the other instruction on."""
        self._actor.reset(slot, seed, self._instructions.get(seed, instruction))


def evaluate(config: EvalConfig) -> Result:
    """Runs the evaluation, writes `result.json` and the videos, and returns the result.

    Raises:
        ValueError: unknown environment or option; a checkpoint that does not fit.
    """
    begin = time.perf_counter()
    _check(config)
    out = config.out or default_folder(config)
    # A run that goes on adds checkpoints; all workers and the result mean the one of this moment.
    source = source_of(config.policy)
    config = replace(config, policy=source.where, out=out, env=config.env or source.env)
    if not config.env:
        raise ValueError(f"{config.policy} does not say what it was trained on; give --env ID")
    check_writable(out)
    seeds = range(config.seed, config.seed + config.episodes)
    told = shuffled_instructions(config, seeds) if config.shuffle_instructions else {}
    job = _job(config, told)
    episodes = run_seeds(job, seeds, config.workers)
    progress = track(episodes, "evaluating", len(seeds), console=Console(stderr=True))
    rows = [
        {**row, "agent_instruction": told.get(row["seed"], row["instruction"])} for row in progress
    ]
    result = summarise(config, rows, time.perf_counter() - begin)
    save_config(config, out, "eval.json")  # config.json is a run's or a checkpoint's
    _save(result, out)
    _film(config, job, result["episodes"], out)
    _save(result, out)
    return result


def evaluated(config: EvalConfig) -> Result:
    """The result that lies in `config.out`, if it is of these seeds, or else a new one.

    For commands that go on where they were interrupted, and know that the rest is the same.

    Raises:
        ValueError: see `evaluate`.
    """
    path = (config.out or default_folder(config)) / "result.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    seeds = [config.seed, config.seed + config.episodes - 1]
    return cast(Result, known) if known.get("seeds") == seeds else evaluate(config)


def _check(config: EvalConfig) -> None:
    least = 2 if config.shuffle_instructions else 1  # one episode has none to swap with
    if config.episodes < least or config.seed < 0:
        raise ValueError(
            f"cannot evaluate {config.episodes} episodes from seed {config.seed}; take {least} or "
            "more, from seed 0 or later"
        )
    if config.shuffle_instructions and config.instruction:
        raise ValueError("one --instruction leaves nothing to shuffle; leave out one of the two")
    check_names(config.variations)


def _save(result: Result, out: Path) -> None:
    write_atomic(out / "result.json", (json.dumps(result, indent=1) + "\n").encode())


def default_folder(config: EvalConfig) -> Path:
    """`<run>/eval`; `<run>/eval-shuffled` for the control, `<run>/eval-push2` with a variation.

    Whatever else makes the episodes others stands in the name, too: task, split, wording.
    """
    source = source_of(config.policy)
    named = [
        value.rpartition("/")[2]
        for value, usual in (
            (config.env.rpartition(":")[2], source.env),
            (config.split, "train"),
            (config.paraphrases, "held_out"),
        )
        if value not in ("", usual)
    ]
    varied = [f"{name}{level}" for name, level in sorted(config.variations.items())]
    chooser = [f"{Path(config.scorer).name}{config.candidates}"] if config.scorer else []
    chooser += ["fixed-noise"] * config.fixed_noise
    shuffled = ["shuffled"] * config.shuffle_instructions
    asked = [_plain(config.instruction)] if config.instruction else []
    asked += [] if config.goal == ("demonstration",) else ["goal", *map(_plain, config.goal)]
    executed = [f"lead{config.lead}"] if config.lead else []
    executed += [f"delay{config.delay}"] if config.delay else []
    executed += ["unguided"] if config.delay and not config.guided else []
    executed += [] if config.ensemble is None else [f"ensemble{config.ensemble:g}"]
    name = "-".join(["eval", *shuffled, *asked, *chooser, *executed, *named, *varied])
    return source.run / name


def _plain(text: str) -> str:
    """A text as part of a folder's name."""
    return re.sub(r"\W+", "-", text)


def _job(config: EvalConfig, told: dict[int, str]) -> Job:
    open_actor: Callable = partial(open_agent, config)
    if told:
        open_actor = partial(_open_misled, open_actor, told)
    asked, options = asking(config.instruction), _env_options(config)
    source, wrap = source_of(config.policy), None
    if source.goals:
        wrap = goal_wrap(config.goal, source.cameras, config.env, options)
        options |= {"goal_pixels": True} if wrap is None else {}
    return Job(config.env, open_actor, options, asked, wrap, reduce=row_of)


def _open_misled(
    open_actor: Callable, told: dict[int, str], env: gymnasium.vector.VectorEnv
) -> Actor:
    return Misled(open_actor(env), told)


def _env_options(config: EvalConfig) -> dict[str, Any]:
    options = {**source_of(config.policy).observation_options(), **_goal_options(config)}
    return options | ({"variations": config.variations} if config.variations else {})


def _goal_options(config: EvalConfig) -> dict[str, Any]:
    """What decides on an episode's instruction; an environment of others may have no splits."""
    if config.paraphrases not in PARAPHRASES:
        raise ValueError(f"paraphrases is {config.paraphrases!r}; choose one of {PARAPHRASES}")
    split = {"split": config.split} if config.split != "train" else {}
    return {"paraphrases": config.paraphrases, **split}


def shuffled_instructions(config: EvalConfig, seeds: Iterable[int]) -> dict[int, str]:
    """Every episode gets the instruction of another one, and each is used once."""
    with closing(make_env(config.env, obs_type="state", **_goal_options(config))) as env:
        texts = {seed: env.reset(seed=seed)[1][Info.TASK] for seed in seeds}
    order = np.random.default_rng(config.seed).permutation(list(texts)).tolist()
    return {seed: texts[other] for seed, other in zip(order, [*order[1:], order[0]], strict=True)}


def row_of(episode: Episode) -> dict[str, Any]:
    """What a result keeps of an episode."""
    latency = 1000.0 * np.asarray(episode.latency)
    return {
        "seed": episode.seed,
        "instruction": episode.instruction,
        "success": bool(episode.success.any()),
        "length": len(episode.action),
        "progress": float(episode.progress.max()),
        "fault": episode.fault,
        "notes": {name: float(values[0]) for name, values in episode.notes.items()},
        "grades": episode.grades,
        "latency_p50_ms": float(np.median(latency)) if latency.size else 0.0,
        "latencies_ms": [round(float(x), 2) for x in latency],
        "moves": moves_of(episode).tolist(),
        "video": None,
        "strip": None,
    }


def summarise(config: EvalConfig, rows: list[dict[str, Any]], seconds: float) -> Result:
    """The result: counts, Wilson interval, latency, versions."""
    successes = sum(row["success"] for row in rows)
    low, high = wilson(successes, len(rows))
    latency = [x for row in rows for x in row["latencies_ms"]]
    kept = EpisodeResult.__annotations__
    episodes = [cast(EpisodeResult, {key: row[key] for key in kept}) for row in rows]
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
        "latency_ms": {f"p{q}": float(np.percentile(latency, q)) for q in (50, 99)},
        "jumps": jumps([np.array(row["moves"]) for row in rows], config.replan_every, config.delay),
        "wall_seconds": seconds,
        "versions": versions(),
        "renderer": gl_renderer(),
        "config_hash": config_hash(config),
        "instructions": "shuffled" if config.shuffle_instructions else "matched",
        "instruction": config.instruction,
        "goal": list(config.goal),
        "held_out_instructions": config.paraphrases == "held_out" and not config.instruction,
        "split": config.split,
        "variations": config.variations,
        "grades": {
            name: float(np.mean([row["grades"][name] for row in rows]))
            for name in rows[0]["grades"]
        },
        "episodes": episodes,
    }


def _film(config: EvalConfig, job: Job, episodes: list[EpisodeResult], out: Path) -> None:
    """Runs a few episodes once more with a good-looking camera: failures first, then successes.

    The same seed gives the same episode, so what is filmed is what was counted.
    """
    failed = [e for e in episodes if not e["success"]]
    solved = [e for e in episodes if e["success"]]
    failed = failed[: max(config.videos // 2, config.videos - len(solved))]
    wanted = [*failed, *solved][: config.videos]
    if not wanted:
        return
    env = make_vector(config.env, 1, job.wrap, **job.env_options, render_mode="rgb_array")
    with one_thread(), closing(env):
        actor = job.actor(env)
        for episode in track(wanted, "filming", console=Console(stderr=True)):
            video = f"videos/{episode['seed']:07d}.mp4"
            played = _film_episode(env, actor, episode, out / video, job.reset_options)
            if played is None:
                continue
            episode["video"] = video
            strip = f"videos/{episode['seed']:07d}.png"
            if isinstance(actor, PolicyAgent) and write_strip(actor.policy, played, out / strip):
                episode["strip"] = strip


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
    film = annotate(
        np.stack([pictures[k][0] for k in steps]),
        [counted["agent_instruction"]],
        progress=episode.progress[steps - 1],
        success=episode.success[steps - 1],
    )
    write_video(path, film, env.metadata["render_fps"] / VIDEO_EVERY)
    return episode


def unplanned(result: Result) -> str:
    """A sentence about the episodes for whose goals the policy found no plan; "" without any."""
    notes = [episode.get("notes", {}) for episode in result["episodes"]]
    lost = [note["steps_to_goal"] for note in notes if not note.get("plan_found", 1.0)]
    if not lost:
        return ""
    return (
        f"no plan found in {len(lost)} of {len(notes)} episodes, where the arm stayed where it "
        f"was: their goals are an estimated {np.median(lost):.0f} steps away (median), which is "
        "beyond what was trained"
    )


def main(config: EvalConfig) -> int:
    """Runs the command."""
    result = evaluate(config)
    low, high = result["success_low"], result["success_high"]
    print(
        f"success {result['success']:.1%} (95 % interval {low:.1%} to {high:.1%}), "
        f"n = {result['n']}, decision {result['latency_ms']['p50']:.1f} ms"
    )
    if lost := unplanned(result):
        print(lost)
    out = config.out or default_folder(config)
    print(f"{out / 'result.json'} is written; make a page with the videos:")
    print(f"  robolearn report {out}")
    return 0
