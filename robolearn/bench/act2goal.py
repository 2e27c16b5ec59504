"""`robolearn bench-act2goal`: policies that are shown their goal, within and beyond what they know.

For every task all methods are trained on the same demonstrations, for as many steps of the same
batch size, and evaluated on the same episodes with the same goal pictures: within the
demonstrations' distribution, and beyond it (`--split`, by default other objects, or other scenes if
the task has no more). Then some of them practise beyond it (`robolearn adapt`), and are evaluated
on both again: what was gained there, and what was forgotten.
The methods are those of `act2goal_methods.py`.

The first method is what all others are compared with, pair by pair; a method after practice is
compared with itself before. What was done stays in `out`, and a run that was cut off goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from robolearn.bench.act2goal_methods import METHODS, PRACTICES
from robolearn.bench.pairs import beside, pooled
from robolearn.learn_options import AdaptConfig
from robolearn.options import (
    WORKERS,
    EvalConfig,
    RecordConfig,
    TrainConfig,
    WorkerOptions,
    check_at_least,
    check_choices,
    worker_options,
)
from robolearn.results import EpisodeResult, Result, claim, save_result

WITHIN: Final = "in_distribution"
BEYOND: Final = "out_of_distribution"
BINS: Final = 3  # of the distance to the goal, with as many episodes each
SETTINGS: Final = "bench-act2goal.json"
FREE: Final = (
    *("tasks", "methods", "practising", "practices", "seeds"),
    *("results", "out", *WORKERS),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchAct2GoalConfig(WorkerOptions):
    """Measure policies that are shown their goal, before and after practice."""

    tasks: tuple[str, ...] = ("PickPlace", "Push", "OpenDrawer", "Reorient", "Sort", "Write")
    methods: tuple[str, ...] = ("act2goal", "flow", "diffusion")  # all beside the first
    practising: tuple[str, ...] = ("act2goal",)  # those of the methods that also practise
    practices: tuple[str, ...] = ("practice",)  # in these ways
    split: str = ""  # beyond what is known; "": the first of the task's that is not for training
    seeds: tuple[int, ...] = (0,)  # of training and practice
    # Where the summary goes: act2goal.json, or with --split act2goal-SPLIT.json
    results: Path = Path("docs/results")
    out: Path = Path("runs/bench-act2goal")  # data, runs and evaluations
    demonstrations: int = 400  # of each task
    steps: int = 3000  # of training
    batch_size: int = 128  # observations a step
    minutes: float = 10.0  # of practice
    evaluate: int = 25  # episodes of an evaluation after each round of practice
    episodes: int = 200  # of all other evaluations
    replan_every: int = 8  # steps of a chunk that are executed before looking again

    @property
    def name(self) -> str:
        """Of the summary."""
        return "-".join(["act2goal", *filter(None, [self.split.replace("_", "-")])])

    def __post_init__(self) -> None:
        """Refuses what measures nothing.

        Raises:
            ValueError: naming the option.
        """
        check_at_least(self, 1, "demonstrations", "steps", "batch_size", "evaluate", "episodes")
        check_at_least(self, 1, "replan_every")
        check_choices("methods", self.methods, METHODS)
        check_choices("practices", self.practices, PRACTICES)
        check_choices("practising", self.practising, self.methods)
        for name in ("tasks", "methods", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"--{name} has none; give at least one")


def bench(config: BenchAct2GoalConfig) -> Row:
    """Runs what is missing, writes the summary, and returns its figures.

    Raises:
        ValueError, OSError: unusable options or folders; what was finished is kept.
    """
    claim(config, config.out, SETTINGS, FREE)
    compared = {task: Compared(config, task) for task in config.tasks}
    for one, name in product(compared.values(), config.practices if config.practising else ()):
        one.practice(config.out, name, config.seeds[0])  # refused now, and not after hours
    tasks: dict[str, Row] = {}
    for task in config.tasks:
        tasks[task] = {}
        for name, row in compared[task].rows():
            tasks[task][name] = row
    figures: Row = {"tasks": tasks, "mean": _over_tasks(list(tasks.values()))}
    save_result(config.results, config.name, config, figures)  # not half of it
    return figures


@dataclass(frozen=True)
class Played:
    """What policies of one method did, over the training seeds.

    Attributes:
        within: episodes like the demonstrations'.
        beyond: episodes unlike them.
        plan_ms: of a decision, the median.
        training_seconds: that led to the policy, without practice.
        seeds: of training; the episodes of one are together.
    """

    within: list[EpisodeResult]
    beyond: list[EpisodeResult]
    plan_ms: float
    training_seconds: float | None
    seeds: int


class Compared:
    """All methods on one task."""

    def __init__(self, config: BenchAct2GoalConfig, task: str) -> None:
        self.config, self.task, self.folder = config, task, config.out / task
        self.env, self.split = f"robolearn/{task}-v0", _beyond(task, config.split)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Names and figures of every method, and of what became of it by practice."""
        self._record()
        first: Played | None = None
        for name in self.config.methods:
            Console(stderr=True).print(f"[bold]bench-act2goal[/] {self.task}: {name}")
            runs = {seed: self._trained(name, seed) for seed in self.config.seeds}
            played = self._played(runs)
            first = first or played
            yield name, _row(played, first) | {"training_seconds": played.training_seconds}
            if name in self.config.practising:
                yield from self._practices(name, runs, played)

    def _practices(
        self, name: str, runs: Mapping[int, Path], before: Played
    ) -> Iterator[tuple[str, Row]]:
        for practice in self.config.practices:
            Console(stderr=True).print(f"[bold]bench-act2goal[/] {self.task}: {name}, {practice}")
            curves = {seed: self._practised(run, practice, seed) for seed, run in runs.items()}
            after = self._played(
                {seed: run.with_name(f"{run.name}-{practice}") for seed, run in runs.items()}
            )
            row = _row(after, before)
            yield (
                f"{name}+{practice}",
                {
                    **row,
                    "minutes": float(np.mean([curve[-1]["minutes"] for curve in curves.values()])),
                    "forgetting_points": -row[WITHIN]["gain_points"],
                    "curves": list(curves.values()),
                },
            )

    def _record(self) -> None:
        from robolearn.record import record

        config = self.config
        data, count = self.folder / "data", config.demonstrations
        record(RecordConfig(out=data, env=self.env, episodes=count, **worker_options(config)))

    def _trained(self, name: str, seed: int) -> Path:
        """The run of a method, trained where it is missing."""
        from robolearn.bench.prepared import trained

        config, run = self.config, self.folder / f"{name}-{seed}"
        settings = TrainConfig(
            self.folder / "data",
            run,
            policy=METHODS[name],
            steps=config.steps,
            batch_size=config.batch_size,
            seed=seed,
            threads=1,
        )
        trained(settings)
        return run

    def _practised(self, run: Path, practice: str, seed: int) -> list[Row]:
        """The rounds of a run's practice: minutes, success there and on what it was trained for."""
        from robolearn.adapt import adapt

        rounds = adapt(self.practice(run, practice, seed))["rounds"]
        return [{key: row[key] for key in ("minutes", "practised", "original")} for row in rounds]

    def practice(self, run: Path, practice: str, seed: int) -> AdaptConfig:
        """How a run practises.

        Raises:
            ValueError: with unusable options.
        """
        config = self.config
        settings = AdaptConfig(
            policy=run,
            out=run.with_name(f"{run.name}-{practice}"),
            env=self.env,
            split=self.split,
            minutes=config.minutes,
            evaluate=config.evaluate,
            replan_every=config.replan_every,
            seed=3_000_000 + 100_000 * seed,
            **worker_options(config),
        )
        return replace(settings, **PRACTICES[practice])

    def _played(self, runs: Mapping[int, Path]) -> Played:
        within = [self._evaluated(run, "train") for run in runs.values()]
        beyond = [self._evaluated(run, self.split) for run in runs.values()]
        latency = float(np.mean([result["latency_ms"]["p50"] for result in within]))
        trained = within[0]["training_seconds"]
        return Played(_episodes(within), _episodes(beyond), latency, trained, len(runs))

    def _evaluated(self, run: Path, split: str) -> Result:
        from robolearn.evaluate import evaluated

        config = self.config
        settings = EvalConfig(
            policy=str(run),
            out=run / f"eval-{split}",
            env=self.env,
            split=split,
            episodes=config.episodes,
            replan_every=config.replan_every,
            keep_trying=True,  # not all methods can tell what is beyond their reach
            videos=0,
            **worker_options(config),
        )
        return evaluated(settings)


def _beyond(task: str, split: str) -> str:
    """This split, or the first that is not for training.

    Raises:
        ValueError: the task has none, or not this one.
    """
    from robolearn.registry import make_env

    chosen: Any = {"split": split} if split else {}
    with closing(make_env(f"robolearn/{task}-v0", obs_type="state", **chosen)) as env:
        found: Any = env.unwrapped
        if len(found.splits) > 1:
            return split or str(found.splits[1])
    raise ValueError(f"{task} has no split beside train; leave it out of --tasks")


def _episodes(results: Sequence[Result]) -> list[EpisodeResult]:
    return [episode for result in results for episode in result["episodes"]]


def _wins(episodes: Sequence[EpisodeResult]) -> list[bool]:
    return [bool(episode["success"]) for episode in episodes]


def _row(played: Played, first: Played) -> Row:
    return {
        "n": len(played.within),
        "plan_ms": played.plan_ms,
        WITHIN: beside(_wins(played.within), _wins(first.within)),
        BEYOND: beside(_wins(played.beyond), _wins(first.beyond)),
        "by_distance": _by_distance(played.within),
        "no_plan": {WITHIN: _no_plan(played.within), BEYOND: _no_plan(played.beyond)},
        "by_seed": {
            part: [float(np.mean(wins)) for wins in np.array_split(_wins(episodes), played.seeds)]
            for part, episodes in ((WITHIN, played.within), (BEYOND, played.beyond))
        },
    }


def _no_plan(episodes: Sequence[EpisodeResult]) -> float:
    """Share of the episodes for whose goals no plan was found at first; the arm tried anyway."""
    found = [episode.get("notes", {}).get("plan_found", 1.0) for episode in episodes]
    return float(np.mean(np.array(found) == 0.0))


def _by_distance(episodes: Sequence[EpisodeResult]) -> list[Row]:
    """Success of episodes with near, farther and far goals, by the steps of the expert."""
    ordered = sorted(episodes, key=lambda episode: episode["goal_steps"])
    return [
        {
            "steps": [ordered[part[0]]["goal_steps"], ordered[part[-1]]["goal_steps"]],
            "n": len(part),
            "success": float(np.mean([ordered[index]["success"] for index in part])),
        }
        for part in np.array_split(np.arange(len(ordered)), BINS)
        if len(part)
    ]


def _over_tasks(tasks: Sequence[Row]) -> Row:
    """Means of the methods that all tasks have, and their pairs on all tasks together."""
    names = [name for name in tasks[0] if all(name in task for task in tasks)]
    return {
        name: {part: pooled([task[name][part] for task in tasks]) for part in (WITHIN, BEYOND)}
        | {"plan_ms": float(np.mean([task[name]["plan_ms"] for task in tasks]))}
        for name in names
    }


def main(config: BenchAct2GoalConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("method", *(f"{task}, in and out" for task in figures["tasks"]), "mean", "points")
    for name, mean in figures["mean"].items():
        cells = [_both(row[name]) for row in figures["tasks"].values()]
        table.add_row(name, *cells, _both(mean), f"{mean[WITHIN]['gain_points']:+.1f}")
    Console().print(table)
    print(f"{config.results / config.name}.json holds everything")
    return 0


def _both(row: Row) -> str:
    return f"{row[WITHIN]['success']:.1%}, {row[BEYOND]['success']:.1%}"
