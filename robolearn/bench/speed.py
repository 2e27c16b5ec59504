"""`robolearn bench`: this project's speed against bare MuJoCo and against LeRobot.

| part | what is measured |
|---|---|
| `experts` | success of every task's scripted expert; written to `experts.json` |
| `env` | state steps, one environment and batched, as a share of bare `mj_step`; camera pictures |
| `tasks` | the same and the reset of every task |
| `peers` | the same of three other packages, each in a virtual environment of its own |
| `data` | random training batches against stock LeRobotDataset with a DataLoader |
| `soak` | random actions in all tasks: divergence, warnings, memory; written to `soak.json` |

The two sides of a comparison take turns in short blocks and the median of the blocks' ratios
counts, because a machine may be busy with other things. A part's figures are kept in `out` as soon
as it is done; the summary, `speed.json`, holds what all parts have measured so far.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from robolearn.options import WorkerOptions, check_positive, worker_options
from robolearn.results import save_result

Part = Literal["experts", "env", "tasks", "peers", "data", "soak"]
ENV: Final = "robolearn/PickPlace-v0"
# part -> its figures that the summary always holds; null until the part has run
FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "env": (
        "step_rate_share_of_mj_step",
        "batched_share_of_mj_step",
        "pixels_speedup_over_default_render",
    ),
    "tasks": ("tasks",),
    "peers": ("peers",),
    "data": ("sampling_speedup_over_lerobot",),
}
GOALS: Final = {
    "step_rate_share_of_mj_step": 0.80,
    "batched_share_of_mj_step": 0.85,
    "pixels_speedup_over_default_render": 20.0,
    "sampling_speedup_over_lerobot": 20.0,
}
ROWS: Final = ("tasks", "peers")  # figures that are tables of their own
OWN_SUMMARY: Final = ("experts", "soak")  # parts with a result file of their own
POSITIVE: Final = (
    *("expert_episodes", "blocks", "num_envs", "batches", "batch_size"),
    *("episodes", "soak_steps", "soak_resets"),
)
HEADER: Final = ("command", "config", "config_hash", "versions", "revision", "machine")


@dataclass(frozen=True)
class BenchConfig(WorkerOptions):
    """Measure speed against MuJoCo and LeRobot."""

    parts: tuple[Part, ...] = (
        "experts",
        "env",
        "tasks",
        "peers",
        "data",
    )  # what to measure
    tasks: tuple[str, ...] = ()  # of `experts`, `tasks` and `soak`, e.g. Lift; by default all
    results: Path = Path("docs/results")  # where the summary, speed.json, goes
    out: Path = Path("runs/bench")  # figures of each part, and the data unless given
    data: Path | None = None  # dataset to sample from; by default it is recorded
    episodes: int = 600  # demonstrations to record, unless data is given
    expert_episodes: int = 500  # of each scripted expert
    blocks: int = 40  # blocks of `env`, each side takes one in turn
    num_envs: int = 64  # environments side by side in the batched measurement
    batches: int = 10  # batches that each side of `data` draws
    batch_size: int = 128  # samples in each of them
    loader_workers: int = 2  # processes of LeRobot's DataLoader; `data` tries 0 as well
    soak_steps: int = 10_000_000  # control steps of `soak`, over all tasks
    soak_resets: int = 10_000  # of `soak`, with pictures, over all tasks
    seed: int = 0  # of the samples that are drawn


def bench(config: BenchConfig) -> dict[str, Any]:
    """Runs the parts, writes `<results>/speed.json`, and returns its figures.

    Raises:
        ValueError, OSError: unusable options, data or folders; figures of finished parts are kept.
    """
    check_positive(config, *POSITIVE)
    for folder in (config.out, config.results):  # what cannot be written shows at once
        folder.mkdir(parents=True, exist_ok=True)
    for part in config.parts:
        Console(stderr=True).print(f"[bold]bench {part}[/]")
        module = import_module(f"robolearn.bench.{part}")
        measured = module.measure(config)
        save_result(config.out, part, config, measured)
        if part in OWN_SUMMARY:
            before = _read(config.results / f"{part}.json") if config.tasks else {}
            save_result(config.results, part, config, module.merged(measured, before))
    figures = collect(config.out, FIGURES, config.results / "speed.json", config.parts)
    if set(config.parts) - set(OWN_SUMMARY):
        save_result(config.results, "speed", config, figures)
    return figures


def with_other_rows(measured: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Some tasks' rows beside those of the others that were measured before."""
    rows = {**(before.get("tasks") or {}), **(measured.get("tasks") or {})}
    return {**measured, "tasks": rows} if rows else measured


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def collect(
    folder: Path, parts: Mapping[str, tuple[str, ...]], summary: Path, fresh: Collection[str]
) -> dict[str, Any]:
    """The figures of the parts that were measured into `folder`, and of the others from before.

    `parts` of the result tells the command, config and versions with which each was measured.

    Args:
        folder: has a file for each part that was measured.
        parts: the figures that every part has; null where there are none yet.
        summary: the result file, which keeps the figures of the other parts.
        fresh: the parts that were measured just now.
    """
    figures: dict[str, Any] = {name: None for names in parts.values() for name in names}
    before = _read(summary)
    headers: dict[str, Any] = {k: v for k, v in before.get("parts", {}).items() if k in parts}
    figures |= {key: value for key, value in before.items() if key not in (*HEADER, "parts")}
    for part in parts:
        path = folder / f"{part}.json"
        if part in fresh:
            measured = _read(path)
            headers[part] = {key: measured.pop(key) for key in HEADER}
            figures |= with_other_rows(measured, figures) if part == "tasks" else measured
    return {**figures, "parts": headers}


def demonstrations(config: BenchConfig) -> Path:
    """The dataset folder: the given one as it is, else `<out>/data`, recorded where incomplete.

    Raises:
        DatasetError: the folder holds something else.
    """
    from robolearn.options import RecordConfig
    from robolearn.record import record  # noqa: PLC0415 (brings the simulator)

    if config.data:
        return config.data
    folder = config.out / "data"
    record(RecordConfig(out=folder, env=ENV, episodes=config.episodes, **worker_options(config)))
    return folder


def main(config: BenchConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("figure", "measured", "goal")
    for name in (name for names in FIGURES.values() for name in names if name not in ROWS):
        goal = f">= {GOALS[name]:g}" if name in GOALS else ""
        table.add_row(name, _text(figures[name]), goal)
    Console().print(table)
    for name in ROWS:
        _print_rows(figures[name] or {})
    print(f"{config.results} holds everything")
    return 0


def _print_rows(rows: dict[str, dict[str, Any]]) -> None:
    """A line for each task or package."""
    for name, row in rows.items():
        print(f"{name}: {_text(row)}")


def chosen_tasks(config: BenchConfig) -> list[str]:
    """The ids of the simulated tasks that shall be measured.

    Raises:
        ValueError: a task that does not exist.
    """
    from robolearn.registry import simulated_ids  # brings the simulator

    known = {name_of(env_id): env_id for env_id in simulated_ids()}
    if unknown := [name for name in config.tasks if name not in known]:
        raise ValueError(f"no task {unknown[0]!r}; choose among {', '.join(known)}")
    return [known[name] for name in config.tasks or known]


def name_of(env_id: str) -> str:
    """`robolearn/Lift-v0` -> `Lift`."""
    return env_id.partition("/")[2].removesuffix("-v0")


def _text(value: float | str | dict[str, Any] | None) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
