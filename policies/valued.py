"""What HIQL and SAW share: a value of goals, and policies that imitate what it says was good.

    value    own backbone ─ V(s, g)                   learns alone, see `goal_value.py`
    slow     its copy behind ─ V'(s, g), advantages   never learns
    policy   another backbone ─ modes of chunks       learns from the advantages alone

Recordings tell where a chunk led, s', and where they were some steps later, the subgoal w: no
reward, and no action but in what is imitated.

Settled here: advantages are those of the slow copy, which looks at all these pictures anyway, where
published is the value itself. They count in multiples of the executed steps, so that the published
sharpness means the same. In the loss, weights are shares of the largest one, since all gradients
are clipped together.
"""

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.hindsight import Hindsight
from robolearn.policies.backbone import Backbone
from robolearn.policies.base import Batch, Info
from robolearn.policies.chunks import beside_goal
from robolearn.policies.goal_configs import ValuedConfig
from robolearn.policies.goal_value import (
    CAP,
    Advantages,
    GoalValue,
    Way,
    advantages,
    reached,
    temporal_error,
)
from robolearn.policies.mode import ModePolicy
from robolearn.policies.readout import TOKENS

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset


class Judge(nn.Module):
    """A value, and what it looks with.

    Args:
        backbone: whose last tokens are of goals.
        cameras: that show goals.
        config: of the value.
    """

    def __init__(self, backbone: Backbone, cameras: int, config: ValuedConfig) -> None:
        super().__init__()
        self.backbone, self.shown = backbone, TOKENS * cameras
        width = backbone.config.width
        state = (backbone.token_count - self.shown) * width
        self.value = GoalValue(config, state, self.shown * width)

    def see(self, seen: Batch, goal: Batch) -> tuple[Tensor, Tensor]:
        """Numbers of observations (B, S), and of goal pictures (B, G); neither knows the other."""
        tokens = self.backbone(beside_goal(seen, goal), [""] * len(seen["agent_pos"]))
        return apart(tokens, self.shown)

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Values (M, B); see `GoalValue`."""
        return self.value(state, goal)


def apart(tokens: Tensor, shown: int) -> tuple[Tensor, Tensor]:
    """Of tokens (B, T, D) those of the observation, and the `shown` of its goal, (B, numbers)."""
    return tokens[:, :-shown].flatten(1), tokens[:, -shown:].flatten(1)


class ValuedPolicy(ModePolicy):
    """See the module's docstring, and `ModePolicy`."""

    config: ValuedConfig

    def __init__(self, config: ValuedConfig, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(config, *args, **options)
        looks = type(self.backbone)(config.backbone, self.backbone.senses)
        self.judge = Judge(looks, len(self.cameras), config)
        self.slow = copy.deepcopy(self.judge).requires_grad_(requires_grad=False)

    def fit(self, dataset: "EpisodeDataset") -> None:
        """See `ChunkPolicy`."""
        super().fit(dataset)
        for judge in (self.judge, self.slow):
            judge.backbone.fit(dataset.columns)

    def windows(self, dataset: "EpisodeDataset") -> Hindsight:
        """With what was seen after the executed steps, and at the subgoal; see `Policy`."""
        c = self.config
        seen = dataset.windows(self.horizon, tuple(self.cameras))
        return Hindsight(seen, c.hindsight, waypoints={"then": c.executed, "subgoal": c.ahead})

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The value's and the policy's, neither of which moves what the other one learns."""
        if self.training:
            self._follow()
        way = self._way(batch)
        value = self._value_loss(batch, way)
        parts = self.errors(batch, way, self.advantages(way), rng)
        info = {"value/loss": value} | {f"{name}/loss": part for name, part in parts.items()}
        loss = value + sum(parts.values(), torch.zeros_like(value)) / CAP
        return loss, {name: float(part.detach()) for name, part in info.items()}

    @torch.no_grad()
    def advantages(self, way: Way) -> Advantages:
        """What the slow value says of recorded ways."""
        return advantages(self.slow, way, self.config)

    @abstractmethod
    def errors(
        self, batch: Batch, way: Way, found: Advantages, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """The weighted errors of the parts of the policy, by name.

        Args:
            batch: from `windows`.
            way: the same as the slow value sees it.
            found: what the slow value says of it.
            rng: the source of all randomness.
        """

    @torch.no_grad()
    def begin_alike(self) -> None:
        """The slow copy's adapters are those of what it follows; see `TrainablePolicy`.

        Else it would average factors that have nothing to do with each other.
        """
        behind = dict(self.slow.named_parameters())
        for name, weight in self.judge.named_parameters():
            if weight.requires_grad:
                behind[name].copy_(weight)

    @torch.no_grad()
    def _follow(self) -> None:
        """The slow copy takes over a little of what has been learned since the last step."""
        behind = dict(self.slow.named_parameters())
        learning = {n: p for n, p in self.judge.named_parameters() if p.requires_grad}
        following: list[Tensor] = [behind[name] for name in learning]
        torch._foreach_lerp_(following, [*learning.values()], self.config.polyak)

    @torch.no_grad()
    def _way(self, batch: Batch) -> Way:
        """What the slow value sees; its third look is for the subgoal as a place."""
        pixels = batch["subgoal"]["pixels"]
        state, goal = self.slow.see(batch, batch["goal_pixels"])
        then, subgoal = self.slow.see(batch["then"], pixels)
        there, _ = self.slow.see(batch["subgoal"], pixels)
        return Way(state, then, there, subgoal, goal, batch["steps"])

    def _value_loss(self, batch: Batch, way: Way) -> Tensor:
        """Of each observation with its goal, and with the next one's if that is a stranger."""
        c, steps = self.config, way.steps
        state, goal = self.judge.see(batch, batch["goal_pixels"])
        moved = steps.clamp(max=c.executed)
        with torch.no_grad():
            slow, after = self.slow(way.state, way.goal), self.slow(way.then, way.goal)
            other = way.goal.roll(1, 0)
            slow_other, after_other = self.slow(way.state, other), self.slow(way.then, other)
        after = reached(after, steps <= c.executed)
        own = temporal_error(self.judge(state, goal), slow, after, moved, c)
        others = self.judge(state, goal.roll(1, 0))
        strange = batch["episode"] != batch["episode"].roll(1)
        away = temporal_error(others, slow_other, after_other, moved, c)
        return own.mean() + (away * strange).mean()
