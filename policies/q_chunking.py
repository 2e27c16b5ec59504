"""Q-chunking (Li et al. 2025): the critic's target takes the best of the policy's chunks.

    y = sum_{k<n} gamma^k r_k + gamma^n (1 - terminated) max_{a' of N samples} mean_m Q'_m(s', a')

The critic values choosing the best of N, as is done at run time; the policy itself goes on
imitating everything. ALOE evaluates the policy as it is, and improves it.
"""

from typing import TYPE_CHECKING

import numpy as np

from robolearn.policies.aloe import critic_of
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.improver import Judge, Judgement
from robolearn.policies.improver_configs import QChunkingConfig

if TYPE_CHECKING:
    from robolearn.experience import Experience


class QChunking(Judge):
    """See the module's docstring, and `Judge`."""

    config: QChunkingConfig

    def judge(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Judgement:
        """See `Judge`."""
        critic, _, figures = critic_of(self.config.critic, policy, experience, before, seed)
        return Judgement(np.ones(len(experience.replay.starts)), figures, critic)
