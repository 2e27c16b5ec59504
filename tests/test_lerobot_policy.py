"""LeRobot's policies behind our protocol, on tiny ones that are saved here."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_vla
import torch
import toy
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from test_remote import serving

from robolearn.agent import PolicyAgent, open_agent
from robolearn.checkpoint import CheckpointError
from robolearn.evaluate import evaluate
from robolearn.options import AgentOptions, EvalConfig
from robolearn.policies.base import as_tensors
from robolearn.seeding import stream
from robolearn.sources import source_of
from robolearn.workers import make_vector

SETTINGS = {
    "act": {
        "chunk_size": 5,
        "n_action_steps": 5,
        "dim_model": 16,
        "n_heads": 2,
        "dim_feedforward": 16,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "pretrained_backbone_weights": None,
    },
    "diffusion": {
        "n_obs_steps": 2,
        "horizon": 8,
        "n_action_steps": 5,
        "down_dims": (8, 16),
        "n_groups": 4,
        "diffusion_step_embed_dim": 8,
        "spatial_softmax_num_keypoints": 2,
        "num_train_timesteps": 4,
        "noise_scheduler_type": "DDIM",
        "pretrained_backbone_weights": None,
        "crop_is_random": False,
        "use_group_norm": True,
    },
}
STATISTICS = {
    "observation.state": {"mean": 0.1, "std": 0.5, "min": -1.0, "max": 1.0},
    "action": {"mean": 0.2, "std": 0.4, "min": -1.0, "max": 1.0},
}
QUANTILES = {"q01": -0.9, "q99": 0.9}  # of both; pi0.5 wants them
FLOWS = ("smolvla", "pi0", "pi05")


def save(kind, folder, statistics=("observation.state", "action", "images"), **settings):
    torch.manual_seed(0)
    settings = {**SETTINGS.get(kind, {"chunk_size": 5, "n_action_steps": 5}), **settings}
    pictures = {f"observation.images.{name}": (3, *toy.SIZE) for name in toy.CAMERAS}
    config = make_policy_config(kind, device="cpu", push_to_hub=False, **settings)
    config.input_features = {
        "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
        **{key: PolicyFeature(FeatureType.VISUAL, shape) for key, shape in pictures.items()},
    }
    config.output_features = {"action": PolicyFeature(FeatureType.ACTION, (3,))}
    policy = get_policy_class(kind)(config)
    stats = {
        key: {name: torch.full((3,), value) for name, value in (values | QUANTILES).items()}
        for key, values in STATISTICS.items()
        if key in statistics
    }
    if "images" in statistics:
        ends = {"mean": 0.5, "std": 0.2, "min": 0.0, "max": 1.0}
        for key in pictures:
            stats[key] = {name: torch.full((3, 1, 1), value) for name, value in ends.items()}
    policy.save_pretrained(folder)
    for pipeline in make_pre_post_processors(config, dataset_stats=stats):
        pipeline.save_pretrained(folder)
    return f"lerobot:{folder}"


@pytest.fixture(scope="module", params=list(SETTINGS))
def where(request, tmp_path_factory):
    return save(request.param, tmp_path_factory.mktemp(request.param))


def observation(policy, batch=2):
    rng = np.random.default_rng(0)
    time = (policy.history,) if policy.history > 1 else ()
    pictures = {
        name: rng.integers(0, 256, (batch, *time, *size, 3), dtype=np.uint8)
        for name, size in toy.CAMERAS.items()
    }
    return {
        "agent_pos": rng.normal(size=(batch, *time, 3)).astype(np.float32),
        "pixels": pictures,
    }


@torch.inference_mode()
def chunks_of(policy, seen, n):
    context = policy.encode(as_tensors(seen, "cpu"), ["go"] * len(seen["agent_pos"]))
    return policy.sample(context, n, [stream(k, "x") for k in range(len(seen["agent_pos"]))])


def test_shapes_and_noise(where):
    policy = source_of(where).load()
    seen = observation(policy)
    many, one = chunks_of(policy, seen, 3), chunks_of(policy, seen, 1)
    assert many.actions.shape == (2, 3, 5, 3)
    assert torch.equal(many.actions[:, :1], one.actions)
    assert torch.equal(many.actions, chunks_of(policy, seen, 3).actions)
    differ = not torch.equal(many.actions[:, 0], many.actions[:, 1])
    assert differ == ("diffusion" in where)  # ACT has one answer
    assert many.features.shape[:2] == (2, 3)
    assert policy.cameras == toy.CAMERAS


def test_the_chunk_is_lerobots_own(where):
    """The same picture and state by LeRobot's own hands, with the noise seeded alike."""
    policy = source_of(where).load()
    seen = observation(policy, batch=1)
    ours = chunks_of(policy, seen, 1).actions[0, 0]
    batch = {"observation.state": torch.from_numpy(seen["agent_pos"]), "task": ["go"]}
    for name, picture in seen["pixels"].items():
        scaled = torch.from_numpy(picture).movedim(-1, -3) / 255.0
        batch[f"observation.images.{name}"] = scaled
    torch.manual_seed(int(stream(0, "x").integers(2**62)))
    with torch.inference_mode():
        theirs = policy._after(policy.inner.predict_action_chunk(policy._before(batch)))[0]
    torch.testing.assert_close(ours, theirs)


def test_the_spread_is_that_of_lerobots_statistics(where):
    assert torch.equal(source_of(where).load().spread, torch.full((3,), 0.4))


def test_the_feature_is_that_of_the_first_action(tmp_path):
    policy = source_of(save("act", tmp_path)).load()
    chunks = chunks_of(policy, observation(policy, 1), 1)
    head = policy.inner.model.action_head
    with torch.inference_mode():
        first = policy._after(head(chunks.features[0])[:, None])[0, 0]
    torch.testing.assert_close(first, chunks.actions[0, 0, 0])


def test_our_own_flow_policy_tells_what_its_head_felt(tmp_path):
    tiny = toy.tiny_policy()
    settings = {"chunk_size": toy.TINY.horizon, "n_action_steps": 2}
    where = save("robolearn_flow", tmp_path, description=json.dumps(tiny.description()), **settings)
    policy = source_of(where).load()
    policy.inner.inner.load_state_dict(tiny.state_dict())
    seen = observation(policy, 1)
    felt = chunks_of(policy, seen, 1)
    torch.manual_seed(int(stream(0, "x").integers(2**62)))
    noise = [np.random.default_rng(int(torch.randint(2**62, ())))]
    with torch.inference_mode():
        context = tiny.encode(as_tensors(seen, "cpu"), ["go"])
        chunks = tiny.sample(context, 1, noise)
    assert felt.features.shape == (1, 1, toy.TINY.hidden)
    torch.testing.assert_close(felt.actions, chunks.actions)
    torch.testing.assert_close(felt.features, chunks.features)


@pytest.fixture(params=FLOWS)
def flow(request, tmp_path):
    """One of LeRobot's flow-matching vision-language-action policies, tiny."""
    if request.param == "smolvla":
        settings = tiny_vla.smolvla(tmp_path / "vlm")
        yield source_of(save("smolvla", tmp_path / "policy", **settings)).load()
        return
    with tiny_vla.shrunk(request.param):
        yield source_of(save(request.param, tmp_path / "policy", **tiny_vla.PI)).load()


def test_flow_policies_tell_what_their_experts_first_action_token_is(flow):
    """Their last layer turns that feature into the velocity of the first action."""
    velocities = []
    last = flow.inner.model.action_out_proj
    last.register_forward_hook(lambda layer, seen, made: velocities.append(made[:, 0]))
    seen = observation(flow)
    chunks = chunks_of(flow, seen, 2)
    assert chunks.actions.shape == (2, 2, 5, 3)
    assert not torch.equal(chunks.actions[:, 0], chunks.actions[:, 1])  # candidates differ
    assert torch.equal(chunks.actions[:, :1], chunks_of(flow, seen, 1).actions)
    steps = len(velocities) // 6  # of each of four and two chunks
    with torch.inference_mode():
        made = last(chunks.features.flatten(0, 1).to(last.weight.dtype))
    torch.testing.assert_close(made, torch.cat(velocities[steps - 1 : 4 * steps : steps]))


def test_it_is_evaluated_like_any_other(where, tmp_path):
    settings = EvalConfig(
        policy=where, env=toy.ENV_ID, out=tmp_path, episodes=2, videos=0, workers=0
    )
    result = evaluate(settings)
    assert (result["n"], result["policy"]) == (2, where)
    scored = evaluate(replace(settings, scorer="medoid", candidates=3, out=tmp_path / "m"))
    assert scored["candidates"] == 3


def test_the_agent_keeps_what_the_policy_looks_back_at(tmp_path):
    policy = source_of(save("diffusion", tmp_path)).load()
    seen = []
    policy.encode, encode = (lambda o, t: (seen.append(o), encode(o, t))[1]), policy.encode
    agent = PolicyAgent(policy, replan_every=3)
    agent.reset(0, 1, "go")
    positions = np.zeros((1, 3), np.float32)
    pictures = {name: np.zeros((1, *size, 3), np.uint8) for name, size in toy.CAMERAS.items()}
    for step in range(4):
        positions[:] = step  # the environment writes over its last observation
        agent.act({"agent_pos": positions, "pixels": pictures})
    assert [o["agent_pos"][0, :, 0].tolist() for o in seen] == [[0, 0], [2, 3]]


@pytest.mark.parametrize("missing", ["observation.state", "action", "images"])
def test_missing_statistics_are_refused(tmp_path, missing):
    kept = {"observation.state", "action", "images"} - {missing}
    where = save("act", tmp_path, kept)
    with pytest.raises(CheckpointError, match="has no statistics of .*unnormalised"):
        source_of(where).load()


def test_another_arm_is_refused(where):
    env = make_vector("robolearn/Reach-v0", 1, image_size=toy.SIZE)
    with pytest.raises(CheckpointError, match="moves 3 joints, and so101 has 6"):
        open_agent(AgentOptions(policy=where), env)
    env.close()


def test_nothing_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="download it elsewhere with `hf download"):
        source_of(f"lerobot:{tmp_path / 'none'}").load()


def test_what_the_hub_has_is_a_source_like_any_other(tmp_path, monkeypatch):
    here = source_of(save("act", tmp_path / "snapshot"))
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("robolearn.policies.lerobot.snapshot_download", download)
    there = source_of("lerobot:somebody/act")
    assert (there.fingerprint, there.cameras) == (here.fingerprint, here.cameras)
    seen = observation(here.load(), 1)
    ours, theirs = (chunks_of(source.load(), seen, 2).actions for source in (here, there))
    assert torch.equal(ours, theirs)
    assert asked == ["somebody/act"]


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_it_is_served(tmp_path, kind):
    """Diffusion looks back at two observations, which the client keeps."""
    with serving(save(kind, tmp_path)) as url:
        here, there = (source_of(where).load() for where in (f"lerobot:{tmp_path}", url))
        seen = observation(here, 1)
        assert torch.equal(chunks_of(here, seen, 2).actions, chunks_of(there, seen, 2).actions)
        assert there.joints == 3


def test_the_fingerprint_is_that_of_the_weights(tmp_path):
    first = source_of(save("act", tmp_path / "a")).fingerprint
    assert source_of(save("act", tmp_path / "b")).fingerprint == first
    weights = tmp_path / "b" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert source_of(f"lerobot:{tmp_path / 'b'}").fingerprint != first
