"""What of a policy learns in practice, by `--weights` of `robolearn adapt`."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import nn

from robolearn.checkpoint import load_tensors
from robolearn.policies.base import TrainablePolicy
from robolearn.policies.lora import adapted_policy

Learning = dict[str, nn.Parameter]  # by name


def _adapters(
    policy: TrainablePolicy, rank: int, seed: int, kinds: tuple[type[nn.Module], ...]
) -> Learning:
    return adapted_policy(policy, rank, seed, policy.fixed, kinds)


def _everything(policy: TrainablePolicy, rank: int, seed: int) -> Learning:
    del rank, seed
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


# Each is told a policy, and rank and seed of adapters.
LEARNING: Final[Mapping[str, Callable[[TrainablePolicy, int, int], Learning]]] = {
    "lora": partial(_adapters, kinds=(nn.Linear, nn.Conv2d)),
    "lora-linear": partial(_adapters, kinds=(nn.Linear,)),
    "full": _everything,
}


@torch.no_grad()
def go_on(learning: Learning, file: Path) -> None:
    """Sets what learns to what it had become, as a file says."""
    before = load_tensors(file)
    for name, weight in learning.items():
        weight.copy_(before[name])
