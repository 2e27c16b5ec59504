"""Scores of agents over several tasks, with intervals.

A task is a stratum: an array of episodes along its first axis. What they are of (successes, scores,
differences of pairs, pairs) is up to the caller. Source of interquartile mean, probability of
improvement and performance profile for learned agents: R. Agarwal et al., "Deep Reinforcement
Learning at the Edge of the Statistical Precipice", NeurIPS 2021.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from robolearn.seeding import stream

# Strata (B, n_t, ...) of B resamples -> their statistic (B,).
Statistic = Callable[[Sequence[np.ndarray]], np.ndarray]
BATCH: Final = 100  # resamples that are drawn together
RESAMPLES: Final = 2000


def mean_of_tasks(strata: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the tasks of each one's mean (B,), of strata (B, n_t); every task counts alike.

    Of successes it is the success rate, of differences of pairs the gain.
    """
    return np.mean([stratum.mean(1) for stratum in strata], axis=0)


def interquartile_mean(strata: Sequence[np.ndarray]) -> np.ndarray:
    """The mean (B,) of the middle half of all episodes' scores, of strata (B, n_t)."""
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(np.concatenate(strata, axis=1), 0.25, axis=1))


def probability_of_improvement(strata: Sequence[np.ndarray]) -> np.ndarray:
    """How often an episode of one agent beats one of another (B,), of strata (B, n_t, 2).

    Mann and Whitney's U over the number of pairs, ties counted half; the mean over the tasks.
    """
    return np.mean([_wins(stratum[..., 0], stratum[..., 1]) for stratum in strata], axis=0)


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of all n * m pairs that `a` (B, n) wins against `b` (B, m)."""
    from scipy.stats import rankdata

    n, m = a.shape[1], b.shape[1]
    ranks = rankdata(np.concatenate([a, b], axis=1), axis=1)[:, :n].sum(1)
    return (ranks - n * (n + 1) / 2) / (n * m)


def performance_profile(strata: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """The share of episodes with a score of at least each threshold (K,), of strata (n_t,).

    Every task counts alike. Agarwal et al. ask for more than the threshold, which the score of a
    success, the most that there is, would never be at the last one.
    """
    return np.mean([(stratum[:, None] >= thresholds).mean(0) for stratum in strata], axis=0)


def bootstrap(
    strata: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    tasks: bool = False,
    worlds: Sequence[str] = (),
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of a statistic by the stratified bootstrap.

    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13;
    strata as in Agarwal et al. (2021).

    Args:
        strata: the episodes of each task, (n_t, ...).
        statistic: of resampled strata.
        tasks: also resample the tasks, so that the interval is for other tasks of their kind.
        worlds: a name for each stratum, if some of them hold the same seeds of one environment:
            episodes of strata of one name and length are drawn together.
        confidence: the share of such intervals that cover the true value.
        resamples: how many; rounded up to whole batches.
        seed: of the draws.

    Returns:
        The lower and upper end.

    Raises:
        ValueError: no tasks, or one without episodes.
    """
    if not strata or not all(len(stratum) for stratum in strata):
        raise ValueError("the bootstrap needs one task or more, and an episode or more of each")
    rng, batch = stream(seed, "bootstrap"), 1 if tasks else BATCH
    values = [
        statistic(_resampled(_redrawn(strata, rng), (), rng, batch))
        if tasks
        else statistic(_resampled(strata, worlds, rng, batch))
        for _ in range(-(-resamples // batch))
    ]
    outside = (1.0 - confidence) / 2
    low, high = np.quantile(np.concatenate(values), [outside, 1.0 - outside])
    return float(low), float(high)


def _redrawn(strata: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    return [strata[index] for index in rng.integers(0, len(strata), len(strata))]


def _resampled(
    strata: Sequence[np.ndarray], worlds: Sequence[str], rng: np.random.Generator, batch: int
) -> list[np.ndarray]:
    """As many episodes of each task as there are, with replacement: (batch, n_t, ...)."""
    drawn: dict[tuple[str | int, int], np.ndarray] = {}
    resampled = []
    for number, stratum in enumerate(strata):
        key = (worlds[number] if worlds else number, len(stratum))
        if key not in drawn:
            drawn[key] = rng.integers(0, len(stratum), (batch, len(stratum)))
        resampled.append(stratum[drawn[key]])
    return resampled
