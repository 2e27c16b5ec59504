"""`robolearn bench`, with sizes so small that only the form of its figures means anything."""

import json
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from robolearn import (
    bench,
    bench_data,
    bench_env,
    bench_lerobot,
    bench_peers,
    bench_soak,
    bench_train,
    cli,
    peer_probe,
)
from robolearn.bench import BenchConfig
from robolearn.bench_train import Curve, Point
from robolearn.dataset import EpisodeDataset
from robolearn.options import RecordConfig
from robolearn.record import record
from robolearn.workers import make_vector

SMALL = {
    "act": {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1},
    "diffusion": {"down_dims": (8, 16, 32), "num_inference_steps": 2},
}
IMAGE_SIZE = (48, 84)


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        patch.setattr(bench_env, "SEEDS", 2)
        patch.setattr(bench_train, "PROBE_STEPS", 10)
        for name, settings in SMALL.items():
            patch.setitem(bench_lerobot.SETTINGS, name, bench_lerobot.SETTINGS[name] | settings)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "data"
    record(RecordConfig(out=folder, episodes=2, workers=0))
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    return BenchConfig(
        out=folder / "out",
        results=folder / "results",
        data=data,
        batches=2,
        batch_size=4,
        loader_workers=0,
        minutes=0.01,
        checkpoints=1,
        evaluate=1,
        workers=0,
    )


@pytest.fixture(scope="module", params=list(SMALL))
def learner(request, data):
    return bench_lerobot.Learner(request.param, data, budget=10.0, loader_workers=0)


def assert_positive(value, name=""):
    """Every number in nested dicts is finite and above zero."""
    if isinstance(value, dict):
        assert value, name
        for key, item in value.items():
            assert_positive(item, f"{name}.{key}")
    else:
        assert math.isfinite(value), name
        assert value > 0, name


# The whole command


def test_parts_run_apart_and_add_up_to_one_summary(config, capsys):
    options = {"out": config.out, "results": config.results, "data": config.data}
    options |= {"blocks": 2, "num-envs": 3, "batches": 2, "batch-size": 4}
    options |= {"loader-workers": 0, "workers": 0}
    arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    assert cli.main(["bench", "--parts", "data", "env", *arguments]) == 0
    assert "step_rate_share_of_mj_step" in capsys.readouterr().out

    first = json.loads((config.results / "speed.json").read_text())
    assert set(first["parts"]) == {"env", "data"}
    assert first["train_samples_per_s"] is None
    assert first["time_to_80_percent_s"] is None
    for part in ("env", "data"):
        figures = json.loads((config.out / f"{part}.json").read_text())
        figures = {k: v for k, v in figures.items() if k not in (*bench.HEADER, "renderer")}
        assert set(bench.FIGURES[part]) < set(figures)
        assert_positive(figures)

    bench.bench(replace(config, parts=("train",)))
    result = json.loads((config.results / "speed.json").read_text())
    required = {name for names in bench.FIGURES.values() for name in names}
    assert required < set(result)
    assert {"command", "config", "config_hash", "versions"} < set(result)
    assert set(result["parts"]) == {"env", "data", "train"}
    assert result["step_rate_share_of_mj_step"] == first["step_rate_share_of_mj_step"]

    policies = {"ours", "act", "diffusion"}
    assert set(result["train_samples_per_s"]) == policies
    assert_positive(result["train_samples_per_s"])
    assert set(result["time_to_80_percent_s"]) == policies
    for name, end in result["train_success_at_end"].items():
        assert end["n"] == 1, name
        assert 0 <= end["success_low"] <= end["success"] <= end["success_high"] <= 1
        assert end["seconds"] >= 0.6 or name == "ours"
    assert result["train_budget_s"] == pytest.approx(0.6)
    assert (config.out / "train-ours.json").exists()


@pytest.mark.parametrize("option", ["blocks", "batch-size", "minutes", "evaluate"])
def test_options_that_measure_nothing_are_refused(option, tmp_path, capsys):
    arguments = ["bench", "--out", str(tmp_path / "out"), f"--{option}", "0"]
    assert cli.main(arguments) == 1
    assert f"--{option} is 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_of_parts_that_were_measured_elsewhere_stay(config, tmp_path):
    """A fresh folder for the parts does not empty the summary."""
    options = replace(config, out=tmp_path / "a", results=tmp_path, blocks=2, num_envs=2)
    before = bench.bench(replace(options, parts=("data",)))
    after = bench.bench(replace(options, parts=("tasks",), tasks=("Reach",), out=tmp_path / "b"))
    assert after["sampling_speedup_over_lerobot"] == before["sampling_speedup_over_lerobot"]
    assert set(after["parts"]) == {"data", "tasks"}
    assert set(after["tasks"]) == {"Reach"}
    assert_positive(after["tasks"])


def test_experts_and_soak_have_summaries_of_their_own(config, tmp_path):
    options = {"parts": ("experts", "soak"), "tasks": ("PickPlace", "Reach"), "workers": 0}
    options |= {"expert_episodes": 3, "soak_steps": 100, "soak_resets": 4}
    bench.bench(replace(config, out=tmp_path / "out", results=tmp_path, **options))
    assert not (tmp_path / "speed.json").exists()
    experts = json.loads((tmp_path / "experts.json").read_text())["tasks"]
    assert set(experts) == {"PickPlace", "Reach"}
    for row in experts.values():
        assert row["n"] == 3
        assert row["success_low"] <= row["success"] <= row["success_high"]
        assert row["mean_length"] > 10
    soak = json.loads((tmp_path / "soak.json").read_text())
    assert (soak["steps"], soak["resets"]) == (128, 4)  # whole rounds of 32 slots
    assert (soak["nans"], soak["diverged"], soak["exceptions"]) == (0, 0, 0)


def test_soak_finds_what_it_looks_for(monkeypatch):
    def explode(self, goal, state):
        raise RuntimeError("boom")

    monkeypatch.setattr("robolearn.envs.reach.Reach.evaluate", explode)
    measured = bench_soak.measure(BenchConfig(tasks=("Reach",), soak_steps=1, soak_resets=1))
    assert measured["exceptions"] == 1
    assert "boom" in measured["errors"]["Reach"]
    info = {"fault": np.array(["", "physics_unstable"], object)}
    info["final_info"] = {"fault": np.array(["physics_unstable"], object)}
    assert bench_soak._faults(info).sum() == 2


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no task 'Juggle'; choose among .*PickPlace"):
        bench.chosen_tasks(BenchConfig(tasks=("Juggle",)))


def test_a_package_that_does_not_install_says_why(tmp_path, monkeypatch):
    peer = bench_peers.Peer("fetch", ("no-such-package-of-nobody==0",))
    monkeypatch.setattr(bench_peers, "PEERS", {"nobody's": peer})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    rows = bench_peers.measure(BenchConfig(out=tmp_path))["peers"]
    assert "no-such-package-of-nobody" in rows["nobody's"]["error"]


def test_the_probe_adds_up_the_time_in_mj_step():
    watch = peer_probe.Stopwatch(math, "sqrt")
    try:
        assert [math.sqrt(4.0), math.sqrt(9.0)] == [2.0, 3.0]
    finally:
        math.sqrt = watch._function
    assert watch.calls == 2
    assert watch.seconds > 0.0


def test_demonstrations_are_recorded_unless_given(config, data):
    assert bench.demonstrations(config) == data
    recorded = replace(config, data=None, episodes=1)
    assert len(EpisodeDataset(bench.demonstrations(recorded)).episodes) == 1
    assert len(EpisodeDataset(bench.demonstrations(recorded)).episodes) == 1  # not once more


# env


def test_physics_that_differs_is_refused(monkeypatch):
    env = gymnasium.make(bench.ENV, obs_type="state")
    block = bench_env.Block(env, 0)
    assert np.isfinite(bench_env.single_figures(env, [block], 1)["steps_per_s"])
    block.controls = block.controls + 0.1
    with pytest.raises(RuntimeError, match="different states"):
        bench_env.single_figures(env, [block], 1)
    with pytest.raises(RuntimeError, match="different states"):
        bench_env.batched_figures(bench.ENV, [block], 2, 1)


def test_the_slow_side_draws_with_mujocos_own_settings():
    model = gymnasium.make(bench.ENV).unwrapped.model
    model.vis.quality.shadowsize, model.vis.quality.offsamples = 512, 0
    bench_env.use_default_visuals(model)
    assert (model.vis.quality.shadowsize, model.vis.quality.offsamples) == (4096, 4)


def test_turns_can_be_taken_backwards():
    order = []
    turns = [lambda: order.append("a"), lambda: order.append("b")]
    assert len(bench_env.take_turns(turns)) == 2
    bench_env.take_turns(turns, backwards=True)
    assert order == ["a", "b", "b", "a"]


# data


def test_both_sides_draw_the_same_samples(config, data, tmp_path):
    ours = next(bench_data.cached_batches(data, tmp_path, config))
    stock = next(bench_data.stock_batches(data, config, 0))
    assert ours["action"].shape == (config.batch_size, bench_data.HORIZON, 6)
    torch.testing.assert_close(stock["action"], ours["action"])
    torch.testing.assert_close(stock["observation.state"], ours["agent_pos"])
    for camera in ("top", "wrist"):
        theirs = 255.0 * stock[f"observation.images.{camera}"].permute(0, 2, 3, 1)
        assert (theirs - ours["pixels"][camera]).abs().mean() < 4.0


# train: LeRobot's policies


def test_goals_as_one_hot_vectors():
    goals = bench_lerobot.one_hot_goals(
        ["put the red cube in the blue bin", "fill the yellow bin with the blue cube"]
    )
    assert goals.tolist() == [[1, 0, 0, 1, 0], [0, 0, 1, 0, 1]]


def test_the_actor_shows_the_policy_what_training_showed_it(learner, monkeypatch):
    """A frame of the dataset, seen as an observation of the environment, gives the same input."""
    recorded = next(learner._batches)
    seen = {}
    shape = (1, learner.config.n_action_steps, 6)
    monkeypatch.setattr(
        learner, "chunks", lambda batch, noise: seen.update(batch) or torch.zeros(shape)
    )
    past = learner.config.n_obs_steps
    actor = bench_lerobot.LeRobotActor(learner)
    actor.reset(0, 0, recorded["task"][0])
    row = {k: recorded[k][0].reshape(past, *recorded[k].shape[-n:]) for k, n in _KEYS.items()}
    for step in range(past):
        if step:  # only the first observation of an episode triggers a decision by itself
            actor._slots[0].queue.clear()
        actor.act(_as_observation(row, step))
    for key in _KEYS:
        torch.testing.assert_close(seen[key], recorded[key][:1])
    assert seen["task"] == recorded["task"][:1]
    inputs = learner._prepare(recorded)
    assert inputs["observation.state"].shape[-1] == 6 + bench_lerobot.GOAL_SIZE
    goal = inputs["observation.state"].reshape(len(recorded["task"]), past, -1)[:, -1, 6:]
    expected = bench_lerobot.one_hot_goals(recorded["task"])
    assert torch.equal((goal > 0.5).float(), expected)


_KEYS = {"observation.state": 1, "observation.images.top": 3, "observation.images.wrist": 3}


def _as_observation(row, step):
    return {
        "agent_pos": row["observation.state"][step][None].numpy(),
        "pixels": {
            camera: row[f"observation.images.{camera}"][step].permute(1, 2, 0)[None].numpy()
            for camera in ("top", "wrist")
        },
    }


def test_a_perfect_network_gives_back_the_recorded_actions(learner, monkeypatch):
    """From normalised chunk to action, from the step of the last observation on."""
    recorded = next(learner._batches)
    chunks = learner._prepare(recorded)["action"]

    def chunk_of_act(batch):
        return chunks, (None, None)

    def noise_of_diffusion(noisy, steps, global_cond):
        kept = learner.policy.diffusion.noise_scheduler.alphas_cumprod[steps][:, None, None]
        return (noisy - kept.sqrt() * chunks) / (1 - kept).sqrt()

    if learner.config.type == "act":
        monkeypatch.setattr(learner.policy.model, "forward", chunk_of_act)
    else:
        monkeypatch.setattr(learner.policy.diffusion.unet, "forward", noise_of_diffusion)
    noise = [np.random.default_rng(k) for k in range(len(chunks))]
    seen = {key: value for key, value in recorded.items() if key != "action"}
    now = learner.config.n_obs_steps - 1
    expected = recorded["action"][:, now : now + learner.config.n_action_steps]
    torch.testing.assert_close(learner.chunks(seen, noise), expected, atol=1e-4, rtol=1e-3)


def test_actor_acts_in_every_slot_by_itself(learner):
    env = make_vector(bench.ENV, 2, image_size=IMAGE_SIZE)
    observation, info = env.reset(seed=[3, 4])
    both, alone = (bench_lerobot.LeRobotActor(learner) for _ in range(2))
    for slot, seed in enumerate((3, 4)):
        both.reset(slot, seed, info["task"][slot])
    alone.reset(1, 4, info["task"][1])
    decisions = learner.config.n_action_steps + 1  # one more step than a chunk has
    for _ in range(decisions):
        action = both.act(observation)
        single = alone.act(observation)
        assert action.shape == (2, 6)
        assert np.isfinite(action).all()
        np.testing.assert_allclose(action[1], single[1], atol=1e-4)
        np.testing.assert_array_equal(single[0], observation["agent_pos"][0])
    assert len(both.latency(0)) == len(both.latency(1)) == 2
    both.reset(0, 3, info["task"][0])
    assert both.latency(0) == []
    env.close()


def test_training_changes_the_weights_and_timing_does_not(data):
    learner = bench_lerobot.Learner("act", data, budget=10.0, loader_workers=0)
    before = [p.clone() for p in learner.policy.parameters()]
    learner._time_step(next(learner._batches), 1)
    assert all(map(torch.equal, before, learner.policy.parameters()))
    learner.train(until=1e-6)
    assert learner.samples == bench_lerobot.BATCH_SIZE
    assert learner.seconds > 1e-6
    assert not all(map(torch.equal, before, learner.policy.parameters()))


# train: counting


class Played:
    def __init__(self, won):
        self.success = np.array([False, won])


@pytest.mark.parametrize(
    ("failures", "complete", "expected"),
    [(20, False, (80, 100)), (21, False, (0, 21)), (21, True, (79, 100))],
)
def test_evaluation_ends_when_the_target_is_out_of_reach(failures, complete, expected):
    played = [Played(won=k >= failures) for k in range(100)]
    assert bench_train.count_successes(played, 100, complete=complete) == expected


def test_time_to_target_is_that_of_the_first_checkpoint_that_reaches_it():
    points = [Point(10.0, 100, 79, 100), Point(20.0, 200, 80, 100), Point(30.0, 300, 70, 100)]
    summary = Curve(points).summary()
    assert summary["time_to_80_percent_s"] == 20.0
    assert summary["samples_per_s"] == 10.0
    assert summary["at_end"]["success"] == 0.7
    assert Curve(points[:1]).summary()["time_to_80_percent_s"] is None
