"""The page of `robolearn bench-taco`: what choosing was worth, task by task, and what it costs.

It is made of the summary that the benchmark writes, taco.json, however far that has come.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from robolearn.files import write_atomic
from robolearn.pages import page

Row = Mapping[str, Any]

# What a summary calls them, and how they read.
SCORERS: Final = {
    "taco": "TACO",
    "knn": "nearest neighbour",
    "mahalanobis": "Mahalanobis distance",
    "rnd": "random network distillation",
    "medoid": "medoid",
    "residual": "denoising residual",
    "random": "random choice",
}
ABLATIONS: Final = {
    "fixed-noise": "the same noise at every decision",
    "search-half": "feature search at noise 0.5",
    "search-full": "feature search among whole chunks",
    "no-prior": "no prior",
}
SORTS: Final = {
    "structured": "half of the demonstrations pursued another goal than the one that all are told",
    "scatter": "half of the demonstrations were crooked and hesitant",
}
LATENCIES: Final = {
    "one": "one candidate",
    "many": "32 candidates",
    "naive": "32 candidates, nothing shared",
}
SWEPT: Final = "taco_"  # and the number of candidates


def write_taco_report(summary: Path, out: Path) -> None:
    """Writes the page as one HTML file.

    Args:
        summary: taco.json.
        out: the HTML file.

    Raises:
        OSError: it cannot be written.
    """
    from robolearn.charts import candidates_chart  # matplotlib

    result = json.loads(summary.read_text())
    charts = {
        (sort, task): candidates_chart(f"{task}, {sort}", curve(row, result["config"]["compared"]))
        for sort, tasks in result["tasks"].items()
        for task, row in tasks.items()
        if any(name.startswith(SWEPT) for name in row)
    }
    names = {"scorers": SCORERS, "ablations": ABLATIONS, "sorts": SORTS, "latencies": LATENCIES}
    text = page("bench/taco_template.html", result=result, charts=charts, **names)
    write_atomic(out, text.encode())


def curve(row: Row, compared: int) -> list[tuple[int, float, float, float]]:
    """Number of candidates, success and its interval: the plain policy, then TACO.

    Args:
        row: the outcomes of a task.
        compared: candidates at which all scorers were compared.
    """
    swept = {name: value for name, value in row.items() if name.startswith(SWEPT)}
    counted = {int(name.removeprefix(SWEPT)): value for name, value in swept.items()}
    keys = ("success", "success_low", "success_high")
    return [
        (count, *(value[key] for key in keys))
        for count, value in sorted({1: row["base"], compared: row["taco"], **counted}.items())
    ]
