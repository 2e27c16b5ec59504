"""What may be looked at after every episode: errors stay bounded, worked out exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln

from robolearn.bench.sequential import confidence_sequence, sequential_p
from robolearn.stats import mcnemar_exact, wilson

LOOKS = 150


def excluded_at_some_point(rate):
    """The exact chance that one of the first intervals leaves the true rate out.

    Walks over all counts of successes, and takes out what has erred.
    """
    alive, erred = np.array([1.0]), 0.0
    for n in range(1, LOOKS + 1):
        alive = np.append(alive * (1 - rate), 0.0) + np.append(0.0, alive * rate)
        for k in np.flatnonzero(alive):
            low, high = confidence_sequence(int(k), n)
            if not low <= rate <= high:
                erred, alive[k] = erred + alive[k], 0.0
    return erred


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_all_intervals_cover_at_once(rate):
    assert 0.005 < excluded_at_some_point(rate) < 0.05


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_confidence_sequence_is_wider_than_one_interval(trial):
    (low, high), (inner_low, inner_high) = confidence_sequence(*trial), wilson(*trial)
    assert 0.0 <= low <= trial[0] / trial[1] <= high <= 1.0
    assert low <= inner_low
    assert high >= inner_high


def test_its_ends_are_where_the_bet_has_won_twenty_times():
    for end in confidence_sequence(7, 10):
        won = betaln(8, 4) - (7 * np.log(end) + 3 * np.log1p(-end))
        assert np.exp(won) == pytest.approx(20.0, rel=1e-9)
    assert confidence_sequence(0, 0) == (0.0, 1.0)
    assert confidence_sequence(0, 10)[0] == 0.0
    assert confidence_sequence(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="impossible"):
        confidence_sequence(11, 10)


def stopped_at(level):
    """The exact chance that two equal agents are told apart at some of so many differing pairs."""
    alive, erred = np.array([1.0]), 0.0
    for n in range(1, LOOKS + 1):
        alive = np.append(alive, 0.0) / 2 + np.append(0.0, alive) / 2
        wins = np.arange(n + 1)
        bets = betaln(wins + 1, n - wins + 1) + n * np.log(2)
        done = np.exp(-bets) <= level
        erred, alive = erred + alive[done].sum(), np.where(done, 0.0, alive)
    return erred


def test_equal_agents_are_told_apart_no_more_often_than_allowed():
    assert 0.01 < stopped_at(0.05) < 0.05


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80))
def test_the_sequential_p_is_the_best_of_all_looks(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    best = 1.0
    for n in range(len(pairs) + 1):
        won = sum(x and not y for x, y in pairs[:n])
        lost = sum(y and not x for x, y in pairs[:n])
        bet = np.exp(betaln(won + 1, lost + 1) + (won + lost) * np.log(2))
        best = min(best, 1.0 / bet)
    assert sequential_p(a, b) == pytest.approx(best, rel=1e-9)
    assert sequential_p(a, b) == sequential_p(b, a)


def test_it_needs_more_pairs_than_one_look():
    a, b = [True] * 6, [False] * 6
    assert mcnemar_exact(a, b) < 0.05 < sequential_p(a, b)
    assert sequential_p([True] * 9, [False] * 9) < 0.05
    with pytest.raises(ValueError, match="not paired"):
        sequential_p([True], [])
