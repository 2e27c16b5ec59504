"""The tables of `robolearn bench-foreign`: policies on tasks that others wrote."""

from collections.abc import Callable
from functools import partial
from typing import Final

from robolearn.tables import LEARNERS, NOT_MEASURED, Results, Rows, percent, success

PACKAGES: Final = ("metaworld", "aloha", "pusht")


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


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    package: partial(foreign_table, package) for package in PACKAGES
}
