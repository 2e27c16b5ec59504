"""The tables of policies that are shown their goal, of what bench-act2goal wrote; see `docs.py`."""

from collections.abc import Callable
from typing import Any, Final

from robolearn.bench.tables import NOT_MEASURED, Result, Results, Rows, percent, points, success

PRACTISED: Final = "+"  # in the name of a method that has practised


def act2goal_table(results: Results) -> Rows:
    """Success of every method on every task, in distribution, and the mean beside the first."""
    tasks, means = _of(results)
    rows = [["", *tasks, "mean", "points", "a decision"]]
    for number, (name, mean) in enumerate(_methods(means)):
        cells = [success(task[name]["in_distribution"]) for task in tasks.values()]
        found = mean["in_distribution"]
        gain, decision = points(found) if number else "", f"{mean['plan_ms']:.0f} ms"
        rows.append([f"`{name}`", *cells, percent(found["success"]), gain, decision])
    return _or_unmeasured(rows)


def distance_table(results: Results) -> Rows:
    """Success of every method with near, farther and far goals, on every task."""
    tasks, _ = _of(results)
    names = [name for name in next(iter(tasks.values()), {}) if PRACTISED not in name]
    rows = [["task", "steps to the goal", *(f"`{name}`" for name in names)]]
    for task, methods in tasks.items():
        for number, first in enumerate(next(iter(methods.values()))["by_distance"]):
            cells = [_at(methods.get(name), number) for name in names]
            rows.append([task, "{} to {}".format(*first["steps"]), *cells])
    return _or_unmeasured(rows)


def _at(method: Result | None, number: int) -> str:
    return percent(method["by_distance"][number]["success"]) if method else NOT_MEASURED


def practice_table(results: Results) -> Rows:
    """Success before and after practice, out of distribution and in it."""
    tasks, _ = _of(results)
    rows = [["task", "method", "beyond, before", "beyond, after", "points", "minutes", "forgotten"]]
    for task, methods in tasks.items():
        for name in (name for name in methods if PRACTISED in name):
            before, after = methods[name.partition(PRACTISED)[0]], methods[name]
            beyond = after["out_of_distribution"]
            shown = [success(row["out_of_distribution"]) for row in (before, after)]
            figures = [points(beyond), f"{after['minutes']:.1f}"]
            lost = f"{after['forgetting_points']:+.1f} points"
            rows.append([task, f"`{name}`", *shown, *figures, lost])
    return _or_unmeasured(rows)


def scene_table(results: Results) -> Rows:
    """Success of every method, before and after practice, in known scenes and in novel ones."""
    tasks, _ = _of(results, "act2goal-novel-scene")
    rows = [["task", "method", "known scenes", "novel scenes", "minutes of practice"]]
    for task, methods in tasks.items():
        for name, row in methods.items():
            shown = [success(row[part]) for part in ("in_distribution", "out_of_distribution")]
            minutes = f"{row['minutes']:.1f}" if "minutes" in row else ""
            rows.append([task, f"`{name}`", *shown, minutes])
    return _or_unmeasured(rows)


def _of(results: Results, name: str = "act2goal") -> tuple[dict[str, Result], dict[str, Any]]:
    found = results.get(name, {})
    return found.get("tasks", {}), found.get("mean", {})


def _methods(means: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, mean) for name, mean in means.items() if PRACTISED not in name]


def _or_unmeasured(rows: Rows) -> Rows:
    return rows if len(rows) > 1 else [*rows, [NOT_MEASURED, *[""] * (len(rows[0]) - 1)]]


TABLES: Final[dict[str, Callable[[Results], Rows]]] = {
    "act2goal": act2goal_table,
    "act2goal-distance": distance_table,
    "act2goal-practice": practice_table,
    "act2goal-scene": scene_table,
}
