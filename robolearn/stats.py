"""The statistics that every reported success rate carries.

Scores over several tasks are in `robolearn.bench.aggregates`, tests that may be looked at after
every episode in `robolearn.bench.sequential`.
"""

from collections.abc import Sequence
from math import ceil, sqrt


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


def paired_difference(
    a: Sequence[bool], b: Sequence[bool], confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of the difference of two success rates on the same episodes.

    It is made of both rates' Wilson intervals and of how alike the outcomes are, so that it is
    never empty. Source: R. G. Newcombe, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", Statistics in Medicine 17 (1998), method 10.

    Args:
        a: success of the first agent, one entry per seed.
        b: success of the second agent on the same seeds, in the same order.
        confidence: the share of such intervals that cover the true difference.

    Returns:
        The lower and upper end of the first rate minus the second, as fractions.

    Raises:
        ValueError: the results are not paired.
    """
    if len(a) != len(b):
        raise ValueError(f"results of {len(a)} and {len(b)} episodes are not paired")
    n, wins, losses = len(a), sum(map(bool, a)), sum(map(bool, b))
    if n == 0:
        return -1.0, 1.0
    (low_a, high_a), (low_b, high_b) = (wilson(k, n, confidence) for k in (wins, losses))
    p, q, likeness = wins / n, losses / n, _likeness(a, b)
    down = _combined(p - low_a, high_b - q, likeness)
    up = _combined(high_a - p, q - low_b, likeness)
    return p - q - down, p - q + up


def _combined(first: float, second: float, likeness: float) -> float:
    """The distance of a difference's end from the difference; see `paired_difference`."""
    return sqrt(max(0.0, first**2 - 2 * likeness * first * second + second**2))


def _likeness(a: Sequence[bool], b: Sequence[bool]) -> float:
    """The correlation of paired outcomes, corrected for continuity; 0 where one never differs."""
    n, pairs = len(a), list(zip(map(bool, a), map(bool, b), strict=True))
    both, only_a, only_b, none = (
        pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    margins = (both + only_a) * (only_b + none) * (both + only_b) * (only_a + none)
    product = float(both * none - only_a * only_b)
    if product > 0:
        product = max(product - n / 2, 0.0)
    return product / sqrt(margins) if margins else 0.0


def mean_interval(
    estimates: Sequence[float],
    lows: Sequence[float],
    highs: Sequence[float],
    weights: Sequence[float] = (),
) -> tuple[float, float]:
    """The interval of the mean of independent estimates that have intervals, by square and add.

    Of a single one it is its own; unlike a bootstrap it is not empty where everything succeeded.
    Source: G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures",
    Statistics in Medicine 27 (2008).

    Args:
        estimates: such as the success rates of several tasks.
        lows: the lower ends of their intervals.
        highs: the upper ends.
        weights: of the estimates in the mean; by default all count alike.
    """
    total = sum(weights) or len(estimates)
    shares = [weight / total for weight in weights or [1.0] * len(estimates)]
    rows = list(zip(shares, estimates, lows, highs, strict=True))
    mean = sum(share * x for share, x, _, _ in rows)
    down = sqrt(sum((share * (x - low)) ** 2 for share, x, low, _ in rows))
    up = sqrt(sum((share * (high - x)) ** 2 for share, x, _, high in rows))
    return mean - down, mean + up


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that at most one in twenty families errs at 0.05.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
    of Statistics 6 (1979).

    Args:
        p_values: of the tests, in any order.

    Returns:
        The adjusted p-values in the same order; each may be compared with the level by itself.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def pairs_needed(
    points: float, differing: float, power: float = 0.8, significance: float = 0.05
) -> int:
    """How many seeds both agents must play for McNemar's test to see such a difference.

    Source: R. J. Connor, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43 (1987), the normal approximation.

    Args:
        points: the difference of the two success rates, percentage points.
        differing: the share of seeds that exactly one of the agents solves; at least the
            difference, and more where the two are unlike.
        power: the probability to see it.
        significance: of the two-sided test.

    Raises:
        ValueError: a difference of nothing, or one above the share of seeds that differ.
    """
    from scipy.stats import norm

    difference = abs(points) / 100.0
    if not 0.0 < difference <= differing <= 1.0:
        raise ValueError(
            f"{points:g} points with {100 * differing:g} % of the seeds differing is impossible; "
            "give more than 0 points and at least as many differing seeds"
        )
    wide = norm.isf(significance / 2) * sqrt(differing)
    narrow = norm.isf(1.0 - power) * sqrt(differing - difference**2)
    return ceil(((wide + narrow) / difference) ** 2)


def episodes_needed(
    points: float, rate: float, power: float = 0.8, significance: float = 0.05
) -> int:
    """How many episodes each of two agents must play on seeds of its own to tell them apart.

    The normal approximation for two independent proportions, which lie around `rate`. Source: J. L.
    Fleiss, B. Levin and M. C. Paik, "Statistical Methods for Rates and Proportions" (2003), 4.2.

    Args:
        points: the difference of the two success rates, percentage points.
        rate: the mean of the two, 0..1.
        power: the probability to see it.
        significance: of the two-sided test.

    Raises:
        ValueError: rates that are none.
    """
    from scipy.stats import norm

    difference = abs(points) / 100.0
    low, high = rate - difference / 2, rate + difference / 2
    if difference == 0.0 or low < 0.0 or high > 1.0:
        raise ValueError(f"rates of {low:.3g} and {high:.3g} cannot be told apart, or are none")
    wide = norm.isf(significance / 2) * sqrt(2 * rate * (1 - rate))
    narrow = norm.isf(1.0 - power) * sqrt(low * (1 - low) + high * (1 - high))
    return ceil(((wide + narrow) / difference) ** 2)
