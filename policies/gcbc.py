"""Goal-conditioned behaviour cloning: what was done next on the way to a later frame.

Ding et al. 2019, "Goal-conditioned imitation learning", and Ghosh et al. 2021, "Learning to reach
goals via iterated supervised learning", with chunks:

    loss = E |chunk - mode(observation, goal)|^2        goals in hindsight: `robolearn.hindsight`

It has the flow policy's backbone, sizes, goals and pictures; what differs is that it tells the mean
of what was done, where a flow tells one of the ways.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor

from robolearn.policies.base import Batch, Info
from robolearn.policies.goal_configs import GcbcConfig
from robolearn.policies.mode import ModePolicy, squared_error


class GcbcPolicy(ModePolicy):
    """See the module's docstring."""

    kind: ClassVar[str] = GcbcConfig.kind
    config_type = GcbcConfig
    config: GcbcConfig

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """See `Policy`; chunks have no end, since the arm stays at its goal."""
        mode, _ = self.head.prefix(self.tokens_of(batch, batch["instruction"], rng))
        loss = squared_error(mode, self.clean_of(batch)).mean()
        return loss, {f"{self.kind}/loss": float(loss.detach())}
