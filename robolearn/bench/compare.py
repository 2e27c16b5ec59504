"""`robolearn bench compare`: runs of one suite against each other, pair by pair.

Every agent of the later runs is compared with every agent of the first run, on the seeds that both
have played. Runs of suites with different hashes are not compared.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from robolearn.bench.run import SUMMARY, lines
from robolearn.results import save_result

if TYPE_CHECKING:
    from robolearn.bench.standings import Entry

Row = dict[str, Any]


@dataclass(frozen=True)
class BenchCompareConfig:
    """Compare runs of one suite."""

    runs: Positional[tuple[Path, ...]]  # folders of `robolearn bench run`, the older one first
    out: Path | None = None  # folder for bench.json, bench.html and bench.md; by default only print
    page_videos: int = 24  # how many the page embeds at most


def compare(config: BenchCompareConfig) -> Row:
    """The standings of all runs together; writes them if asked to.

    Raises:
        ValueError: fewer than two runs, a folder without one, or suites that differ.
    """
    from robolearn.bench.standings import standings

    summaries = [_summary(folder) for folder in config.runs]
    _check_same_suite(config.runs, summaries)
    runs = [_entries(*pair) for pair in zip(config.runs, summaries, strict=True)]
    entries = _named_apart(config.runs, runs)
    count = len(runs[0])
    against = [(later, first) for later in entries[count:] for first in entries[:count]]
    suite = summaries[0]["suite"]
    differ = _differing(config.runs, [summary["versions"] for summary in summaries])
    figures = {"suite": suite, "versions_that_differ": differ}
    figures |= standings(entries, against, suite["stop"])
    if config.out:
        from robolearn.bench.leaderboard import write_leaderboard

        save_result(config.out, SUMMARY, config, figures)
        write_leaderboard(config.out / f"{SUMMARY}.json", entries, config.out, config.page_videos)
    return figures


def _summary(folder: Path) -> Row:
    try:
        return json.loads((folder / f"{SUMMARY}.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} holds no finished run ({error}); make one with: robolearn bench run SUITE"
        ) from error


def _check_same_suite(folders: Sequence[Path], summaries: Sequence[Row]) -> None:
    if len(summaries) < 2:
        raise ValueError("give two runs or more; of a single one bench.html shows everything")
    first = summaries[0]["suite"]
    for folder, summary in zip(folders, summaries, strict=True):
        suite = summary["suite"]
        if suite["hash"] != first["hash"]:
            raise ValueError(
                f"{folder} ran {suite['name']} {suite['hash']} and {folders[0]} {first['name']} "
                f"{first['hash']}: suites that differ give numbers that cannot be compared"
            )


def _differing(
    folders: Sequence[Path], versions: Sequence[Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Package -> folder -> version, of those with which not all have run."""
    every = {
        name: {
            str(folder): own.get(name, "") for folder, own in zip(folders, versions, strict=True)
        }
        for name in sorted(set().union(*versions))
    }
    return {name: row for name, row in every.items() if len({*row.values()}) > 1}


def _entries(folder: Path, summary: Row) -> list["Entry"]:
    from robolearn.bench.standings import read_entry

    labels = list(summary["suite"]["tasks"])
    return [read_entry(name, folder / name, labels) for name in summary["agents"]]


def _named_apart(folders: Sequence[Path], runs: Sequence[Sequence["Entry"]]) -> list["Entry"]:
    """Agents of one name in several runs get their run's name as well."""
    names = [entry.name for run in runs for entry in run]
    return [
        replace(e, name=f"{folder}:{e.name}") if names.count(e.name) > 1 else e
        for folder, run in zip(folders, runs, strict=True)
        for e in run
    ]


def main(config: BenchCompareConfig) -> int:
    """Runs the command."""
    figures = compare(config)
    print(*lines(figures), sep="\n")
    for name, row in figures["versions_that_differ"].items():
        told = ", ".join(f"{number or 'none'} in {folder}" for folder, number in row.items())
        print(f"{name} differs, and may be the cause: {told}")
    if config.out:
        print(f"{config.out / 'bench.html'} shows it; bench.json and bench.md lie beside it")
    return 0
