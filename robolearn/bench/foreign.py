"""`robolearn bench-foreign PACKAGE`: our policies beside LeRobot's on tasks that others wrote.

For every policy and task what `robolearn bench-policies` does: the same demonstrations, of the
task's scripted expert or a recording; the same time of training, one after the other; the same
unseen seeds. Every task has policies of its own. What was done stays in `out`, and a run that was
interrupted goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from robolearn.bench import policies
from robolearn.bench.policies import BenchPoliciesConfig, Name, compared
from robolearn.options import WorkerOptions
from robolearn.registry import versions_apart
from robolearn.results import claim, save_result, versions

# package -> its tasks: of Meta-World the ten of MT10
TASKS: Final[dict[str, tuple[str, ...]]] = {
    "pusht": ("gym_pusht/PushT-v0",),
    "aloha": ("gym_aloha/AlohaTransferCube-v0", "gym_aloha/AlohaInsertion-v0"),
    "metaworld": tuple(
        f"metaworld/{name}-v3"
        for name in (
            *("reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close"),
            *("button-press-topdown", "peg-insert-side", "window-open", "window-close"),
        )
    ),
}
# Height and width of the pictures, pixels: in 48 x 84 of ALOHA a cube is two pixels wide.
PICTURES: Final = {"pusht": (96, 96), "aloha": (96, 128), "metaworld": (64, 64)}
SETTINGS: Final = "bench-foreign.json"
FREE: Final = (*policies.FREE, "tasks", "out")  # change nothing that is in out
Row = dict[str, Any]


@dataclass(frozen=True)
class BenchForeignConfig(WorkerOptions):
    """Measure our policies beside LeRobot's on tasks of another package."""

    package: Positional[Literal["pusht", "aloha", "metaworld"]]
    tasks: tuple[str, ...] = ()  # e.g. metaworld/reach-v3; by default all (of Meta-World MT10)
    policies: tuple[Name, ...] = ("flow", "act", "lerobot-diffusion")  # in this order
    data: Path | None = None  # a recording of one task; by default its scripted expert demonstrates
    # Height and width of the pictures, pixels; by default as many as the package needs
    image_size: tuple[int, int] | None = None
    results: Path = Path("docs/results")  # where the summary, PACKAGE.json, goes
    out: Path = Path("runs/bench-foreign")  # data, runs and evaluations
    demonstrations: int = 50  # of each task
    # Of the recording, by name and level: tremble 4 shows how to come back
    variations: dict[str, int] = field(default_factory=dict)
    minutes: float = 8.0  # of training for each task and policy
    batch_size: int = 32  # observations in a step of ours: few demonstrations, and little time
    episodes: int = 50  # of each evaluation
    thinking: float = 10.0  # minutes that a policy may decide in one; then it plays fewer episodes
    loader_workers: int = 2  # processes that decode for LeRobot's policies
    seed: int = 0  # of training; evaluation uses seeds from 0


def bench(config: BenchForeignConfig) -> Row:
    """Runs what is missing, writes `<results>/PACKAGE.json`, and returns its figures.

    Raises:
        ValueError, OSError: unusable options or folders, a package that is not installed; what was
            finished is kept.
    """
    tasks = config.tasks or TASKS[config.package]
    _check(config, tasks)
    used = versions() | versions_apart(f"foreign:{task}" for task in tasks)
    claim(config, config.out / config.package, SETTINGS, FREE, used)
    figures: Row = {"versions": used, "tasks": {task: {} for task in tasks}}
    for policy, task in product(config.policies, tasks):  # what is cut off has one policy whole
        for name, row in compared(_settings(config, task, policy), config.data):
            figures["tasks"][task][name] = row
    figures |= _means(figures["tasks"])
    save_result(config.results, config.package, config, figures)  # not half of what was there
    return figures


def _check(config: BenchForeignConfig, tasks: tuple[str, ...]) -> None:
    """Refuses what would fail after the first task.

    Raises:
        ValueError: tasks of another package, a recording of several, a package that is missing,
            no such variation.
    """
    from robolearn.envs.foreign_packages import kind_of, python_for
    from robolearn.envs.variations import ELSEWHERE, check_names

    for task in tasks:
        kind = kind_of(task)
        if kind is None or kind.package != config.package:
            raise ValueError(
                f"{task} is no task of {config.package}; choose among "
                f"{', '.join(TASKS[config.package])}"
            )
    if config.data is not None and len(tasks) > 1:
        raise ValueError("--data is a recording of one task; name it with --tasks")
    if config.data is not None and config.variations:
        raise ValueError("--data is a recording already; leave out --variations")
    check_names(config.variations)
    if others := [name for name in config.variations if name not in ELSEWHERE]:
        raise ValueError(f"{others[0]} varies tasks of ours only; leave it out of --variations")
    python_for(config.package)


def _settings(config: BenchForeignConfig, task: str, policy: Name) -> BenchPoliciesConfig:
    """The same for one task and policy."""
    names = {f.name for f in fields(BenchPoliciesConfig)}
    shared = {f.name: getattr(config, f.name) for f in fields(config) if f.name in names}
    out = config.out / config.package / task.rpartition("/")[2]
    own = {"env": f"foreign:{task}", "image_size": config.image_size or PICTURES[config.package]}
    return BenchPoliciesConfig(**{**shared, **own, "out": out, "policies": (policy,)})


def _means(tasks: Mapping[str, Mapping[str, Row]]) -> Row:
    """Of every policy that was measured on all tasks: mean success."""
    names = [name for name in next(iter(tasks.values())) if all(name in t for t in tasks.values())]
    means = {
        name: sum(rows[name]["success"] for rows in tasks.values()) / len(tasks) for name in names
    }
    return {"mean_success": means}


def main(config: BenchForeignConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("task", *config.policies)
    for task, rows in figures["tasks"].items():
        cells = [f"{row['success']:.0%} of {row['n']}" for row in rows.values()]
        table.add_row(task, *cells)
    table.add_row("mean", *[f"{share:.0%}" for share in figures["mean_success"].values()])
    Console().print(table)
    print(f"{config.results / config.package}.json holds everything")
    return 0
