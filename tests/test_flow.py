"""The flow policy: its loss, its samples, what it hears, and that it keeps its meaning for ever."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from gymnasium import spaces

from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.contract import SO101, observation_space
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError
from robolearn.policies.configs import FlowConfig
from robolearn.policies.flow import FlowPolicy
from robolearn.policies.language import vocabulary_of, words
from robolearn.policies.normaliser import Normaliser
from robolearn.seeding import stream

GOLDEN = Path(__file__).parent / "golden"
JOINTS, HORIZON = toy.TOY_ARM.size, toy.TINY.horizon
TEXTS = ["go to the red dot", "move to the blue dot", "go to the blue dot"]


def batch_of(count, seed=0):
    """Random windows; the last one ends after its first step."""
    rng = np.random.default_rng(seed)
    batch = toy.observations(count, seed)
    chunk = 0.1 * rng.normal(size=(count, HORIZON, JOINTS)).astype(np.float32)
    mask = torch.ones(count, HORIZON, dtype=torch.bool)
    mask[-1, 1:] = False
    base = batch["agent_pos"] * torch.tensor([1.0, 1.0, 0.0])
    text = [TEXTS[k % len(TEXTS)] for k in range(count)]
    action = torch.from_numpy(chunk) + base[:, None]
    return {**batch, "action": action, "mask": mask, "instruction": text}


def sample(policy, texts=TEXTS, n=2, seed=0, observations=None):
    with torch.inference_mode():
        observed = observations or toy.observations(len(texts))
        noise = [stream(seed, str(k)) for k in range(len(texts))]
        return policy.sample(policy.encode(observed, texts), n, noise)


def test_the_loss_falls_on_a_batch_that_is_seen_again_and_again():
    policy, batch = toy.tiny_policy().train(), batch_of(16)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
    losses = []
    for step in range(80):
        loss, info = policy.loss(batch, stream(step, "loss"))
        assert info["flow/loss"] == float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])


def test_the_loss_is_a_matter_of_the_batch_and_the_generator():
    policy, batch = toy.tiny_policy(), batch_of(6)
    first, again, other = (policy.loss(batch, stream(seed, "loss"))[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_samples_are_chunks_for_every_context_and_candidate():
    chunks = sample(toy.tiny_policy(), n=5)
    assert chunks.actions.shape == (3, 5, HORIZON, JOINTS)
    assert chunks.actions.dtype == torch.float32
    assert chunks.features.shape == (3, 5, toy.TINY.hidden)
    assert chunks.actions.flatten(2).unique(dim=1).shape[1] == 5


def test_three_candidates_are_three_samples():
    policy, observed = toy.tiny_policy(), toy.observations(2)
    with torch.inference_mode():
        context = policy.encode(observed, TEXTS[:2])
        together = policy.sample(context, 3, [stream(0, "a"), stream(0, "b")])
        noise = [stream(0, "a"), stream(0, "b")]
        single = [policy.sample(context, 1, noise) for _ in range(3)]
    for name in ("actions", "features"):
        one_by_one = torch.cat([getattr(chunks, name) for chunks in single], dim=1)
        torch.testing.assert_close(getattr(together, name), one_by_one, atol=1e-5, rtol=0)


def test_samples_belong_to_the_noise():
    policy = toy.tiny_policy()
    assert torch.equal(sample(policy).actions, sample(policy).actions)
    assert not torch.equal(sample(policy).actions, sample(policy, seed=1).actions)


def test_rows_of_a_batch_do_not_mix():
    policy, observed = toy.tiny_policy(), toy.observations(3)
    second = {
        "agent_pos": observed["agent_pos"][1:2],
        "pixels": {camera: pixels[1:2] for camera, pixels in observed["pixels"].items()},
    }
    with torch.inference_mode():
        alone = policy.encode(second, TEXTS[1:2]).tokens
        together = policy.encode(observed, TEXTS).tokens
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=0)


def test_joints_are_relative_to_where_the_arm_is_and_grippers_are_absolute():
    policy, observed = toy.tiny_policy(), toy.observations(1)
    context = policy.encode(observed, TEXTS[:1])
    moved = replace(context, agent_pos=context.agent_pos + torch.tensor([0.3, -0.2, 0.4]))
    with torch.inference_mode():
        before, after = (policy.sample(c, 2, [stream(0, "a")]).actions for c in (context, moved))
    shift = (after - before).flatten(0, 2)
    torch.testing.assert_close(shift, torch.tensor([0.3, -0.2, 0.0]).expand_as(shift))


def test_what_is_learned_is_what_is_played(toy_data):
    """A chunk, taken relative and normalised, comes back as the same absolute targets."""
    dataset = EpisodeDataset(toy_data)
    policy = FlowPolicy.for_dataset(toy.TINY, dataset, dataset.cameras)
    window = dataset.windows(HORIZON).get(np.arange(5))
    base = torch.from_numpy(window["agent_pos"]) * policy.relative
    action = torch.from_numpy(window["action"])
    normalised = policy.chunk(action - base[:, None])
    torch.testing.assert_close(policy.chunk.inverse(normalised) + base[:, None], action)


def test_a_policy_for_a_dataset_takes_its_words_and_statistics(toy_data):
    dataset = EpisodeDataset(toy_data)
    policy = FlowPolicy.for_dataset(toy.TINY, dataset, dataset.cameras)
    assert policy.backbone.language.vocabulary == vocabulary_of(dataset.episodes.instruction)
    assert {"dot", "to", "the"} <= set(policy.backbone.language.vocabulary)
    positions = policy.backbone.agent_pos(torch.from_numpy(dataset.columns["agent_pos"]))
    torch.testing.assert_close(positions.mean(0), torch.zeros(JOINTS), atol=1e-4, rtol=0)
    torch.testing.assert_close(positions.std(0, correction=0), torch.ones(JOINTS))
    window = dataset.windows(HORIZON).get(np.arange(len(dataset)))
    base = window["agent_pos"][:, None] * policy.relative.numpy()
    chunks = policy.chunk(torch.from_numpy(window["action"] - base))
    chunks[~torch.from_numpy(window["mask"])] = torch.nan  # what is padded does not count
    torch.testing.assert_close(chunks.nanmean(0), torch.zeros(HORIZON, JOINTS), atol=1e-3, rtol=0)


def test_a_normaliser_only_shifts_what_never_moves():
    normaliser = Normaliser((2,))
    assert normaliser(torch.zeros(2)).isnan().all()  # until it was fitted
    values = np.column_stack([np.full(50, 3.0), np.arange(50)]).astype(np.float32)
    normaliser.fit(values)
    assert normaliser.std[0] == 1
    x = torch.tensor([3.5, 10.0])
    assert normaliser(x)[0] == 0.5
    torch.testing.assert_close(normaliser.inverse(normaliser(x)), x)


def test_many_equal_numbers_do_not_seem_to_move():
    """Summed one after the other in single precision they would, by the errors of the sum."""
    normaliser = Normaliser((2,))
    normaliser.fit(np.full((200_000, 2), 0.3, np.float32))
    assert normaliser.std.tolist() == [1, 1]
    torch.testing.assert_close(normaliser.mean, torch.full((2,), 0.3), atol=1e-7, rtol=0)


def tokens(policy, text):
    with torch.inference_mode():
        return policy.encode(toy.observations(1), [text]).tokens[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("go to the red dot", "go to the blue dot"),
        ("blue cube red bin", "red cube blue bin"),  # the same words in another order
    ],
)
def test_the_instruction_changes_what_is_seen(one, other):
    policy = toy.tiny_policy(words=("bin", "blue", "cube", "dot", "go", "red", "the", "to"))
    difference = (tokens(policy, one) - tokens(policy, other)).abs().amax(1)
    assert difference[0] > 1e-3  # the words' token
    assert difference[1] == 0  # the joints'
    assert (difference[2:] > 1e-6).all()  # the pictures', which the words modulate


@pytest.mark.parametrize("text", ["", "¿qué?", "!?", "fetch my slippers " * 40, "日本語"])
def test_words_that_training_never_saw_do_no_harm(text):
    policy = toy.tiny_policy()
    assert tokens(policy, text).isfinite().all()
    assert sample(policy, [text, TEXTS[0]]).actions.isfinite().all()


def test_unknown_words_beside_an_instruction_do_not_depend_on_the_batch():
    policy = toy.tiny_policy()
    long = "please be so kind as to go to the blue dot right now"
    with torch.inference_mode():
        alone = policy.backbone.language(["go to the red dot"])
        padded = policy.backbone.language(["go to the red dot", long])
    torch.testing.assert_close(alone[0], padded[0], atol=1e-6, rtol=0)


def test_case_and_punctuation_are_no_words():
    assert words("Put the RED cube, please!") == ["put", "the", "red", "cube", "please"]
    policy = toy.tiny_policy()
    assert torch.equal(tokens(policy, "go red dot"), tokens(policy, "Go, red dot."))


def test_acting_uses_no_language_augmentation():
    policy = toy.tiny_policy()
    assert torch.equal(tokens(policy, TEXTS[0]), tokens(policy, TEXTS[0]))
    with torch.inference_mode():
        heard = [policy.backbone.language(TEXTS, stream(s, "words")) for s in range(8)]
    assert any(not torch.equal(heard[0], other) for other in heard)


def test_an_environment_that_the_policy_does_not_know_is_refused():
    policy = toy.tiny_policy()
    policy.check_fits(toy.TOY_ARM, observation_space(toy.TOY_ARM, ("top", "wrist"), toy.SIZE))
    policy.check_fits(toy.TOY_ARM, observation_space(toy.TOY_ARM, ("top", "wrist", "x"), toy.SIZE))
    with pytest.raises(CheckpointError, match=r"trained on toy .* and so101 has .*; train one"):
        policy.check_fits(SO101, observation_space(SO101, ("top", "wrist"), toy.SIZE))
    for cameras, size in [(("top",), toy.SIZE), (("top", "wrist"), (24, 32)), ((), toy.SIZE)]:
        with pytest.raises(CheckpointError, match=r"camera '\w+' at 12x16; give the environment"):
            policy.check_fits(toy.TOY_ARM, observation_space(toy.TOY_ARM, cameras, size))
    with pytest.raises(CheckpointError, match="camera 'top'"):
        policy.check_fits(toy.TOY_ARM, spaces.Dict(agent_pos=spaces.Box(-1, 1, (3,))))


def test_another_control_rate_is_another_arm(toy_data):
    dataset = EpisodeDataset(toy_data)
    policy = FlowPolicy.for_dataset(toy.TINY, dataset, dataset.cameras)
    faster = replace(toy.TOY_ARM, control_hz=30.0)
    with pytest.raises(CheckpointError, match=r"control_hz 20.* and toy has 30"):
        policy.check_fits(faster, observation_space(faster, ("top", "wrist"), toy.SIZE))


def test_a_chunk_that_no_episode_fills_is_refused(toy_data):
    dataset = EpisodeDataset(toy_data)
    config = replace(toy.TINY, horizon=int(dataset.episodes.length.max()) + 1)
    with pytest.raises(DatasetError, match=r"no episode of .* frames; .* smaller --policy.horizon"):
        FlowPolicy.for_dataset(config, dataset, dataset.cameras)


def test_pictures_may_have_odd_sides():
    cameras = {"top": (13, 15)}
    policy = toy.tiny_policy(cameras=cameras)
    with torch.inference_mode():
        context = policy.encode(toy.observations(2, cameras=cameras), ["go red", "go blue"])
    assert context.tokens.isfinite().all()


@pytest.mark.parametrize("setting", ["horizon", "sample_steps", "draws", "hidden", "depth"])
def test_sizes_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} is 0; it must be at least 1"):
        FlowConfig(**{setting: 0})


def golden_outputs(policy):
    """What a checkpoint that was published must give for ever."""
    chunks = sample(policy, n=2)
    loss, _ = policy.loss(batch_of(4), stream(0, "loss"))
    return {
        "actions": chunks.actions.flatten().tolist(),
        "features": chunks.features.flatten().tolist(),
        "loss": float(loss.detach()),
    }


def test_a_published_checkpoint_keeps_its_meaning():
    stored = json.loads((GOLDEN / "flow.json").read_text())
    found = golden_outputs(load_policy(GOLDEN / "flow"))
    assert found.keys() == stored.keys()
    for name, values in stored.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, rtol=1e-4, err_msg=name)


if __name__ == "__main__":  # a new format begins: write the golden files anew
    toy.tiny_policy().save(GOLDEN / "flow")
    outputs = golden_outputs(load_policy(GOLDEN / "flow"))
    (GOLDEN / "flow.json").write_text(json.dumps(outputs) + "\n")
