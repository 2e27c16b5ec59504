"""Tests and intervals that hold although one looks after every episode, and stops when one likes.

Both bet against a hypothesis with a beta mixture: what a fair game would have made of one coin has
more than 1/a with probability at most a, however long it goes on (Ville's inequality). Source: H.
Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of Mathematical
Statistics 41 (1970); S. R. Howard et al., "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49 (2021).
"""

from collections.abc import Sequence
from math import exp, inf, lgamma, log


def _log_mixture(successes: int, failures: int) -> float:
    """Log of the probability of one such sequence when all rates are equally likely."""
    return lgamma(successes + 1) + lgamma(failures + 1) - lgamma(successes + failures + 2)


def _log_likelihood(successes: int, failures: int, rate: float) -> float:
    """Log of the probability of one such sequence at this rate."""
    terms = ((successes, rate), (failures, 1.0 - rate))
    return sum((count * log(p) if p > 0.0 else -inf) for count, p in terms if count)


def confidence_sequence(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a success rate that holds at every n at once.

    Args:
        successes: how many of the trials so far succeeded.
        n: the number of trials so far.
        confidence: the probability that all intervals of an endless series cover the true rate.

    Returns:
        The lower and upper end, as fractions; wider than an interval for one n.

    Raises:
        ValueError: successes not in 0..n.
    """
    from scipy.optimize import brentq

    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials is impossible")
    if n == 0:
        return 0.0, 1.0
    failures, rate = n - successes, successes / n
    won = _log_mixture(successes, failures) + log(1.0 - confidence)

    def left(p: float) -> float:
        return _log_likelihood(successes, failures, p) - won

    tiny = 1e-12
    low = brentq(left, tiny, rate, xtol=1e-14) if successes and left(tiny) < 0 else 0.0
    high = brentq(left, rate, 1 - tiny, xtol=1e-14) if failures and left(1 - tiny) < 0 else 1.0
    return float(low), float(high)


def sequential_p(a: Sequence[bool], b: Sequence[bool]) -> float:
    """The p-value of two agents on the same episodes that may be looked at after each of them.

    As in McNemar's test only pairs count that exactly one of them won. Were both equally good, the
    smallest p-value of an endless series would be at most x with probability at most x.

    Args:
        a: success of the first agent, one entry per seed, in the order in which they were played.
        b: success of the second agent on the same seeds.

    Returns:
        The smallest p-value so far; 1.0 where the two never differ.

    Raises:
        ValueError: the results are not paired.
    """
    if len(a) != len(b):
        raise ValueError(f"results of {len(a)} and {len(b)} episodes are not paired")
    won = lost = 0
    best = 0.0
    for first, second in zip(a, b, strict=True):
        won, lost = won + (first and not second), lost + (second and not first)
        best = max(best, _log_mixture(won, lost) - _log_likelihood(won, lost, 0.5))
    return exp(-best)
