"""The planner in latents: its search, its model, and what becomes of a goal."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy
from torch.nn import functional

from robolearn.checkpoint import load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.evaluate import evaluate
from robolearn.policies.base import Context, as_tensors
from robolearn.policies.cem import BOUND, CemPolicy, least
from robolearn.policies.latent_configs import CemConfig
from robolearn.policies.latent_dynamics import LatentDynamics
from robolearn.seeding import stream
from robolearn.train import train

CONFIG = toy.TINY_CEM
HORIZON, JOINTS, PARTS = CONFIG.horizon, toy.TOY_ARM.size, CONFIG.horizon // CONFIG.part


def draws(searches, iterations, samples, size, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(
        rng.standard_normal((searches, iterations, samples, size), dtype=np.float32)
    )


def test_the_search_finds_the_optimum_of_a_linear_system():
    """z' = A z + B u from each of several z; the best u is known."""
    rng = np.random.default_rng(0)
    a, b, z, goal = (
        torch.from_numpy(rng.normal(size=shape)).float()
        for shape in ((5, 5), (5, 3), (4, 5), (4, 5))
    )
    goal = z @ a.T + 0.4 * goal  # near enough
    target = goal - z @ a.T
    wanted = torch.linalg.lstsq(b, target.T).solution.T
    assert wanted.abs().max() < BOUND  # within the space that is searched

    def cost(u):
        return (z @ a.T)[:, None].add(u @ b.T).sub(goal[:, None]).square().sum(2)

    found = least(cost, draws(4, 12, 200, 3), elites=20)
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0.0)
    plain = least(cost, draws(4, 1, 200, 3), elites=20)
    assert (found - wanted).norm() < 0.2 * (plain - wanted).norm()


def test_the_search_stays_where_something_was_demonstrated():
    found = least(lambda u: (u - 100.0).square().sum(2), draws(2, 10, 64, 3), elites=4)
    assert (found > 0.8 * BOUND).all()
    assert (found <= BOUND).all()


def policy(config=CONFIG, seed=0):
    """A policy with random weights; those that start as zeros are random too."""
    torch.manual_seed(seed)
    acting, rng = CemPolicy(config, toy.CAMERAS, toy.arm_description()), np.random.default_rng(seed)
    acting.dynamics.agent_pos.fit(rng.normal(size=(50, JOINTS)).astype(np.float32))
    rows = 0.1 * rng.normal(size=(50, config.horizon, JOINTS)).astype(np.float32)
    acting.dynamics.targets.fit(rows[:, : config.part])
    acting.chunk.fit(rows)
    acting.directions.copy_(acting._principal(torch.from_numpy(rows)))
    for weight in acting.parameters():
        if not weight.detach().any():
            torch.nn.init.normal_(weight, std=0.3)
    return acting.eval()


def observations(count, seed=0, goal=100):
    seen = toy.observations(count, seed)
    return {**seen, "goal_pixels": toy.observations(count, seed + goal)["pixels"]}


def noise(count):
    return [stream(0, str(k)) for k in range(count)]


def sampled(acting, seen, n=1):
    count = len(seen["agent_pos"])
    with torch.inference_mode():
        return acting.sample(acting.encode(seen, [""] * count), n, noise(count))


def test_a_chunk_leads_to_the_goal_where_the_model_is_known():
    """In place of the model: latents move as the joints' targets say."""
    settings = replace(CONFIG, samples=200, iterations=12, elites=20)
    acting = policy(settings)

    def unrolled(z, joints, chunk):
        z = z.clone()
        z[:, 0, :JOINTS] += chunk[:, -1]
        return z[:, None], joints[:, None]

    acting.dynamics.unrolled = unrolled
    joints, now = torch.zeros(2, JOINTS), torch.zeros(2, acting.latents.count, CONFIG.latents)
    wanted = acting._chunks(torch.tensor([[[1.0, -0.5, 0.5]], [[-1.0, 1.0, 0.0]]]), joints)
    goal = unrolled(now, joints, wanted[:, 0])[0][:, 0]
    found = acting.sample(Context(now, joints, (goal,)), 1, noise(2)).actions[:, 0]
    torch.testing.assert_close(found[:, -1], wanted[:, 0, -1], atol=0.02, rtol=0.0)


def test_the_model_looks_as_often_as_the_settings_say():
    acting, looks = policy(), []
    acting.dynamics.register_forward_hook(lambda module, inputs, _: looks.append(len(inputs[0])))
    chunks = sampled(acting, observations(2), n=3)
    searched = [2 * 3 * CONFIG.samples] * (PARTS * CONFIG.iterations)
    assert looks == [*searched, *[2 * 3] * PARTS]  # and once at what is answered
    assert chunks.actions.shape == (2, 3, HORIZON, JOINTS)
    assert chunks.features.shape == (2, 3, CONFIG.latents)


def test_candidates_are_the_same_however_many_there_are_and_differ():
    few, many = (sampled(policy(), observations(2), n).actions for n in (2, 4))
    torch.testing.assert_close(few, many[:, :2])
    assert not torch.allclose(many[:, 0], many[:, 1])


def test_a_batch_of_observations_is_what_each_is_alone_and_nothing_else_is_random():
    both, first, acting = observations(2), observations(2), policy()
    for kind in ("pixels", "goal_pixels"):
        first[kind] = {name: x[:1] for name, x in both[kind].items()}
    first["agent_pos"] = both["agent_pos"][:1]
    torch.manual_seed(1)
    together = sampled(acting, both, n=2).actions
    torch.manual_seed(2)
    torch.testing.assert_close(together[:1], sampled(acting, first, n=2).actions)


def test_the_goal_matters():
    acting = policy()
    one, other = (sampled(acting, observations(2, goal=k)).actions for k in (100, 200))
    assert not torch.allclose(one, other)


def test_directions_are_those_in_which_demonstrations_differ():
    rng = np.random.default_rng(0)
    acting = policy(replace(CONFIG, directions=1))
    way = rng.normal(size=(HORIZON, JOINTS))
    rows = torch.from_numpy(rng.normal(size=(500, 1, 1)) * way).float()
    acting.chunk.fit(rows.numpy())
    acting.directions.copy_(acting._principal(rows))
    points = torch.tensor([[[2.0]]])
    found = acting._chunks(points, torch.zeros(1, JOINTS))[0, 0] - acting.chunk.mean
    spread = float(rows[:, 0, 0].std(correction=0)) / abs(way[0, 0])
    assert torch.allclose(found.abs(), torch.from_numpy(2.0 * spread * np.abs(way)).float(), 0.02)


CELLS, CHANNELS = 6, 4
MOVING = CemConfig(
    horizon=4, part=2, width=32, depth=2, latents=CHANNELS, samples=64, elites=8, directions=1
)


def dot(places):
    """Latents (..., N, C) of a dot at these cells."""
    bump = torch.exp(-((torch.arange(CELLS) - places[..., None]) ** 2) / 2.0)
    shape = torch.stack([bump, 1.0 - bump, 0.5 * bump, torch.full_like(bump, 0.3)], -1)
    return functional.layer_norm(shape, (CHANNELS,))


def moves(count, seed, config=MOVING):
    """One joint takes a dot along: what is seen before and after each part, and targets."""
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(1, CELLS - 2, (count, 1)), rng.uniform(-0.5, 0.5, (count, 1))
    places = torch.from_numpy(start + speed * np.arange(config.horizon + 1)).float()
    return places[:, :: config.part, None], places[:, 1:, None]


@pytest.fixture(scope="module")
def moving():
    """A policy whose model knows the dot, and its losses."""
    torch.manual_seed(0)
    arm = {"name": "slide", "joints": ("x",), "grippers": ()}
    acting = CemPolicy(MOVING, {"top": (16, 16 * CELLS)}, arm).train()
    positions, targets = moves(500, 0)
    rows = targets - positions[:, :1]
    acting.dynamics.agent_pos.fit(positions[:, 0].numpy())
    acting.dynamics.targets.fit(rows[:, : MOVING.part].numpy())
    acting.chunk.fit(rows.numpy())
    acting.directions.copy_(acting._principal(rows))
    optimizer = torch.optim.AdamW(acting.dynamics.parameters(), lr=3e-3)
    losses = []
    for step in range(250):
        positions, targets = moves(48, step)
        loss = sum(acting.dynamics.losses(dot(positions[..., 0]), positions, targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return acting.eval(), losses


def test_the_model_learns_where_a_dot_goes(moving):
    acting, losses = moving
    assert np.mean(losses[-20:]) < 0.25 * losses[0]
    positions, targets = moves(32, 999)
    with torch.no_grad():
        seen, joints = acting.dynamics.unrolled(dot(positions[:, 0, 0]), positions[:, 0], targets)
    still = (dot(positions[:, :1, 0]) - dot(positions[:, 1:, 0])).abs().mean()
    assert (seen - dot(positions[:, 1:, 0])).abs().mean() < 0.4 * still
    assert (joints - positions[:, 1:]).abs().mean() < 0.3


def test_the_planner_takes_the_dot_towards_the_goal(moving):
    acting, _ = moving
    start, goal = torch.full((2,), 2.5), torch.tensor([1.0, 4.0])
    context = Context(dot(start), start[:, None], (dot(goal),))
    last = acting.sample(context, 1, noise(2)).actions[:, 0, -1, 0]
    assert last[0] < 2.0
    assert last[1] > 3.0


def test_rolling_out_is_one_part_after_the_other():
    torch.manual_seed(0)
    model = policy().dynamics
    z, q = torch.randn(2, len(model.place), CONFIG.latents), torch.randn(2, JOINTS)
    chunk = torch.randn(2, HORIZON, JOINTS)
    seen, joints = model.unrolled(z, q, chunk)
    first = model(z, q, chunk[:, : CONFIG.part])
    second = model(*first, chunk[:, CONFIG.part : 2 * CONFIG.part])
    for k, (latents, positions) in enumerate((first, second)):
        torch.testing.assert_close(seen[:, k], latents)
        torch.testing.assert_close(joints[:, k], positions)


def test_an_untrained_model_says_that_all_stays_and_is_right_about_what_does():
    relative = torch.ones(JOINTS)
    model = LatentDynamics(CONFIG, CELLS, relative)
    model.agent_pos.fit(np.random.default_rng(0).normal(size=(9, JOINTS)))
    model.targets.fit(np.random.default_rng(0).normal(size=(9, CONFIG.part, JOINTS)))
    still = functional.layer_norm(torch.randn(2, 1, CELLS, CONFIG.latents), (CONFIG.latents,))
    joints, chunk = torch.randn(2, 1, JOINTS), torch.randn(2, HORIZON, JOINTS)
    repeated = still.expand(-1, PARTS + 1, -1, -1), joints.expand(-1, PARTS + 1, -1)
    forced, rolled = model.losses(*repeated, chunk)
    assert float(forced.detach()) == pytest.approx(0.0, abs=1e-4)
    assert float(rolled.detach()) == pytest.approx(0.0, abs=1e-4)
    parted = repeated[0].clone()
    parted[:, 1] = -parted[:, 1]  # teacher forcing sees this, and the roll-out begins before it
    forced, rolled = model.losses(parted, repeated[1], chunk)
    assert forced > rolled + 0.1


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("cem") / "run"
    train(toy.train_config(toy_data, folder, policy=CONFIG, steps=40, learning_rate=3e-3))
    return folder


def test_both_losses_fall(run):
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for name in ("cem/forced", "cem/rolled"):
        values = [row[name] for row in rows]
        assert np.mean(values[-10:]) < 0.8 * np.mean(values[:5]), name


def test_it_acts_and_leaves_what_it_expected(run, tmp_path):
    result = evaluate(toy.eval_config(run, tmp_path / "eval"))
    (strip,) = [episode["strip"] for episode in result["episodes"] if episode["strip"]]
    assert (tmp_path / "eval" / strip).stat().st_size > 100
    imagined = policy().imagine(observations(2))
    assert imagined.offsets.tolist() == [[1, 2], [1, 2]]
    assert imagined.frames["wrist"].shape == (2, PARTS, *toy.SIZE, 3)


def test_a_saved_policy_acts_as_before_and_resumes(run, toy_data, tmp_path):
    loaded = load_policy(run)
    assert isinstance(loaded, CemPolicy)
    assert loaded.goals
    loaded.save(tmp_path / "model")
    seen = observations(2)
    again = sampled(load_policy(tmp_path / "model"), seen).actions
    assert torch.equal(sampled(loaded, seen).actions, again)
    newest = train(
        toy.train_config(toy_data, run, policy=CONFIG, steps=40, resume=True, learning_rate=3e-3)
    )
    assert newest.name == "0000040"


def test_a_checkpoint_says_what_it_always_did():
    """Those that were made before this test load by these names and no others."""
    acting = policy()
    acting.env_id = "toy:Toy-v0"
    described = json.loads(json.dumps(acting.description()))
    assert described.keys() == {"config", "cameras", "arm", "env", "goals"}
    assert {name.split(".")[0] for name in acting.state_dict()} == {
        *("chunk", "directions", "dynamics", "latents")
    }
    again = CemPolicy.from_description(described)
    assert again.description() == described
    assert again.config == acting.config
    assert again.relative.tolist() == [1.0, 1.0, 0.0]


def test_windows_that_somebody_asks_for_can_be_looked_at(run, toy_data):
    acting, dataset = load_policy(run), EpisodeDataset(toy_data)
    batch = as_tensors(acting.windows(dataset).get(np.arange(3)), "cpu")
    assert acting.encode(batch, batch["instruction"]).tokens.shape[0] == 3


def test_episodes_that_are_too_short_say_what_is_needed(tmp_path):
    cameras = toy.CAMERAS
    with EpisodeWriter(tmp_path / "data", arm=toy.TOY_ARM, fps=20, cameras=cameras) as writer:
        writer.append(toy.example(length=6))
    dataset = EpisodeDataset(tmp_path / "data")
    with pytest.raises(DatasetError, match="needs 7"):
        CemPolicy.for_dataset(replace(CONFIG, horizon=6), dataset, dataset.cameras)
    with pytest.raises(ValueError, match="leave out --obs-type state"):
        CemPolicy.for_dataset(CONFIG, dataset, {})


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"part": 5}, "part is 5"),
        ({"elites": 1}, "elites is 1"),
        ({"elites": 65}, "elites is 65"),
        ({"iterations": 0}, "iterations is 0"),
        ({"directions": 0}, "directions is 0"),
    ],
    ids=["part", "one elite", "more elites", "iterations", "directions"],
)
def test_settings_that_do_not_fit_together_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        CemConfig(**changes)
