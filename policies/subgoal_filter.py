"""A filter of imagined subgoals: does what a plan is to lead to lead on to the goal?

Hatch et al. 2024, "GHIL-Glue", arXiv 2410.20018, with a goal picture in place of words:

    now, subgoal, goal (N, C) each ─ cell by cell ─ MLP ─ log-odds that it is progress

A world model imagines well on average and badly now and then. Act2Goal makes each candidate of a
plan of its own (`Act2GoalPolicy.planning`), and the one whose subgoal looks most like progress is
executed. That is learned of demonstrations alone (`subgoal_examples.py`), without a rollout.

N cells of all cameras, C channels of a latent.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.checkpoint import CheckpointError
from robolearn.config import from_json
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.policies.aloe import auc
from robolearn.policies.base import Chunks, Context, Generators, Policy
from robolearn.policies.configs import SubgoalFilterConfig
from robolearn.policies.fitted import Fitted, Taught
from robolearn.policies.fitting import minimise
from robolearn.policies.residual import residual_mlp
from robolearn.policies.subgoal_examples import PROGRESS, WRONG, Examples
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.options import FilterConfig

NARROW: Final = 32  # features of a cell
JUDGED: Final = 256  # examples of each kind that tell how good it is


class SubgoalFilter(Taught, Fitted):
    """See the module's docstring.

    Args:
        config: sizes, and how it learns.
        shape: N and C.
        base: the fingerprint of the policy's checkpoint.
    """

    kind: ClassVar[str] = SubgoalFilterConfig.kind

    def __init__(self, config: SubgoalFilterConfig, shape: tuple[int, int], base: str) -> None:
        super().__init__()
        self.config, self.shape, self.base = config, shape, base
        self.compared = nn.Linear(3 * shape[1], NARROW)
        self.mlp = residual_mlp(shape[0] * NARROW, config.hidden, config.depth, 1)

    def forward(self, plans: Tensor) -> Tensor:
        """Log-odds (B,) that plans (B, 3, N, C) of now, subgoal and goal are progress."""
        cells = self.compared(plans.transpose(1, 2).flatten(2))  # (B, N, 3 C) -> (B, N, narrow)
        return self.mlp(functional.silu(cells).flatten(1))[:, 0]

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`.

        Raises:
            ValueError: the candidates have no plans.
        """
        del context, noise
        if chunks.plans is None:
            raise ValueError("these candidates have no plans; open the filter with their policy")
        return self(chunks.plans.flatten(0, 1)).view(chunks.plans.shape[:2])

    def prepare(self, policy: Policy) -> None:
        """Asks for a plan of each candidate; see `Fitted`."""
        _planner(policy).planning = True

    @classmethod
    def fitted_to(
        cls, policy: Policy, base: str, dataset: "EpisodeDataset", config: "FilterConfig"
    ) -> tuple[Self, dict[str, Any]]:
        """See `Taught`; the figures tell of episodes that it did not learn from."""
        planner = _planner(policy)
        examples = Examples(planner, dataset)
        torch.manual_seed(config.seed)  # the initial weights
        shape = (planner.backbone.world.count, planner.backbone.world.channels)
        found = cls(config.policy, shape, base).to(policy.device).train()
        losses = found.learn(examples, config.seed)
        return found.eval(), {"losses": losses, "auc": found.judged(examples, config.seed)}

    def learn(self, examples: Examples, seed: int) -> list[float]:
        """Learns to tell progress from what is none; returns the losses, meant over tenths."""
        c = self.config
        half = -(-c.batch_size // 2)
        kinds = np.array([*[PROGRESS] * half, *np.resize(WRONG, half)])

        def loss(step: int) -> Tensor:
            found = self(examples.draw(kinds, stream(step, f"subgoals {seed}")))
            truth = torch.from_numpy(kinds == PROGRESS).to(found)
            return functional.binary_cross_entropy_with_logits(found, truth)

        return minimise(self, loss, steps=c.steps, learning_rate=c.learning_rate)

    @torch.no_grad()
    def judged(self, examples: Examples, seed: int) -> dict[str, float | None]:
        """The area under the ROC curve, of each kind beside progress, in episodes held out."""
        rng = stream(seed, "judged subgoals")
        scores = {
            kind: self(examples.draw(np.full(JUDGED, kind), rng, held=True)).cpu().numpy()
            for kind in (PROGRESS, *WRONG)
        }
        truth = np.repeat([True, False], JUDGED)
        return {k: auc(np.concatenate([scores[PROGRESS], scores[k]]), truth) for k in WRONG}

    def description(self) -> dict[str, Any]:
        """See `Fitted`."""
        return {"config": asdict(self.config), "shape": list(self.shape), "base": self.base}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Fitted`."""
        cells, channels = description["shape"]
        config = from_json(SubgoalFilterConfig, description["config"])
        return cls(config, (cells, channels), description["base"])


def _planner(policy: Policy) -> Act2GoalPolicy:
    """The policy, if it plans.

    Raises:
        CheckpointError: it does not.
    """
    if not isinstance(policy, Act2GoalPolicy):
        raise CheckpointError(
            "a subgoal-filter rates what a policy imagines, and this one imagines nothing; "
            "give --base an act2goal policy"
        )
    return policy
