"""How a part of a network is taught for a fixed number of steps, beside `robolearn train`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from robolearn.doctor import bf16_pays
from robolearn.schedule import cosine

WARMUP: Final = 0.05  # share of the steps
WEIGHT_DECAY: Final = 1e-4
CLIP: Final = 1.0  # largest norm of the gradient


def in_bf16(device: torch.device) -> AbstractContextManager:
    """Matrix products in half the bits, where that is faster; not for what is compared closely."""
    pays = device.type != "cpu" or bf16_pays()
    return torch.autocast(device.type, torch.bfloat16, enabled=pays)


def minimise(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    learning_rate: float,
    follower: nn.Module | None = None,
    pace: float = 0.0,
    until: Callable[[int], bool] | None = None,
) -> list[float]:
    """Teaches whatever in the model wants gradients; returns the losses, meant over tenths.

    Args:
        model: learns in place.
        loss: of a step, from 0.
        steps: how many.
        learning_rate: its peak; it warms up linearly, then falls to zero as a cosine.
        follower: a copy of the model, whose weights come after.
        pace: how much of the difference the follower takes over in a step.
        until: is told how many steps there were after each, and whether they are enough.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    learning: list[Tensor] = list(named.values())
    behind = dict(follower.named_parameters()) if follower else {}
    following: list[Tensor] = [behind[name] for name in named if follower]
    optimizer = torch.optim.AdamW(learning, weight_decay=WEIGHT_DECAY, fused=True)
    losses, done = torch.zeros(steps), 0
    for step in range(steps):
        rate = learning_rate * cosine(step, steps, round(WARMUP * steps))
        optimizer.param_groups[0]["lr"] = rate
        value = loss(step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(learning, CLIP)
        optimizer.step()
        if following:
            with torch.no_grad():
                torch._foreach_lerp_(following, learning, pace)
        losses[step], done = value.detach(), step + 1
        if until and until(done):
            break
    borders = [round(part * done / 10) for part in range(11)]
    return [float(losses[a:b].mean()) for a, b in pairwise(borders) if b > a]
