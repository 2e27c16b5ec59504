"""Methods beside the one they began with, on the same episodes: what benchmarks report of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from robolearn.stats import mcnemar_exact, wilson

Row = dict[str, Any]


def beside(wins: Sequence[bool], base: Sequence[bool]) -> Row:
    """Success with its interval, and the pairs with the base.

    Args:
        wins: success of a method, one entry for each seed.
        base: success of what it is compared with, on the same seeds.
    """
    low, high = wilson(sum(wins), len(wins))
    return {
        "success": sum(wins) / len(wins),
        "success_low": low,
        "success_high": high,
        "gain_points": 100.0 * (sum(wins) - sum(base)) / len(wins),
        "gained": sum(w and not b for w, b in zip(wins, base, strict=True)),
        "lost": sum(b and not w for w, b in zip(wins, base, strict=True)),
        "p_value": mcnemar_exact(wins, base),
    }


def pooled(rows: Sequence[Row]) -> Row:
    """A method over several tasks: means, and the pairs of all tasks together.

    Args:
        rows: of `beside`, one for each task.
    """
    from scipy.stats import binomtest

    gained, lost = (sum(row[key] for row in rows) for key in ("gained", "lost"))
    pairs = gained + lost
    return {
        "success": float(np.mean([row["success"] for row in rows])),
        "gain_points": float(np.mean([row["gain_points"] for row in rows])),
        "gained": gained,
        "lost": lost,
        "p_value": float(binomtest(gained, pairs).pvalue) if pairs else 1.0,
    }
