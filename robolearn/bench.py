"""`robolearn bench`: this project's speed against bare MuJoCo and against LeRobot.

| part | what is measured |
|---|---|
| `env` | state steps, one environment and batched, as a share of bare `mj_step`; camera pictures |
| `data` | random training batches against stock LeRobotDataset with a DataLoader |
| `train` | samples/s and time to 80 % success against LeRobot's own ACT and Diffusion policies |

The two sides of a comparison take turns in short blocks and the median of the blocks' ratios
counts, because a machine may be busy with other things. A part's figures are kept in `out` as soon
as it is done; the summary holds what all parts have measured so far.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

from robolearn.results import save_result

Part = Literal["expert", "env", "data", "train"]
ENV: Final = "robolearn/PickPlace-v0"
# part -> its figures that the summary always holds; null until the part has run
FIGURES: Final[dict[str, tuple[str, ...]]] = {
    "expert": ("expert_success",),
    "env": (
        "step_rate_share_of_mj_step",
        "batched_share_of_mj_step",
        "pixels_speedup_over_default_render",
    ),
    "data": ("sampling_speedup_over_lerobot",),
    "train": ("train_samples_per_s", "time_to_80_percent_s"),
}
GOALS: Final = {
    "expert_success": 0.98,
    "step_rate_share_of_mj_step": 0.80,
    "batched_share_of_mj_step": 0.85,
    "pixels_speedup_over_default_render": 20.0,
    "sampling_speedup_over_lerobot": 20.0,
}
POSITIVE: Final = (
    *("expert_episodes", "blocks", "num_envs", "batches", "batch_size"),
    *("episodes", "minutes", "checkpoints", "evaluate"),
)
HEADER: Final = ("command", "config", "config_hash", "versions", "revision", "machine")


@dataclass(frozen=True)
class BenchConfig:
    """Measure speed against MuJoCo and LeRobot."""

    parts: tuple[Part, ...] = ("expert", "env", "data", "train")  # what to measure
    results: Path = Path("docs/results")  # where the summary, speed.json, goes
    out: Path = Path("runs/bench")  # figures of each part, runs, and the data unless given
    data: Path | None = None  # dataset to sample from and to train on; by default it is recorded
    episodes: int = 600  # demonstrations to record, unless data is given
    expert_episodes: int = 500  # of the scripted expert
    blocks: int = 40  # blocks of `env`, each side takes one in turn
    num_envs: int = 64  # environments side by side in the batched measurement
    batches: int = 10  # batches that each side of `data` draws
    batch_size: int = 128  # samples in each of them
    loader_workers: int = 2  # processes of LeRobot's DataLoader; `data` tries 0 as well
    minutes: float = 15.0  # of training for each policy
    checkpoints: int = 3  # evaluations during training, at equal distances
    evaluate: int = 100  # episodes of an evaluation
    workers: int = 2  # processes that record and evaluate
    seed: int = 0  # of training; evaluation uses seeds from 0


def bench(config: BenchConfig) -> dict[str, Any]:
    """Runs the parts, writes `<results>/speed.json`, and returns its figures.

    Raises:
        ValueError, OSError: unusable options, data or folders; figures of finished parts are kept.
    """
    for option in POSITIVE:
        if getattr(config, option) <= 0:
            name = option.replace("_", "-")
            raise ValueError(f"--{name} is {getattr(config, option)}; give it more than 0")
    for folder in (config.out, config.results):  # what cannot be written shows at once
        folder.mkdir(parents=True, exist_ok=True)
    for part in config.parts:
        Console(stderr=True).print(f"[bold]bench {part}[/]")
        module = import_module(f"robolearn.bench_{part}")
        save_result(config.out, part, config, module.measure(config))
    figures = collect(config.out, FIGURES)
    save_result(config.results, "speed", config, figures)
    return figures


def collect(folder: Path, parts: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The figures of all parts that were measured into `folder`, null for the others.

    `parts` of the result tells the command, config and versions with which each was measured.

    Args:
        folder: has a file for each part that was measured.
        parts: the figures that every part has.
    """
    figures: dict[str, Any] = {name: None for names in parts.values() for name in names}
    headers: dict[str, Any] = {}
    for part in parts:
        path = folder / f"{part}.json"
        if path.exists():
            measured = json.loads(path.read_text())
            headers[part] = {key: measured.pop(key) for key in HEADER}
            figures |= measured
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
    record(RecordConfig(out=folder, env=ENV, episodes=config.episodes, workers=config.workers))
    return folder


def main(config: BenchConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("figure", "measured", "goal")
    for name in (name for names in FIGURES.values() for name in names):
        goal = f">= {GOALS[name]:g}" if name in GOALS else ""
        table.add_row(name, _text(figures[name]), goal)
    Console().print(table)
    print(f"{config.results / 'speed.json'} holds everything")
    return 0


def _text(value: float | dict[str, float | None] | None) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
