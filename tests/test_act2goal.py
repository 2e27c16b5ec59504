"""Act2Goal: one look of the world model a decision, blocks in pairs, stages, and no plan."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn.checkpoint import CheckpointError, load_policy
from robolearn.contract import observation_space
from robolearn.dataset import EpisodeDataset
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.evaluate import evaluate, unplanned
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.policies.base import Overlap, as_tensors
from robolearn.policies.configs import HindsightConfig
from robolearn.policies.flow import FlowPolicy
from robolearn.policies.latent_configs import Act2GoalConfig
from robolearn.report import write_report
from robolearn.seeding import stream
from robolearn.train import train

CONFIG = toy.TINY_ACT2GOAL
SHORT = replace(CONFIG, horizon=2, stride=1, far=1)  # toy demonstrations take a few steps
HORIZON = CONFIG.horizon


def policy():
    return toy.tiny_policy(config=CONFIG)


def observations(count, seed=0):
    seen = toy.observations(count, seed)
    return {**seen, "goal_pixels": toy.observations(count, seed + 100)["pixels"]}


def batch_of(count, steps=None, acting=None, **others):
    rng, world = np.random.default_rng(0), (acting or policy()).backbone.world
    steps = rng.integers(1, 13, count) if steps is None else np.full(count, steps)
    valid = world.hashing.far_offsets(steps)[1]
    joints = toy.TOY_ARM.size
    batch = {
        "action": rng.normal(size=(count, HORIZON, joints)).astype(np.float32),
        "far_action": rng.normal(size=(count, world.hashing.far_points, joints)).astype(np.float32),
        "mask": np.ones((count, HORIZON), bool),
        "far_valid": valid,
        "steps": steps,
        "episode": np.arange(count),
        "future": {
            name: rng.normal(size=(count, world.hashing.frames, CONFIG.latents, 1, 1))
            for name in toy.CAMERAS
        },
    }
    return {
        **observations(count),
        **as_tensors(batch, "cpu"),
        "instruction": [""] * count,
        **others,
    }


def noise(count):
    return [stream(0, str(k)) for k in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, toy_data):
    folder = tmp_path_factory.mktemp("act2goal") / "run"
    train(toy.train_config(toy_data, folder, policy=SHORT))
    return folder


def test_the_world_model_looks_once_a_decision_however_many_chunks():
    acting, calls = policy(), []
    acting.backbone.world.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        context = acting.encode(observations(2), ["", ""])
        chunks = acting.sample(context, 5, noise(2))
    assert len(calls) == 1
    assert chunks.actions.shape == (2, 5, HORIZON, toy.TOY_ARM.size)


def test_what_is_kept_is_what_would_be_seen_again():
    acting, seen = policy(), observations(3)
    with torch.inference_mode():
        first, again = (acting.encode(seen, [""] * 3) for _ in range(2))
        one = acting.sample(first, 2, noise(3)).actions
        other = acting.sample(again, 2, noise(3)).actions
    assert torch.equal(one, other)


def test_a_block_of_the_expert_reads_the_same_block_of_the_world_model_alone():
    head = policy().head
    memories = [torch.randn(2, *_memory()) for _ in range(CONFIG.depth)]
    steps = torch.tensor([3, 9])
    whole = head.prefix(memories, steps)
    for block in range(CONFIG.depth):
        changed = [m * (k != block) for k, m in enumerate(memories)]
        same = [torch.equal(a, b) for a, b in zip(whole, head.prefix(changed, steps), strict=True)]
        assert [k for k, kept in enumerate(same) if not kept] == [
            1 + 3 * block + part for part in range(3)
        ]
    with pytest.raises(ValueError, match="zip"):
        head.prefix(memories[:-1], steps)


def _memory():
    planner = policy().backbone
    return planner.tokens, CONFIG.width


def test_far_actions_are_never_executed():
    acting = policy()
    with torch.inference_mode():
        context = acting.encode(observations(2), ["", ""])
        plain = acting.sample(context, 1, noise(2)).actions
        denoise = acting.denoise

        def spoilt(*arguments):
            clean, features = denoise(*arguments)
            clean[:, :, HORIZON:] = torch.nan
            return clean, features

        acting.denoise = spoilt
        assert torch.equal(acting.sample(context, 1, noise(2)).actions, plain)
    assert plain.shape[2] == HORIZON


def test_the_first_stage_learns_to_imagine_and_the_second_to_act():
    acting = toy.tiny_policy(config=replace(CONFIG, video_weight=0.0)).train()
    outward = acting.backbone.world.outward.weight
    losses = {}
    for trained in (0.0, 0.9):
        acting.zero_grad()
        loss, losses[trained] = acting.loss(batch_of(6, trained=trained), stream(0, "loss"))
        loss.backward()
        assert (outward.grad is not None and bool(outward.grad.any())) == (trained == 0.0)
        assert acting.backbone.world.inward.weight.grad.any()  # through both networks
        assert all(w.grad is None for w in acting.backbone.world.autoencoder.parameters())
    assert losses[0.0].keys() - losses[0.9].keys() == {"video/loss"}


def test_the_stages_weigh_the_losses_as_they_are_told():
    plain = replace(CONFIG, distance_weight=0.0, video_weight=0.0)
    acting = toy.tiny_policy(config=plain)
    gradients = {}
    for trained in (0.0, 0.9):
        for weight in (0.1, 0.2):
            acting.config = replace(plain, action_weight=weight)
            acting.zero_grad()
            acting.loss(batch_of(6, trained=trained), stream(0, "loss"))[0].backward()
            gradients[trained, weight] = acting.head.outward.weight.grad.norm()
    assert torch.isclose(gradients[0.0, 0.2], 2.0 * gradients[0.0, 0.1])
    assert gradients[0.9, 0.2] == gradients[0.9, 0.1]


def test_a_little_of_the_video_is_kept_in_the_second_stage():
    batch, acting = batch_of(6, trained=0.9), policy()
    gradients = {}
    for weight in (0.1, 0.3):
        acting.config = replace(CONFIG, video_weight=weight)
        acting.zero_grad()
        acting.loss(batch, stream(0, "loss"))[0].backward()
        gradients[weight] = acting.backbone.world.outward.weight.grad.norm()
    assert torch.isclose(gradients[0.3], 3.0 * gradients[0.1])


def test_halves_that_a_dataset_keeps_are_learned_from_in_fewer_bits():
    batch = batch_of(4, trained=0.0)
    batch["future"] = {name: x.half() for name, x in batch["future"].items()}
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = policy().loss(batch, stream(0, "loss"))
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    ("sees", "imagined", "looked"),
    [("both", True, True), ("imagination", True, False), ("pictures", False, True)],
)
def test_the_expert_acts_on_what_it_is_told_to_see(sees, imagined, looked):
    plain = replace(CONFIG, sees=sees, video_weight=0.0, distance_weight=0.0)
    acting = toy.tiny_policy(config=plain).train()
    acting.loss(batch_of(6, trained=0.9), stream(0, "loss"))[0].backward()
    planner = acting.backbone
    assert learns(planner.world.inward) == imagined
    assert any(map(learns, planner.look.vision.modules())) == looked
    assert learns(planner.look.joints[0])
    with torch.inference_mode():
        context = acting.encode(observations(2), ["", ""])
        assert acting.sample(context, 3, noise(2)).actions.isfinite().all()


def learns(module):
    return any(w.grad is not None and bool(w.grad.any()) for w in module.parameters(recurse=False))


@pytest.mark.parametrize("steps", [1, HORIZON, 12], ids=["one step", "at hand", "furthest"])
def test_goals_at_every_distance_are_learned(steps):
    loss, info = policy().loss(batch_of(4, steps, trained=0.0), stream(0, "loss"))
    assert torch.isfinite(loss)
    assert all(np.isfinite(value) for value in info.values())


@pytest.mark.parametrize("spacing", ["printed", "exponential", "uniform", "none"])
def test_every_spacing_is_learned_and_acts(spacing):
    acting = toy.tiny_policy(config=replace(CONFIG, spacing=spacing))
    loss, _ = acting.loss(batch_of(4, acting=acting, trained=0.0), stream(0, "loss"))
    assert torch.isfinite(loss)
    with torch.inference_mode():
        chunks = acting.sample(acting.encode(observations(1), [""]), 1, noise(1))
    assert chunks.actions.shape == (1, 1, HORIZON, toy.TOY_ARM.size)


@pytest.mark.parametrize("steps", [0.4, 3.0, 11.0, 20.0, 1e6])
def test_a_plan_is_found_within_reach(steps):
    acting, seen = policy(), observations(2)
    acting.backbone.distance.steps = lambda now, goal: torch.full((len(now),), steps)
    with torch.inference_mode():
        notes = acting.notes(acting.encode(seen, ["", ""]))
    found = steps <= CONFIG.limit * CONFIG.hindsight.furthest
    assert notes["plan_found"].tolist() == [float(found)] * 2
    assert notes["steps_to_goal"].tolist() == pytest.approx([steps] * 2)


def test_chunks_under_way_are_followed_and_refined():
    acting, seen = policy(), observations(1)
    context = acting.encode(seen, [""])
    actions = acting.sample(context, 1, noise(1)).actions.detach()
    overlap = Overlap(actions[0, 0].numpy() + 0.1, np.array([1.0, 1.0, 0.0, 0.0], np.float32))
    followed = acting.follow(context, 1, noise(1), [overlap]).actions
    assert followed.shape == actions.shape
    assert (followed - actions)[0, 0, :2].mean() > 0.0
    refined = acting.refine(context, actions, noise(1), 0.5)
    assert refined.actions.shape == actions.shape


def test_the_goal_matters():
    acting, seen = policy(), observations(2)
    other = {**seen, "goal_pixels": {c: x.flip(0) for c, x in seen["goal_pixels"].items()}}
    with torch.inference_mode():
        one, two = (
            acting.sample(acting.encode(o, ["", ""]), 1, noise(2)).actions for o in (seen, other)
        )
    assert not torch.allclose(one, two)


def test_it_trains_acts_and_leaves_what_it_imagined(run, tmp_path):
    config = toy.eval_config(run, tmp_path / "eval")
    result = evaluate(config)
    assert result["goal"] == ["demonstration"]
    assert result["episodes"][0]["notes"]["steps_to_goal"] > 0.0
    (strip,) = [episode["strip"] for episode in result["episodes"] if episode["strip"]]
    assert (tmp_path / "eval" / strip).stat().st_size > 100
    write_report(tmp_path / "eval", None, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("data:image/png") == 1


def test_a_saved_policy_acts_as_before_and_resumes(run, toy_data, tmp_path):
    loaded, seen = load_policy(run), observations(2)
    assert isinstance(loaded, Act2GoalPolicy)
    loaded.save(tmp_path / "model")
    with torch.inference_mode():
        one, other = (
            p.sample(p.encode(seen, ["", ""]), 1, noise(2)).actions
            for p in (loaded, load_policy(tmp_path / "model"))
        )
    assert torch.equal(one, other)
    newest = train(toy.train_config(toy_data, run, policy=SHORT, resume=True))
    assert newest.name == "0000004"


def test_episodes_that_are_too_short_say_what_is_needed(tmp_path):
    arm = toy.TOY_ARM
    with EpisodeWriter(tmp_path / "data", arm=arm, fps=20, cameras=toy.CAMERAS) as writer:
        writer.append(toy.example(length=6))
    dataset = EpisodeDataset(tmp_path / "data")
    with pytest.raises(DatasetError, match="needs 7"):
        Act2GoalPolicy.for_dataset(CONFIG, dataset, dataset.cameras)


def test_an_environment_without_goal_pictures_is_refused():
    acting = policy()
    acting.arm = {}
    with pytest.raises(CheckpointError, match="goal"):
        acting.check_fits(toy.TOY_ARM, observation_space(toy.TOY_ARM, ("top", "wrist"), toy.SIZE))
    shown = observation_space(toy.TOY_ARM, ("top", "wrist"), toy.SIZE, goal_pixels=True)
    acting.check_fits(toy.TOY_ARM, shown)


def test_a_flow_policy_may_be_shown_its_goal_too(toy_data):
    dataset = EpisodeDataset(toy_data)
    config = replace(toy.TINY, goal="pictures", hindsight=toy.GOALS)
    told = FlowPolicy.for_dataset(config, dataset, dataset.cameras)
    assert told.cameras == dataset.cameras
    batch = as_tensors(told.windows(dataset).draw(np.random.default_rng(0), 4), "cpu")
    loss, _ = told.loss(batch, stream(0, "loss"))
    assert torch.isfinite(loss)
    with torch.inference_mode():
        one = told.encode(observations(2), ["go left", "go up"]).tokens
        two = told.encode(observations(2), ["", ""]).tokens
        goals = toy.observations(2, 7)["pixels"]
        three = told.encode({**observations(2), "goal_pixels": goals}, ["", ""]).tokens
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_a_sentence_says_for_how_many_goals_there_was_no_plan():
    lost = {"notes": {"plan_found": 0.0, "steps_to_goal": 400.0}}
    known = {"notes": {"plan_found": 1.0, "steps_to_goal": 40.0}}
    assert "no plan found in 1 of 2 episodes" in unplanned({"episodes": [lost, known]})
    assert "400 steps" in unplanned({"episodes": [lost, known]})
    assert unplanned({"episodes": [known, {}]}) == ""


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"stride": 3}, "stride"),
        ({"history": 2}, "history"),
        ({"first_stage": 1.5}, "first_stage"),
        ({"limit": 0.5}, "limit"),
        ({"hindsight": HindsightConfig(furthest=19)}, "need at least 20"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        Act2GoalConfig(**changes)
