"""SuSIE: a subgoal is imagined once a decision, and it is all that tells the chunk the goal."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from test_world_model import CELLS, dots, places_of, ways

from robolearn.checkpoint import load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.evaluate import evaluate
from robolearn.policies.base import as_tensors
from robolearn.policies.flow import FlowPolicy
from robolearn.policies.latent_configs import SusieConfig
from robolearn.policies.susie import SusiePolicy
from robolearn.seeding import stream
from robolearn.train import train

CONFIG = toy.TINY_SUSIE
HORIZON, JOINTS, AHEAD = CONFIG.horizon, toy.TOY_ARM.size, CONFIG.ahead


def policy():
    return toy.tiny_policy(config=CONFIG)


def observations(count, seed=0, goal=100):
    seen = toy.observations(count, seed)
    return {**seen, "goal_pixels": toy.observations(count, seed + goal)["pixels"]}


def noise(count):
    return [stream(0, str(k)) for k in range(count)]


def acted(acting, seen, n=1):
    count = len(seen["agent_pos"])
    with torch.inference_mode():
        return acting.sample(acting.encode(seen, [""] * count), n, noise(count)).actions


def test_a_subgoal_is_imagined_once_a_decision_however_many_chunks():
    acting, looks = policy(), []
    acting.world.register_forward_hook(lambda *_: looks.append(1))
    actions = acted(acting, observations(2), n=5)
    assert len(looks) == CONFIG.sample_steps
    assert actions.shape == (2, 5, HORIZON, JOINTS)


def test_the_goal_matters_and_through_the_subgoal_alone():
    acting = policy()
    one, other = observations(2), observations(2, goal=200)
    assert not torch.allclose(acted(acting, one), acted(acting, other))
    acting.world.decode = lambda latents: {
        name: torch.full((len(latents), 1, *size, 3), 90, dtype=torch.uint8)
        for name, size in toy.CAMERAS.items()
    }
    assert torch.equal(acted(acting, one), acted(acting, other))


def test_a_batch_of_observations_is_what_each_is_alone():
    both, first = observations(2), observations(2)
    for kind in ("pixels", "goal_pixels"):
        first[kind] = {name: x[:1] for name, x in both[kind].items()}
    first["agent_pos"] = both["agent_pos"][:1]
    acting = policy()
    torch.testing.assert_close(acted(acting, both)[:1], acted(acting, first))


def test_instructions_are_not_heard():
    acting, seen = policy(), observations(1)
    told = [acting.encode(seen, [text]).tokens for text in ("go left", "")]
    assert torch.equal(*told)


@pytest.fixture(scope="module")
def data(toy_data):
    return EpisodeDataset(toy_data)


def test_the_subgoal_is_that_many_steps_ahead_or_the_goal_if_it_is_nearer(data):
    acting = SusiePolicy(
        replace(CONFIG, ahead=4, horizon=2), toy.CAMERAS, toy.arm_description(), ()
    )
    windows = acting.windows(data)
    longest = int(data.episodes.length.argmax())
    start, length = int(data.episodes.start[longest]), int(data.episodes.length[longest])
    kept = data.features("top", acting.world.features())
    for steps in range(1, length):
        future = windows.get(np.array([start]), np.array([steps]))["future"]["top"]
        assert future.shape[1] == 1
        assert (future[0, 0] == kept[start + min(steps, 4)]).all()


def drawn(acting, data, count=6):
    batch = acting.windows(data).draw(np.random.default_rng(0), count)
    return as_tensors(batch, "cpu")


def test_the_low_level_is_shown_recorded_subgoals_through_the_autoencoder(data, monkeypatch):
    acting, shown = policy(), []
    loss = FlowPolicy.loss

    def noted(self, batch, rng):
        shown.append(batch["goal_pixels"])
        return loss(self, batch, rng)

    monkeypatch.setattr(FlowPolicy, "loss", noted)
    batch = drawn(acting, data)
    acting.loss(batch, stream(0, "loss"))
    wanted = acting.world.decode(acting.world.joined(batch["future"]))
    for name, pictures in shown[0].items():
        assert torch.equal(pictures, wanted[name][:, 0])


def test_neither_level_reads_the_weights_of_the_other(data):
    acting = policy().train()
    batch = drawn(acting, data)
    FlowPolicy.loss(acting, {**batch}, stream(0, "loss"))[0].backward()
    assert all(weight.grad is None for weight in acting.world.parameters())
    before = [weight.grad.clone() for weight in acting.head.parameters()]
    acting.zero_grad()
    acting.loss(batch, stream(0, "loss"))[0].backward()
    assert acting.world.inward.weight.grad.any()
    assert all(weight.grad is None for weight in acting.world.autoencoder.parameters())
    assert len(before) == len([weight for weight in acting.head.parameters() if weight.grad.any()])


def test_what_is_imagined_lies_ahead_on_the_way():
    """A dot that moves a cell a step; nobody says how far the goal is."""
    ahead = 3
    config = replace(CONFIG, ahead=ahead, horizon=2, latents=4, width=32, sample_steps=8)
    torch.manual_seed(0)
    acting = SusiePolicy(config, {"top": (16, 16 * CELLS)}, toy.arm_description(), ())
    optimizer = torch.optim.AdamW(acting.world.parameters(), lr=3e-3)
    for step in range(300):
        start, goal = ways(48, step)
        rng = stream(step, "loss")
        frames = dots(_next(start, goal, ahead))[:, None]
        drawn = torch.from_numpy(rng.standard_normal(frames.shape, np.float32))
        t = torch.from_numpy(rng.random((48, 1), np.float32))
        told = acting._ahead(start)
        loss, _ = acting.world.loss((dots(start), dots(goal)), frames, drawn, t, told)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    start, goal = ways(32, 999)
    found = acting.world.imagine(dots(start), dots(goal), acting._ahead(start), 8)
    assert (places_of(found)[:, 0] - _next(start, goal, ahead)).abs().mean() < 0.5


def _next(start, goal, ahead):
    return start + (goal - start).clamp(-ahead, ahead)


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("susie") / "run"
    train(toy.train_config(toy_data, folder, policy=CONFIG, steps=40, learning_rate=3e-3))
    return folder


def test_the_losses_of_both_levels_fall(run):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for name in ("susie/loss", "susie/subgoal"):
        values = [row[name] for row in rows]
        assert np.mean(values[-10:]) < 0.9 * np.mean(values[:5]), name


def test_it_acts_and_leaves_the_subgoal_that_it_imagined(run, tmp_path):
    result = evaluate(toy.eval_config(run, tmp_path / "eval"))
    assert result["goal"] == ["demonstration"]
    (strip,) = [episode["strip"] for episode in result["episodes"] if episode["strip"]]
    assert (tmp_path / "eval" / strip).stat().st_size > 100
    imagined = policy().imagine(observations(2))
    assert imagined.offsets.tolist() == [[AHEAD], [AHEAD]]
    assert imagined.frames["top"].shape == (2, 1, *toy.SIZE, 3)


def test_a_saved_policy_acts_as_before(run, tmp_path):
    loaded = load_policy(run)
    assert isinstance(loaded, SusiePolicy)
    loaded.save(tmp_path / "model")
    seen = observations(2)
    assert torch.equal(acted(loaded, seen), acted(load_policy(tmp_path / "model"), seen))


def test_pictures_of_several_sizes_are_refused(tmp_path):
    cameras = {"top": toy.SIZE, "wrist": (24, 32)}
    with EpisodeWriter(tmp_path / "data", arm=toy.TOY_ARM, fps=20, cameras=cameras) as writer:
        writer.append(toy.example(length=9, cameras=cameras))
    dataset = EpisodeDataset(tmp_path / "data")
    with pytest.raises(DatasetError, match="record all cameras in one"):
        SusiePolicy.for_dataset(CONFIG, dataset, dataset.cameras)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ahead": 8}, "ahead is 8.*horizon"),
        ({"history": 2}, "history"),
        ({"width": 0}, "width is 0"),
        ({"autoencoder_steps": 0}, "autoencoder_steps is 0"),
    ],
    ids=["ahead", "history", "width", "autoencoder"],
)
def test_settings_that_do_not_fit_together_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        SusieConfig(**changes)
