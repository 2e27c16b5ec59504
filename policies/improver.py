"""What post-training methods share.

Most only judge what was done (`Judge`): imitating it, as often as it weighs, is common to them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from scipy.stats import spearmanr

from robolearn.policies.advantage import imitate
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience

HELD_OUT: Final = 0.1  # share of the episodes that a judge is measured on
BATCH: Final = 1024  # fragments that are judged at once


@dataclass
class Improved:
    """What a round of learning leaves.

    Attributes:
        policy: the next one, in eval mode.
        figures: about what was learned, for the table of rounds.
        critic: chooses among candidates at run time; None if the method has none.
    """

    policy: TrainablePolicy
    figures: dict[str, Any]
    critic: Critic | None = None


class Improver(Protocol):
    """A post-training method."""

    def improve(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Improved:
        """Makes a better policy of everything that was done.

        Args:
            policy: the current one, in eval mode; stays as it is.
            experience: everything collected so far.
            before: the critic of the round before, which may be taught on; None in the first.
            seed: of all draws.

        Raises:
            ValueError: a policy that the method cannot begin with.
        """


@dataclass
class Judgement:
    """What a method thinks of everything that was done.

    Attributes:
        weights: (N,), how much each of the replay's `starts` is worth imitating; mean 1.
        figures: about the judgement, for the table of rounds.
        critic: chooses among candidates at run time; None if the method has none.
        told: further values (N,) of each start, which the policy's loss is told.
    """

    weights: np.ndarray
    figures: dict[str, Any]
    critic: Critic | None = None
    told: Mapping[str, np.ndarray] = field(default_factory=dict)


class Judge(ABC):
    """A method that judges; the policy then imitates, each fragment as often as it weighs.

    Args:
        config: the method's settings, with `actor`, an `ActorConfig`.
    """

    def __init__(self, config: Any) -> None:  # noqa: ANN401 (the method's own)
        self.config = config

    @abstractmethod
    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """Judges everything that was done; the arguments are those of `Improver.improve`."""

    def improve(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Improved:
        """See `Improver`."""
        found = self.judge(policy, experience, before, seed)
        starts, actor = experience.replay.starts, self.config.actor
        better, losses = imitate(
            policy, experience, starts, found.weights, actor, seed, told=found.told
        )
        return Improved(better, found.figures | losses, found.critic)


def held_out(numbers: np.ndarray) -> np.ndarray:
    """Which episodes no judge learns from, bool (E,).

    Args:
        numbers: of each in its dataset (E,); a dataset that grows changes no episode's lot.
    """
    return stream(0, "held out").random(int(numbers.max()) + 1)[numbers] < HELD_OUT


def in_batches(frames: np.ndarray) -> list[np.ndarray]:
    """Frames (N,) in parts that fit into memory."""
    return [frames[k : k + BATCH] for k in range(0, len(frames), BATCH)]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Of two columns (N,); None where one of them does not differ."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
