"""The tables of `robolearn bench-foreign`: policies on tasks that others wrote."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from robolearn.bench.tables import LEARNERS, NOT_MEASURED, Result, Results, Rows, percent, success
from robolearn.stats import mean_interval

PACKAGES: Final = {
    "metaworld": "Meta-World, MT10",
    "aloha": "gym-aloha",
    "pusht": "gym-pusht",
}


def foreign_table(package: str, results: Results) -> Rows:
    """Success of every policy on every task of a package, with the seconds that it was trained."""
    tasks = results.get(package, {}).get("tasks", {})
    if not tasks:
        return [["task", "success"], [NOT_MEASURED, ""]]
    names = list(dict.fromkeys(name for rows in tasks.values() for name in rows))
    table = [["task", *(LEARNERS.get(name, name) for name in names)]]
    for task, rows in tasks.items():
        table.append([f"`{task}`", *(_cell(rows.get(name)) for name in names)])
    means = results[package].get("mean_success", {})
    cells = [f"**{percent(means[name])}**" if name in means else "" for name in names]
    return [*table, ["mean", *cells]] if len(tasks) > 1 else table


def _cell(row: dict | None) -> str:
    if row is None:
        return NOT_MEASURED
    return f"{success(row)}, n = {row['n']}, {row['seconds']:.0f} s"


def summary_table(results: Results) -> Rows:
    """Mean success of every policy over the tasks of a package on which it was measured."""
    measured = {package: results.get(package, {}).get("tasks", {}) for package in PACKAGES}
    seen = [rows for tasks in measured.values() for rows in tasks.values()]
    names = [name for name in LEARNERS if any(name in rows for rows in seen)]
    table = [["", *(LEARNERS[name] for name in names)]]
    for package, tasks in measured.items():
        table.append([PACKAGES[package], *(_mean_cell(name, tasks) for name in names)])
    return table


def _mean_cell(name: str, tasks: Mapping[str, Mapping[str, Result]]) -> str:
    rows = [rows[name] for rows in tasks.values() if name in rows]
    if not rows:
        return NOT_MEASURED
    means = [[row[f"success{end}"] for row in rows] for end in ("", "_low", "_high")]
    mean, spent = sum(means[0]) / len(rows), sum(row["seconds"] for row in rows) / len(rows)
    low, high = mean_interval(*means)
    rate = success({"success": mean, "success_low": low, "success_high": high})
    of = f"{len(rows)} of {len(tasks)} tasks" if len(tasks) > 1 else "1 task"
    return f"{rate}, {of}, n = {sum(row['n'] for row in rows)}, {spent:.0f} s each"


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    **{package: partial(foreign_table, package) for package in PACKAGES},
    "foreign": summary_table,
}
