"""Behaviour cloning of everything that was collected, or of what succeeded (filtered)."""

from typing import TYPE_CHECKING

import numpy as np

from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.improver import Judge, Judgement
from robolearn.policies.improver_configs import BcConfig

if TYPE_CHECKING:
    from robolearn.experience import Experience


class Bc(Judge):
    """All weights are equal, or those of failures are zero; see `Judge`."""

    config: BcConfig

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """See `Judge`."""
        del policy, before, seed
        replay = experience.replay
        succeeded = replay.success[replay.episode[replay.starts]]
        weights = (succeeded | (not self.config.successes)).astype(np.float64)
        return Judgement(weights / weights.mean(), {"kept": float((weights > 0).mean())})
