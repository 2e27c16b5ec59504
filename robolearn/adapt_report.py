"""The page of `robolearn adapt`: success by round, what was forgotten, and what was imagined."""

import json
from pathlib import Path
from typing import Final

from robolearn.files import write_atomic
from robolearn.pages import page
from robolearn.rounds import columns_of

STRIP: Final = "imagined.png"  # in the folder of a round
# The table of rounds: what a row may have, its name and form.
COLUMNS: Final = {
    "round": ("Round", "{:d}"),
    "minutes": ("Minutes", "{:.1f}"),
    "practised": ("Practised", "{:.1%}"),
    "original": ("Original", "{:.1%}"),
    "min_acc": ("min-ACC", "{:.1%}"),
    "wc_acc": ("WC-ACC", "{:.1%}"),
    "forgetting": ("Forgot", "{:.1%}"),
    "loss": ("Loss", "{:.3f}"),
}
# More of it, for which a terminal is too narrow.
FURTHER: Final = {
    "arrived": ("Arrived", "{:.0%}"),
    "learned": ("Learned of", "{:d}"),
    "updates": ("Updates", "{:d}"),
    "kept": ("Kept", "{:d}"),
    "held_out": ("Held out", "{:.3f}"),
}
CURVES: Final = {"practised": "the goals that are practised", "original": "the original goals"}


def write_adapt_report(summary: Path, out: Path) -> None:
    """Writes the page as one HTML file.

    Args:
        summary: result.json, beside the folder of the rounds.
        out: the HTML file.

    Raises:
        OSError: it cannot be written.
    """
    from robolearn.charts import SERIES, curves_chart  # matplotlib
    from robolearn.report import embed

    result = json.loads(summary.read_text())
    rows = result["rounds"]
    curves = {
        name: [(row["round"], *(row[name + end] for end in ("", "_low", "_high"))) for row in rows]
        for name in CURVES
    }
    folders = {row["round"]: summary.parent / "rounds" / str(row["round"]) for row in rows}
    values = {
        "result": result,
        "columns": columns_of(rows, COLUMNS | FURTHER),
        "curves": CURVES,
        "series": SERIES,
        "chart": curves_chart("round", curves),
        "strips": {
            number: embed(folder, STRIP, "image/png")
            for number, folder in folders.items()
            if (folder / STRIP).exists()
        },
    }
    write_atomic(out, page("adapt_template.html", **values).encode())
