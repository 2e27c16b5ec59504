"""DAgger with takeovers (HG-DAgger, Kelly et al. 2019): imitate who demonstrates and who corrects.

What the policy did by itself counts for nothing, however well it went.
"""

from typing import TYPE_CHECKING

import numpy as np

from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.improver import Judge, Judgement
from robolearn.policies.improver_configs import DaggerConfig

if TYPE_CHECKING:
    from robolearn.experience import Experience


class Dagger(Judge):
    """See the module's docstring, and `Judge`."""

    config: DaggerConfig

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """See `Judge`."""
        del policy, before, seed
        replay = experience.replay
        corrected = replay.fragments(replay.starts).intervention[:, 0]
        shown = replay.episode[replay.starts] < experience.demonstrations
        weights = (corrected | shown).astype(np.float64)
        return Judgement(weights / weights.mean(), {"kept": float(weights.mean())})
