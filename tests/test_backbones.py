"""Backbones upon models of others: what learns, what is kept on disk, what a checkpoint holds."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny_models
import torch
import toy
from test_denoiser import batch_of

from robolearn import cli
from robolearn.checkpoint import CheckpointError, load_policy, load_tensors
from robolearn.config import from_json, to_json
from robolearn.dataset import EpisodeDataset
from robolearn.policies.configs import (
    FlowConfig,
    PretrainedConfig,
    SmallConfig,
    StableControlConfig,
)
from robolearn.policies.flow import FlowPolicy
from robolearn.seeding import stream
from robolearn.train import Trainer

READ = {"width": 8, "channels": 4, "blocks": 1, "keypoints": 2}
LAYERS = ("down_blocks.0", "down_blocks.1", "mid_block")
KINDS = ("siglip", "dinov2", "clip", "words", "lora", "stable", "prompt")
FROZEN = ("siglip", "stable")
CAMERAS = {"top": (12, 16), "wrist": (21, 24)}
TEXTS = ["go to the red dot", "go to the blue dot", "go left"]


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """Settings of every kind upon tiny models; read only."""
    folder = tmp_path_factory.mktemp("models")
    eyes = {
        kind: tiny_models.save_vision(folder / kind, kind) for kind in ("siglip", "clip", "dinov2")
    }
    text = tiny_models.save_language(folder / "t5")
    seen = {"language": text, "grid": 3, **READ}
    diffusion = {"model": tiny_models.save_diffusion(folder / "diffusion"), "layers": LAYERS}
    diffusion |= {"size": 16, "grid": 4, **READ}
    return {
        "siglip": PretrainedConfig(vision=eyes["siglip"], **seen),
        "dinov2": PretrainedConfig(vision=eyes["dinov2"], **seen),
        "clip": PretrainedConfig(vision=eyes["clip"], **(seen | {"language": eyes["clip"]})),
        "words": PretrainedConfig(vision=eyes["siglip"], **(seen | {"language": ""})),
        "lora": PretrainedConfig(vision=eyes["siglip"], lora=2, language_lora=3, **seen),
        "stable": StableControlConfig(**diffusion),
        "prompt": StableControlConfig(prompt=True, **diffusion),
    }


def policy_of(backbone, **changes):
    return toy.tiny_policy(config=replace(toy.TINY, backbone=backbone), **changes)


def frozen_weights(policy):
    """The weights that no checkpoint holds, by model."""
    return {
        name: {k: v for k, v in model.module.state_dict().items() if "lora_" not in k}
        for name, model in policy.backbone.models.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_cameras_of_two_sizes(backbones, kind):
    policy = policy_of(backbones[kind], cameras=CAMERAS)
    seen = toy.observations(3, cameras=CAMERAS)
    with torch.inference_mode():
        tokens = policy.encode(seen, TEXTS).tokens
        blind = {camera: torch.zeros_like(x) for camera, x in seen["pixels"].items()}
        dark = policy.encode({**seen, "pixels": blind}, TEXTS).tokens
        told = policy.encode(seen, TEXTS[1:] + TEXTS[:1]).tokens
    assert tokens.shape == (3, policy.backbone.token_count, 8)
    assert tokens.isfinite().all()
    changed = (tokens != dark).any(2)
    assert not changed[:, :2].any()  # the words and the joints
    assert changed[:, 2:].any(0).all()
    assert (tokens != told).any(2)[:, 0].all()


@pytest.mark.parametrize("kind", KINDS)
def test_readouts_and_adapters_learn_and_frozen_weights_do_not(backbones, kind):
    policy = policy_of(backbones[kind]).train()
    before = {k: v.clone() for part in frozen_weights(policy).values() for k, v in part.items()}
    batch = {**batch_of(policy), "instruction": [TEXTS[k % 3] for k in range(8)]}
    loss, _ = policy.loss(batch, stream(0, "loss"))
    loss.backward()
    still = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
    adapters = [name for name, _ in policy.named_parameters() if "lora_" in name]
    assert bool(adapters) == (kind == "lora")
    torch.optim.AdamW(policy.parameters(), lr=0.1, weight_decay=0.5).step()
    after = {k: v for part in frozen_weights(policy).values() for k, v in part.items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ours = {id(p) for p in policy.parameters()}
    kept = [p for m in policy.backbone.models.values() for p in m.module.parameters()]
    assert len([p for p in kept if id(p) in ours]) == len(adapters)


def test_adapters_begin_as_the_model_itself(backbones):
    torch.manual_seed(0)
    pixels = toy.observations(2)["pixels"]["top"]
    seen = []
    for kind in ("siglip", "lora"):
        args = (toy.CAMERAS, toy.arm_description(), ("go",))
        policy = FlowPolicy(replace(toy.TINY, backbone=backbones[kind]), *args)
        seen.append(policy.backbone.look(pixels, TEXTS[:2]))
    torch.testing.assert_close(*seen)


@pytest.mark.parametrize("kind", [*FROZEN, "clip"])
@pytest.mark.parametrize("history", [1, 2])
def test_kept_features_are_those_that_the_model_gives(backbones, kind, history, toy_data, tmp_path):
    dataset = EpisodeDataset(toy_data, cache=tmp_path)
    config = replace(toy.TINY, backbone=backbones[kind], history=history)
    policy = FlowPolicy.for_dataset(config, dataset, dataset.cameras).eval()
    frames = np.array([0, 5, len(dataset) - 1])
    kept = toy.as_tensors(policy.windows(dataset).get(frames), "cpu")
    fresh = dataset.windows(config.horizon, tuple(policy.cameras), history=history).get(frames)
    fresh = toy.as_tensors(fresh, "cpu")
    assert "pixels" not in kept
    assert kept["features"]["top"].dtype == torch.float16
    with torch.inference_mode():
        tokens = [policy.encode(batch, batch["instruction"]).tokens for batch in (kept, fresh)]
    torch.testing.assert_close(*tokens, atol=2e-3, rtol=1e-3)
    assert float(policy.loss(kept, stream(0, "loss"))[0].detach()) == pytest.approx(
        float(policy.loss(fresh, stream(0, "loss"))[0].detach()), rel=1e-2
    )


def test_each_picture_is_looked_at_once(backbones, toy_data, tmp_path):
    shutil.copytree(toy_data, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
    dataset = EpisodeDataset(tmp_path / "data")
    config = replace(toy.TINY, backbone=backbones["siglip"])
    policy = FlowPolicy.for_dataset(config, dataset, dataset.cameras)
    looked = []
    policy.backbone.eye.module.register_forward_pre_hook(lambda _, x: looked.append(len(x[0])))
    policy.windows(dataset)
    assert sum(looked) == len(dataset) * len(dataset.cameras)
    windows = policy.windows(EpisodeDataset(tmp_path / "data"))
    policy.loss(toy.as_tensors(windows.get(np.arange(4)), "cpu"), stream(0, "loss"))
    assert sum(looked) == len(dataset) * len(dataset.cameras)
    names = {path.name for path in (tmp_path / "data/cache").glob("*.f2")}
    assert names == {
        f"{camera}-12x16-{policy.backbone.eye.fingerprint[:16]}.f2" for camera in toy.CAMERAS
    }
    toy.record_demonstrations(tmp_path / "data", episodes=7)
    longer = EpisodeDataset(tmp_path / "data")
    policy.windows(longer)  # only the new episode is looked at
    assert sum(looked) == len(longer) * len(longer.cameras)


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_what_changes_is_not_kept(backbones, kind, toy_data, tmp_path):
    dataset = EpisodeDataset(toy_data, cache=tmp_path)
    policy = policy_of(backbones[kind])
    assert policy.backbone.features() is None
    batch = policy.windows(dataset).get(np.arange(2))
    assert set(batch["pixels"]) == set(toy.CAMERAS)
    assert "features" not in batch


def test_an_instruction_is_read_once(backbones):
    policy = policy_of(backbones["siglip"])
    read = []
    hook = policy.backbone.models["language"].module.register_forward_pre_hook(
        lambda _, x: read.extend(x[0])
    )
    for _ in range(3):
        policy.backbone.language(TEXTS + TEXTS)
    hook.remove()
    assert sorted(read) == sorted(TEXTS)


def test_the_rest_of_a_batch_changes_nothing(backbones):
    policy = policy_of(backbones["siglip"])
    with torch.inference_mode():
        alone = policy.backbone.language(["go left"])
        beside = policy.backbone.language(["go left", "go to the red dot to the left up one"])
    torch.testing.assert_close(alone[0], beside[0], atol=1e-5, rtol=0)


def test_the_u_net_hears_the_instruction_if_it_shall(backbones):
    pixels = toy.observations(2)["pixels"]["top"]
    for kind, hears in (("stable", False), ("prompt", True)):
        look = policy_of(backbones[kind]).backbone.look
        assert look(pixels, TEXTS[:2]).shape == (2, 4, 4, 8 + 16 + 16)
        assert torch.equal(look(pixels, TEXTS[:2]), look(pixels, TEXTS[:2]))  # the noise, too
        assert torch.equal(look(pixels, TEXTS[:2]), look(pixels, TEXTS[1:])) != hears


def test_more_noise_is_another_map(backbones):
    pixels, maps = toy.observations(2)["pixels"]["top"], []
    for timestep in (0, 500):
        policy = policy_of(replace(backbones["stable"], timestep=timestep))
        maps.append(policy.backbone.look(pixels, TEXTS[:2]))
    assert not torch.allclose(*maps)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_policy_acts_as_before_and_holds_no_frozen_weight(backbones, kind, tmp_path):
    policy = policy_of(backbones[kind])
    policy.save(tmp_path / "model")
    loaded = load_policy(tmp_path / "model")
    assert loaded.config == policy.config
    with torch.inference_mode():
        one, other = (
            p.sample(p.encode(toy.observations(3), TEXTS), 2, [stream(0, k) for k in TEXTS])
            for p in (policy, loaded)
        )
    assert torch.equal(one.actions, other.actions)
    text = (tmp_path / "model/config.json").read_text()
    held = load_tensors(tmp_path / "model/model.safetensors", text)
    assert held.keys() == policy.state_dict().keys()
    digests = {name: model.fingerprint for name, model in policy.backbone.models.items()}
    assert json.loads(text)["models"] == digests
    learned = {name for name, _ in policy.named_parameters()}
    normalisers = {name for name in held if name.endswith((".mean", ".std"))}
    assert held.keys() == learned | normalisers
    assert any("lora_" in name for name in held) == (kind == "lora")


def test_another_model_is_refused(backbones, tmp_path):
    where = tmp_path / "eye"
    tiny_models.save_vision(where)
    policy_of(replace(backbones["siglip"], vision=str(where))).save(tmp_path / "model")
    load_policy(tmp_path / "model")
    tiny_models.save_vision(where, seed=1)
    with pytest.raises(CheckpointError, match=r"another vision model \(\w+\) than .* in .*eye"):
        load_policy(tmp_path / "model")
    shutil.rmtree(where)
    with pytest.raises(CheckpointError, match="eye is neither a folder with a model nor one that"):
        load_policy(tmp_path / "model")


def test_what_a_map_depends_on_names_it(tmp_path, backbones):
    """The size of the pictures, and the text model that an empty prompt goes through."""
    kept = policy_of(backbones["dinov2"]).backbone.features().name
    where = tmp_path / "eye"
    shutil.copytree(backbones["dinov2"].vision, where)
    processor = json.loads((where / "preprocessor_config.json").read_text())
    processor["crop_size"] = {"height": 8, "width": 8}
    (where / "preprocessor_config.json").write_text(json.dumps(processor))
    assert (
        policy_of(replace(backbones["dinov2"], vision=str(where))).backbone.features().name != kept
    )
    control = backbones["stable"]
    kept = policy_of(control).backbone.features().name
    other = tmp_path / "other"
    shutil.copytree(control.model, other)
    tiny_models.save_diffusion(tmp_path / "third", seed=1)
    shutil.rmtree(other / "text_encoder")
    shutil.copytree(tmp_path / "third" / "text_encoder", other / "text_encoder")
    assert policy_of(replace(control, model=str(other))).backbone.features().name != kept


def test_models_may_have_moved(backbones, tmp_path, monkeypatch):
    old = tmp_path / "here" / "eye"
    tiny_models.save_vision(old)
    policy_of(replace(backbones["siglip"], vision=str(old))).save(tmp_path / "model")
    shutil.move(old.parent, tmp_path / "there")
    monkeypatch.setenv("ROBOLEARN_MODELS", str(tmp_path / "there"))
    assert load_policy(tmp_path / "model").cameras == toy.CAMERAS


def without(path, *names):
    """A copy of a model's folder that lacks some files or folders."""

    def make(config, tmp_path):
        shutil.copytree(getattr(config, path), tmp_path / "copy")
        for name in names:
            entry = tmp_path / "copy" / name
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return replace(config, **{path: str(tmp_path / "copy")})

    return make


def timms(config, tmp_path):
    settings = {"model_type": "timm_wrapper", "architecture": "resnet18", "num_classes": 0}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return replace(config, vision=str(tmp_path))


HUB = "not on this machine/eye"
WORDS = ("tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (
            "siglip",
            lambda c, _: replace(c, vision=HUB),
            "hands out now .*; without a network",
        ),
        ("siglip", lambda c, _: replace(c, language=HUB), "with `hf download not on this machine/"),
        (
            "stable",
            lambda c, _: replace(c, model=HUB),
            "machine/eye is neither a folder with",
        ),
        ("siglip", without("vision", "model.safetensors"), "can be used here: .*model.safetensors"),
        ("siglip", without("vision", "preprocessor_config.json"), "here: .*image processor"),
        ("siglip", without("language", *WORDS), "its tokenizer knows no words"),
        (
            "siglip",
            lambda c, _: replace(c, vision=c.language),
            "t5 holds no model that can be",
        ),
        ("siglip", lambda c, _: replace(c, language=c.vision), "siglip holds no model that can be"),
        ("stable", without("model", "vae"), "copy holds no model that can be used here"),
        (
            "stable",
            lambda c, _: replace(c, layers=("up_blocks.0",)),
            "choose among down_blocks.0",
        ),
        ("siglip", timms, r"requires the timm library .*pip install 'robolearn\[timm\]'"),
    ],
)
def test_models_that_cannot_be_had(backbones, tmp_path, kind, change, words):
    with pytest.raises(CheckpointError, match=words) as raised:
        policy_of(change(backbones[kind], tmp_path))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["siglip", "lora", "stable"])
def test_the_loss_falls(backbones, kind):
    policy = policy_of(backbones[kind]).train()
    batch = batch_of(policy, count=16)
    if policy.backbone.features():
        with torch.no_grad():  # as training has them
            views = policy.backbone.views(batch, batch["instruction"])
        batch = {**{k: v for k, v in batch.items() if k != "pixels"}, "features": views}
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        loss, _ = policy.loss(batch, stream(step, "loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_the_average_shares_what_is_frozen(backbones, toy_data, tmp_path):
    for kind in ("siglip", "lora", "stable"):
        policy = replace(toy.TINY, backbone=backbones[kind])
        trainer = Trainer(replace(toy.train_config(toy_data, tmp_path), policy=policy))
        ours, average = (frozen_weights(p) for p in (trainer.policy, trainer.average))
        for name, weights in ours.items():
            assert all(v.data_ptr() == average[name][k].data_ptr() for k, v in weights.items())
        learned = [dict(p.named_parameters()) for p in (trainer.policy, trainer.average)]
        assert all(v.data_ptr() != learned[1][k].data_ptr() for k, v in learned[0].items())


@pytest.mark.parametrize("kind", ["siglip", "lora", "stable"])
def test_it_is_trained_resumed_and_evaluated_by_the_commands(backbones, kind, toy_data, tmp_path):
    config, run = backbones[kind], str(tmp_path / "run")
    chosen = ["train", "--policy", "flow", "--policy.backbone", config.kind]
    for name, value in to_json(config).items():
        words = value if isinstance(value, list) else [value]
        if name not in ("kind", "prompt"):
            chosen += [f"--policy.backbone.{name.replace('_', '-')}", *map(str, words)]
    sizes = "--policy.hidden 16 --policy.depth 1 --policy.horizon 4 --policy.draws 2 --threads 1"
    rest = ["--data", str(toy_data), "--out", run, "--batch-size", "4", *sizes.split()]
    assert cli.main([*chosen, *rest, "--steps", "2"]) == 0
    policy = load_policy(tmp_path / "run")
    assert policy.config.backbone == config
    resume = ["train", "--data", str(toy_data), "--out", run, "--resume"]
    assert cli.main(resume) == 0
    tuned = ["train", "--data", str(toy_data), "--out", f"{run}-tuned", "--init", run]
    assert cli.main([*tuned, "--steps", "1", "--batch-size", "4", "--threads", "1"]) == 0
    options = ["--env", toy.ENV_ID, "--episodes", "1", "--videos", "0", "--workers", "0"]
    assert cli.main(["eval", "--policy", f"{run}-tuned", *options]) == 0


def test_the_kind_decides_which_settings_there_are(tmp_path, capsys):
    command = ["train", "--data", str(tmp_path), "--out", str(tmp_path)]
    assert cli.main([*command, "--policy.backbone", "huge"]) == 1
    told = capsys.readouterr().err
    assert "no 'huge' for --policy.backbone; choose one of small, pretrained, stable-c" in told
    for rest in (
        ["--policy.backbone.vision", "x"],
        ["--policy", "taco", "--policy.backbone=small"],
    ):
        with pytest.raises(SystemExit):
            cli.main([*command, *rest])
    with pytest.raises(SystemExit):
        cli.main(["train", "--policy.backbone", "pretrained", "--help"])
    assert "--policy.backbone.language-lora" in capsys.readouterr().out


def test_older_checkpoints_name_no_kind_of_backbone():
    sizes = {"width": 8, "channels": 4, "blocks": 1, "keypoints": 2, "words": 4}
    assert from_json(FlowConfig, {"backbone": sizes}).backbone == SmallConfig(**sizes)
    for backbone in (SmallConfig(), PretrainedConfig(lora=2), StableControlConfig(prompt=True)):
        config = FlowConfig(backbone=backbone)
        assert from_json(FlowConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (SmallConfig, {"width": 0}, "width is 0; it must be at least 1"),
        (PretrainedConfig, {"grid": 0}, "grid is 0; it must be at least 1"),
        (PretrainedConfig, {"lora": -1}, "lora is -1; it must not be negative"),
        (StableControlConfig, {"timestep": -1}, "timestep is -1; it must not be negative"),
        (StableControlConfig, {"layers": ()}, "layers is empty; name at least one"),
    ],
)
def test_settings_that_make_no_sense(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(**settings)
