"""Adapters of low rank beside layers, and how they become part of the weights.

    y = W x + (alpha / r) B A x        A (r, in) random, B (out, r) zero at first

Hu et al. 2022, "LoRA", arXiv 2106.09685, section 4.1, with alpha = r. A fresh adapter changes
nothing; merged, W becomes W + B A and the model is like any other. Beside a convolution A is one of
the same kernel with r channels, and B one of 1 x 1.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from robolearn.policies.base import TrainablePolicy


def linear_layers(module: nn.Module) -> list[str]:
    """The names of its linear layers."""
    return [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]


def inject(module: nn.Module, rank: int, layers: Collection[str]) -> dict[str, nn.Parameter]:
    """Puts fresh adapters beside layers, in place; all that is left to learn, by name.

    Args:
        module: whose other weights stay as they are.
        rank: r.
        layers: full names of linear layers and convolutions.
    """
    from peft import LoraConfig, inject_adapter_in_model

    module.requires_grad_(requires_grad=False)
    # Of a list peft would also take every layer whose name ends so.
    named = "|".join(re.escape(name) for name in layers)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=f"({named})")
    inject_adapter_in_model(config, module)
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def adapted(
    module: nn.Module,
    rank: int,
    seed: int,
    fixed: nn.Module | None = None,
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d),
) -> dict[str, nn.Parameter]:
    """Puts fresh adapters beside all layers of some kinds, in place; all that is left to learn.

    Args:
        module: whose other weights stay as they are.
        rank: r.
        seed: of A.
        fixed: a part of it that gets none.
        kinds: of layers.

    Returns:
        The adapters' weights by name.
    """
    inside = set(fixed.modules()) if fixed else set()
    layers = [
        name
        for name, part in module.named_modules()
        if isinstance(part, kinds) and part not in inside
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return inject(module, rank, layers)


def adapted_policy(
    policy: "TrainablePolicy",
    rank: int,
    seed: int,
    fixed: nn.Module | None = None,
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv2d),
) -> dict[str, nn.Parameter]:
    """The same in a policy: what is novel in it learns, too, and what follows begins alike."""
    adapted(policy, rank, seed, fixed, kinds)
    for weight in policy.novel:
        weight.requires_grad_()
    policy.begin_alike()
    return {name: p for name, p in policy.named_parameters() if p.requires_grad}


def merge(module: nn.Module) -> None:
    """Adds the adapters to the weights that they are beside, and removes them, in place."""
    from peft.tuners.lora import LoraLayer

    for name, part in list(module.named_modules()):
        if isinstance(part, LoraLayer):
            part.merge()
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, part.get_base_layer())
