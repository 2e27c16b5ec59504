"""Scores over tasks, against scipy; intervals, against simulations and scipy's bootstrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of
from scipy import stats as scipy_stats

from robolearn.bench.aggregates import (
    BATCH,
    bootstrap,
    interquartile_mean,
    mean_of_tasks,
    performance_profile,
    probability_of_improvement,
)
from robolearn.seeding import stream

SCORES = of.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 0.1, 0.25, 1.0]))


@given(st.lists(SCORES, min_size=1, max_size=4))
def test_statistics_agree_with_scipy(strata):
    batch = [stratum[None] for stratum in strata]
    assert mean_of_tasks(batch) == pytest.approx(np.mean([s.mean() for s in strata]), abs=1e-9)
    expected = scipy_stats.trim_mean(np.concatenate(strata), 0.25)
    assert interquartile_mean(batch) == pytest.approx(expected, abs=1e-9)


@given(SCORES, st.randoms(use_true_random=False))
def test_probability_of_improvement_is_mann_and_whitneys(a, random):
    b = np.array([random.choice([0.0, 0.1, 0.25, 1.0]) for _ in a])
    expected = scipy_stats.mannwhitneyu(a, b).statistic / len(a) ** 2
    pairs = np.column_stack([a, b])
    assert probability_of_improvement([pairs[None]]) == pytest.approx(expected, abs=1e-9)
    both = probability_of_improvement([pairs[None], pairs[None, :, ::-1]])
    assert both == pytest.approx(0.5, abs=1e-9)


def test_statistics_take_every_resample_by_itself():
    rng = np.random.default_rng(0)
    strata = [rng.random((5, 8)), rng.random((5, 3))]
    for statistic in (mean_of_tasks, interquartile_mean):
        alone = [statistic([s[k : k + 1] for s in strata])[0] for k in range(5)]
        assert statistic(strata) == pytest.approx(alone, abs=1e-12)


def test_performance_profile_by_hand():
    profile = performance_profile(
        [np.array([0.0, 0.5, 1.0, 1.0]), np.array([0.2])], np.array([0.0, 0.5, 1.0])
    )
    assert profile == pytest.approx([1.0, (0.75 + 0.0) / 2, (0.5 + 0.0) / 2])


@pytest.mark.parametrize("statistic", [mean_of_tasks, interquartile_mean])
def test_bootstrap_is_that_of_scipy(statistic):
    """Which resamples several samples each by itself, so with the same draws it is the same."""
    rng = np.random.default_rng(1)
    strata = [(rng.random(n) < p).astype(float) for n, p in ((40, 0.4), (25, 0.8), (60, 0.1))]
    theirs = scipy_stats.bootstrap(
        strata,
        lambda *samples, axis: statistic(samples) if samples[0].ndim == 2 else 0.0,
        n_resamples=700,
        batch=BATCH,
        method="percentile",
        axis=-1,
        vectorized=True,
        rng=stream(3, "bootstrap"),
    ).confidence_interval
    ours = bootstrap(strata, statistic, resamples=700, seed=3)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_bootstrap_covers_as_it_says():
    """Success over three tasks: the 95 % interval covers the truth in 94 to 96 % of simulations."""
    rates, n, trials = np.array([0.35, 0.6, 0.8]), 100, 1000
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(trials):
        strata = [(rng.random(n) < rate).astype(float) for rate in rates]
        low, high = bootstrap(strata, mean_of_tasks, resamples=500, seed=trial)
        covered += low <= rates.mean() <= high
    assert 0.94 <= covered / trials <= 0.96


def test_resampled_tasks_are_less_certain():
    rng = np.random.default_rng(2)
    strata = [(rng.random(80) < p).astype(float) for p in (0.1, 0.3, 0.5, 0.7, 0.9)]
    low, high = bootstrap(strata, mean_of_tasks)
    outer_low, outer_high = bootstrap(strata, mean_of_tasks, tasks=True)
    assert outer_low < low - 0.1 < high + 0.1 < outer_high
    assert bootstrap(strata, mean_of_tasks, tasks=True) == (outer_low, outer_high)


def test_tasks_of_one_world_are_no_more_certain_than_one_of_them():
    stratum = np.arange(40) % 2.0
    alone = bootstrap([stratum], mean_of_tasks)
    twice = [stratum, stratum]
    assert bootstrap(twice, mean_of_tasks, worlds=["a", "a"]) == pytest.approx(alone)
    low, high = bootstrap(twice, mean_of_tasks, worlds=["a", "b"])
    assert high - low < 0.85 * (alone[1] - alone[0])


@pytest.mark.parametrize("strata", [[], [np.ones(3), np.ones(0)]])
def test_nothing_to_resample_is_refused(strata):
    with pytest.raises(ValueError, match="one task or more"):
        bootstrap(strata, mean_of_tasks)
