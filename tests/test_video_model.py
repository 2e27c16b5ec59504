"""A video model of others that imagines: its conventions, what learns, what a checkpoint holds."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
import tiny_models
import torch
import toy
from test_act2goal import batch_of, noise, observations

from robolearn.checkpoint import CheckpointError, load_policy, load_tensors
from robolearn.evaluate import evaluate
from robolearn.policies import lora
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.policies.latent_configs import Act2GoalConfig
from robolearn.policies.video_model import APART, SIGMAS
from robolearn.seeding import stream
from robolearn.train import train

PLAIN = toy.TINY_ACT2GOAL
RATE = 10.0  # control steps a second
B = 3


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """A model whose channels are those of our latents; read only."""
    return tiny_models.save_video(tmp_path_factory.mktemp("video") / "ltx")


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """One with other channels, in and out; read only."""
    folder = tmp_path_factory.mktemp("video") / "wide"
    return tiny_models.save_video(folder, in_channels=12, out_channels=5)


def policy_of(video, **changes):
    return toy.tiny_policy(config=replace(PLAIN, video=video, **changes))


def fresh(video, cameras=toy.CAMERAS):
    """A policy as training makes it, so that its linear maps are the identity."""
    torch.manual_seed(0)
    arm = toy.arm_description() | {"control_hz": RATE}
    config = replace(PLAIN, video=video)
    return Act2GoalPolicy(config, cameras, arm, ()).eval().backbone.world


def sights(world, seed=0):
    """Latents of now, goal and noisy frames, and steps between."""
    torch.manual_seed(seed)
    ends = torch.randn(2, B, world.count, PLAIN.latents)
    noisy = torch.randn(B, world.hashing.frames, world.count, PLAIN.latents)
    return *ends, noisy, torch.tensor([2, 7, 12])


def heard(world, t):
    """What the transformer is given at this flow time."""
    calls = []
    hook = world.video.module.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((*args, kwargs["video_coords"])), with_kwargs=True
    )
    now, goal, noisy, steps = sights(world)
    with torch.inference_mode():
        world(now, goal, noisy, torch.full((B, 1), t), steps)
    hook.remove()
    (call,) = calls
    return call


def frozen_weights(policy):
    state = policy.backbone.world.video.module.state_dict()
    return {name: value for name, value in state.items() if "lora_" not in name}


def test_a_policy_without_one_has_the_weights_that_it_had():
    held = {name for name in toy.tiny_policy(config=PLAIN).state_dict() if ".world." in name}
    layers = ["inward", "noisy", "ahead", "norm", "outward", "choice", "time.mlp.0", "time.mlp.2"]
    layers += [f"autoencoder.encoder.{k}" for k in (1, 3, 5)]
    layers += [f"autoencoder.decoder.{k}" for k in (0, 3, 6)]
    layers += [f"eye.{k}" for k in (1, 3, 5)]
    attention = ("inner.inward", "inner.outward", "modulation")
    mlp = ("inner.0", "inner.2", "modulation")
    for k in range(PLAIN.depth):
        layers += [f"blocks.{k}.attention.{name}" for name in attention]
        layers += [f"blocks.{k}.mlp.{name}" for name in mlp]
    wanted = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert held == {f"backbone.world.{name}" for name in {*wanted, "place", "clean"}}


def test_noise_minus_data_is_what_leads_to_the_data(video):
    world = fresh(video)
    now, goal, data, steps = sights(world)
    begin = world.start.expand(B, -1, -1, -1)
    away = torch.cat(
        [torch.ones_like(now)[:, None], begin - data, torch.ones_like(now)[:, None]], 1
    )
    hook = world.video.module.transformer.register_forward_hook(lambda *_: (away.flatten(1, 2),))
    found = world.imagine(now, goal, steps, 4)
    hook.remove()
    torch.testing.assert_close(found, data)


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_now_and_goal_are_clean_and_frames_as_noisy_as_they_are(video, t):
    world = fresh(video)
    tokens, _, timesteps, _, _ = heard(world, t)
    times = timesteps.view(B, -1, world.count)
    assert not times[:, [0, -1]].any()
    assert torch.equal(times[:, 1:-1], torch.full_like(times[:, 1:-1], SIGMAS * (1.0 - t)))
    now, goal, noisy, _ = sights(world)  # of as many channels, so that nothing is changed at first
    frames = torch.cat([now[:, None], noisy, goal[:, None]], 1)
    assert torch.equal(tokens, frames.flatten(1, 2))


def test_places_are_seconds_and_cells_side_by_side(video):
    world = fresh(video, {"top": (32, 48), "wrist": (16, 20)})
    assert list(world.cells.values()) == [(2, 3), (1, 2)]
    *_, coordinates = heard(world, 0.0)
    seconds, rows, columns = coordinates.unflatten(2, (-1, world.count)).unbind(1)
    steps = torch.tensor([2, 7, 12])
    offsets = torch.from_numpy(world.hashing.offsets(steps.numpy()))
    assert torch.equal(seconds[:, 0], torch.zeros(B, world.count))
    torch.testing.assert_close(seconds[:, 1:-1, 0], offsets / RATE)
    torch.testing.assert_close(seconds[:, -1, 1], steps / RATE)
    for frame in range(seconds.shape[1]):
        assert (rows[0, frame] / APART).tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
        assert (columns[0, frame] / APART).tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


def test_no_words_are_one_of_zeros(video):
    _, words, _, mask, _ = heard(fresh(video), 0.0)
    assert words.shape == (B, 1, 6)
    assert not words.any()
    assert mask is None


def test_features_are_those_after_evenly_spaced_blocks(video):
    world, felt = fresh(video), []
    blocks = world.video.module.transformer.transformer_blocks
    hooks = [block.register_forward_hook(lambda *x: felt.append(x[2])) for block in blocks]
    now, goal, noisy, steps = sights(world)
    with torch.inference_mode():
        _, features = world(now, goal, noisy, torch.zeros(B, 1), steps)
    for hook in hooks:
        hook.remove()
    cells = world.count
    for k, part in zip((0, 2), features, strict=True):  # two of three
        frames = felt[k].unflatten(1, (-1, cells))
        future = frames[:, 1:-1].mean(1)
        seen = torch.cat([frames[:, 0], frames[:, -1], future], 1)
        wanted = world.readouts[(0, 2).index(k)](seen) + world.place
        assert part.shape == (B, 3 * cells, PLAIN.width)
        torch.testing.assert_close(part, wanted)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("trained", [0.0, 0.9], ids=["first stage", "second stage"])
def test_all_learns_but_the_models_weights(video, rank, trained):
    policy = policy_of(video, video_lora=rank).train()
    before = {name: value.clone() for name, value in frozen_weights(policy).items()}
    loss, _ = policy.loss(batch_of(6, acting=policy, trained=trained), stream(0, "loss"))
    loss.backward()
    world = policy.backbone.world
    learn = {name: w for name, w in world.named_parameters() if w.requires_grad}
    assert not [name for name, w in learn.items() if w.grad is None or not w.grad.any()]
    assert {name.partition(".")[0] for name in learn} == {
        *("place", "eye", "inward", "outward", "readouts"),
        *(["adapters"] if rank else []),
    }
    assert policy.head.outward.weight.grad.any()
    torch.optim.AdamW(policy.parameters(), lr=0.1, weight_decay=0.5).step()
    after = frozen_weights(policy)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapters_change_what_is_imagined_after_a_step(video):
    policy = policy_of(video, video_lora=2).train()
    world = policy.backbone.world
    now, goal, noisy, steps = sights(world)
    adapters = list(world.adapters.values())
    with torch.no_grad():
        for name, weight in world.adapters.items():
            if "lora_B" in name:
                weight.zero_()  # as they begin

    def seen():
        with torch.no_grad():
            return world(now, goal, noisy, torch.zeros(B, 1), steps)[0]

    plain = policy_of(video).backbone.world
    with torch.no_grad():
        as_it_is = plain(now, goal, noisy, torch.zeros(B, 1), steps)[0]
    before = seen()
    torch.testing.assert_close(before, as_it_is)
    policy.loss(batch_of(6, acting=policy, trained=0.0), stream(0, "loss"))[0].backward()
    torch.optim.AdamW(adapters, lr=0.1).step()
    assert not torch.allclose(seen(), before)


def test_it_looks_once_a_decision_however_many_chunks(video):
    acting, calls = policy_of(video), []
    hook = acting.backbone.world.video.module.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        context = acting.encode(observations(2), ["", ""])
        chunks = acting.sample(context, 5, noise(2))
    hook.remove()
    assert len(calls) == 1
    assert chunks.actions.shape == (2, 5, PLAIN.horizon, toy.TOY_ARM.size)
    assert chunks.actions.isfinite().all()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_saved_policy_acts_as_before_and_holds_no_frozen_weight(wide, rank, tmp_path):
    policy, seen = policy_of(wide, video_lora=rank), observations(2)
    policy.save(tmp_path / "model")
    loaded = load_policy(tmp_path / "model")
    with torch.inference_mode():
        one, other = (
            p.sample(p.encode(seen, ["", ""]), 2, noise(2)).actions for p in (policy, loaded)
        )
    assert torch.equal(one, other)
    text = (tmp_path / "model/config.json").read_text()
    assert json.loads(text)["models"] == {"video": policy.backbone.world.video.fingerprint}
    held = load_tensors(tmp_path / "model/model.safetensors", text)
    assert held.keys() == policy.state_dict().keys()
    assert any("lora_" in name for name in held) == bool(rank)
    assert not any("transformer" in name and "lora_" not in name for name in held)


def test_practice_leaves_the_models_adapters_as_training_made_them(video, tmp_path):
    policy = policy_of(video, video_lora=2)
    kept = {name: weight.clone() for name, weight in policy.backbone.world.adapters.items()}
    learning = lora.adapted(policy, rank=2, seed=0)
    assert not any(name.startswith("backbone.world.adapters") for name in learning)
    policy.train().loss(batch_of(6, acting=policy, trained=0.9), stream(0, "loss"))[0].backward()
    torch.optim.AdamW(learning.values(), lr=0.1).step()
    lora.merge(policy)
    policy.save(tmp_path / "model")
    after = load_policy(tmp_path / "model").backbone.world.adapters
    assert all(torch.equal(kept[name], after[name]) for name in kept)


def test_another_model_is_refused(tmp_path):
    where = tmp_path / "ltx"
    policy_of(tiny_models.save_video(where)).save(tmp_path / "model")
    load_policy(tmp_path / "model")
    tiny_models.save_video(where, seed=1)
    with pytest.raises(CheckpointError, match=r"another video model \(\w+\) than .* in .*ltx"):
        load_policy(tmp_path / "model")


def test_other_heads_are_another_model(video, tmp_path):
    """The weights are the same, and what they do is not."""
    shutil.copytree(video, tmp_path / "ltx")
    settings = json.loads((tmp_path / "ltx/config.json").read_text())
    settings |= {"num_attention_heads": 4, "attention_head_dim": 6}
    (tmp_path / "ltx/config.json").write_text(json.dumps(settings))
    one, other = (policy_of(str(x)).backbone.world.video for x in (video, tmp_path / "ltx"))
    assert one.fingerprint != other.fingerprint


def test_a_pipelines_transformer_is_found(video, tmp_path):
    shutil.copytree(video, tmp_path / "transformer")
    found = policy_of(str(tmp_path)).backbone.world.video
    assert found.fingerprint == policy_of(video).backbone.world.video.fingerprint


def test_it_is_trained_resumed_and_evaluated(video, toy_data, tmp_path):
    short = replace(PLAIN, horizon=2, stride=1, far=1, video=video, video_lora=2)
    run = tmp_path / "run"
    train(toy.train_config(toy_data, run, policy=short))
    newest = train(toy.train_config(toy_data, run, policy=short, resume=True))
    assert newest.name == "0000004"
    result = evaluate(toy.eval_config(run, tmp_path / "eval"))
    assert result["episodes"][0]["notes"]["steps_to_goal"] > 0.0


def of_another_kind(folder, video):
    del video
    tiny_models.save_diffusion(folder / "diffusion")
    return str(folder / "diffusion/unet")


def without_weights(folder, video):
    shutil.copytree(video, folder / "ltx", ignore=shutil.ignore_patterns("*.safetensors"))
    return str(folder / "ltx")


def with_more_blocks(folder, video):
    shutil.copytree(video, folder / "ltx")
    settings = json.loads((folder / "ltx/config.json").read_text())
    (folder / "ltx/config.json").write_text(json.dumps(settings | {"num_layers": 4}))
    return str(folder / "ltx")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda *_: "not on this machine/ltx", "without a network, download it elsewhere"),
        (lambda folder, _: str(folder), "holds no model that can be used here"),
        (of_another_kind, "here: it is a UNet2DConditionModel and no LTXVideoTransformer3DModel"),
        (without_weights, "holds no model that can be used here"),
        (with_more_blocks, r"here: \d+ weights are not there, transformer_blocks.3"),
        (
            lambda folder, _: tiny_models.save_video(folder, num_layers=1),
            "here: it has 1 blocks, and policy depth is 2",
        ),
        (
            lambda folder, _: tiny_models.save_video(folder, patch_size=2),
            "here: a token of it is several cells of a latent, and here it is one",
        ),
    ],
)
def test_models_that_cannot_be_had(video, tmp_path, make, words):
    where = make(tmp_path, video)
    with pytest.raises(CheckpointError, match=words) as raised:
        policy_of(where)
    assert len(str(raised.value).splitlines()) == 1


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    where = tiny_models.save_video(tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CheckpointError, match="holds no model .*diffusers") as raised:
        policy_of(where)
    assert "timm" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video_lora": 4}, "video_lora is 4, and there is no video model"),
        ({"video": "x", "video_lora": -1}, "video_lora is -1; it must not be negative"),
    ],
)
def test_settings_that_make_no_sense(changes, words):
    with pytest.raises(ValueError, match=words):
        Act2GoalConfig(**changes)
