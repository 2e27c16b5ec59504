"""The tables of what choosing among candidates is worth, made of taco.json; see `docs.py`."""

from collections.abc import Callable
from typing import Final

from robolearn.bench.tables import NOT_MEASURED, Result, Results, Rows, percent, points, success
from robolearn.bench.taco_report import ABLATIONS, LATENCIES, SCORERS, curve


def taco_table(results: Results) -> Rows:
    """What TACO's choice among candidates is worth on every task."""
    taco = results.get("taco", {})
    rows = [["", "one candidate", f"TACO, {_candidates(taco)}", "points", "only TACO", "only one"]]
    for label, row in _taco_lines(taco).items():
        one, many = row["base"], row["taco"]
        pairs = [str(many[key]) for key in ("gained", "lost")]
        rows.append([label, success(one), success(many), points(many), *pairs])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, *[""] * 5]]


def taco_scorer_table(results: Results) -> Rows:
    """Points of success that every scorer gains by choosing among the same candidates."""
    taco = results.get("taco", {})
    rows = [[_candidates(taco), *SCORERS.values()]]
    for label, row in _taco_lines(taco).items():
        rows.append([label, *(points(row[name]) for name in SCORERS)])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, *[""] * len(SCORERS)]]


def taco_candidates_table(results: Results) -> Rows:
    """TACO's success by the number of candidates, where it was asked for."""
    taco = results.get("taco", {})
    tasks = taco.get("tasks", {}).get("structured", {})
    lines = {
        task: {count: percent(rate) for count, rate, *_ in curve(row, taco["config"]["compared"])}
        for task, row in tasks.items()
        if task in taco["config"]["ablated"]
    }
    counts = sorted({count for line in lines.values() for count in line})
    rows = [[label, *(line.get(c, NOT_MEASURED) for c in counts)] for label, line in lines.items()]
    return [["candidates", *map(str, counts)], *(rows or [[NOT_MEASURED]])]


def taco_ablation_table(results: Results) -> Rows:
    """TACO with one thing done otherwise."""
    rows = [["", "success", "points, against TACO as it is"]]
    for task, row in results.get("taco", {}).get("ablations", {}).items():
        rows.append([f"TACO as it is, {task}, n = {row['n']}", success(row["taco"]), ""])
        for name, label in ABLATIONS.items():
            rows.append([label, success(row[name]), points(row[name])])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, "", ""]]


def taco_latency_table(results: Results) -> Rows:
    """What a decision among many candidates costs."""
    taco = results.get("taco", {})
    rows = [["", "median", "99th percentile"]]
    for name, label in LATENCIES.items():
        keys = [f"latency_{name}_p{q}_ms" for q in (50, 99)]
        cells = [f"{taco[key]:.1f} ms" if key in taco else NOT_MEASURED for key in keys]
        rows.append([label, *cells])
    return rows


def _candidates(taco: Result) -> str:
    return f"{taco['config']['compared']} candidates" if taco else "many candidates"


def _taco_lines(taco: Result) -> dict[str, Result]:
    """The outcomes of all tasks, and those of each sort together."""
    lines: dict[str, Result] = {}
    for sort, tasks in taco.get("tasks", {}).items():
        lines |= {f"{task}, {sort}, n = {row['n']}": row for task, row in tasks.items()}
        lines[f"all of them, {sort}"] = taco[sort]
    return lines


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    "taco": taco_table,
    "taco-scorers": taco_scorer_table,
    "taco-candidates": taco_candidates_table,
    "taco-ablations": taco_ablation_table,
    "taco-latency": taco_latency_table,
}
