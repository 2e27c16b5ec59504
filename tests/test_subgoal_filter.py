"""The filter of imagined subgoals: candidates of a plan each, and which of them leads on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn import cli
from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.evaluate import evaluate
from robolearn.options import EvalConfig
from robolearn.policies.base import Chunks, Overlap
from robolearn.policies.configs import SubgoalFilterConfig
from robolearn.policies.hashing import Hashing
from robolearn.policies.scorers import open_scorer
from robolearn.policies.subgoal_examples import PROGRESS, WRONG, Examples
from robolearn.policies.subgoal_filter import SubgoalFilter
from robolearn.seeding import stream
from robolearn.sources import source_of
from robolearn.train import train

CONFIG = replace(toy.TINY_ACT2GOAL, horizon=2, stride=1, far=1)
HORIZON, JOINTS = CONFIG.horizon, toy.TOY_ARM.size


def policy(*, planning=True):
    acting = toy.tiny_policy(config=CONFIG)
    acting.planning = planning
    return acting


def observations(count, seed=0):
    seen = toy.observations(count, seed)
    return {**seen, "goal_pixels": toy.observations(count, seed + 100)["pixels"]}


def noise(count):
    return [stream(0, str(k)) for k in range(count)]


def sampled(acting, n, count=2):
    with torch.inference_mode():
        return acting.sample(acting.encode(observations(count), [""] * count), n, noise(count))


def test_the_first_candidate_is_the_one_without_plans():
    plain, apart = (sampled(policy(planning=planning), 4) for planning in (False, True))
    assert plain.plans is None
    torch.testing.assert_close(apart.actions[:, 0], plain.actions[:, 0])
    one = sampled(policy(), 1)
    assert torch.equal(one.actions, sampled(policy(planning=False), 1).actions)


def test_every_other_candidate_has_a_plan_of_its_own_and_acts_on_it():
    """With the same noise for the chunks, what differs comes of the plans."""
    acting = policy()
    still = torch.zeros(2, 4, *acting.chunk.mean.shape)
    acting.first_noise = lambda n, noise: still[:, :n]
    chunks = sampled(acting, 4)
    cells = acting.backbone.world.count
    assert chunks.plans.shape == (2, 4, 3, cells, CONFIG.latents)
    assert chunks.actions.shape == (2, 4, HORIZON, JOINTS)
    for k in range(4):
        for other in range(k):
            assert not torch.allclose(chunks.plans[:, k, 1], chunks.plans[:, other, 1])
            assert not torch.allclose(chunks.actions[:, k], chunks.actions[:, other])
    for part in (0, 2):  # now and goal are the same for all
        assert (chunks.plans[:, :1, part] == chunks.plans[:, :, part]).all()


def test_candidates_are_the_same_however_many_there_are():
    few, many = sampled(policy(), 2), sampled(policy(), 5)
    torch.testing.assert_close(few.plans, many.plans[:, :2])
    torch.testing.assert_close(few.actions, many.actions[:, :2])


def test_a_batch_of_observations_is_what_each_is_alone():
    both = sampled(policy(), 3, count=2)
    alone = sampled(policy(), 3, count=1)
    seen, first = observations(2), observations(2)
    first["pixels"], first["goal_pixels"] = (
        {c: x[:1] for c, x in seen[kind].items()} for kind in ("pixels", "goal_pixels")
    )
    first["agent_pos"] = seen["agent_pos"][:1]
    acting = policy()
    with torch.inference_mode():
        alone = acting.sample(acting.encode(first, [""]), 3, noise(1))
    torch.testing.assert_close(both.plans[:1], alone.plans)
    torch.testing.assert_close(both.actions[:1], alone.actions)


def test_plans_of_a_batch_go_on_with_what_each_has_under_way():
    acting, weights = policy(), np.ones(HORIZON, np.float32)
    overlaps = [
        Overlap(np.full((HORIZON, JOINTS), planned, np.float32), weights) for planned in (-9.0, 9.0)
    ]
    followed = acting.follow(acting.encode(observations(2), ["", ""]), 3, noise(2), overlaps)
    assert followed.actions.shape == (2, 3, HORIZON, JOINTS)
    assert (followed.actions[0] < followed.actions[1]).float().mean() > 0.9


def test_a_plan_leads_where_the_world_model_imagines():
    """That of the first candidate is what the strips show."""
    acting, seen = policy(), observations(1)
    with torch.inference_mode():
        context = acting.encode(seen, [""])
        chunks = acting.sample(context, 2, noise(1))
        world = acting.backbone.world
        latents = world.imagine(context.now, context.goal, context.known, CONFIG.sample_steps)
    torch.testing.assert_close(chunks.plans[:, 0, 1], latents[:, world.hashing.near_frames - 1])


def test_plans_go_on_with_what_is_under_way_and_are_said_not_to_be_found():
    acting, seen = policy(), observations(1)
    overlap = Overlap(np.full((HORIZON, JOINTS), 9.0, np.float32), np.ones(HORIZON, np.float32))
    context = acting.encode(seen, [""])
    free = acting.sample(context, 3, noise(1))
    followed = acting.follow(context, 3, noise(1), [overlap])
    assert (followed.actions > free.actions.detach()).float().mean() > 0.9
    assert torch.equal(followed.plans, free.plans)
    acting.backbone.distance.steps = lambda now, goal: torch.full((len(now),), 1e6)
    beyond = acting.encode(seen, [""])
    assert acting.sample(beyond, 3, noise(1)).plans.shape == free.plans.shape
    assert acting.notes(beyond)["plan_found"].tolist() == [0.0]


WIDE = {"top": (16, 64)}


def track(folder, episodes=21, length=20):
    """Recordings of a bright bar that goes from left to right, on a patterned ground."""
    with EpisodeWriter(folder, arm=toy.TOY_ARM, fps=20, cameras=WIDE) as writer:
        for number in range(episodes):
            episode = toy.example(length=length, seed=number, cameras=WIDE)
            blocks = stream(number, "ground").integers(0, 160, (2, 8, 3), dtype=np.uint8)
            ground = blocks.repeat(8, 0).repeat(8, 1)
            pictures = np.tile(ground, (length, 1, 1, 1))
            for step in range(length):
                pictures[step, :, 3 * step : 3 * step + 7] = 255
            episode.observations["pixels/top"] = pictures
            writer.append(episode)
    return folder


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """Recordings, and a policy with an untrained eye that looks at them."""
    folder = tmp_path_factory.mktemp("subgoals")
    goals = replace(CONFIG.hindsight, furthest=19, jitter=0.02)
    config = replace(CONFIG, horizon=8, stride=8, hindsight=goals)
    acting = toy.tiny_policy(config=config, cameras=WIDE)
    world = acting.backbone.world
    world.eye.load_state_dict(world.autoencoder.encoder.state_dict())
    return acting, EpisodeDataset(track(folder / "data"))


def test_every_kind_of_what_is_no_progress_is_told_apart(moving):
    examples = Examples(*moving)
    world = moving[0].backbone.world
    settings = SubgoalFilterConfig(hidden=64, depth=1, steps=400, learning_rate=3e-3)
    torch.manual_seed(0)
    found = SubgoalFilter(settings, (world.count, moving[0].config.latents), "base")
    losses = found.learn(examples, seed=0)
    assert losses[-1] < losses[0]
    aucs = found.eval().judged(examples, seed=0)
    assert {*aucs} == {*WRONG}
    assert min(aucs.values()) > 0.9, aucs


def test_examples_are_what_they_are_called(moving):
    examples, (acting, dataset) = Examples(*moving), moving
    seen = {}
    # Frames in place of what they show.
    examples._seen = lambda frames, rng: torch.from_numpy(frames)[:, None, None]
    examples._latents = lambda frames: torch.from_numpy(frames)[:, None, None]
    examples._spoilt = lambda kinds, latents, others, rng: latents
    for kind in (PROGRESS, "reversed", "elsewhere", "other goal"):
        plans = examples.draw(np.full(200, kind), stream(0, "draw"))
        seen[kind] = plans[:, :, 0, 0].numpy().T
    episode = np.repeat(np.arange(len(dataset.episodes)), dataset.episodes.length)
    for kind, (now, subgoal, goal) in seen.items():
        own, other, end = episode[now], episode[subgoal], episode[goal]
        assert ((own == other) == (kind != "elsewhere")).all()
        assert ((own == end) == (kind != "other goal")).all()
        assert (own % 10 != 0).all()  # these are held out
        if kind == "reversed":
            assert (subgoal < now).all()
        if kind == PROGRESS:
            assert (np.minimum(goal - now, acting.horizon) == subgoal - now).all()


@pytest.mark.parametrize("held", [False, True])
def test_strangers_too_are_of_episodes_that_are_held_out_or_not(moving, held):
    examples, shown = Examples(*moving), []
    latents = examples._latents
    examples._latents = lambda frames: shown.append(frames) or latents(frames)
    examples.draw(np.full(60, "patched"), stream(0, "draw"), held=held)
    assert len(shown) == 2  # the subgoals, and the strangers
    assert all((examples._held[frames] == held).all() for frames in shown)


def test_subgoals_are_spoilt_as_they_are_called(moving):
    examples = Examples(*moving)
    shape = (300, 10, 4)
    latents, others = torch.zeros(shape), torch.full(shape, 9.0)
    found = {
        kind: examples._spoilt(np.full(300, kind), latents, others, stream(0, "spoil"))
        for kind in (PROGRESS, "noised", "patched")
    }
    assert found[PROGRESS].std() < 0.1
    assert found["noised"].std() > 0.5
    cells = (found["patched"] > 5.0).all(2).sum(1)
    assert (cells.min(), cells.max()) == (3, 6)


def test_light_of_now_and_goal_changes_apart_and_that_of_subgoals_does_not(moving):
    acting, dataset = moving
    changed = replace(acting.config, hindsight=replace(acting.config.hindsight, jitter=0.5))
    lit = toy.tiny_policy(config=changed, cameras=WIDE)
    examples = Examples(lit, dataset)
    frames = np.full(40, 3)
    rng = stream(0, "light")
    one, other = (examples._seen(frames, rng) for _ in range(2))
    assert not torch.allclose(one, other)
    assert torch.equal(examples._latents(frames)[:1].expand(40, -1, -1), examples._latents(frames))


def test_one_episode_is_too_little(moving, tmp_path):
    with pytest.raises(DatasetError, match="fewer than two episodes"):
        Examples(moving[0], EpisodeDataset(track(tmp_path / "one", episodes=1)))


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("filtered") / "run"
    train(toy.train_config(toy_data, folder, policy=CONFIG))
    return folder


def fit_command(base):
    return f"train --policy subgoal-filter --base {base} --policy.steps 3 --policy.hidden 8".split()


def test_it_is_fitted_chooses_and_is_measured(run, tmp_path, capsys):
    assert cli.main(fit_command(run)) == 0
    assert f"--scorer {run / 'subgoal-filter'}" in capsys.readouterr().out
    figures = json.loads((run / "subgoal-filter" / "figures.json").read_text())
    assert {*figures["auc"]} == {*WRONG}
    result = evaluate(
        EvalConfig(
            policy=str(run),
            env=toy.ENV_ID,
            out=tmp_path / "eval",
            scorer="subgoal-filter",
            candidates=3,
            replan_every=2,
            episodes=2,
            videos=0,
            workers=0,
        )
    )
    assert (result["scorer"], result["candidates"]) == ("subgoal-filter", 3)
    shutil.rmtree(run / "subgoal-filter")


def test_the_candidate_with_the_best_odds_is_chosen():
    settings = SubgoalFilterConfig(hidden=8, depth=1)
    found = SubgoalFilter(settings, (2, CONFIG.latents), "base").eval()
    plans = torch.randn(2, 5, 3, 2, CONFIG.latents)
    chunks = Chunks(torch.zeros(2, 5, 1, 1), torch.zeros(2, 5, 1), plans)
    scores = found.score(None, chunks, [])
    assert scores.shape == (2, 5)
    torch.testing.assert_close(scores[1, 3], found(plans[1, 3:4])[0])
    with pytest.raises(ValueError, match="no plans"):
        found.score(None, replace(chunks, plans=None), [])


def test_it_is_for_policies_that_imagine_and_for_one_very_policy(run, toy_run, toy_data, tmp_path):
    with pytest.raises(CheckpointError, match="imagines nothing"):
        SubgoalFilter.fitted_to(load_policy(toy_run), "", EpisodeDataset(toy_data), None)
    where = ["--data", str(toy_data), "--out", str(tmp_path / "none")]
    assert cli.main([*fit_command(toy_run), *where]) == 1
    assert cli.main([*fit_command(run), "--out", str(tmp_path / "filter")]) == 0
    other = toy.tiny_policy(config=CONFIG)
    other.save(tmp_path / "other")
    with pytest.raises(CheckpointError, match="was fitted to another policy"):
        open_scorer(str(tmp_path / "filter"), other, source_of(tmp_path / "other"))
    acting = load_policy(run)
    assert not acting.planning
    open_scorer(str(tmp_path / "filter"), acting, source_of(run))
    assert acting.planning


@pytest.mark.parametrize("name", ["hidden", "steps", "batch_size"])
def test_settings_that_make_no_sense(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        SubgoalFilterConfig(**{name: 0})


def test_the_subgoal_is_the_frame_at_the_end_of_the_chunk():
    hashing = Hashing(near=8, stride=4, far=2, furthest=20)
    offsets = hashing.offsets(np.array([20, 3]))
    assert offsets[:, hashing.near_frames - 1].tolist() == [8, 3]
