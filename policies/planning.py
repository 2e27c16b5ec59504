"""Candidates of a plan each: Act2Goal imagines frames from other noise, and acts on what it felt.

What the expert usually acts on are the world model's features of pure noise, which hardly depend on
it: a model that has learned its frames takes no notice of noise that says nothing of them. So here
the frames are imagined in full, and the expert gets the features of the last step towards them, as
it did in the part of its training that does not begin at pure noise. The first candidate acts as it
would without plans.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from robolearn.policies.base import Context, Generators

if TYPE_CHECKING:
    from robolearn.policies.act2goal import Act2GoalPolicy


@dataclass(kw_only=True)
class Outlook(Context):
    """A context that also keeps what further plans begin with.

    Attributes:
        now: latents of the observation (B, N, C).
        goal: those of the goal, likewise.
        steps: estimated between them (B,).
        known: the same as whole numbers, and as far as training had them.
        looked: what the expert sees beside the features, tokens (B, T, D).
    """

    now: Tensor
    goal: Tensor
    steps: Tensor
    known: Tensor
    looked: Tensor


@torch.no_grad()
def planned(
    policy: "Act2GoalPolicy", context: Context, n: int, noise: Generators
) -> tuple[Context, Tensor]:
    """A context whose cache has a row for each of n plans, B n of them, and `Chunks.plans`.

    Args:
        policy: that plans.
        context: B observations, from its `encode`.
        n: plans for each; the first ones are the same however many there are.
        noise: one generator for each context, whose own numbers stay as they are.
    """
    assert isinstance(context, Outlook)
    world = policy.backbone.world
    now, goal, known = (
        x.repeat_interleave(n, 0) for x in (context.now, context.goal, context.known)
    )
    begin = _beginnings(world.start, n, noise)
    frames, features = world.plan(now, goal, known, policy.config.sample_steps, begin)
    memories = policy.backbone.remembered(features, context.looked.repeat_interleave(n, 0))
    prefix = policy.head.prefix(memories, context.steps.repeat_interleave(n, 0))
    for plain, rows in zip(context.cache, prefix, strict=True):
        rows[::n] = plain
    plans = torch.stack([now, frames[:, world.hashing.near_frames - 1], goal], 1)
    return replace(context, cache=prefix), plans.unflatten(0, (-1, n))


def _beginnings(start: Tensor, n: int, noise: Generators) -> Tensor:
    """Noise (B n, T, N, C): of each context the usual (1, T, N, C) first, then n - 1 others."""
    shape = (n - 1, *start.shape[1:])
    drawn = [rng.spawn(1)[0].standard_normal(shape, dtype=np.float32) for rng in noise]
    others = torch.from_numpy(np.stack(drawn)).to(start.device)
    usual = start.expand(len(others), -1, -1, -1)[:, None]
    return torch.cat([usual, others], 1).flatten(0, 1)
