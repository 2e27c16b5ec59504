"""The page of `robolearn improve`: success by round, what judged it, and what came out."""

import json
from pathlib import Path
from typing import Final

from robolearn.files import write_atomic
from robolearn.pages import page
from robolearn.rounds import columns_of

# Columns of the table of rounds beside round and success: what a row may have, its name and form.
COLUMNS: Final = {
    "corrected": ("Corrected", "{:.1%}"),
    "per_hour": ("Successes per hour", "{:.0f}"),
    "fragments": ("Fragments", "{:d}"),
    "effective": ("Effective share", "{:.2f}"),
    "kept": ("Kept", "{:.1%}"),
    "positive": ("Called good", "{:.1%}"),
    "critic_auc": ("AUC", "{:.3f}"),
    "critic_rank": ("Rank", "{:.2f}"),
    "critic_bias": ("Bias", "{:+.2f}"),
    "critic_error": ("Error", "{:.2f}"),
    "actor_loss": ("Loss of the policy", "{:.3f}"),
}
OUTCOMES: Final = {"actor": "the policy alone", "selected": "the critic's choice"}


def write_improve_report(summary: Path, out: Path) -> None:
    """Writes the page as one HTML file.

    Args:
        summary: result.json.
        out: the HTML file.

    Raises:
        OSError: it cannot be written.
    """
    from robolearn.charts import calibration_chart, rounds_chart  # matplotlib

    result = json.loads(summary.read_text())
    rows = result["rounds"]
    keys = ("round", "success", "success_low", "success_high")
    calibrated = [row["calibration"] for row in rows if row.get("calibration")]
    values = {
        "result": result,
        "columns": columns_of(rows, COLUMNS),
        "outcomes": {name: text for name, text in OUTCOMES.items() if name in result},
        "rounds": rounds_chart([tuple(row[key] for key in keys) for row in rows]),
        "calibration": calibration_chart(calibrated[-1]) if calibrated else None,
    }
    write_atomic(out, page("improve_template.html", **values).encode())
