"""Policies that look back: what they are shown, what they gain by it, and the whole way with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from hypothesis import given
from hypothesis import strategies as st
from test_remote import serving

from robolearn.agent import PolicyAgent
from robolearn.checkpoint import load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.evaluate import evaluate
from robolearn.options import EvalConfig
from robolearn.policies.base import Chunks, Context
from robolearn.seeding import stream
from robolearn.sources import source_of
from robolearn.train import train
from robolearn.windows import Windows

BACK = replace(toy.TINY, history=3)


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    history=st.integers(2, 6),
    data=st.data(),
)
def test_looking_back_ends_where_the_episode_began(lengths, history, data):
    total, first = sum(lengths), np.repeat(np.cumsum(lengths) - lengths, lengths)
    number = np.arange(total, dtype=np.float32)
    columns = dict.fromkeys(("agent_pos", "environment_state", "action"), number[:, None])
    pixels = {"top": number.astype(np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)}
    windows = Windows(
        2, np.array(lengths), ["go"] * len(lengths), columns, {"pixels": pixels}, history
    )
    indices = np.array(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=9)))
    batch = windows.get(indices)
    for row, index in enumerate(indices):
        seen = [max(first[index], index - age) for age in reversed(range(history))]
        assert batch["agent_pos"][row, :, 0].tolist() == seen
        assert batch["environment_state"][row, :, 0].tolist() == seen
        assert batch["pixels"]["top"][row, :, 0, 0, 0].tolist() == seen
        assert batch["action"][row, 0, 0] == index


def test_no_history_at_all_is_refused():
    with pytest.raises(ValueError, match="history is 0; it must be at least 1"):
        replace(toy.TINY, history=0)
    with pytest.raises(ValueError, match="the history 0; a window needs at least one step of each"):
        Windows(1, np.array([1]), ["go"], {}, {}, 0)


def test_an_agent_shows_what_training_showed(toy_data):
    """Step by step through a recorded episode, padding at its beginning included."""
    dataset, shown = EpisodeDataset(toy_data), []
    policy = toy.tiny_policy(config=BACK)
    windows = policy.windows(dataset)

    def encode(observation, instructions):
        shown.append(observation)
        return Context(torch.zeros(1, 1, 1), observation["agent_pos"][:, -1])

    chunks = Chunks(torch.zeros(1, 1, policy.horizon, 3), torch.zeros(1, 1, 1))
    policy.encode, policy.sample = encode, lambda *_: chunks
    agent = PolicyAgent(policy, replan_every=1)
    agent.reset(0, 1, "go")
    frames = {camera: dataset.frames(camera) for camera in policy.cameras}
    for step in range(5):
        pixels = {camera: np.array(f[step : step + 1]) for camera, f in frames.items()}
        agent.act({"agent_pos": dataset.columns["agent_pos"][step : step + 1], "pixels": pixels})
        trained = windows.get(np.array([step]))
        np.testing.assert_array_equal(shown[-1]["agent_pos"], trained["agent_pos"])
        for camera in policy.cameras:
            np.testing.assert_array_equal(shown[-1]["pixels"][camera], trained["pixels"][camera])


def past(count, history=3, seed=0):
    """Random observations, (count, history, ...)."""
    flat = toy.observations(count * history, seed)
    fold = lambda x: x.unflatten(0, (count, history))  # noqa: E731
    pixels = {camera: fold(x) for camera, x in flat["pixels"].items()}
    return {"agent_pos": fold(flat["agent_pos"]), "pixels": pixels}


@torch.inference_mode()
def test_every_observation_counts_and_so_does_their_order():
    policy, seen = toy.tiny_policy(config=BACK), past(2)
    context = policy.encode(seen, ["go red", "go blue"])
    assert context.tokens.shape == (2, policy.backbone.token_count, toy.SMALL.width)
    assert policy.backbone.token_count == 1 + 3 * (1 + 2 * len(toy.CAMERAS))
    torch.testing.assert_close(context.agent_pos, seen["agent_pos"][:, -1])
    for age in range(3):
        other = past(2, seed=1)
        mixed = {"agent_pos": seen["agent_pos"].clone(), "pixels": seen["pixels"]}
        mixed["agent_pos"][:, age] = other["agent_pos"][:, age]
        tokens = policy.encode(mixed, ["go red", "go blue"]).tokens
        changed = (tokens != context.tokens).any((0, 2)).nonzero()[:, 0].tolist()
        assert changed == [1 + age * 5]
    swapped = {**seen, "agent_pos": seen["agent_pos"].flip(1)}
    assert not torch.equal(policy.encode(swapped, ["go red", "go blue"]).tokens, context.tokens)


def test_chunks_are_relative_to_where_the_arm_is_now():
    policy, seen = toy.tiny_policy(config=BACK), past(2)
    target = seen["agent_pos"][:, -1:].expand(-1, policy.horizon, -1)
    mask = torch.ones(2, policy.horizon, dtype=torch.bool)
    batch = {**seen, "action": target, "mask": mask, "instruction": ["go", "go"]}
    clean = []
    policy.corrupt = lambda x, *_: clean.append(x) or (x, torch.zeros(*x.shape[:2], 1), x)
    policy.loss(batch, stream(0, "loss"))
    still = policy.chunk(target - seen["agent_pos"][:, -1:] * policy.relative)
    torch.testing.assert_close(clean[0][:, 0], still)


def drifting(count, rng):
    """A dot that drifts left or right; which way, one picture does not tell."""
    way = rng.choice([-1, 1], count)
    column = rng.integers(4, 12, count)
    pixels = np.zeros((count, 2, *toy.SIZE, 3), np.uint8)
    for age in range(2):
        x = column + way * 2 * (age - 1)
        for width in range(2):
            pixels[np.arange(count), age, 5:7, x + width] = 255
    agent_pos = np.zeros((count, 2, 3), np.float32)
    action = np.broadcast_to(0.1 * way[:, None, None], (count, 4, 3)).astype(np.float32)
    return way, {"agent_pos": agent_pos, "pixels": {"top": pixels}, "action": action}


def shown(batch, history):
    """The newest observations, as a policy with that history takes them."""
    newest = slice(-history, None) if history > 1 else -1
    pixels = {"top": batch["pixels"]["top"][:, newest]}
    seen = {"agent_pos": batch["agent_pos"][:, newest], "pixels": pixels}
    return toy.as_tensors(seen, "cpu")


def share_right(history):
    """How often a policy that was trained on drifting dots goes the right way."""
    config = replace(toy.TINY, history=history, hidden=32, depth=2, sample_steps=4)
    policy = toy.tiny_policy(config=config, cameras={"top": toy.SIZE}, seed=1).train()
    policy.chunk.fit(np.array([[[0.1] * 3] * 4, [[-0.1] * 3] * 4], np.float32))
    policy.backbone.agent_pos.fit(np.zeros((2, 3), np.float32))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=5e-3)
    rng = stream(0, "drifting")
    for step in range(200):
        _, batch = drifting(32, rng)
        rest = {"action": torch.from_numpy(batch["action"]), "instruction": ["go"] * 32}
        rest["mask"] = torch.ones(32, 4, dtype=torch.bool)
        loss, _ = policy.loss(shown(batch, history) | rest, stream(step, "loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    way, batch = drifting(200, rng)
    with torch.inference_mode():
        context = policy.eval().encode(shown(batch, history), ["go"] * 200)
        noise = [stream(k, "noise") for k in range(200)]
        chunks = policy.sample(context, 1, noise).actions[:, 0, :, 0].mean(1)
    return float((chunks.sign().numpy() == way).mean())


def test_two_observations_tell_which_way_a_thing_moves_and_one_does_not():
    assert share_right(2) > 0.95
    assert share_right(1) < 0.7


def test_it_is_trained_evaluated_and_served(toy_data, tmp_path):
    run = tmp_path / "run"
    train(replace(toy.train_config(toy_data, run), policy=BACK))
    policy = load_policy(run)
    assert policy.history == 3
    here = evaluate(EvalConfig(policy=str(run), episodes=2, videos=0, workers=0))
    with serving(run) as url:
        away = source_of(url)
        assert away.load().history == 3
        config = EvalConfig(policy=url, out=tmp_path / "away", episodes=2, videos=0, workers=0)
        there = evaluate(config)
    assert here["n"] == there["n"] == 2
    progress = [[episode["progress"] for episode in x["episodes"]] for x in (here, there)]
    assert progress[0] == progress[1]
    with torch.inference_mode():
        noise = lambda: [stream(0, "noise")]  # noqa: E731
        seen = past(1)
        chunk = policy.sample(policy.encode(seen, ["go red"]), 1, noise()).actions
        with serving(run) as url:
            remote = source_of(url).load()
            told = remote.sample(remote.encode(seen, ["go red"]), 1, noise()).actions
            with pytest.raises(OSError, match="agent_pos must be an array of 3 x 3 numbers"):
                remote.sample(remote.encode(toy.observations(1), ["go red"]), 1, noise())
    assert torch.equal(chunk, told)
