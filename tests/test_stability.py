"""Continual-evaluation metrics: computed by hand, and what they see and miss."""

import numpy as np
import pytest

from robolearn.stability import min_acc, wc_acc, windowed_forgetting, worst_by_chance

DIP = [0.9, 0.9, 0.3, 0.6, 0.9]


def test_the_worst_of_each_older_task_is_meant():
    assert min_acc([DIP]) == pytest.approx(0.3)
    assert min_acc([DIP, [0.5, 0.7]]) == pytest.approx(0.4)


def test_the_worst_case_weighs_the_newest_task_as_one_of_all():
    assert wc_acc(1.0, [DIP]) == pytest.approx(0.5 * 1.0 + 0.5 * 0.3)
    assert wc_acc(0.6, [DIP, [0.5, 0.7]]) == pytest.approx(0.6 / 3 + 2 / 3 * 0.4)


def test_the_largest_fall_within_a_window_is_found():
    assert windowed_forgetting([DIP]) == pytest.approx(0.6)
    slow = [1.0, 0.8, 0.7, 0.4]
    assert windowed_forgetting([slow], window=2) == pytest.approx(0.3)
    assert windowed_forgetting([slow], window=3) == pytest.approx(0.4)
    assert windowed_forgetting([slow], window=4) == pytest.approx(0.6)
    assert windowed_forgetting([DIP, [0.5, 0.5]]) == pytest.approx(0.3)


@pytest.mark.parametrize("curve", [[0.7] * 5, [0.1, 0.4, 0.4, 0.8], [0.5]])
def test_what_never_falls_is_not_forgotten(curve):
    assert windowed_forgetting([curve]) == 0.0


def test_a_dip_between_two_evaluations_is_missed():
    sparse = DIP[::4]
    assert min_acc([sparse]) == 0.9
    assert windowed_forgetting([sparse]) == 0.0


@pytest.mark.parametrize("curves", [[], [[0.5], []]], ids=["no task", "no evaluation"])
def test_nothing_to_measure_is_refused(curves):
    with pytest.raises(ValueError, match="task"):
        min_acc(curves)
    with pytest.raises(ValueError, match="task"):
        windowed_forgetting(curves)
    with pytest.raises(ValueError, match="window"):
        windowed_forgetting([DIP], window=0)


def test_noise_alone_lowers_the_worst_of_many_rounds():
    successes = np.random.default_rng(0).random((10, 40)) < 0.7
    expected = worst_by_chance(successes)
    assert 0.5 < expected < successes.mean() - 0.05
    assert worst_by_chance(successes) == expected
    fixed = np.arange(40) % 4 > 0
    assert worst_by_chance(np.tile(fixed, (10, 1))) == pytest.approx(0.75)  # no noise at all
    dip = np.ones((5, 40), bool)
    dip[2, :20] = False
    assert worst_by_chance(dip) > dip.mean(1).min() + 0.2  # a real dip is below what noise makes
