"""The intervals and tests behind every reported number."""

from itertools import combinations, product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from robolearn.stats import (
    episodes_needed,
    holm,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    pairs_needed,
    wilson,
)

TRIALS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(TRIALS)
def test_wilson_agrees_with_the_formula(trial):
    k, n = trial
    z, p = 1.959963984540054, k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(k, n) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_wilson_edges():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert 0 < wilson(10, 10)[0] < 1
    low, high = wilson(5, 10, confidence=0.5)
    assert wilson(5, 10)[0] < low < 0.5 < high < wilson(5, 10)[1]


@pytest.mark.parametrize(("successes", "n"), [(-1, 10), (11, 10), (0, -1)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="impossible"):
        wilson(successes, n)


@pytest.mark.parametrize(("only_a", "only_b"), list(product(range(6), repeat=2)))
def test_mcnemar_counts_the_discordant_pairs_exactly(only_a, only_b):
    both = [True] * 7 + [False] * 3
    a = both + [True] * only_a + [False] * only_b
    b = both + [False] * only_a + [True] * only_b
    n, few = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(n, k) for k in range(few + 1)) / 2**n
    assert mcnemar_exact(a, b) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_mcnemar_refuses_unpaired_results():
    with pytest.raises(ValueError, match="not paired"):
        mcnemar_exact([True], [True, False])


@pytest.mark.parametrize("n", [50, 200])
def test_wilson_covers_as_it_says_averaged_over_the_rates(n):
    """Exactly: at each rate the chance that the interval of a binomial count covers it."""
    rates, counts = np.linspace(0.005, 0.995, 199), np.arange(n + 1)
    low, high = np.array([wilson(int(k), n) for k in counts]).T
    covers = (low <= rates[:, None]) & (rates[:, None] <= high)
    coverage = (covers * binom.pmf(counts, n, rates[:, None])).sum(1)
    assert 0.94 <= coverage.mean() <= 0.96


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms())
def test_mcnemar_is_a_binomial_test_of_the_pairs_that_differ(a, random):
    b = [random.random() < 0.5 for _ in a]
    wins = sum(x and not y for x, y in zip(a, b, strict=True))
    losses = sum(y and not x for x, y in zip(a, b, strict=True))
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6))
def test_holm_is_the_closed_test_with_bonferroni(p_values):
    """A hypothesis is rejected if all intersections with it are: every one of them by brute force.

    The adjusted p-value is the largest over the sets that hold the hypothesis.
    """
    indices = range(len(p_values))
    sets = [s for size in indices for s in combinations(indices, size + 1)]
    of_set = {s: min(1.0, len(s) * min(p_values[k] for k in s)) for s in sets}
    expected = [max(p for s, p in of_set.items() if index in s) for index in indices]
    assert holm(p_values) == pytest.approx(expected, abs=1e-9)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def power_of_mcnemar(pairs, points, differing):
    """The exact probability of p < 0.05 with so many pairs, over all outcomes."""
    gained = (differing + points / 100) / 2
    table = multinomial(pairs, [gained, differing - gained, 1 - differing])
    total = 0.0
    for count in range(pairs + 1):
        ks = np.arange(count + 1)
        p = 2 * binom.cdf(np.minimum(ks, count - ks), count, 0.5)
        wins = ks[p < 0.05]
        rows = np.column_stack([wins, count - wins, np.full(len(wins), pairs - count)])
        total += float(table.pmf(rows).sum()) if len(wins) else 0.0
    return total


@pytest.mark.parametrize(("points", "differing"), [(10, 0.2), (20, 0.3), (-15, 0.4)])
def test_as_many_pairs_as_advised_see_the_difference(points, differing):
    """The exact test is a little more careful than the normal approximation of the advice."""
    advised = pairs_needed(points, differing)
    assert 0.72 < power_of_mcnemar(advised, points, differing) < 0.85
    assert power_of_mcnemar(advised // 2, points, differing) < 0.6


def test_sample_sizes_by_hand():
    # ((1.959964 * sqrt(0.2) + 0.841621 * sqrt(0.2 - 0.01)) / 0.1)^2 = 154.6
    assert pairs_needed(10, 0.2) == 155
    # ((1.959964 * sqrt(0.32) + 0.841621 * sqrt(0.1875 + 0.1275)) / 0.1)^2 = 249.5
    assert episodes_needed(10, 0.8) == 250
    assert episodes_needed(5, 0.8) > 3.9 * episodes_needed(10, 0.8)
    assert pairs_needed(10, 0.2, power=0.95) > 1.5 * pairs_needed(10, 0.2)


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: pairs_needed(0, 0.2),
        lambda: pairs_needed(30, 0.2),
        lambda: pairs_needed(5, 1.2),
        lambda: episodes_needed(0, 0.5),
        lambda: episodes_needed(10, 0.97),
    ],
)
def test_impossible_differences_are_refused(impossible):
    with pytest.raises(ValueError, match="impossible|are none"):
        impossible()


def paired_outcomes(both, only_a, only_b, none):
    a = [True] * (both + only_a) + [False] * (only_b + none)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * none
    return a, b


def test_paired_difference_by_hand():
    """Rates 0.96 and 0.76 of 50, Wilson 0.8654 to 0.9890 and 0.6259 to 0.8570, phi -0.1147."""
    a, b = paired_outcomes(36, 12, 2, 0)
    assert paired_difference(a, b) == pytest.approx((0.0569, 0.3404), abs=2e-4)
    low, high = paired_difference(b, a)
    assert (low, high) == pytest.approx((-0.3404, -0.0569), abs=2e-4)
    assert paired_difference([], []) == (-1.0, 1.0)
    with pytest.raises(ValueError, match="not paired"):
        paired_difference([True], [])


def test_agents_that_never_differ_are_not_known_to_be_equal():
    low, high = paired_difference([True] * 20, [True] * 20)
    assert low < -0.1 < 0.1 < high


@pytest.mark.parametrize("chances", [(0.5, 0.2, 0.1, 0.2), (0.25, 0.35, 0.1, 0.3)])
def test_paired_difference_covers_as_it_says(chances):
    """Exactly, over all tables of 9 pairs; with so few it is a little careful."""
    n, truth, covered = 9, chances[1] - chances[2], 0.0
    table = multinomial(n, chances)
    for counts in product(range(n + 1), repeat=3):
        if sum(counts) <= n:
            cells = (*counts, n - sum(counts))
            low, high = paired_difference(*paired_outcomes(*cells))
            covered += table.pmf(cells) * (low <= truth <= high)
    assert 0.94 < covered < 0.99


def test_mean_interval_covers_as_it_says():
    """Exactly, for two tasks of 20 episodes, averaged over their rates."""
    n, rates = 20, np.linspace(0.05, 0.95, 13)
    ends = np.array([wilson(k, n) for k in range(n + 1)])
    share = np.arange(n + 1) / n
    pairs = list(product(range(n + 1), repeat=2))
    found = np.array([mean_interval(share[[*p]], ends[[*p], 0], ends[[*p], 1]) for p in pairs])
    one = binom.pmf(np.arange(n + 1), n, rates[:, None])
    coverage = [
        np.outer(one[i], one[j]).ravel() @ ((found[:, 0] <= mean) & (mean <= found[:, 1]))
        for i, j in product(range(len(rates)), repeat=2)
        for mean in [(rates[i] + rates[j]) / 2]
    ]
    assert 0.94 <= np.mean(coverage) <= 0.96


def test_the_interval_of_one_estimate_is_its_own():
    assert mean_interval([0.8], [0.7], [0.85]) == pytest.approx((0.7, 0.85))
    assert mean_interval([1.0, 1.0], [0.7, 0.7], [1.0, 1.0])[0] < 0.8


def test_a_mean_may_weigh_its_estimates():
    ends = ([0.2, 0.8], [0.1, 0.7], [0.4, 0.9])
    assert mean_interval(*ends, weights=[3, 3]) == pytest.approx(mean_interval(*ends))
    assert mean_interval(*ends, weights=[1, 0]) == pytest.approx((0.1, 0.4))
    assert sum(mean_interval(*ends, weights=[1, 3])) / 2 == pytest.approx(0.65, abs=0.05)
