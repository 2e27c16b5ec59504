"""The stability gap: how much of what a policy could do is lost while it learns something else.

De Lange et al. 2023, "Continual evaluation for lifelong learning: Identifying the stability gap",
arXiv 2205.13452, section 3. A(E_i, f_n) is the accuracy, here the success, on task i of the policy
after n rounds; task i was learned until round t_i. At round t, while task k is learned:

    min-ACC_k  = 1 / (k - 1)  sum over i < k of  min over t_i < n <= t of  A(E_i, f_n)
    WC-ACC_t   = 1 / k  A(E_k, f_t)  +  (1 - 1 / k)  min-ACC_k
    WF_t(D)    = mean over tasks i of  max over i' <= j' within D evaluations of
                 A(E_i, f_i') - A(E_i, f_j')

min-ACC is the worst that ever happened to older tasks, WC-ACC trades it against the newest one, and
WF, the windowed forgetting, is the largest fall within D evaluations that follow each other.
Published is an evaluation after every step of learning; here there is one a round, between which
a dip is not seen.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

WINDOW: Final = 10  # D, evaluations; published: 10 and 100
SHUFFLES: Final = 1000


def min_acc(older: Sequence[Sequence[float]]) -> float:
    """min-ACC, of the accuracies on each older task in all evaluations since it was learned.

    Raises:
        ValueError: no older task, or one without an evaluation.
    """
    if not older or not all(len(curve) for curve in older):
        raise ValueError("min-ACC is about older tasks, each evaluated since it was learned")
    return float(np.mean([min(curve) for curve in older]))


def wc_acc(newest: float, older: Sequence[Sequence[float]]) -> float:
    """WC-ACC.

    Args:
        newest: accuracy now on the task that is being learned.
        older: see `min_acc`.

    Raises:
        ValueError: see `min_acc`.
    """
    share = 1.0 / (len(older) + 1)
    return share * newest + (1.0 - share) * min_acc(older)


def windowed_forgetting(tasks: Sequence[Sequence[float]], window: int = WINDOW) -> float:
    """WF, 0 if nothing ever falls.

    Args:
        tasks: accuracies on each task, one an evaluation.
        window: D, evaluations that follow each other.

    Raises:
        ValueError: no task, one without an evaluation, or no window.
    """
    if not tasks or not all(len(curve) for curve in tasks) or window < 1:
        raise ValueError("windowed forgetting needs tasks that were evaluated, and a window of 1")
    return float(np.mean([_fall(curve, window) for curve in tasks]))


def _fall(curve: Sequence[float], window: int) -> float:
    return max(before - after for k, before in enumerate(curve) for after in curve[k : k + window])


def worst_by_chance(successes: np.ndarray, seed: int = 0) -> float:
    """The minimum that is expected of noise alone, were the policy the same in all rounds.

    The worst of many measured rates is below the true rate. What an episode came to is shuffled
    among the rounds, for each episode by itself, since the rounds share their episodes.

    Args:
        successes: bool (rounds, episodes).
        seed: of the shuffles.
    """
    rng = np.random.default_rng(seed)
    columns = np.asarray(successes, float)
    return float(np.mean([rng.permuted(columns, axis=0).mean(1).min() for _ in range(SHUFFLES)]))
