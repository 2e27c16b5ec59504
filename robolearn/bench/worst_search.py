"""The worst dynamics of a box, found by CMA-ES: where they lie, and what makes one worse.

Searching a box of fixed dynamics for those at which a policy does worst is a step of IWOCS: A.
Zouitine, M. Geist and E. Rachelson, "Solving robust MDPs as a sequence of static RL problems",
arXiv 2410.06212 (2024). The search: N. Hansen and A. Ostermeier, "Completely
derandomized self-adaptation in evolution strategies", Evolutionary Computation 9 (2001).
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

import numpy as np

from robolearn.envs.dynamics import DELAY, LATEST, NAMES, SCALED
from robolearn.envs.variation import MAX_LEVEL

SPREAD: Final = 0.5  # of the first points around the middle of the box, whose sides are 2
DIGITS: Final = 4  # that a factor is typed with: what is found is exactly what is replayed
Point = dict[str, float]  # dynamics, see `robolearn.envs.dynamics`
Judge = Callable[[list[Point]], list[float]]  # gives scores; lower ones are worse


class Box:
    """How far dynamics may go: as far as random variations of that level.

    Args:
        names: of the dynamics that may differ; none means all.
        level: from 1 to `MAX_LEVEL`.

    Raises:
        ValueError: no such level, an unknown name, or fewer than two.
    """

    def __init__(self, names: Sequence[str], level: int) -> None:
        self.names, self.strength = tuple(names) or NAMES, level / MAX_LEVEL
        if level not in range(1, MAX_LEVEL + 1):
            raise ValueError(f"--level is {level}; choose one from 1 to {MAX_LEVEL}")
        if unknown := [name for name in self.names if name not in NAMES]:
            raise ValueError(f"no factor {unknown[0]!r}; choose from {', '.join(NAMES)}")
        if len(set(self.names)) < max(2, len(self.names)):
            raise ValueError("give --factors two different names or more: a search has directions")

    def point(self, x: np.ndarray) -> Point:
        """The dynamics at a place of the box, float (N,), -1..1 along each side.

        Factors lie on a logarithmic scale with 1 in the middle, a delay is from none to the
        longest.
        """
        values = zip(self.names, np.clip(x, -1.0, 1.0), strict=True)
        return {name: float(f"{self._value(name, at):.{DIGITS}g}") for name, at in values}

    def _value(self, name: str, at: float) -> float:
        if name == DELAY:
            return LATEST * self.strength * (at + 1) / 2
        return SCALED[name].most ** (self.strength * at)

    @property
    def ends(self) -> dict[str, tuple[float, float]]:
        """The least and the most of each."""
        low, high = (self.point(np.full(len(self.names), end)) for end in (-1.0, 1.0))
        return {name: (low[name], high[name]) for name in self.names}


def search(
    box: Box, judge: Judge, evaluations: int, rng: np.random.Generator, population: int
) -> str:
    """Asks for the scores of ever worse points.

    Args:
        box: where they lie.
        judge: gives the scores of a generation. As it depends on these alone which points come
            next, a judge that remembers makes an interrupted search go on as if nothing had been.
        evaluations: points, at most; whole generations are asked for.
        rng: where all chance comes from.
        population: points of a generation.

    Returns:
        Why it ended: "budget", or CMA-ES's own criterion, such as "tolfun".
    """
    import cma

    options = {
        "bounds": [-1.0, 1.0],
        "popsize": population,
        "randn": lambda *shape: rng.standard_normal(shape),
        "seed": np.nan,  # numpy's own generator stays as it is
        "verbose": -9,
        "verb_log": 0,
    }
    evolution = cma.CMAEvolutionStrategy(np.zeros(len(box.names)), SPREAD, options)
    for _ in range(evaluations // population):
        places = evolution.ask()
        evolution.tell(places, judge([box.point(place) for place in places]))
        if stopped := evolution.stop():
            return next(iter(stopped))
    return "budget"


def grade(episode: Mapping[str, Any], limit: int) -> float:
    """How well an episode went, 0..1: half for how far it came, half for how soon it was solved.

    Args:
        episode: with `success`, `progress` and `length`.
        limit: steps that an episode may last.
    """
    return 1.0 - episode["length"] / (2 * limit) if episode["success"] else episode["progress"] / 2


def score(episodes: Sequence[Mapping[str, Any]], limit: int) -> float:
    """Of two points that with fewer successes has the lower score, then that with lower grades.

    Args:
        episodes: at one point; always the same seeds.
        limit: steps that an episode may last.
    """
    successes = sum(bool(episode["success"]) for episode in episodes)
    # The mean grade stays below the one that a success counts.
    mean = fmean(grade(episode, limit) for episode in episodes)
    return (successes + mean) / (len(episodes) + 1)
