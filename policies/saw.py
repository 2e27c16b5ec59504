"""SAW: one flat policy that learns from subgoals what a hierarchy would do.

Zhou and Kao 2025, "Flattening hierarchies with policy bootstrapping", arXiv 2505.14975, with modes
in place of Gaussians of one deviation, so that the divergence is a squared distance:

    nearby  exp(alpha A(s, a, w)) |sub(s, w) - chunk|^2           w: k steps ahead
    flat    exp(alpha A(s, a, g)) |pi(s, g) - chunk|^2
            + exp(beta A(s, w, g)) |pi(s, g) - sub(s, w)|^2       sub held fixed
    acts    pi(s, g)

The value is HIQL's, and so is what advantages are good for far away and nearby; but no subgoal is
proposed: the flat policy takes what sub does towards the subgoals of the data. Where the goal is
nearer than k steps, w is the goal: pi then is advantage-weighted regression, and is taught by sub,
which is the same.

Settled here: k is `ahead`; the action is a chunk, of which `executed` steps are rated; sub is a
second head upon the backbone of pi, and sees the subgoal's picture as pi sees the goal's.
"""

from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from robolearn.policies.base import Batch
from robolearn.policies.goal_configs import SawConfig
from robolearn.policies.goal_value import Advantages, Way, weights_of
from robolearn.policies.mode import ModeHead, squared_error
from robolearn.policies.valued import ValuedPolicy


class SawPolicy(ValuedPolicy):
    """See the module's docstring."""

    kind: ClassVar[str] = SawConfig.kind
    config_type = SawConfig
    config: SawConfig
    head: ModeHead

    def __init__(self, config: SawConfig, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(config, *args, **options)
        size = self.backbone.token_count * config.backbone.width
        self.nearby = ModeHead(size, self.head.chunk, config)

    def errors(
        self, batch: Batch, way: Way, found: Advantages, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """See `ValuedPolicy`."""
        del way
        closer = {**batch, "goal_pixels": batch["subgoal"]["pixels"]}
        flat, nearby = (
            head.prefix(self.tokens_of(seen, batch["instruction"], rng))[0]
            for head, seen in ((self.head, batch), (self.nearby, closer))
        )
        return flattened_errors(flat, nearby, self.clean_of(batch), found, self.config)


def flattened_errors(
    flat: Tensor, nearby: Tensor, clean: Tensor, found: Advantages, c: SawConfig
) -> dict[str, Tensor]:
    """The weighted errors of both policies, scalars.

    Args:
        flat: chunks towards the goals (B, ...).
        nearby: chunks towards the subgoals (B, ...).
        clean: what was done (B, ...).
        found: advantages.
        c: how sharply they tell.
    """
    imitates = weights_of(found.of_chunk, c.alpha) * squared_error(flat, clean)
    follows = weights_of(found.of_subgoal, c.beta) * squared_error(flat, nearby.detach())
    closer = weights_of(found.of_chunk_nearby, c.alpha) * squared_error(nearby, clean)
    return {"flat": (imitates + follows).mean(), "nearby": closer.mean()}
