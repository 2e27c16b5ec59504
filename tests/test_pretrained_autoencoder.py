"""Autoencoders that others have trained, in the place of the one that is trained here."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
import toy

from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.policies.autoencoder import cells_of
from robolearn.policies.base import as_tensors
from robolearn.policies.latents import Latents
from robolearn.policies.pretrained_autoencoder import PretrainedAutoencoder
from robolearn.seeding import stream
from robolearn.train import train

SIZE = (20, 33)  # no whole cells
CHANNELS = {"image": 3 * 64, "tiny": 4 * 4, "video": 6}  # of a cell of 16 x 16 pixels
SHORT = replace(toy.TINY_ACT2GOAL, horizon=2, stride=1, far=1)  # as toy demonstrations are


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    where = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.save_autoencoder(where / kind, kind) for kind in CHANNELS}


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", CHANNELS)
def test_cells_are_of_16_pixels_whatever_the_latents_stand_for(folders, kind):
    model = PretrainedAutoencoder(folders[kind])
    seen = model.encoder(pictures(2))
    assert model.channels == CHANNELS[kind]
    assert seen.shape == (2, CHANNELS[kind], *cells_of(SIZE))
    torch.testing.assert_close(model.encoder(pictures(2)[1:]), seen[1:])
    drawn = model.decode(seen, SIZE)
    assert drawn.shape == (2, *SIZE, 3)
    assert drawn.dtype == torch.uint8
    assert not seen.requires_grad
    assert not list(model.parameters())  # what others have trained is in no checkpoint


def test_latents_are_brought_to_zero_and_one_by_the_models_own_numbers(folders):
    for kind, (mean, spread) in {"image": (0.25, 2.0), "video": (0.5, 2.0)}.items():
        codec = PretrainedAutoencoder(folders[kind]).frozen.module
        x = torch.rand(1, 3, 32, 32) * 2.0 - 1.0
        pixels = ((x + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
        x = pixels.permute(0, 3, 1, 2) / 127.5 - 1.0
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if kind == "video" else x
        with torch.no_grad():
            raw = codec._encoded(x)
            wanted = torch.nn.functional.pixel_unshuffle((raw - mean) / spread, codec.fine)
        torch.testing.assert_close(codec("encode", pixels), wanted, atol=1e-4, rtol=1e-4)


def test_decoding_undoes_what_was_done_to_the_latents(folders):
    for kind in CHANNELS:
        codec = PretrainedAutoencoder(folders[kind]).frozen.module
        kept = []
        codec._decoded = lambda z, kept=kept: kept.append(z) or torch.zeros(1, 3, 64, 64)
        raw = torch.randn(1, *codec._encoded(torch.zeros(1, 3, 64, 64)).shape[1:])
        mean, spread = codec._statistics(raw)
        normal = torch.nn.functional.pixel_unshuffle((raw - mean) / spread, codec.fine)
        codec("decode", normal)
        torch.testing.assert_close(kept[0], raw)
        del codec._decoded


def test_an_eye_learns_to_tell_its_latents(folders):
    model = PretrainedAutoencoder(folders["tiny"])
    torch.manual_seed(0)
    flat = np.broadcast_to(pictures(8).numpy()[:, :1, :1], (8, *SIZE, 3))
    losses = model.teach(model.eye(), {"top": flat.copy()}, 60, 0)
    assert losses[-1] < 0.5 * losses[0]


def test_what_a_dataset_keeps_belongs_to_the_model(folders):
    names = set()
    for kind in CHANNELS:
        model = PretrainedAutoencoder(folders[kind])
        features = model.features(SIZE)
        kept = features.of(pictures(3).numpy())
        assert kept.shape == (3, *features.shape)
        np.testing.assert_allclose(kept, model.encoder(pictures(3)), atol=2e-2)
        names.add(features.name)
    assert len(names) == len(CHANNELS)


def test_act2goal_imagines_in_the_latents_of_others(folders, tmp_path, demonstrations):
    config = replace(SHORT, autoencoder=folders["tiny"])
    run = tmp_path / "run"
    train(toy.train_config(demonstrations, run, policy=config, steps=2))
    policy = load_policy(run)
    world = policy.backbone.world
    assert isinstance(world.autoencoder, PretrainedAutoencoder)
    assert world.channels == CHANNELS["tiny"]
    assert not [name for name in policy.state_dict() if "autoencoder" in name]
    seen = as_tensors(
        {**toy.observations(2), "goal_pixels": toy.observations(2, 9)["pixels"]}, "cpu"
    )
    imagined = policy.imagine(seen)
    for camera, size in toy.CAMERAS.items():
        assert imagined.frames[camera].shape == (2, world.hashing.frames, *size, 3)
    context = policy.encode(seen, ["", ""])
    again = load_policy(run)
    noise = [[stream(k, "noise") for k in range(2)] for _ in range(2)]
    chunks = [
        p.sample(c, 1, n).actions
        for p, c, n in zip(
            (policy, again), (context, again.encode(seen, ["", ""])), noise, strict=True
        )
    ]
    assert torch.equal(*chunks)


def test_another_autoencoder_is_refused(folders, tmp_path, demonstrations):
    where = tmp_path / "model"
    tiny_models.save_autoencoder(where, "tiny")
    config = replace(SHORT, autoencoder=str(where))
    train(toy.train_config(demonstrations, tmp_path / "run", policy=config, steps=1))
    load_policy(tmp_path / "run")
    tiny_models.save_autoencoder(where, "tiny", seed=1)
    with pytest.raises(CheckpointError, match="another autoencoder model"):
        load_policy(tmp_path / "run")


def test_what_is_no_autoencoder_is_refused_in_a_sentence(folders, tmp_path):
    with pytest.raises(CheckpointError, match="is neither a folder with a model nor"):
        Latents(toy.CAMERAS, 8, str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no model that can be used here"):
        Latents(toy.CAMERAS, 8, str(tmp_path / "empty"))


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "data"
    toy.record_demonstrations(folder, 4)
    assert EpisodeDataset(folder).episodes.length.max() > SHORT.horizon + SHORT.far
    return folder
