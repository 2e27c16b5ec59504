"""`robolearn bench-arm`, with sizes so small that only the form of its figures means anything."""

import json
from unittest.mock import MagicMock

import numpy as np
import pytest

from robolearn.bench import arm as bench_arm
from robolearn.bench.arm import BenchArmConfig, bench, quantile
from robolearn.hardware import fault_trial
from robolearn.hardware.channel import LATENESS_EDGES
from robolearn.hardware.safety_types import Fault
from robolearn.results import EpisodeResult

pytestmark = pytest.mark.realtime
SUMMARY = {
    *("faults_tried", "faults_safe", "worst_seconds_to_safe"),
    *("deadline_misses_share", "lateness_p99_ms"),
    *("success_simulation", "success_twin", "n"),
}


@pytest.fixture
def config(tmp_path):
    return {"out": tmp_path / "out", "results": tmp_path / "results"}


def summary(config):
    return json.loads((config["out"] / "arm.json").read_text())  # as `rows` are given


def test_faults_are_summed_up(config, capsys):
    options = {**config, "repeats": 2, "rows": "NaN"}
    assert bench_arm.main(BenchArmConfig(parts=("faults",), **options)) == 0
    assert "faults_safe" in capsys.readouterr().out
    figures = summary(config)
    assert set(figures) > SUMMARY
    assert (figures["faults_tried"], figures["faults_safe"]) == (4, 4)  # NaN, one joint is NaN
    row = figures["faults"]["NaN"]
    assert (row["tried"], row["safe"], row["end"], row["problems"]) == (2, 2, "hold", [])
    assert 0.0 < row["seconds"]["p50"] <= row["seconds"]["worst"] <= 0.5
    assert figures["worst_seconds_to_safe"] >= row["seconds"]["worst"]
    assert figures["lateness_p99_ms"] is figures["success_twin"] is figures["n"] is None


def test_a_policy_and_a_busy_thread_run_while_cycles_are_timed(config, demo_folder, monkeypatch):
    beside = MagicMock()  # the true one holds Python's lock, and an episode takes a minute
    monkeypatch.setattr(bench_arm, "Busy", lambda: beside)
    options = {**config, "rows": "NaN", "repeats": 1, "policy": demo_folder / "runs/demo"}
    bench(BenchArmConfig(parts=("faults",), **options))
    bench(BenchArmConfig(parts=("timing",), minutes=0.01, **options))
    figures = summary(config)
    assert figures["faults_tried"] == 2
    assert set(figures["parts"]) == {"faults", "timing"}
    assert figures["cycles"] == sum(figures["lateness"]) > 20
    assert 0.0 <= figures["deadline_misses_share"] < 1.0
    assert figures["timing_episodes"] == beside.__enter__.call_count == 1
    assert set(figures["timing_faults"]) <= set(Fault)  # its policy knows nothing


def test_a_fault_that_ends_badly_is_no_success(config, monkeypatch, capsys):
    def never(end, before, sample):
        return False

    monkeypatch.setattr(fault_trial, "_holds", never)
    options = {**config, "repeats": 1, "rows": "emergency"}
    assert bench_arm.main(BenchArmConfig(parts=("faults",), **options)) == 1
    figures = summary(config)
    assert (figures["faults_tried"], figures["faults_safe"]) == (1, 0)
    assert figures["worst_seconds_to_safe"] is None
    assert "it came never" in capsys.readouterr().out


def test_two_worlds_play_the_same_seeds(config, demo_folder):
    options = {**config, "episodes": 2, "seed": 3, "policy": demo_folder / "runs/demo"}
    figures = bench(BenchArmConfig(parts=("worlds",), **options))
    assert figures["n"] == 2
    played = figures["twin_episodes"]
    assert [episode["seed"] for episode in played] == [3, 4]
    assert all(episode.keys() == EpisodeResult.__annotations__.keys() for episode in played)
    for world in ("simulation", "twin"):
        low, high = figures[f"success_{world}_low"], figures[f"success_{world}_high"]
        assert 0.0 <= low <= figures[f"success_{world}"] <= high <= 1.0
    assert 0.0 < figures["mcnemar_p"] <= 1.0
    assert figures["twin_timing"]["cycles"] > 50


def test_a_quantile_is_the_upper_end_of_its_bin():
    counts = np.zeros(len(LATENESS_EDGES) + 1, int)
    counts[[2, 9]] = 99, 1
    assert quantile(counts, 0.5) == quantile(counts, 0.99) == LATENESS_EDGES[2]
    assert quantile(counts, 0.999) == LATENESS_EDGES[9]
    counts[-1] = 100
    assert quantile(counts, 0.99) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"repeats": 0}, "--repeats is 0"),
        ({"parts": ("faults", "timing")}, "need a policy"),
        ({"parts": ("faults",), "rows": "flood"}, "no fault has 'flood' in its name"),
    ],
)
def test_options_that_measure_nothing_are_refused(config, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        bench(BenchArmConfig(**config, **options))
