"""V(s, g): the steps from an observation to a goal, as the better of what was recorded took them.

Park et al. 2023, "HIQL: Offline goal-conditioned RL with latent states as actions", arXiv
2307.11949: implicit Q-learning without actions. Each step is worth -1 until the goal is reached,
where V is 0 and nothing follows; no other reward is looked at. With s' so many steps m later

    target = -(1 + gamma + ... + gamma^(m-1)) + gamma^m V'(s', g)
    L_V = E |tau - 1(A < 0)| (target - V(s, g))^2        A = min target - mean V'(s, g)

V' is a slow copy of V, and the two heads differ in nothing but their beginnings. With tau above one
half V is what the better continuations are worth; where the same state is followed by luck and by
skill alike, it is too hopeful.

V(s, g) looks at the goal through phi(s, g) alone, some numbers of a fixed length, so that phi is
what matters of a goal: subgoals are proposed in that form. As in the authors' code it knows s.

Settled here: m is what is executed of a chunk, as a chunk is this policy's action. Goals are later
frames of the episode and, as often, frames of other episodes, which teach what is out of reach.
That V is 0 at the goal is not learned but known (`reached`). A value counts steps, and is between
-1 / (1 - gamma) and 0 by a sigmoid. It begins by taking every goal for one decision away: beginning
in the middle it rose as a whole, and phi became the same for all goals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.goal_configs import ValuedConfig
from robolearn.policies.residual import residual_mlp

CAP = 100.0  # the largest weight


class GoalValue(nn.Module):
    """See the module's docstring.

    Args:
        config: sizes, and the discount.
        state: numbers of a state, S.
        goal: numbers of a goal, G.
    """

    def __init__(self, config: ValuedConfig, state: int, goal: int) -> None:
        super().__init__()
        self.length, self.lowest = sqrt(config.representation), lowest(config)
        wide, narrow = config.hidden, config.representation
        self.phi = residual_mlp(state + goal, wide, 1, narrow)
        heads = [residual_mlp(state + narrow, wide, 1, 1) for _ in range(config.heads)]
        self.heads = nn.ModuleList(heads)
        near = torch.tensor(-config.executed / self.lowest).clamp(max=0.5)
        self.begin = float(near.logit())

    def represent(self, state: Tensor, goal: Tensor) -> Tensor:
        """The phi (B, d) of states (B, S) and goals (B, G)."""
        with torch.autocast(state.device.type, enabled=False):  # steps are finer than bf16
            return of_length(self.phi(torch.cat([state, goal], 1).float()), self.length)

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Values (M, B) of states (B, S) and goals (B, G), in steps, of each head."""
        with torch.autocast(state.device.type, enabled=False):
            seen = torch.cat([state.float(), self.represent(state, goal)], 1)
            found = torch.stack([head(seen)[:, 0] for head in self.heads])
            return self.lowest * (found + self.begin).sigmoid()


def of_length(z: Tensor, length: float) -> Tensor:
    """Vectors (..., d) made as long as that."""
    return length * functional.normalize(z, dim=-1)


def lowest(config: ValuedConfig) -> float:
    """The value of never arriving."""
    return -1.0 / (1.0 - config.discount)


def reached(value: Tensor, there: Tensor) -> Tensor:
    """Values (..., B), or 0 for the states that are `there` (B,)."""
    return torch.where(there, 0.0, value)


def temporal_error(
    value: Tensor,
    slow: Tensor,
    following: Tensor,
    steps: Tensor,
    config: ValuedConfig,
) -> Tensor:
    """The loss (B,) of values, where never arriving counts as 1.

    Args:
        value: of the states (M, B), which learn.
        slow: of the same states, by the slow copy (M, B).
        following: of the states that followed, by the slow copy, 0 where the goal is (M, B).
        steps: that it took to these, m (B,).
        config: discount and expectile.
    """
    kept = config.discount**steps
    target = lowest(config) * (1.0 - kept) + kept * following
    advantage = target.amin(0) - slow.mean(0)
    share = torch.where(advantage < 0.0, 1.0 - config.expectile, config.expectile)
    return (share * ((target - value) / lowest(config)).square()).mean(0)


def weights_of(advantage: Tensor, sharpness: float) -> Tensor:
    """exp(sharpness A), at most `CAP`, of advantages A (B,).

    Advantage-weighted regression (Peng et al. 2019).
    """
    return (sharpness * advantage).exp().clamp(max=CAP)


@dataclass(frozen=True)
class Way:
    """B recorded chunks on their ways to a goal, as a value sees them.

    Attributes:
        state: s, where the chunk begins (B, S).
        then: s', where it ended, or the goal if that came first (B, S).
        there: w, the subgoal, or the goal if that came first (B, S).
        subgoal: w as a goal (B, G).
        goal: g (B, G).
        steps: K, from s to g (B,).
    """

    state: Tensor
    then: Tensor
    there: Tensor
    subgoal: Tensor
    goal: Tensor
    steps: Tensor


@dataclass(frozen=True)
class Advantages:
    """What is gained (B,), in multiples of the executed steps.

    Attributes:
        of_chunk: A(s, a, g) = V(s', g) - V(s, g), towards the goal.
        of_chunk_nearby: A(s, a, w), towards the subgoal.
        of_subgoal: A(s, w, g) = V(w, g) - V(s, g), by being at the subgoal.
    """

    of_chunk: Tensor
    of_chunk_nearby: Tensor
    of_subgoal: Tensor


def advantages(value: Callable[[Tensor, Tensor], Tensor], way: Way, c: ValuedConfig) -> Advantages:
    """What a value (M, B) of states and goals says of the ways, by the mean of its heads."""

    def gained(begin: Tensor, end: Tensor, goal: Tensor, there: Tensor) -> Tensor:
        return (reached(value(end, goal).mean(0), there) - value(begin, goal).mean(0)) / c.executed

    nearby = way.steps.clamp(max=c.ahead)
    return Advantages(
        gained(way.state, way.then, way.goal, way.steps <= c.executed),
        gained(way.state, way.then, way.subgoal, nearby <= c.executed),
        gained(way.state, way.there, way.goal, way.steps <= c.ahead),
    )
