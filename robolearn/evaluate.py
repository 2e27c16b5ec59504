"""`robolearn eval`: success on seeds that training never saw, with an interval, and the videos.

An exception in an episode ends the evaluation with that exception: a crash is an error, not a
failure. The result is the same for any number of workers, since an episode depends on its seed.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from rich.console import Console
from rich.progress import Progress

from robolearn.agent import PolicyAgent, open_agent
from robolearn.config import save_config, to_json
from robolearn.contract import Info
from robolearn.envs.dynamics import check_dynamics
from robolearn.envs.failures import witnessed
from robolearn.envs.language import PARAPHRASES
from robolearn.envs.variations import check_names
from robolearn.eval_folders import default_folder
from robolearn.files import check_writable, write_atomic
from robolearn.filming import film
from robolearn.goals import Wrap, goal_wrap
from robolearn.journal import Journal
from robolearn.options import WORKERS, EvalConfig, worker_options
from robolearn.outcomes import row_of, summarise
from robolearn.policies.scorers import scorer_fingerprints
from robolearn.registry import env_versions, make_env
from robolearn.results import Result, versions
from robolearn.rollout import Actor, asking
from robolearn.sources import Source, source_of
from robolearn.told import goal_fingerprints, maker_of
from robolearn.workers import Job, run_seeds

JOURNAL: Final = "episodes.jsonl"  # of an evaluation that is not finished
FREE: Final = ("out", "videos", *WORKERS)  # change no episode
Row = dict[str, Any]
Enough = Callable[[Sequence[Row]], bool]


def never(rows: Sequence[Row]) -> bool:
    """No number of episodes is enough."""
    del rows
    return False


class Misled:
    """An actor that is told another instruction than the task's: a policy that listens then fails.

    Args:
        actor: the actor.
        instructions: seed -> what it is told.
    """

    def __init__(self, actor: Actor, instructions: Mapping[int, str]) -> None:
        self._actor, self._instructions = actor, instructions
        self.act, self.latency, self.notes = actor.act, actor.latency, actor.notes

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Passes the other instruction on."""
        self._actor.reset(slot, seed, self._instructions.get(seed, instruction))


def evaluate(config: EvalConfig, enough: Enough = never) -> Result:
    """Runs the evaluation, writes `result.json` and the videos, and returns the result.

    One that was killed goes on after the last finished episode.

    Args:
        config: the settings.
        enough: looks at the rows of the episodes so far, and may end the evaluation early.

    Raises:
        ValueError: unknown environment or option; a checkpoint that does not fit.
    """
    _check(config)
    config, source = resolved(config)
    out = cast(Path, config.out)
    seeds = range(config.seed, config.seed + config.episodes)
    told = shuffled_instructions(config, seeds) if config.shuffle_instructions else {}
    job = job_of(config, told)
    check_writable(out)  # last: a mistake leaves nothing behind
    with Journal(out / JOURNAL, _about(config, source)) as journal:
        seconds = _play(config, job, journal, told, enough)
        result = summarise(config, journal.rows, seconds, source.training_seconds)
        save_config(config, out, "eval.json")  # config.json is a run's or a checkpoint's
        _save(result, out)
        film(config, job, result["episodes"], out)
        _save(result, out)
        journal.remove()
    return result


def resolved(config: EvalConfig) -> tuple[EvalConfig, Source]:
    """Settings that name one very policy and its environment, and where the policy comes from.

    A run that goes on adds checkpoints; all workers and the result mean the one of now.

    Raises:
        ValueError: no such policy, or one that does not say what it was trained on.
    """
    out = config.out or default_folder(config)
    source = source_of(config.policy)
    config = replace(config, policy=source.where, out=out, env=config.env or source.env)
    if not config.env:
        raise ValueError(f"{config.policy} does not say what it was trained on; give --env ID")
    return config, source


def _about(config: EvalConfig, source: Source) -> Row:
    """All that the episodes depend on; with other weights or versions they would be others."""
    settings = {key: value for key, value in to_json(config).items() if key not in FREE}
    used = versions() | env_versions(config.env)
    about = {**settings, "fingerprint": source.fingerprint, "versions": used}
    others = {
        "scorer_fingerprints": scorer_fingerprints(config.scorer, source),
        "goal_fingerprints": goal_fingerprints(config.goal, config.goal_data, source),
    }
    return about | {name: found for name, found in others.items() if found}


def _play(
    config: EvalConfig, job: Job, journal: Journal, told: dict[int, str], enough: Enough
) -> float:
    """Runs the episodes that the journal lacks; seconds that all of them took."""
    done = len(journal.rows)
    begin = time.perf_counter() - (journal.rows[-1]["elapsed"] if done else 0.0)
    bar = Progress(*Progress.get_default_columns(), console=Console(stderr=True))
    seeds = range(config.seed + done, config.seed + config.episodes)
    with bar, closing(run_seeds(job, seeds, **worker_options(config))) as episodes:
        task = bar.add_task("evaluating", total=config.episodes, completed=done)
        while len(journal.rows) < config.episodes and not enough(journal.rows):
            row = next(episodes)
            heard = {"agent_instruction": told.get(row["seed"], row["instruction"])}
            journal.append({**row, **heard, "elapsed": time.perf_counter() - begin})
            bar.advance(task)
    return time.perf_counter() - begin


def check_fits(config: EvalConfig) -> None:
    """Whether a policy can be evaluated like this, before any episode.

    Raises:
        ValueError: it was trained for other cameras or another arm, has shorter chunks, and so on.
    """
    _check(config)
    with closing(job_of(resolved(config)[0]).open()):
        return


def is_finished(config: EvalConfig) -> bool:
    """Whether a folder holds the whole result, for commands that know that it is of the same."""
    assert config.out is not None
    return (config.out / "result.json").exists() and not (config.out / JOURNAL).exists()


def evaluated(config: EvalConfig) -> Result:
    """The result that lies in `config.out`, if it is of these seeds and dynamics, or a new one.

    For commands that go on where they were interrupted, and know that the rest is the same.

    Raises:
        ValueError: see `evaluate`.
    """
    out = config.out or default_folder(config)
    config = replace(config, out=out)
    known = json.loads((out / "result.json").read_text()) if is_finished(config) else {}
    seeds = [config.seed, config.seed + config.episodes - 1]
    same = known.get("seeds") == seeds and known.get("dynamics", {}) == config.dynamics
    return cast(Result, known) if same else evaluate(config)


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
    check_dynamics(config.dynamics)


def _save(result: Result, out: Path) -> None:
    write_atomic(out / "result.json", (json.dumps(result, indent=1) + "\n").encode())


def job_of(config: EvalConfig, told: Mapping[int, str] | None = None) -> Job:
    """What plays the episodes of an evaluation.

    Args:
        config: resolved settings.
        told: seed -> what the agent is told instead of the task's instruction.
    """
    changed = config.variations or config.dynamics  # which may show earlier pictures again
    open_actor: Callable = partial(open_agent if changed else open_sparing, config)
    if told:
        open_actor = partial(_open_misled, open_actor, told)
    asked, options = asking(config.instruction), _env_options(config)
    source, shown = source_of(config.policy), None
    if source.goals:
        maker = maker_of(config.goal, config.goal_data, source)
        shown = goal_wrap(config.goal, source.cameras, config.env, options, maker)
        options |= {"goal_pixels": True} if shown is None else {}
    elif config.goal_data:
        raise ValueError(f"{config.policy} is told its goal and shown none; leave out --goal-data")
    return Job(config.env, open_actor, options, asked, partial(_watched, shown), row_of)


def open_sparing(config: EvalConfig, env: SyncVectorEnv) -> Actor:
    """The actor, with environments that draw what it looks at alone: most of an episode's time."""
    actor = open_agent(config, env)
    for one in env.envs:
        inner: Any = one.unwrapped
        if isinstance(actor, PolicyAgent) and hasattr(inner, "draw_every"):
            inner.draw_every = actor.looks_every
    return actor


def _watched(shown: Wrap | None, env: gymnasium.Env) -> gymnasium.Env:
    """Tells why episodes fail, and perhaps shows the goal."""
    env = witnessed(env)
    return shown(env) if shown else env


def _open_misled(
    open_actor: Callable, told: Mapping[int, str], env: gymnasium.vector.VectorEnv
) -> Actor:
    return Misled(open_actor(env), told)


def _env_options(config: EvalConfig) -> dict[str, Any]:
    options = {**source_of(config.policy).observation_options(), **_goal_options(config)}
    changes = {"variations": config.variations, "dynamics": config.dynamics}
    return options | {name: values for name, values in changes.items() if values}


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


def unplanned(result: Result) -> str:
    """A sentence about the episodes for whose goals the policy found no plan; "" without any."""
    notes = [episode.get("notes", {}) for episode in result["episodes"]]
    lost = [note["steps_to_goal"] for note in notes if not note.get("plan_found", 1.0)]
    if not lost:
        return ""
    return (
        f"no plan found in {len(lost)} of {len(notes)} episodes, where an arm stays where it is "
        f"unless --keep-trying: their goals are an estimated {np.median(lost):.0f} steps away "
        "(median), which is beyond what was trained"
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
