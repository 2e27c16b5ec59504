"""The intervals and tests behind every reported number."""

from itertools import product
from math import comb, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.stats import mcnemar_exact, wilson

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
