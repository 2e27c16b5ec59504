"""`robolearn bench-foreign` at its smallest, on a toy that comes with a script."""

import json
from dataclasses import replace

import numpy as np
import pytest
import strangers
import test_bench_policies

from robolearn import cli, docs
from robolearn.bench import foreign as bench_foreign
from robolearn.bench import learning as bench_learning
from robolearn.bench import tables
from robolearn.bench.foreign import PICTURES, TASKS, BenchForeignConfig, bench
from robolearn.config import load_config
from robolearn.dataset import EpisodeDataset
from robolearn.envs import foreign_doors, foreign_packages
from robolearn.envs.foreign_packages import KINDS, PACKAGES, Kind, Package
from robolearn.lerobot_goal import GoalStep
from robolearn.options import RecordConfig

TASK = "strangers:Slider-v0"
tiny_networks = test_bench_policies.small  # for all tests here


def push(door):
    return np.full(2, 0.3, np.float32)  # slow enough for a chunk


@pytest.fixture
def scripted(monkeypatch):
    """The toy as a package whose script pushes both sliders to the right."""
    monkeypatch.setattr(foreign_doors.Door, "expert", push, raising=False)
    kind = Kind("toys", "foreign_doors:Door", strangers.STEPS, scripted=True)
    monkeypatch.setitem(KINDS, "strangers:", kind)
    monkeypatch.setitem(PACKAGES, "toys", Package(("numpy",), (TASK,)))
    monkeypatch.setitem(TASKS, "toys", (TASK,))
    monkeypatch.setitem(PICTURES, "toys", (12, 16))


@pytest.fixture
def config(tmp_path):
    shaken = {"variations": {"tremble": 1}}
    small = shaken | {
        "demonstrations": 3,
        "minutes": 0.01,
        "episodes": 2,
        "workers": 0,
        "loader_workers": 0,
    }
    folders = {"out": tmp_path / "out", "results": tmp_path / "results"}
    return BenchForeignConfig("toys", policies=("flow", "act"), **small, **folders)


def cut_off(*_):
    raise KeyboardInterrupt


def test_every_policy_is_measured_on_every_task(scripted, config, monkeypatch, capsys):
    figures = bench(config)
    written = json.loads((config.results / "toys.json").read_text())
    assert written["tasks"] == figures["tasks"]
    rows = figures["tasks"][TASK]
    assert list(rows) == ["flow", "act"]
    for row in rows.values():
        assert (row["n"], row["seeds"]) == (2, [0, 1])
        assert row["seconds"] > 0
    recorded = EpisodeDataset(config.out / "toys" / TASK / "data")
    how = load_config(RecordConfig, config.out / "toys" / TASK / "data")
    assert how.variations == config.variations
    assert recorded.frames("view").shape[1:] == (12, 16, 3)
    assert figures["mean_success"] == {name: row["success"] for name, row in rows.items()}
    monkeypatch.setattr(bench_learning, "train", None)  # everything is done
    assert cli.COMMANDS["bench-foreign"][0] == "bench.foreign"
    assert bench_foreign.main(config) == 0
    assert "toys.json holds everything" in capsys.readouterr().out
    monkeypatch.setattr(bench_foreign, "compared", cut_off)
    with pytest.raises(KeyboardInterrupt):
        bench(replace(config, policies=("flow",)))
    assert json.loads((config.results / "toys.json").read_text()) == written
    with pytest.raises(ValueError, match=r"other settings \(minutes .*take another --out"):
        bench(replace(config, minutes=1.0))


def test_means_are_of_policies_that_all_tasks_have():
    one = {"flow": {"success": 0.5}, "act": {"success": 1.0}}
    assert bench_foreign._means({"a": one, "b": {"flow": {"success": 1.0}}}) == {
        "mean_success": {"flow": 0.75}
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("pusht", "gym-pusht is missing: install the extra pusht"),
        ("metaworld --tasks FetchReach-v4", "FetchReach-v4 is no task of metaworld; choose among"),
        ("metaworld --data runs/none", "--data is a recording of one task; name it with --tasks"),
        (
            "aloha --tasks gym_aloha/AlohaInsertion-v0 --data d --variations tremble 1",
            "--data is a recording already; leave out --variations",
        ),
        ("metaworld --variations tremble 5", "tremble has no level 5"),
        ("metaworld --variations trembling 1", "no variation 'trembling'"),
        ("metaworld --variations push 1", "push varies tasks of ours only"),
        ("metaworld --tasks metaworld/reach-v3", "metaworld is missing: install it with"),
    ],
)
def test_bad_options(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(foreign_packages.HOME, str(tmp_path / "nothing"))
    monkeypatch.setattr(Package, "is_here", lambda self: False)
    arguments = ["bench-foreign", *options.split(), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--results", str(tmp_path / "results")]) == 1
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_ten_tasks_are_mt10():
    assert len(TASKS["metaworld"]) == len(set(TASKS["metaworld"])) == 10
    assert all(foreign_packages.kind_of(task) for tasks in TASKS.values() for task in tasks)


def test_a_task_that_is_always_the_same_has_no_goal_to_tell():
    step = GoalStep(f"foreign:{TASK}")
    assert step.size == 0
    assert step._numbers("push both to the right") == []


def test_the_table_has_a_column_for_each_policy():
    row = {"success": 0.5, "success_low": 0.4, "success_high": 0.6, "n": 50, "seconds": 480.4}
    tasks = {"a": {"flow": row, "act": row}, "b": {"flow": row}}
    measured = {"tasks": tasks, "mean_success": {"flow": 0.5}}
    text = docs._markdown(docs.TABLES["metaworld"]({"metaworld": measured}))
    assert "| task | flow | LeRobot ACT |" in text
    cell = "**50 %** (40 % to 60 %), n = 50, 480 s"
    assert f"| `a` | {cell} | {cell} |" in text
    assert f"| `b` | {cell} | {tables.NOT_MEASURED} |" in text
    assert "| mean | **50 %** |" in text
    assert tables.NOT_MEASURED in docs._markdown(docs.TABLES["pusht"]({}))


def test_the_summary_has_the_mean_over_the_tasks_that_were_measured():
    one = {"success": 0.5, "success_low": 0.4, "success_high": 0.6, "n": 50, "seconds": 100.0}
    all_ = {"success": 1.0, "success_low": 0.9, "success_high": 1.0, "n": 30, "seconds": 200.0}
    tasks = {"a": {"flow": one, "act": one}, "b": {"flow": all_}}
    text = docs._markdown(docs.TABLES["foreign"]({"aloha": {"tasks": tasks}}))
    assert "|   | flow | LeRobot ACT |" in text
    flow = "**75 %** (67.9 % to 80 %), 2 of 2 tasks, n = 80, 150 s each"
    act = "**50 %** (40 % to 60 %), 1 of 2 tasks, n = 50, 100 s each"
    assert f"| gym-aloha | {flow} | {act} |" in text
    assert f"| gym-pusht | {tables.NOT_MEASURED} | {tables.NOT_MEASURED} |" in text


def test_pictures_are_as_large_as_a_package_needs_or_as_asked_for():
    asked = BenchForeignConfig("aloha", image_size=(24, 32))
    sizes = [
        bench_foreign._settings(c, TASKS["aloha"][0], "act").image_size
        for c in (asked, replace(asked, image_size=None))
    ]
    assert sizes == [(24, 32), (96, 128)]
    assert PICTURES.keys() == TASKS.keys()
