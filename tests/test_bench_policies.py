"""`robolearn bench-policies` at its smallest, and what reaches LeRobot's policies."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import toy

from robolearn import cli
from robolearn.bench import learning as bench_learning
from robolearn.bench import lerobot as bench_lerobot
from robolearn.bench import policies as bench_policies
from robolearn.bench.open_loop import open_loop_error
from robolearn.bench.policies import BenchPoliciesConfig
from robolearn.lerobot_goal import GoalStep
from robolearn.options import EvalConfig, RecordConfig
from robolearn.policies.base import Chunks
from robolearn.policies.configs import DiffusionConfig, FlowConfig
from robolearn.record import record
from robolearn.sources import source_of

ENV = "robolearn/PickPlace-v0"
SIZES = {"hidden": 16, "depth": 1, "backbone": toy.SMALL}
OURS = {
    "flow": FlowConfig(**SIZES),
    "flow-transformer": FlowConfig(head="transformer", **SIZES),
    "diffusion": DiffusionConfig(**SIZES),
}
THEIRS = {
    "act": {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1},
    "diffusion": {"down_dims": (8, 16, 32), "num_inference_steps": 2},
}


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        patch.setattr(bench_learning, "PROBE_STEPS", 10)
        patch.setattr(bench_policies, "FRAMES", 4)
        patch.setattr(bench_policies, "OURS", OURS)
        for name, settings in THEIRS.items():
            patch.setitem(bench_lerobot.SETTINGS, name, bench_lerobot.SETTINGS[name] | settings)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "data"
    record(RecordConfig(out=folder, episodes=2, workers=0))
    return folder


@pytest.fixture(scope="module", params=list(THEIRS))
def learner(request, data):
    return bench_lerobot.Learner(request.param, data, ENV, budget=10.0, loader_workers=0)


@pytest.fixture(scope="module")
def policy(learner, tmp_path_factory):
    """What `--policy` makes of the learner."""
    return source_of(learner.save(tmp_path_factory.mktemp("saved"))).load()


# The whole command


def test_all_policies_train_as_long_and_play_the_same_seeds(tmp_path, monkeypatch, capsys):
    config = BenchPoliciesConfig(
        policies=(*OURS, *bench_policies.LEROBOT),
        env="robolearn/Reach-v0",
        results=tmp_path / "results",
        out=tmp_path / "out",
        demonstrations=2,
        minutes=0.01,
        episodes=1,
        workers=0,
        loader_workers=0,
    )
    rows = bench_policies.bench(config)["policies"]
    written = json.loads((config.results / "policies.json").read_text())
    assert written["policies"] == rows
    assert list(rows) == list(config.policies)
    longest = max(0.6, *(rows[name]["seconds"] for name in OURS))
    for name, row in rows.items():
        assert (row["n"], row["seeds"]) == (1, [0, 0])
        assert 0 <= row["success_low"] <= row["success"] <= row["success_high"] <= 1
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert row["samples"] == row["steps"] * row["batch_size"]
        assert row["samples_per_s"] == row["samples"] / row["seconds"]
        # Ours end by a step; theirs by a clock, after what was promised and no sooner than ours.
        assert row["seconds"] >= longest or name in OURS
        assert row["parameters"] > 1000
        assert row["open_loop_error"] > 0
        assert row["replan_every"] == (8 if name == "lerobot-diffusion" else 4)
        (point,) = row["checkpoints"]
        assert point["success"] == row["success"]
    assert rows["flow-transformer"]["settings"]["head"] == "transformer"

    # A second run finds everything done, and says the same.
    monkeypatch.setattr(bench_learning, "train", None)
    monkeypatch.setattr(bench_lerobot, "Learner", None)
    monkeypatch.setattr("robolearn.evaluate.evaluate", None)
    monkeypatch.setattr("robolearn.bench.open_loop.open_loop_error", None)
    assert bench_policies.main(replace(config, policies=("act", "flow"), workers=2)) == 0
    assert "lerobot-diffusion" not in capsys.readouterr().out
    again = json.loads((config.results / "policies.json").read_text())["policies"]
    assert again == {name: rows[name] for name in ("act", "flow")}
    with pytest.raises(ValueError, match=r"other settings \(minutes .*take another --out"):
        bench_policies.bench(replace(config, minutes=1.0))


@pytest.mark.parametrize("name", ["flow", "act"])
def test_checkpoints_lie_at_equal_distances_and_can_be_opened(name, data, tmp_path):
    config = BenchPoliciesConfig(minutes=0.05, checkpoints=2, loader_workers=0)
    first, second = bench_policies._train(config, name, data, tmp_path)["checkpoints"]
    assert first["seconds"] < second["seconds"]
    assert first["samples"] == second["samples"] / 2 or name == "act"
    weights = [dict(source_of(p["policy"]).load().named_parameters()) for p in (first, second)]
    assert not all(torch.equal(weight, weights[1][key]) for key, weight in weights[0].items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--minutes 0", "--minutes is 0.0; give it more than 0"),
        ("--obs-type state", "act cannot look at the simulator's state"),
        ("--env robolearn/Fly-v0", "no environment 'robolearn/Fly-v0'"),
    ],
)
def test_bad_options(options, words, tmp_path, capsys):
    arguments = ["bench-policies", "--out", str(tmp_path), "--results", str(tmp_path)]
    assert cli.main([*arguments, *options.split()]) == 1
    assert words in capsys.readouterr().err


def test_a_folder_does_not_mix_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_policies, "_demonstrations", lambda config: tmp_path / "data")
    monkeypatch.setattr(bench_policies, "measure", lambda *args: {})
    config = BenchPoliciesConfig(out=tmp_path, policies=("flow",))
    assert dict(bench_policies.compared(config)) == {"flow": {}}
    monkeypatch.setattr("robolearn.results.versions", lambda: {"torch": "9.9"})
    with pytest.raises(ValueError, match=r"torch .* not 9.9"):
        dict(bench_policies.compared(config))


@pytest.mark.parametrize(("latency_ms", "expected"), [(10.0, 100), (3000.0, 16), (9e5, 2)])
def test_who_thinks_for_long_plays_fewer_episodes(latency_ms, expected):
    config = BenchPoliciesConfig(thinking=10.0, workers=2)
    settings = EvalConfig(policy="x", replan_every=8)
    episodes = [{"length": length, "latency_p50_ms": latency_ms} for length in (200, 193)]
    assert bench_policies._fitting(config, settings, {"episodes": episodes}) == expected


def test_time_to_target_is_that_of_the_first_checkpoint_that_reaches_it(monkeypatch, tmp_path):
    points = [{"policy": str(k), "seconds": 10.0 * k, "samples": 100 * k} for k in (1, 2, 3)]
    monkeypatch.setattr(bench_policies, "_train", lambda *args: {"checkpoints": points})
    monkeypatch.setattr(bench_policies, "_look", lambda *args: {})
    won = {"1": 79, "2": 80, "3": 70}

    def evaluate(config, name, where, out):
        result = {"n": 100, "successes": won[where], "success": won[where] / 100}
        return result | {"latency_ms": {}, "replan_every": 4}

    monkeypatch.setattr(bench_policies, "_evaluate", evaluate)
    config = BenchPoliciesConfig(out=tmp_path)
    row = bench_policies.measure(config, "flow", tmp_path)
    assert row["time_to_80_percent_s"] == 20.0
    assert row["success"] == 0.7
    assert row["samples_per_s"] == 10.0
    won["2"] = 79
    assert bench_policies.measure(config, "flow", tmp_path)["time_to_80_percent_s"] is None


# What LeRobot's policies are given


def test_goals_as_numbers():
    phrases = GoalStep(ENV).phrases
    assert phrases.encoded("put the red cube in the blue bin") == [1, 0, 0, 1, 0]
    assert phrases.encoded("fill the yellow bin with the blue cube") == [0, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="PickPlace does not know"):
        phrases.encoded("make tea")
    nothing = {"observation": {"observation.state": torch.ones(1, 6)}}
    asked = GoalStep(ENV)({**nothing, "complementary_data": {"task": [""]}})
    assert asked["observation"]["observation.state"].tolist() == [[1] * 6 + [0] * 5]
    lift = GoalStep("robolearn/Lift-v0").phrases
    (first, *others), height = lift.slots["object"].words, lift.slots["height"]
    middle = (height.low + height.high) / 2
    told = [lift.encoded(f"lift the {first} to {cm:g} cm") for cm in (height.low, middle)]
    assert told == [pytest.approx([1, *[0] * len(others), share]) for share in (0.0, 0.5)]


def test_a_policy_sees_in_an_episode_what_it_saw_in_training(learner, policy):
    """A frame of the dataset, shown as an observation of the environment, gives the same input."""
    recorded = next(learner._batches)
    trained = learner._prepare(dict(recorded))
    context = policy.encode(_observation(recorded), recorded["task"])
    for row, seen in enumerate(context.batches):
        for key in ("observation.state", *learner.config.image_features):
            torch.testing.assert_close(seen[key][0], trained[key][row], atol=1e-5, rtol=1e-5)
    goals = trained["observation.state"][..., 6:]
    told = [GoalStep(ENV).phrases.encoded(text) for text in recorded["task"]]
    expected = torch.tensor(told).reshape(len(told), *[1] * (goals.ndim - 2), -1)
    assert torch.equal((goals > 0.5).float(), expected.expand_as(goals))


def _observation(recorded):
    """As the environment has it: channels last."""
    pixels = {
        name: recorded[f"observation.images.{name}"].movedim(-3, -1) for name in ("top", "wrist")
    }
    assert all(x.dtype == torch.uint8 for x in pixels.values())
    return {"agent_pos": recorded["observation.state"], "pixels": pixels}


def test_a_perfect_network_gives_back_the_recorded_actions(learner, policy, monkeypatch):
    """From normalised chunk to action, from the step of the last observation on."""
    recorded = next(learner._batches)
    normalised = learner._prepare(dict(recorded))["action"][:1]

    def noise_of_diffusion(noisy, steps, global_cond):
        kept = policy.inner.diffusion.noise_scheduler.alphas_cumprod[steps][:, None, None]
        return (noisy - kept.sqrt() * normalised) / (1 - kept).sqrt()

    if learner.config.type == "act":
        monkeypatch.setattr(policy.inner.model, "forward", lambda batch: (normalised, (None, None)))
    else:
        monkeypatch.setattr(policy.inner.diffusion.unet, "forward", noise_of_diffusion)
    context = policy.encode(_observation(recorded), recorded["task"])
    context.batches = context.batches[:1]
    proposed = policy.sample(context, 1, [np.random.default_rng(0)]).actions[0, 0]
    now = learner.config.n_obs_steps - 1
    executed = learner.config.n_action_steps
    expected = recorded["action"][0, now : now + executed]
    torch.testing.assert_close(proposed[:executed], expected, atol=1e-4, rtol=1e-3)


def test_training_changes_the_weights_and_timing_does_not(data):
    learner = bench_lerobot.Learner("act", data, ENV, budget=10.0, loader_workers=0)
    before = [p.clone() for p in learner.policy.parameters()]
    learner._time_step(next(learner._batches), 1)
    assert all(map(torch.equal, before, learner.policy.parameters()))
    learner.train(until=1e-6)
    assert learner.samples == bench_lerobot.BATCH_SIZE
    assert learner.seconds > 1e-6
    assert not all(map(torch.equal, before, learner.policy.parameters()))


# The distance from demonstrations


class Still:
    """Proposes to stay where it was one frame ago."""

    history, cameras, device = 2, {}, torch.device("cpu")

    def encode(self, observation, instructions):
        assert observation["agent_pos"].shape == (1, 2, 6)
        return observation["agent_pos"]

    def sample(self, context, n, noise):
        return Chunks(context[:, None, self.shown : self.shown + 1].expand(-1, n, 5, -1), None)


def test_the_distance_from_demonstrations_is_that_of_the_present_frame(data):
    policy, options = Still(), {"steps": 4, "frames": 50, "seed": 0}
    policy.shown = 1
    errors = open_loop_error(policy, data, **options)
    assert errors["open_loop_error"] == pytest.approx(errors["standing_still_error"])
    assert 0.001 < errors["standing_still_error"] < 0.5
    policy.shown = 0
    assert open_loop_error(policy, data, **options)["open_loop_error"] > errors["open_loop_error"]
