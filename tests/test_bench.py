"""`robolearn bench`, with sizes so small that only the form of its figures means anything."""

import json
import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

from robolearn import cli
from robolearn.bench import data as bench_data
from robolearn.bench import env as bench_env
from robolearn.bench import peer_probe, peers, soak, speed
from robolearn.bench.speed import BenchConfig
from robolearn.dataset import EpisodeDataset
from robolearn.options import RecordConfig
from robolearn.record import record

IMAGE_SIZE = (48, 84)


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
        patch.setattr(bench_env, "SEEDS", 2)
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
        workers=0,
    )


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
    assert first["tasks"] is None
    assert first["peers"] is None
    for part in ("env", "data"):
        figures = json.loads((config.out / f"{part}.json").read_text())
        figures = {k: v for k, v in figures.items() if k not in (*speed.HEADER, "renderer")}
        assert set(speed.FIGURES[part]) < set(figures)
        assert_positive(figures)

    speed.bench(replace(config, parts=("tasks",), tasks=("Reach",), blocks=2, num_envs=2))
    result = json.loads((config.results / "speed.json").read_text())
    required = {name for names in speed.FIGURES.values() for name in names}
    assert required < set(result)
    assert {"command", "config", "config_hash", "versions"} < set(result)
    assert set(result["parts"]) == {"env", "data", "tasks"}
    assert result["step_rate_share_of_mj_step"] == first["step_rate_share_of_mj_step"]


@pytest.mark.parametrize("option", ["blocks", "batch-size", "soak-steps"])
def test_options_that_measure_nothing_are_refused(option, tmp_path, capsys):
    arguments = ["bench", "--out", str(tmp_path / "out"), f"--{option}", "0"]
    assert cli.main(arguments) == 1
    assert f"--{option} is 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_figures_of_parts_that_were_measured_elsewhere_stay(config, tmp_path):
    """A fresh folder for the parts does not empty the summary."""
    options = replace(config, out=tmp_path / "a", results=tmp_path, blocks=2, num_envs=2)
    before = speed.bench(replace(options, parts=("data",)))
    after = speed.bench(replace(options, parts=("tasks",), tasks=("Reach",), out=tmp_path / "b"))
    assert after["sampling_speedup_over_lerobot"] == before["sampling_speedup_over_lerobot"]
    assert set(after["parts"]) == {"data", "tasks"}
    assert set(after["tasks"]) == {"Reach"}
    assert_positive(after["tasks"])


def test_experts_and_soak_have_summaries_of_their_own(config, tmp_path):
    options = {"parts": ("experts", "soak"), "tasks": ("PickPlace", "Reach"), "workers": 0}
    options |= {"expert_episodes": 3, "soak_steps": 100, "soak_resets": 4}
    speed.bench(replace(config, out=tmp_path / "out", results=tmp_path, **options))
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
    measured = soak.measure(BenchConfig(tasks=("Reach",), soak_steps=1, soak_resets=1))
    assert measured["exceptions"] == 1
    assert "boom" in measured["errors"]["Reach"]
    info = {"fault": np.array(["", "physics_unstable"], object)}
    info["final_info"] = {"fault": np.array(["physics_unstable"], object)}
    assert soak._faults(info).sum() == 2


def test_a_task_that_is_soaked_later_joins_the_others():
    counts = {"steps": 64, "nans": 1, "diverged": 0, "warnings": 2, "resets": 3}
    before = soak._summary({"Lift": counts, "Push": counts | {"error": "Traceback"}})
    assert (before["exceptions"], before["errors"]) == (1, {"Push": "Traceback"})
    both = soak.merged(soak._summary({"Push": counts, "Write": counts}), before)
    assert list(both["tasks"]) == ["Lift", "Push", "Write"]
    assert (both["steps"], both["nans"], both["exceptions"]) == (192, 3, 0)


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no task 'Juggle'; choose among .*PickPlace"):
        speed.chosen_tasks(BenchConfig(tasks=("Juggle",)))


def test_a_package_that_does_not_install_says_why(tmp_path, monkeypatch):
    peer = peers.Peer("fetch", ("no-such-package-of-nobody==0",))
    monkeypatch.setattr(peers, "PEERS", {"nobody's": peer})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    rows = peers.measure(BenchConfig(out=tmp_path))["peers"]
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
    assert speed.demonstrations(config) == data
    recorded = replace(config, data=None, episodes=1)
    assert len(EpisodeDataset(speed.demonstrations(recorded)).episodes) == 1
    assert len(EpisodeDataset(speed.demonstrations(recorded)).episodes) == 1  # not once more


# env


def test_physics_that_differs_is_refused(monkeypatch):
    env = gymnasium.make(speed.ENV, obs_type="state")
    block = bench_env.Block(env, 0)
    assert np.isfinite(bench_env.single_figures(env, [block], 1)["steps_per_s"])
    block.controls = block.controls + 0.1
    with pytest.raises(RuntimeError, match="different states"):
        bench_env.single_figures(env, [block], 1)
    with pytest.raises(RuntimeError, match="different states"):
        bench_env.batched_figures(speed.ENV, [block], 2, 1)


def test_the_slow_side_draws_with_mujocos_own_settings():
    model = gymnasium.make(speed.ENV).unwrapped.model
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
