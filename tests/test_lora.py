"""Adapters of low rank: fresh ones change nothing, merged ones are part of the weights."""

import copy

import pytest
import torch
import toy
from torch import nn

from robolearn.policies.lora import adapted as everything
from robolearn.policies.lora import inject, linear_layers, merge
from robolearn.seeding import stream
from robolearn.student import LEARNING


def policy():
    return toy.tiny_policy(config=toy.TINY_ACT2GOAL)


def acts(acting):
    seen = toy.observations(2)
    seen["goal_pixels"] = toy.observations(2, 100)["pixels"]
    with torch.inference_mode():
        context = acting.encode(seen, ["", ""])
        return acting.sample(context, 2, [stream(0, "a"), stream(0, "b")]).actions


@pytest.fixture(scope="module")
def adapted():
    """A policy with adapters that are not zero, and these."""
    acting = policy()
    adapters = inject(acting, 2, linear_layers(acting))
    torch.manual_seed(0)
    for weight in adapters.values():
        torch.nn.init.normal_(weight, std=0.1)
    return acting, adapters


def test_fresh_adapters_change_nothing():
    acting = policy()
    adapters = inject(acting, 2, linear_layers(acting))
    assert len(adapters) == 2 * len(linear_layers(policy()))
    plain = policy().requires_grad_(requires_grad=False)  # convolves by another routine then
    assert torch.equal(acts(acting), acts(plain))


def test_they_are_all_that_learns(adapted):
    acting, adapters = adapted
    learning = {name for name, weight in acting.named_parameters() if weight.requires_grad}
    assert learning == adapters.keys()


def test_merged_they_act_as_before_and_leave_an_ordinary_policy(adapted):
    acting, _ = adapted
    merged = copy.deepcopy(acting)
    merge(merged)
    assert not torch.allclose(acts(merged), acts(policy()))
    torch.testing.assert_close(acts(merged), acts(acting), atol=1e-5, rtol=1e-5)
    assert merged.state_dict().keys() == policy().state_dict().keys()
    plain = policy().requires_grad_(requires_grad=False)
    plain.load_state_dict(merged.state_dict())
    assert torch.equal(acts(plain), acts(merged))


def test_merging_adds_the_product_of_both_factors(adapted):
    acting, adapters = adapted
    merged = copy.deepcopy(acting)
    merge(merged)
    name = "head.outward"
    down, up = (adapters[f"{name}.lora_{part}.default.weight"] for part in "AB")
    added = merged.head.outward.weight - policy().head.outward.weight
    torch.testing.assert_close(added, up @ down, atol=1e-6, rtol=1e-5)


def test_convolutions_that_learn_are_adapted_and_the_autoencoder_is_not():
    acting = policy()
    learning = everything(acting, 2, 0, acting.fixed)
    beside = {name.partition(".lora_")[0] for name in learning}
    convolutions = {name for name in beside if isinstance(policy().get_submodule(name), nn.Conv2d)}
    assert any(name.startswith("backbone.world.eye") for name in convolutions)
    assert any(name.startswith("backbone.look") for name in convolutions)
    assert not any("autoencoder" in name for name in beside)
    torch.manual_seed(0)
    for weight in learning.values():
        torch.nn.init.normal_(weight, std=0.1)
    merged = copy.deepcopy(acting)
    merge(merged)
    assert not torch.allclose(acts(merged), acts(policy()))
    torch.testing.assert_close(acts(merged), acts(acting), atol=1e-5, rtol=1e-5)
    assert merged.state_dict().keys() == policy().state_dict().keys()


@pytest.mark.parametrize("kind", ["hiql", "saw"])
def test_a_slow_copy_begins_with_the_adapters_of_what_it_follows(kind):
    acting = toy.tiny_policy(config=toy.TINY_MODES[kind])
    LEARNING["lora"](acting, 2, 0)
    slow = dict(acting.slow.named_parameters())
    first = {name: p for name, p in acting.judge.named_parameters() if "lora_A" in name}
    assert first
    assert all(torch.equal(slow[name], weight) for name, weight in first.items())


def test_linear_layers_alone():
    learning = everything(policy(), 2, 0, kinds=(nn.Linear,))
    assert {name.partition(".lora_")[0] for name in learning} == {*linear_layers(policy())}
