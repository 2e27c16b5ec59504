"""The tables of post-training methods side by side, made of aloe*.json; see `docs.py`."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from robolearn.bench.tables import NOT_MEASURED, Result, Results, Rows, percent, points, success

# Conditions of `bench-aloe`, and what the table calls them.
ELSEWHERE: Final = {"recovery": "pushed", "unseen": "unseen objects"}


def aloe_table(results: Results, name: str = "aloe") -> Rows:
    """Success of every method on every task, and what it gains over the base on the mean."""
    aloe = results.get(name, {})
    tasks: dict[str, Result] = aloe.get("tasks", {})
    means = aloe.get("mean", {})
    elsewhere = [key for key in ELSEWHERE if any(key in mean for mean in means.values())]
    columns = ["mean", "points", "per hour", "AUC", *(ELSEWHERE[key] for key in elsewhere)]
    rows = [["", *tasks, *columns]]
    for name, mean in means.items():
        cells = [success(task[name]) for task in tasks.values()]
        others = [percent(mean[key]) if key in mean else "" for key in elsewhere]
        rows.append([f"`{name}`", *cells, percent(mean["success"]), *_beside(name, mean), *others])
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, *[""] * (len(rows[0]) - 1)]]


def _beside(name: str, mean: dict[str, Any]) -> list[str]:
    first = name == "base"
    return [
        "" if first else points(mean),
        f"{mean['per_hour']:.0f}",
        f"{mean['critic_auc']:.3f}" if "critic_auc" in mean else "",
    ]


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    "aloe": aloe_table,
    "aloe-state": partial(aloe_table, name="aloe-state"),
}
