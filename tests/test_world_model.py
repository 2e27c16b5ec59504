"""The world model: which way it flows, what it does with a goal, and what it leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn.policies import autoencoder
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.policies.autoencoder import Autoencoder
from robolearn.policies.temporal_distance import TemporalDistance
from robolearn.policies.world_model import CERTAIN
from robolearn.seeding import stream

CELLS = 8  # in a row, which a dot moves along
CONFIG = replace(toy.TINY_ACT2GOAL, horizon=4, stride=2, far=2, latents=4, width=32, sample_steps=8)


def line_policy():
    config = replace(CONFIG, hindsight=replace(toy.GOALS, furthest=CELLS - 1))
    torch.manual_seed(0)
    cameras = {"top": (16, 16 * CELLS)}
    return Act2GoalPolicy(config, cameras, toy.arm_description(), ())


def dots(places):
    """Latents (..., N, C) of a dot at these cells."""
    bump = torch.exp(-((torch.arange(CELLS) - places[..., None]) ** 2) / 2.0)
    return 2.0 * torch.stack([bump, 1.0 - bump, bump - 0.5, 0.5 - bump], -1)


def places_of(latents):
    """Where the dot is in latents (..., N, C)."""
    weight = latents[..., 0].clamp(min=0.0) ** 2
    return (weight * torch.arange(CELLS)).sum(-1) / weight.sum(-1)


def ways(count, seed):
    """A dot that moves one cell a step towards its goal, to the left or to the right."""
    rng = np.random.default_rng(seed)
    start = rng.integers(CELLS, size=count)
    goal = (start + rng.integers(1, CELLS, size=count)) % CELLS
    return torch.from_numpy(start), torch.from_numpy(goal)


def trained(steps=350, *, still=False):
    policy = line_policy().train()
    world = policy.backbone.world
    optimizer = torch.optim.AdamW(world.parameters(), lr=3e-3)
    for step in range(steps):
        start, goal = ways(48, step)
        away = (goal - start).abs()
        offsets = torch.from_numpy(world.hashing.offsets(away.numpy()))
        places = start[:, None] + torch.sign(goal - start)[:, None] * offsets * (not still)
        future = dots(places).transpose(2, 3)[:, :, :, None]  # (B, T, C, 1, N)
        batch = {"future": {"top": future}, "steps": away}
        rng = stream(step, "loss")
        loss, _ = policy._imagining(dots(start), dots(goal), batch, rng, pure=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return policy.eval()


@pytest.fixture(scope="module")
def policy():
    return trained()


def imagined(policy, start, goal):
    world = policy.backbone.world
    steps = (goal - start).abs().clamp(min=1)
    latents = world.imagine(dots(start), dots(goal), steps, CONFIG.sample_steps)
    return places_of(latents), torch.from_numpy(world.hashing.offsets(steps.numpy()))


def test_before_it_learns_frames_change_from_now_to_the_goal():
    world = line_policy().backbone.world
    start, goal = ways(6, 3)
    away = (goal - start).abs()
    found = world.imagine(dots(start), dots(goal), away, CONFIG.sample_steps)
    offsets = torch.from_numpy(world.hashing.offsets(away.numpy()))
    share = (offsets / away[:, None]).clamp(CERTAIN, 1.0 - CERTAIN)[..., None, None]
    mixed = (1.0 - share) * dots(start)[:, None] + share * dots(goal)[:, None]
    torch.testing.assert_close(found, mixed, atol=1e-4, rtol=0.0)


def test_imagined_frames_lie_on_the_way_in_order(policy):
    start, goal = ways(32, 999)
    found, offsets = imagined(policy, start, goal)
    wanted = start[:, None] + torch.sign(goal - start)[:, None] * offsets
    assert (found - wanted).abs().mean() < 0.5
    along = (found - start[:, None]) * torch.sign(goal - start)[:, None]
    assert (along.diff(dim=1) > -0.6).float().mean() > 0.9


def test_another_goal_is_another_end(policy):
    start, goal = torch.tensor([3, 3]), torch.tensor([0, 7])
    found, _ = imagined(policy, start, goal)
    swapped, _ = imagined(policy, start, goal.flip(0))
    assert (found[:, -1] - goal).abs().max() < 1.0
    assert (swapped[:, -1] - goal.flip(0)).abs().max() < 1.0


def test_a_model_that_was_shown_a_still_picture_does_not_pass_for_one_that_imagines():
    start, goal = ways(32, 999)
    found, _ = imagined(trained(150, still=True), start, goal)
    assert (found[:, -1] - goal).abs().mean() > 1.0


def test_tokens_of_now_and_goal_are_the_same_whatever_the_noise_and_the_time():
    world, entered = line_policy().backbone.world, []
    world.blocks[0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs))
    start, goal = ways(5, 1)
    for t in (0.0, 0.7):
        noisy = torch.randn(5, world.hashing.frames, CELLS, CONFIG.latents)
        world(dots(start), dots(goal), noisy, torch.full((5, 1), t), (goal - start).abs())
    (first, c), (second, other) = entered
    assert torch.equal(first[:, :2], second[:, :2])
    assert torch.equal(c[:, :2], other[:, :2])
    assert not torch.equal(first[:, 2], second[:, 2])
    assert not torch.equal(c[:, 2], other[:, 2])


def test_cameras_keep_their_order_whatever_the_order_of_the_pictures():
    world = toy.tiny_policy(config=toy.TINY_ACT2GOAL).backbone.world
    pixels = toy.observations(2)["pixels"]
    assert torch.equal(world.see(pixels), world.see(dict(reversed(pixels.items()))))
    swapped = {"top": pixels["wrist"], "wrist": pixels["top"]}
    assert not torch.equal(world.see(pixels), world.see(swapped))


def test_decoded_latents_are_the_pictures_of_their_cameras():
    world = toy.tiny_policy(config=toy.TINY_ACT2GOAL).backbone.world
    latents = torch.randn(2, 4, world.count, toy.TINY_ACT2GOAL.latents)
    pictures = world.decode(latents)
    assert {name: tuple(x.shape) for name, x in pictures.items()} == {
        name: (2, 4, *toy.SIZE, 3) for name in toy.CAMERAS
    }
    assert pictures["top"].dtype == torch.uint8


def test_an_autoencoder_learns_to_give_pictures_back():
    rng = np.random.default_rng(0)
    frames = np.zeros((64, 32, 48, 3), np.uint8)
    for frame in frames:
        row, column = rng.integers(26), rng.integers(40)
        frame[row : row + 6, column : column + 8] = (250, 60, 30)
    torch.manual_seed(0)
    model = Autoencoder(32)
    losses = model.fit({"top": frames}, 60, seed=0)
    assert losses[-1] < 0.5 * losses[0]
    assert not any(weight.requires_grad for weight in model.parameters())
    shape = model.features((32, 48)).of(frames[:3]).shape
    assert shape == (3, *model.features((32, 48)).shape) == (3, 32, 2, 3)


def test_the_autoencoder_also_knows_a_table_of_another_colour(monkeypatch):
    def frames(table):
        rng = np.random.default_rng(0)
        seen = np.full((64, 32, 48, 3), table, np.uint8)
        for frame in seen:
            row, column = rng.integers(26), rng.integers(40)
            frame[row : row + 6, column : column + 8] = (250, 60, 30)
        return seen

    other, errors = torch.from_numpy(frames((90, 110, 120))[:16]), {}
    for light in (0.0, autoencoder.LIGHT):
        monkeypatch.setattr(autoencoder, "LIGHT", light)
        torch.manual_seed(0)
        model = Autoencoder(32)
        model.fit({"top": frames((176, 153, 128))}, 150, seed=0)
        drawn = model.decode(model.encoder(other), (32, 48))
        errors[light] = (drawn.float() - other.float()).abs().mean()
    assert errors[autoencoder.LIGHT] < 0.5 * errors[0.0]


def test_latents_have_no_mean_and_unit_variance_in_any_cell():
    pixels = toy.observations(3)["pixels"]["top"]
    latents = Autoencoder(16).encoder(pixels)
    assert latents.mean(1).abs().max() < 1e-4
    assert (latents.var(1, unbiased=False) - 1.0).abs().max() < 0.05


@pytest.fixture(scope="module")
def distance():
    """It knows a line of cells; other episodes lie elsewhere."""
    torch.manual_seed(0)
    model = TemporalDistance(CELLS, 4, 7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(300):
        start, goal = ways(48, step)
        side = torch.arange(48) % 2  # of the scene that an episode is played in
        loss = model.loss(at(start, side), at(goal, side), (goal - start).abs(), side)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def at(places, side):
    return dots(places) + side[:, None, None]


def test_distance_falls_along_an_episode_and_ends_at_about_a_step(distance):
    here, there = torch.arange(CELLS), torch.full((CELLS,), CELLS - 1)
    side = torch.zeros(CELLS)
    steps = distance.steps(at(here, side), at(there, side)).detach()
    order = steps.argsort(descending=True).numpy()
    assert np.corrcoef(order, np.arange(CELLS))[0, 1] >= 0.9
    assert steps[-1] < 2.0
    assert abs(float(steps[0]) - (CELLS - 1)) < 3.0


def test_a_goal_of_another_scene_is_farther_than_any(distance):
    here, there = torch.arange(CELLS), torch.flip(torch.arange(CELLS), (0,))
    steps = distance.steps(at(here, torch.zeros(CELLS)), at(there, torch.ones(CELLS)))
    assert (steps > 2 * (CELLS - 1)).all()
