"""The statistics that every reported success rate carries."""

from collections.abc import Sequence


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a success rate.

    Unlike the normal approximation it stays inside [0, 1] and is never empty at 0 or n successes.
    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    JASA 22 (1927).

    Args:
        successes: how many of the trials succeeded.
        n: the number of trials; none leaves the whole range (0, 1).
        confidence: the share of such intervals that cover the true rate.

    Returns:
        The lower and upper end, as fractions.

    Raises:
        ValueError: successes not in 0..n.
    """
    from scipy.stats import binomtest  # takes most of a second to import

    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is impossible")
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(a: Sequence[bool], b: Sequence[bool]) -> float:
    """The two-sided exact McNemar test of two agents on the same episodes.

    Only the pairs in which exactly one of them succeeded count: were both equally good, each would
    win such a pair with probability one half. Source: Q. McNemar, Psychometrika 12 (1947).

    Args:
        a: success of the first agent, one entry per seed.
        b: success of the second agent on the same seeds, in the same order.

    Returns:
        The p-value; 1.0 where the two never differ.

    Raises:
        ValueError: the results are not paired.
    """
    from scipy.stats import binomtest

    if len(a) != len(b):
        raise ValueError(f"results of {len(a)} and {len(b)} episodes are not paired")
    only_a = sum(bool(x and not y) for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y and not x) for x, y in zip(a, b, strict=True))
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)
