"""What post-training methods share: each judges what was done; imitating it is common to all."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic

if TYPE_CHECKING:
    from robolearn.experience import Experience


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
