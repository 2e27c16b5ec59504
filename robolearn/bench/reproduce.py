"""`robolearn reproduce`: runs what the result files say was run, and prints which figures moved.

Every file in docs/results holds the command that wrote it. The commands run again, each in a folder
of its own, so that nothing that was made before helps. They take the policies that `demo` and
`long` make anew, and `demo`'s instead of one that no command makes. A file whose rows came from
several commands is measured whole. Then the tables of README are made of the old results and of the
new ones, and compared cell by cell:

| a cell with | has moved if |
|---|---|
| intervals | two of them do not overlap |
| a p-value | a difference is real (p < 0.05) in one of them only, or turned round |
| other numbers | one of them differs by more than `tolerance` of the larger one |
| a command | never |

Speeds are of the machine: on another one, ratios stay and times move. What was finished stays, so a
run that was cut off goes on. What can't be made again does not keep the others from it.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

FIRST: Final = ("demo", "long")  # whose policies others measure
# A run of theirs, also in flow=runs/demo.
MADE: Final = re.compile(rf"(?<![^=])runs/(?=(?:{'|'.join(FIRST)})(?:/|$))")
REAL: Final = 0.05  # a smaller p-value is of a real difference
INTERVAL: Final = re.compile(r"\((?P<low>[\d.]+) % to (?P<high>[\d.]+) %\)")
EFFECT: Final = re.compile(r"(?P<points>[+-][\d.]+) \(p (?P<p>[\d.e+-]+)\)")
NUMBER: Final = re.compile(r"[+-]?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")
Result = Mapping[str, Any]


@dataclass(frozen=True)
class ReproduceConfig:
    """Run the measuring commands again, and print which figures of README moved."""

    only: tuple[str, ...] = ()  # result files, e.g. demo experts; by default all
    results: Path = Path("docs/results")  # what was measured before
    document: Path = Path("README.md")  # whose tables are compared
    out: Path = Path("runs/reproduce")  # new runs and results; remove it to begin anew
    tolerance: float = 0.25  # share by which numbers may differ that have no interval


class Moved(NamedTuple):
    """A cell of a table that is not what it was."""

    table: str
    row: str
    column: str
    before: str
    now: str


def reproduce(config: ReproduceConfig) -> tuple[list[Moved], list[str]]:
    """Runs what is missing, and returns the cells that moved, and what could not be made again.

    Raises:
        ValueError: unknown names.
    """
    from robolearn.docs import load_results

    before, new = load_results(config.results), config.out / "results"
    failed = []
    for name in _names(config, before):
        for part, asked in _parts(before[name]).items():
            if part not in _parts(load_results(new).get(name)):
                folders = {"out": config.out / name / part, "results": new}
                arguments = anew(asked, folders, config.out)
                if part:  # one command may have measured several
                    arguments = [*_without("parts", arguments, many=True), "--parts", part]
                if _is_of_some(asked, before[name]):
                    arguments = _without("tasks", arguments, many=True)
                if not _runs(name, arguments):
                    failed.append(f"{name} {part}".strip())
    now = {**before, **load_results(new)}
    return list(moved(config.document.read_text(), before, now, config.tolerance)), failed


def _names(config: ReproduceConfig, known: Mapping[str, Result]) -> list[str]:
    """What is asked for, in the order in which it can be made."""
    if unknown := sorted(set(config.only) - set(known)):
        raise ValueError(
            f"no result {', '.join(unknown)} in {config.results}; there are {', '.join(known)}"
        )
    return sorted(config.only or known, key=lambda name: (name not in FIRST, name))


def _parts(result: Result | None) -> Mapping[str, Result]:
    """What was measured by a command each, with the command: often one part without a name."""
    return {} if result is None else result.get("parts", {"": result})


def _runs(name: str, arguments: list[str]) -> bool:
    Console(stderr=True).print(f"[bold]{name}[/] robolearn {shlex.join(arguments)}")
    done = subprocess.run([sys.executable, "-m", "robolearn", *arguments], check=False)
    return not done.returncode


def anew(asked: Result, folders: Mapping[str, Path], made: Path) -> list[str]:
    """The arguments of a command with other folders.

    Args:
        asked: the command as it was typed, and its config.
        folders: by option, for those that the command has.
        made: has the runs of `demo` and `long`.
    """
    typed = [MADE.sub(f"{made}/", text) for text in shlex.split(asked["command"])[1:]]
    arguments = [
        str(made / FIRST[0]) if before == "--policy" and text.startswith("runs/") else text
        for before, text in pairwise(["", *typed])
    ]
    for option, folder in folders.items():
        if option in asked["config"]:
            arguments = [*_without(option, arguments), f"--{option}", str(folder)]
    return arguments


def _without(option: str, arguments: list[str], *, many: bool = False) -> list[str]:
    """The arguments without an option and its value, or its many values."""
    kept = [text for text in arguments if not text.startswith(f"--{option}=")]
    if f"--{option}" not in kept:
        return kept
    at = kept.index(f"--{option}")
    after = (k for k in range(at + 1, len(kept)) if kept[k].startswith("--"))
    return kept[:at] + kept[next(after, len(kept)) if many else at + 2 :]


def _is_of_some(asked: Result, result: Result) -> bool:
    """Whether a command measured fewer tasks than its file holds: the others came before."""
    return 0 < len(asked["config"].get("tasks") or ()) < len(result.get("tasks") or ())


def moved(
    text: str, before: Mapping[str, Result], now: Mapping[str, Result], tolerance: float
) -> Iterator[Moved]:
    """The cells of a document's tables that are not what they were."""
    from robolearn.docs import TABLE, TABLES

    for match in TABLE.finditer(text):
        name = match["name"]
        old, new = ({row[0]: row for row in TABLES[name](dict(r))} for r in (before, now))
        header = TABLES[name](dict(now))[0]
        for label in old | new:
            pair = (rows.get(label, [label]) for rows in (old, new))
            for column, was, is_now in _cells(header, *pair):
                if not alike(was, is_now, tolerance):
                    yield Moved(name, label, column, was, is_now)


def _cells(header: list[str], old: list[str], new: list[str]) -> Iterator[tuple[str, str, str]]:
    """Column, and what both rows have there; "" where a row has nothing."""
    for k in range(1, len(header)):
        before, now = (row[k] if k < len(row) else "" for row in (old, new))
        yield header[k], before, now


def alike(before: str, now: str, tolerance: float) -> bool:
    """Whether a cell says the same; see the module's docstring."""
    if before.startswith("`"):
        return True
    if NUMBER.sub("", before) != NUMBER.sub("", now):
        return False
    if INTERVAL.search(before):
        pairs = zip(INTERVAL.finditer(before), INTERVAL.finditer(now), strict=True)
        return all(_overlap(*pair) for pair in pairs)
    if effects := [match for cell in (before, now) if (match := EFFECT.search(cell))]:
        return _direction(effects[0]) == _direction(effects[1])
    numbers = zip(_numbers(before), _numbers(now), strict=True)
    return all(abs(a - b) <= tolerance * max(abs(a), abs(b)) for a, b in numbers)


def _overlap(one: re.Match[str], other: re.Match[str]) -> bool:
    (low, high), (lowest, highest) = (map(float, m.group("low", "high")) for m in (one, other))
    return low <= highest and lowest <= high


def _direction(effect: re.Match[str]) -> int:
    """-1, 0 or 1: worse, no real difference, better."""
    sign = 1 if float(effect["points"]) > 0 else -1
    return sign * (float(effect["p"]) < REAL)


def _numbers(cell: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(cell)]


def main(config: ReproduceConfig) -> int:
    """Runs the command; 1 if something moved, or could not be made again."""
    found, failed = reproduce(config)
    table = Table("table", "row", "column", "before", "now")
    for cell in found:
        table.add_row(*cell)
    if found:
        Console().print(table)
    count = len(found) or "none"
    print(f"{count} of the figures moved; the new ones are in {config.out}/results")
    if failed:
        print(f"{', '.join(failed)} could not be made again: see above, mend it, run this again")
    return 1 if found or failed else 0
