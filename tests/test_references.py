"""Statistics against statsmodels and rliable, to 1e-9."""

import numpy as np
import pytest

from robolearn.bench.aggregates import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from robolearn.stats import holm, mcnemar_exact, wilson

EXACTLY = {"rel": 0.0, "abs": 1e-9}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_intervals_p_values_and_corrections_are_those_of_statsmodels(rng):
    pytest.importorskip("statsmodels", reason="pip install statsmodels")
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import proportion_confint

    for n in rng.integers(1, 500, 40):
        successes, confidence = int(rng.integers(0, n + 1)), float(rng.choice([0.9, 0.95, 0.99]))
        theirs = proportion_confint(successes, int(n), alpha=1 - confidence, method="wilson")
        assert wilson(successes, int(n), confidence) == pytest.approx(theirs, **EXACTLY)
        a, b = rng.random((2, n)) < rng.random((2, 1))
        table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
        expected = mcnemar(table, exact=True).pvalue
        assert mcnemar_exact(a.tolist(), b.tolist()) == pytest.approx(expected, **EXACTLY)
        p_values = rng.random(int(rng.integers(1, 9))) ** 3
        expected = multipletests(p_values, method="holm")[1]
        assert holm(p_values.tolist()) == pytest.approx(expected, **EXACTLY)


def test_aggregates_are_those_of_rliable(rng):
    pytest.importorskip("rliable", reason="pip install rliable")
    from rliable import metrics
    from rliable.library import run_score_deviation

    for _ in range(20):
        runs, tasks = rng.integers(4, 30), rng.integers(1, 6)
        x, y = np.round(rng.random((2, runs, tasks)), 1)  # with ties
        strata = [x[None, :, task] for task in range(tasks)]
        expected = metrics.aggregate_iqm(x)
        assert interquartile_mean(strata)[0] == pytest.approx(expected, **EXACTLY)
        pairs = [np.stack([x[None, :, k], y[None, :, k]], axis=-1) for k in range(tasks)]
        expected = metrics.probability_of_improvement(x, y)
        assert probability_of_improvement(pairs)[0] == pytest.approx(expected, **EXACTLY)
        between = np.linspace(0.05, 0.95, 10)  # at a score itself, theirs counts what is above it
        ours = performance_profile([x[:, task] for task in range(tasks)], between)
        expected = [run_score_deviation(x, tau) for tau in between]
        assert ours == pytest.approx(expected, **EXACTLY)
