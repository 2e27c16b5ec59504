"""Flow and diffusion, with every head and option: what they share, and what they learn."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn.checkpoint import load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.policies.configs import DiffusionConfig, FlowConfig
from robolearn.policies.heads import HEADS
from robolearn.seeding import stream

KINDS = pytest.mark.parametrize("config", toy.TINIES.values(), ids=toy.TINIES.keys())
TEXTS = ["go to the red dot", "move to the blue dot", "go to the blue dot"]


def noise(count=3, seed=0):
    return [stream(seed, str(k)) for k in range(count)]


@pytest.fixture
def inference():
    with torch.inference_mode():
        yield


def batch_of(policy, count=8, seed=0):
    rng = np.random.default_rng(seed)
    batch = toy.observations(count, seed)
    chunk = 0.1 * rng.normal(size=(count, policy.horizon, toy.TOY_ARM.size)).astype(np.float32)
    base = (batch["agent_pos"] * policy.relative)[:, None]
    mask = torch.ones(count, policy.horizon, dtype=torch.bool)
    mask[-1, 1:] = False
    action = torch.from_numpy(chunk) + base
    return {**batch, "action": action, "mask": mask, "instruction": ["go red"] * count}


@KINDS
def test_every_weight_learns(config):
    policy = toy.tiny_policy(config=config).train()
    loss, info = policy.loss(batch_of(policy), stream(0, "loss"))
    loss.backward()
    assert info == {f"{config.kind}/loss": float(loss.detach())}
    still = [n for n, p in policy.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@KINDS
def test_steps_beyond_the_end_of_an_episode_do_not_count(config):
    policy = toy.tiny_policy(config=config)
    batch = batch_of(policy)
    inside = batch["mask"][..., None]
    losses = []
    for padding in (0.0, 5.0):
        action = torch.where(inside, batch["action"], torch.tensor(padding))
        losses.append(policy.loss({**batch, "action": action}, stream(0, "loss"))[0])
    assert losses[0] == losses[1]
    action = torch.where(inside, torch.tensor(5.0), batch["action"])
    assert policy.loss({**batch, "action": action}, stream(0, "loss"))[0] != losses[0]


@KINDS
@pytest.mark.usefixtures("inference")
def test_the_first_candidates_are_the_same_however_many_there_are(config):
    policy = toy.tiny_policy(config=config)
    context = policy.encode(toy.observations(3), TEXTS)
    many, few = (policy.sample(context, n, noise()) for n in (32, 8))
    assert many.actions.shape == (3, 32, config.horizon, 3)
    assert many.features.shape == (3, 32, config.hidden)
    torch.testing.assert_close(many.actions[:, :8], few.actions, atol=1e-5, rtol=0)
    torch.testing.assert_close(many.features[:, :8], few.features, atol=1e-5, rtol=0)
    assert torch.unique(many.actions.flatten(2), dim=1).shape[1] == 32


@KINDS
@pytest.mark.usefixtures("inference")
def test_a_shared_prefix_gives_what_a_repeated_one_gives(config):
    policy, seen = toy.tiny_policy(config=config), toy.observations(1)
    shared = policy.sample(policy.encode(seen, TEXTS[:1]), 6, noise(1))
    repeated = {k: v.repeat(6, 1) for k, v in seen.items() if k != "pixels"}
    repeated["pixels"] = {k: v.repeat(6, 1, 1, 1) for k, v in seen["pixels"].items()}
    start = stream(0, "0").standard_normal((6, config.horizon, 3), dtype=np.float32)
    rows = [_Fixed(row) for row in start]
    apart = policy.sample(policy.encode(repeated, TEXTS[:1] * 6), 1, rows)
    torch.testing.assert_close(shared.actions[0], apart.actions[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(shared.features[0], apart.features[:, 0], atol=1e-5, rtol=0)


class _Fixed:
    """A generator that gives these numbers."""

    def __init__(self, values):
        self.values = values

    def standard_normal(self, shape, dtype):
        return self.values.reshape(shape).astype(dtype)


@KINDS
@pytest.mark.usefixtures("inference")
def test_the_prefix_is_computed_once_an_observation(config, monkeypatch):
    policy, counted = toy.tiny_policy(config=config), []
    kind = HEADS[config.head]
    original = kind.prefix
    monkeypatch.setattr(kind, "prefix", lambda self, x: counted.append(len(x)) or original(self, x))
    context = policy.encode(toy.observations(3), TEXTS)
    policy.sample(context, 32, noise())
    policy.refine(context, torch.zeros(3, 4, config.horizon, 3), noise(), 0.5)
    assert counted == [3]
    assert all(len(tensor) == 3 for tensor in context.cache)


@KINDS
@pytest.mark.usefixtures("inference")
def test_as_much_noise_is_put_on_as_was_asked_for(config):
    config = replace(config, sample_steps=10)
    policy = toy.tiny_policy(config=config)
    context = policy.encode(toy.observations(3), TEXTS)
    shown = policy.sample(context, 16, noise()).actions
    clean, pure = torch.zeros(3, 16, config.horizon, 3), torch.randn(3, 16, config.horizon, 3)
    far = [float(policy.noised(clean, pure, start).std()) for start in (9, 5, 1)]
    assert 0 < far[0] < far[1] < far[2] < 1.1
    whole = policy.refine(context, shown, noise(seed=1), 1.0).actions
    torch.testing.assert_close(whole, policy.sample(context, 16, noise(seed=1)).actions)


@KINDS
@pytest.mark.usefixtures("inference")
def test_features_are_of_the_last_sampling_step_whatever_the_noise(config, monkeypatch):
    for steps in (1, 2, 5):
        policy = toy.tiny_policy(config=replace(config, sample_steps=steps))
        context = policy.encode(toy.observations(3), TEXTS)
        times, kind = [], HEADS[config.head]
        original = kind.forward

        def spy(self, x, t, prefix, times=times, original=original):
            times.append(float(t[0, 0, 0]))
            return original(self, x, t, prefix)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "forward", spy)
            last = []
            for level in (0.0, 0.3, 1.0):
                shown = torch.zeros(3, 2, config.horizon, 3)
                policy.refine(context, shown, noise(), level)
                last.append(times[-1])
            policy.sample(context, 2, noise())
        assert set(last) == {times[-1]}


@KINDS
def test_a_saved_policy_acts_as_before(config, tmp_path):
    policy = toy.tiny_policy(config=config)
    policy.save(tmp_path / "model")
    loaded = load_policy(tmp_path / "model")
    assert type(loaded) is type(policy)
    assert loaded.config == config
    with torch.inference_mode():
        one, other = (
            p.sample(p.encode(toy.observations(3), TEXTS), 2, noise()) for p in (policy, loaded)
        )
    assert torch.equal(one.actions, other.actions)


@pytest.mark.parametrize(
    "config",
    [
        FlowConfig(sample_steps=8, draws=8),
        FlowConfig(sample_steps=4, draws=8, solver="midpoint", times="logit-normal"),
        FlowConfig(sample_steps=8, draws=8, times="beta", head="transformer"),
        DiffusionConfig(draws=8),
        DiffusionConfig(draws=8, prediction="epsilon"),
        DiffusionConfig(draws=8, prediction="epsilon", sampler="dpm-solver++"),
        DiffusionConfig(draws=8, prediction="sample", sampler="dpm-solver++"),
        DiffusionConfig(draws=8, prediction="v_prediction", head="transformer"),
    ],
)
def test_two_modes_are_learned_as_two(config):
    """Chunks that go left or right, never between; three of four go right."""
    config = replace(config, horizon=4, hidden=32, depth=2, patch=2, backbone=toy.SMALL)
    policy = toy.tiny_policy(config=config, cameras={}, seed=1).train()
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    seen = toy.observations(64, cameras={})
    base = (seen["agent_pos"] * policy.relative)[:, None]
    for step in range(400):
        side = np.where(rng.random((64, 1, 1)) < 0.75, 0.15, -0.15).astype(np.float32)
        action = base + torch.from_numpy(side) + torch.zeros(64, 4, 3)
        mask = torch.ones(64, 4, dtype=torch.bool)
        batch = {**seen, "action": action, "mask": mask, "instruction": ["go"] * 64}
        loss, _ = policy.loss(batch, stream(step, "loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        chunks = policy.eval().sample(policy.encode(seen, ["go"] * 64), 16, noise(64)).actions
    moved = (chunks - base[:, None])[..., :2].flatten().numpy()  # the gripper is absolute
    right = (np.abs(moved - 0.15) < 0.06).mean()
    left = (np.abs(moved + 0.15) < 0.06).mean()
    assert right + left > 0.85
    assert 0.6 < right / (right + left) < 0.9


def test_a_policy_may_look_at_the_state_instead_of_pictures(tmp_path):
    policy = toy.tiny_policy(cameras={}, state=5)
    seen = toy.observations(3, cameras={})
    seen["environment_state"] = torch.randn(3, 5)
    with torch.inference_mode():
        one = policy.encode(seen, TEXTS).tokens
        other = policy.encode({**seen, "environment_state": torch.randn(3, 5)}, TEXTS).tokens
    assert one.shape[1] == policy.backbone.token_count == 3
    assert not torch.equal(one, other)
    policy.save(tmp_path / "model")
    assert load_policy(tmp_path / "model").state_size == 5


def test_a_policy_for_a_dataset_takes_either_kind(toy_data):
    dataset = EpisodeDataset(toy_data)
    for config in toy.TINIES.values():
        policy = toy.POLICIES[config.kind]().for_dataset(config, dataset, dataset.cameras)
        assert policy.chunk.mean.isfinite().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"horizon": 6, "patch": 4, "head": "transformer"}, "patch is 4; it must divide the hori"),
        ({"patch": 0}, "patch is 0; it must be at least 1"),
    ],
)
def test_settings_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words):
        FlowConfig(**settings)
    with pytest.raises(ValueError, match="sample_steps is 8; it must divide the 100 noise levels"):
        DiffusionConfig(sample_steps=8)


@pytest.mark.parametrize("sampler", ["ddim", "dpm-solver++"])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_head_that_is_nearly_right_gives_nearly_the_data(sampler, prediction, monkeypatch):
    """Clean chunks are all 0.5; the head knows that, but for a small error."""
    config = DiffusionConfig(sampler=sampler, prediction=prediction, **toy.SIZES)
    policy = toy.tiny_policy(config=config)
    generator = torch.Generator().manual_seed(0)

    def head(x, t, prefix):
        signal, spread = policy._shares((t * config.train_steps).round().long().flatten()[0])
        noise = (x - signal * 0.5) / spread
        exact = {"epsilon": noise, "sample": torch.full_like(x, 0.5)}
        exact["v_prediction"] = signal * noise - spread * 0.5
        error = 0.02 * torch.randn(x.shape, generator=generator)
        return exact[prediction] + error, torch.zeros(*x.shape[:2], 1)

    monkeypatch.setattr(policy, "head", torch.nn.Module())
    policy.head.forward = head
    clean, _ = policy.denoise(torch.randn(2, 64, 4, 3, generator=generator), 0, ())
    assert abs(float(clean.mean()) - 0.5) < 0.02
    assert float(clean.std()) < 0.1


def test_a_gripper_has_one_scale_for_all_steps_of_a_chunk():
    policy = toy.tiny_policy()
    rows = np.random.default_rng(0).normal(size=(50, policy.horizon, toy.TOY_ARM.size))
    rows *= np.arange(1, policy.horizon + 1)[:, None]
    rows[:, -1, toy.TOY_ARM.grippers[0]] = 0.3  # always still there
    policy.fit_chunks(rows)
    gripper = policy.chunk.std[:, toy.TOY_ARM.grippers[0]]
    widest = rows[:, :, toy.TOY_ARM.grippers[0]].std(0).max()
    assert torch.allclose(gripper, torch.full_like(gripper, widest))
    others = policy.chunk.std[:, policy.relative == 1.0]
    assert bool((others[-1] > 2.0 * others[0]).all())
