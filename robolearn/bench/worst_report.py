"""The page of `robolearn bench worst`: the dynamics that were found, and how the search went."""

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from robolearn.files import write_atomic
from robolearn.pages import page
from robolearn.report import chosen_videos, embed
from robolearn.results import Result

VIDEOS: Final = 24  # embedded at most
Row = Mapping[str, Any]


def write_worst_report(out: Path, worst: Result) -> None:
    """Writes `worst.html` beside the `result.json` of the search.

    Args:
        out: the folder, with the evaluation in `worst`.
        worst: that evaluation.

    Raises:
        OSError: it cannot be written.
        ReportError: a film is missing.
    """
    from robolearn import charts  # matplotlib

    result = json.loads((out / "result.json").read_text())
    points = result["search"]["points"]
    shown = chosen_videos(worst["episodes"], VIDEOS)
    values = {
        "result": result,
        "course": charts.course_chart(*course(points)),
        "sides": {
            name: charts.side_chart(name, along(points, name), result["dynamics"][name])
            for name in result["box"]
        },
        "reasons": sorted({*result["nominal"]["failures"], *result["worst"]["failures"]}),
        "videos": [(e, embed(out / "worst", str(e["video"]))) for e in shown],
    }
    write_atomic(out / "worst.html", page("bench/worst_template.html", **values).encode())


def course(points: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Success of every point, and of the worst one until then."""
    so_far = accumulate(points, _worse)
    return [_success(point) for point in points], [_success(point) for point in so_far]


def _worse(point: Row, other: Row) -> Row:
    return other if other["score"] < point["score"] else point


def along(points: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """Value and success of every point along one side of the box."""
    return [(point["dynamics"][name], _success(point)) for point in points]


def _success(point: Row) -> float:
    return point["successes"] / point["n"]
