"""`robolearn bench-scale`: episodes a minute of one and two workers and of a Ray cluster.

The same seeds, once for each way of playing them: first in this process, with which the others are
compared, bit for bit. The cluster is one of several nodes on this machine, so Ray costs what it
costs, and its nodes share the cores with all else. At last one of them is lost in the middle.

Opening the environments and policies does not count: every worker plays a few seeds before.
"""

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from robolearn.options import EvalConfig, check_at_least
from robolearn.results import save_result

if TYPE_CHECKING:
    from robolearn.episodes import Episode
    from robolearn.workers import Play

WARM_UP: Final = 4  # episodes of each worker
Row = dict[str, Any]
Crew = AbstractContextManager["Play"]


@dataclass(frozen=True, kw_only=True)
class BenchScaleConfig:
    """Measure what workers and a Ray cluster are worth."""

    policy: str  # a checkpoint, or a run (its newest checkpoint)
    env: str = ""  # environment id; by default the one that the policy was trained on
    results: Path = Path("docs/results")  # where the summary, scale.json, goes
    episodes: int = 100  # of each measurement
    seed: int = 0  # of the first episode
    workers: tuple[int, ...] = (1, 2)  # processes
    nodes: int = 2  # of the Ray cluster, of one CPU each
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses what measures nothing.

        Raises:
            ValueError: naming the option.
        """
        check_at_least(self, 1, "episodes")
        check_at_least(self, 2, "nodes")
        if min(self.workers, default=1) < 1:
            raise ValueError(f"--workers is {self.workers}; give counts of 1 or more")


def bench(config: BenchScaleConfig) -> Row:
    """Measures, writes `<results>/scale.json` and returns its figures.

    Raises:
        ValueError, OSError: a policy that does not fit, or Ray is not installed.
    """
    from robolearn.cluster import nodes_here
    from robolearn.evaluate import job_of, resolved
    from robolearn.workers import crew

    plain: Any = {"env": config.env, "device": config.device, "out": config.results}
    settings = resolved(EvalConfig(policy=config.policy, **plain))[0]
    job = replace(job_of(settings), reduce=digest)
    seeds = range(config.seed, config.seed + config.episodes)
    ways: dict[str, Row] = {}

    def measure(name: str, opened: Crew, warm_up: int, lose: Callable[[], None] = _nothing) -> None:
        Console(stderr=True).print(f"[bold]bench-scale[/] {name}")
        ways[name] = _timed(opened, seeds, warm_up, lose)

    with nodes_here(config.nodes) as (address, lose):  # first: a missing Ray shows at once
        measure("this process", crew(job), WARM_UP)
        for count in config.workers:
            measure(f"{count} worker{'s' * (count > 1)}", crew(job, count), WARM_UP * count)
        name, warm_up = f"{config.nodes} Ray nodes", WARM_UP * config.nodes
        measure(name, crew(job, ray=address), warm_up)
        measure(f"{name}, one lost", crew(job, ray=address), warm_up, lose)
    figures = _compared(ways) | {"n": config.episodes, "env": settings.env}
    save_result(config.results, "scale", config, figures | {"policy": settings.policy})
    return figures


def _nothing() -> None:
    """Loses no node."""


def digest(episode: "Episode") -> str:
    """Sixty-four hex digits that differ whenever a bit of an episode differs."""
    seen = hashlib.sha256()
    parts = {**episode.observations, "action": episode.action, "reward": episode.reward}
    for name in sorted(parts):
        seen.update(name.encode())
        seen.update(parts[name].tobytes())
    return seen.hexdigest()


def _timed(opened: Crew, seeds: range, warm_up: int, lose: Callable[[], None]) -> Row:
    """Digests of all seeds, and how long they took; half way, something may be lost."""
    with opened as play:
        list(play(range(seeds.stop, seeds.stop + warm_up)))
        begin = time.perf_counter()
        episodes = iter(play(seeds))
        digests = list(islice(episodes, len(seeds) // 2))
        lose()
        digests += episodes
        seconds = time.perf_counter() - begin
    per_minute = 60.0 * len(seeds) / seconds
    return {"seconds": seconds, "episodes_per_minute": per_minute, "digests": digests}


def _compared(ways: dict[str, Row]) -> Row:
    """Whether all came to the same, and their speeds."""
    first = next(iter(ways.values()))["digests"]
    rows = {
        name: {
            **{key: value for key, value in way.items() if key != "digests"},
            "identical": way["digests"] == first,
        }
        for name, way in ways.items()
    }
    return {"ways": rows, "identical": all(row["identical"] for row in rows.values())}


def main(config: BenchScaleConfig) -> int:
    """Runs the command."""
    figures = bench(config)
    table = Table("who plays", "episodes a minute", "identical")
    for name, row in figures["ways"].items():
        table.add_row(
            name, f"{row['episodes_per_minute']:.1f}", "yes" if row["identical"] else "NO"
        )
    Console().print(table)
    print(f"{config.results / 'scale.json'} holds everything")
    return 0
