"""bench-scale: every way of playing is measured and compared, bit for bit."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
import toy

from robolearn import cluster
from robolearn.bench import scale as bench_scale
from robolearn.bench import tables
from robolearn.bench.scale import BenchScaleConfig, bench, digest
from robolearn.examples import example_episode


@pytest.fixture
def one_process(monkeypatch):
    """Everything plays in this process, as far as the command cannot tell; what was lost."""
    lost = []

    @contextmanager
    def nodes_here(count):
        assert count == 2
        yield "nowhere:1", lambda: lost.append(True)

    from robolearn import workers

    here = workers.crew
    monkeypatch.setattr(workers, "crew", lambda job, workers=0, ray="": here(job))
    monkeypatch.setattr(cluster, "nodes_here", nodes_here)
    return lost


def test_every_way_is_measured(one_process, toy_run, tmp_path):
    config = BenchScaleConfig(
        policy=str(toy_run), env=toy.ENV_ID, episodes=4, results=tmp_path / "results"
    )
    figures = bench(config)
    assert one_process == [True]
    ways = ["this process", "1 worker", "2 workers", "2 Ray nodes", "2 Ray nodes, one lost"]
    assert list(figures["ways"]) == ways
    assert figures["identical"]
    assert (figures["n"], figures["env"]) == (4, toy.ENV_ID)
    for row in figures["ways"].values():
        assert row["identical"]
        assert row["episodes_per_minute"] == pytest.approx(240.0 / row["seconds"])
    stored = json.loads((tmp_path / "results" / "scale.json").read_text())
    assert stored["ways"] == figures["ways"]
    rows = tables.TABLES["scale"]({"scale": stored})
    assert [row[0] for row in rows[1:]] == ways
    assert {row[2] for row in rows[1:]} == {"yes"}


def test_one_bit_makes_another_digest():
    episode = example_episode()
    other = episode.action.copy()
    other.view("uint32")[-1, -1] ^= 1
    assert digest(episode) == digest(example_episode())
    assert digest(replace(episode, action=other)) != digest(episode)


def test_what_differs_is_told():
    ways = {"a": {"seconds": 1.0, "digests": ["x"]}, "b": {"seconds": 1.0, "digests": ["y"]}}
    figures = bench_scale._compared(ways)
    assert not figures["identical"]
    assert [row["identical"] for row in figures["ways"].values()] == [True, False]


@pytest.mark.parametrize("changes", [{"episodes": 0}, {"nodes": 1}, {"workers": (1, 0)}])
def test_what_measures_nothing_is_refused(changes):
    (option,) = changes
    with pytest.raises(ValueError, match=f"--{option} is .*; give"):
        BenchScaleConfig(policy="runs/none", **changes)


def test_a_table_without_a_measurement_says_so():
    assert tables.TABLES["scale"]({})[1][0] == tables.NOT_MEASURED
