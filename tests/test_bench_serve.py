"""`robolearn bench-serve` at its smallest."""

import json

import pytest

from robolearn.bench.serve import BenchServeConfig, bench, main


def test_loads_and_broken_messages(toy_run, tmp_path, capsys):
    config = BenchServeConfig(
        str(toy_run), tmp_path, clients=(1, 3), rate=10.0, seconds=1.0, malformed=30
    )
    assert main(config) == 0
    assert "30 broken messages survived" in capsys.readouterr().out
    figures = json.loads((tmp_path / "serve.json").read_text())
    assert [load["clients"] for load in figures["loads"]] == [1, 3]
    assert figures["clients"] == 3
    assert 0 < figures["requests_per_s"] <= 33
    assert 0 < figures["loads"][0]["p50_ms"] <= figures["loads"][0]["p99_ms"]
    assert figures["malformed_frames_survived"] == 30


def test_a_policy_that_cannot_be_served(tmp_path):
    with pytest.raises(ValueError, match="cannot be served; see the message above"):
        bench(BenchServeConfig(str(tmp_path / "none"), tmp_path))


@pytest.mark.parametrize("options", [{"rate": 0}, {"clients": ()}, {"clients": (0, 2)}])
def test_what_measures_nothing(options):
    with pytest.raises(ValueError, match="give more than 0"):
        BenchServeConfig("runs/x", **options)
