"""The page of a benchmark, and the same as Markdown.

Like all pages it stands alone: videos are data URIs, and links lead to places on the page.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robolearn.bench.standings import THRESHOLDS, Entry
from robolearn.files import write_atomic
from robolearn.pages import page, percent
from robolearn.report import chosen_videos, embed
from robolearn.results import EpisodeResult

Row = Mapping[str, Any]


def write_leaderboard(summary: Path, entries: Sequence[Entry], out: Path, max_videos: int) -> None:
    """Writes `bench.html` and `bench.md`.

    Args:
        summary: bench.json.
        entries: the agents, whose episodes and videos are shown.
        out: the folder.
        max_videos: how many videos are embedded at most, failures first.

    Raises:
        OSError: they cannot be written.
    """
    result = json.loads(summary.read_text())
    values = {
        "result": result,
        "agents": result["agents"],
        "reasons": _reasons(result["agents"]),
        "cells": _cells(result, entries, max_videos),
        **_charts(result),
    }
    write_atomic(out / "bench.html", page("bench/leaderboard_template.html", **values).encode())
    write_atomic(out / "bench.md", markdown(result).encode())


def _charts(result: Row) -> dict[str, Any]:
    """What the page draws, and the colours."""
    from robolearn import charts  # matplotlib

    agents = result["agents"]
    latency = {name: row["latency_ms"]["p50"] for name, row in agents.items()}
    seconds = {name: row.get("training_seconds") for name, row in agents.items()}
    minutes = {name: s / 60.0 for name, s in seconds.items() if s is not None}
    trained = _successes(agents, minutes)
    profiles = {name: row["profile"] for name, row in agents.items()}
    return {
        "series": charts.SERIES,
        "latency_chart": charts.cost_chart("decision, ms", _successes(agents, latency)),
        "training_chart": charts.cost_chart("training, minutes", trained) if trained else None,
        "profile_chart": charts.profile_chart(profiles, THRESHOLDS.tolist()),
        "levels": {
            title: charts.levels_chart(
                title, {name: _curve(row, levels) for name, row in agents.items()}
            )
            for title, levels in _levels(result["suite"]).items()
        },
    }


def _successes(
    agents: Row, costs: Mapping[str, float]
) -> dict[str, tuple[float, float, float, float]]:
    """Cost, success, and the ends of its interval, of the agents whose cost is known."""
    return {
        name: (cost, row["success"], row["success_low"], row["success_high"])
        for name, cost in costs.items()
        for row in [agents[name]]
    }


def _levels(suite: Row) -> dict[str, dict[int, str]]:
    """The curves of a suite: level -> the task's label, of a task that is varied in one thing.

    A task that has a variation alone at several levels makes one, with the plain task at level 0.
    """
    curves: dict[tuple[str, ...], dict[int, str]] = {}
    plain: dict[tuple[str, ...], str] = {}
    for label, task in suite["tasks"].items():
        base = tuple(str(task.get(key)) for key in ("env", "split", "instruction", "dynamics"))
        if not task["variations"]:
            plain[base] = label
        elif len(task["variations"]) == 1:
            ((name, level),) = task["variations"].items()
            curves.setdefault((name, *base), {})[level] = label
    several = {key: levels for key, levels in curves.items() if len(levels) > 1}
    return {
        _title(key, several): ({0: plain[key[1:]]} if key[1:] in plain else {}) | levels
        for key, levels in several.items()
    }


def _title(key: tuple[str, ...], curves: Mapping[tuple[str, ...], object]) -> str:
    """The variation, and where several tasks have it, whose."""
    name, env, split, *_ = key
    alone = sum(other[0] == name for other in curves) == 1
    return name if alone else f"{name} of {env}, {split}"


def _curve(agent: Row, levels: Mapping[int, str]) -> list[tuple[float, ...]]:
    """Success by the level of a variation."""
    cells = {level: agent["tasks"][label] for level, label in sorted(levels.items())}
    ends = ("success", "success_low", "success_high")
    return [(float(level), *(cell[end] for end in ends)) for level, cell in cells.items()]


def _reasons(agents: Row) -> list[str]:
    """All groups of failures that occurred, the most frequent first."""
    count: dict[str, int] = {}
    for row in agents.values():
        for name, times in row["failures"].items():
            count[name] = count.get(name, 0) + times
    return sorted(count, key=lambda name: -count[name])


def _cells(result: Row, entries: Sequence[Entry], max_videos: int) -> list[Row]:
    """Every agent on every task, the weakest first: its failed seeds by group, and videos."""
    cells = [(label, entry) for label in result["suite"]["tasks"] for entry in entries]
    cells.sort(key=lambda cell: cell[1].results[cell[0]]["success"])
    share, left = max(1, max_videos // len(cells)), max_videos
    rows: list[Row] = []
    for label, entry in cells:
        shown = chosen_videos(entry.results[label]["episodes"], min(share, left))
        left -= len(shown)
        folder = entry.folder / label
        rows.append(
            {
                "label": label,
                "agent": entry.name,
                "row": result["agents"][entry.name]["tasks"][label],
                "groups": _groups(entry.results[label]["episodes"]),
                "videos": [(e, embed(folder, str(e["video"]))) for e in shown],
            }
        )
    return rows


def _groups(episodes: Sequence[EpisodeResult]) -> dict[str, list[int]]:
    """The seeds of failed episodes by why they failed, the most frequent first."""
    groups: dict[str, list[int]] = {}
    for episode in episodes:
        if not episode["success"]:
            groups.setdefault(episode.get("failure", ""), []).append(episode["seed"])
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def markdown(result: Row) -> str:
    """The standings, success by task, and the pairs, as tables of Markdown."""
    suite, agents, pairs = result["suite"], result["agents"], result["pairs"]
    parts = [f"# {suite['name']}", f"{suite['title']}. Suite `{suite['hash']}`."]
    parts += [_table(_standings(agents)), _table(_by_task(suite, agents))]
    parts += [_table(_pairs(pairs))] if pairs else []
    return "\n\n".join(parts) + "\n"


def _standings(agents: Row) -> Iterator[Sequence[str]]:
    yield ("agent", "success", "95 % interval", "progress, IQM", "decision, p50 and p99")
    for name, row in agents.items():
        ends = f"{percent(row['success_low'])} to {percent(row['success_high'])}"
        times = f"{row['latency_ms']['p50']:.0f} and {row['latency_ms']['p99']:.0f} ms"
        yield (name, percent(row["success"]), ends, percent(row["score_iqm"]), times)


def _by_task(suite: Row, agents: Row) -> Iterator[Sequence[str]]:
    yield ("task", *agents)
    for label in suite["tasks"]:
        cells = [row["tasks"][label] for row in agents.values()]
        yield (label, *(f"{percent(c['success'])} ({c['successes']}/{c['n']})" for c in cells))


def _pairs(pairs: Sequence[Row]) -> Iterator[Sequence[str]]:
    yield ("agent", "against", "task", "points", "only the former", "only the latter", "p", "Holm")
    for pair in pairs:
        for label, row in {**pair["tasks"], "all": pair["all"]}.items():
            counts = (str(row["gained"]), str(row["lost"]))
            tests = (f"{row['p_value']:.2g}", f"{row['p_holm']:.2g}")
            points = f"{row['gain_points']:+.1f}"
            yield (pair["agent"], pair["against"], label, points, *counts, *tests)


def _table(rows: Iterator[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * (head.count(" | ") + 1), *body])
