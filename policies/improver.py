"""What post-training methods share: each judges what was done; imitating it is common to all."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from scipy.stats import spearmanr

from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience

HELD_OUT: Final = 0.1  # share of the episodes that a judge is measured on
BATCH: Final = 1024  # fragments that are judged at once


@dataclass
class Judgement:
    """What a method thinks of everything that was done.

    Attributes:
        weights: (N,), how much each of the replay's `starts` is worth imitating; mean 1.
        figures: about the judgement, for the table of rounds.
        critic: chooses among candidates at run time; None if the method has none.
    """

    weights: np.ndarray
    figures: dict[str, Any]
    critic: Critic | None = None


class Improver(Protocol):
    """A post-training method."""

    config: Any  # with `actor`, an `ActorConfig`

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """Judges everything that was done.

        Args:
            policy: the current one, in eval mode.
            experience: everything collected so far.
            before: the critic of the round before, which may be taught on; None in the first.
            seed: of all draws.
        """


def held_out(episodes: int) -> np.ndarray:
    """Which episodes no judge learns from, bool (E,); an episode's lot never changes."""
    return stream(0, "held out").random(episodes) < HELD_OUT


def in_batches(frames: np.ndarray) -> list[np.ndarray]:
    """Frames (N,) in parts that fit into memory."""
    return [frames[k : k + BATCH] for k in range(0, len(frames), BATCH)]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Of two columns (N,); None where one of them does not differ."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
