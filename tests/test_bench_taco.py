"""`robolearn bench-taco` at its smallest."""

import json
import shutil
from dataclasses import replace

import pytest

from robolearn import cli
from robolearn.bench import modes as bench_modes
from robolearn.bench import taco as bench_taco
from robolearn.bench.modes import GOALS, TASKS
from robolearn.bench.taco import BenchTacoConfig
from robolearn.policies.configs import FlowConfig
from robolearn.registry import make_env

SCORERS = {"base", "taco", "knn", "mahalanobis", "rnd", "random", "medoid", "residual"}

ABLATIONS = {"taco", "fixed-noise", "search-half", "search-full", "no-prior"}


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Settings with which everything is done in seconds; steps and choices of fits are as few."""
    original = bench_taco.KINDS
    quick = [replace(kind, steps=4) if hasattr(kind, "steps") else kind for kind in original]
    for module in (bench_modes, bench_taco):
        monkeypatch.setattr(module, "KINDS", quick)
    monkeypatch.setattr("robolearn.policies.taco.LENGTH_SCALES", (0.7,))
    return BenchTacoConfig(
        tasks=("Reach",),
        flow=FlowConfig(hidden=16, depth=1, draws=1),
        batch_size=8,
        obs_type="state",
        results=tmp_path / "results",
        out=tmp_path / "out",
        demonstrations=4,
        good=3,
        steps=4,
        tuning=2,
        candidates=(2,),
        compared=3,
        ablated=("Reach",),
        episodes=2,
        workers=0,
    )


def test_all_scorers_are_compared_on_the_same_seeds(small, monkeypatch):
    figures = bench_taco.bench(small)
    written = json.loads((small.results / "taco.json").read_text())
    assert written["structured"] == figures["structured"]
    for sort in ("structured", "scatter"):
        row = figures["tasks"][sort]["Reach"]
        assert row["n"] == 2
        chosen = {name for name, value in row.items() if isinstance(value, dict)}
        assert chosen == SCORERS | ({"taco_2"} if sort == "structured" else set())
        for name in SCORERS:
            gain = row[name]["success"] - row["base"]["success"]
            assert row[name]["gain_points"] == pytest.approx(100 * gain)
            assert row[name]["gained"] - row[name]["lost"] == round(2 * gain)
            assert figures[sort][name]["success"] == row[name]["success"]
    mixed = json.loads((small.out / "structured-Reach/mixed/config.json").read_text())
    assert mixed["variations"] == {"label": 2}
    tuned = json.loads((small.out / "scatter-Reach/tuned/config.json").read_text())
    assert tuned["init"].startswith(str(small.out / "scatter-Reach/base"))
    check_ablations(figures, small.out / "structured-Reach")
    # A second run finds everything done, and says the same.
    monkeypatch.setattr("robolearn.bench.prepared.train", None)
    monkeypatch.setattr("robolearn.evaluate.evaluate", None)
    assert bench_taco.bench(small) == figures
    none = bench_taco.bench(replace(small, ablated=()))
    assert "ablations" not in none
    known = figures["tasks"]["structured"]["Reach"]
    known = {name: value for name, value in known.items() if name != "taco_2"}
    assert none["tasks"]["structured"]["Reach"] == known
    with pytest.raises(ValueError, match=r"other settings \(steps .*take another --out"):
        bench_taco.bench(replace(small, steps=5))


def test_tasks_that_are_not_looked_at_closely_are_compared_at_one_count(small, monkeypatch):
    asked = []
    monkeypatch.setattr(
        bench_taco, "evaluation", lambda c, p, f, name, count, **_: asked.append((name, count))
    )
    list(bench_taco.evaluations(small, None, None, swept=False))
    assert asked[0] == ("", 1)
    assert asked[1:] == [(name, 3) for name, _ in asked[1:]]
    assert {name for name, _ in asked[1:]} == SCORERS - {"base"}


@pytest.mark.parametrize("task", sorted(GOALS))
def test_the_goals_differ_in_what_is_done_and_not_in_the_wording(task):
    env = make_env(f"robolearn/{task}-v0", obs_type="state")
    told, pursued = (env.unwrapped.phrases.parse(text) for text in GOALS[task])
    assert sum(a != b for a, b in zip(told, pursued, strict=True)) == 1
    env.close()


def test_the_tasks_of_both_sorts_have_goals():
    assert {task for tasks in TASKS.values() for task in tasks} <= set(GOALS)


def check_ablations(figures, folder):
    """Each changes what its name says, and nothing else."""
    row = figures["ablations"]["Reach"]
    assert {name for name, value in row.items() if isinstance(value, dict)} == ABLATIONS
    assert row["taco"]["success"] == figures["tasks"]["structured"]["Reach"]["taco"]["success"]
    fits = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("tuned/taco*/fit.json")}
    assert {name: (fit["noise"], fit["policy"]["prior"]) for name, fit in fits.items()} == {
        "taco": (0.125, True),
        "taco-search-half": (0.5, True),
        "taco-search-full": (1.0, True),
        "taco-no-prior": (0.125, False),
    }
    acted = {p.parent.name: json.loads(p.read_text()) for p in folder.glob("*/eval.json")}
    fixed = [name for name, settings in acted.items() if settings["fixed_noise"]]
    assert fixed == ["eval-taco3-fixed-noise"]
    assert acted["eval-taco-no-prior3"]["scorer"] == str(folder / "tuned/taco-no-prior")


def test_the_latency_of_many_candidates(small, demo_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(demo_folder)  # the run knows where its data are from here
    run = shutil.copytree(demo_folder / "runs/demo", tmp_path / "run")
    before = set(run.iterdir())
    figures = bench_taco.latency(run, tmp_path, decisions=4, seed=0)
    assert figures.pop("latency_saving_over_naive") < 1.0
    assert figures.pop("latency_ratio_32_to_1") > 0.5
    assert set(figures) == {
        f"latency_{kind}_p{q}_ms" for kind in ("one", "many", "naive") for q in (50, 99)
    }
    for kind in ("one", "many", "naive"):
        assert 0.0 < figures[f"latency_{kind}_p50_ms"] <= figures[f"latency_{kind}_p99_ms"]
    assert set(run.iterdir()) == before


def test_the_means_are_over_tasks_and_the_pairs_are_all_of_them():
    rows = [
        {"n": 10, "taco": {"success": 0.9, "gain_points": 40.0, "gained": 5, "lost": 1}},
        {"n": 10, "taco": {"success": 0.5, "gain_points": 0.0, "gained": 3, "lost": 0}},
    ]
    mean = bench_taco._mean(rows)
    assert mean["taco"] == {
        "success": pytest.approx(0.7),
        "gain_points": 20.0,
        "gained": 8,
        "lost": 1,
        "p_value": pytest.approx(20 / 512),  # 8 against 1
    }
    assert mean["n"] == 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--candidates 1", "--candidates and --compared must be 2 or more"),
        ("--episodes 0", "--episodes is 0; give it 1 or more"),
        ("--sorts structured --tasks Fly", "no environment 'robolearn/Fly-v0'"),
    ],
)
def test_bad_options(options, words, tmp_path, capsys):
    arguments = ["bench-taco", "--out", str(tmp_path), "--results", str(tmp_path)]
    assert cli.main([*arguments, *options.split()]) == 1
    assert words in capsys.readouterr().err


def test_what_is_cut_off_between_two_tasks_shows_in_its_page_alone(small, monkeypatch):
    def measure(config, sort, task):
        if sort == "scatter":
            raise KeyboardInterrupt
        return {"n": 2}

    pages = []
    monkeypatch.setattr(bench_taco, "measure", measure)
    monkeypatch.setattr(
        "robolearn.bench.taco_report.write_taco_report", lambda summary, page: pages.append(summary)
    )
    with pytest.raises(KeyboardInterrupt):
        bench_taco.bench(small)
    assert pages == [small.out / "taco-so-far.json"]
    assert pages[0].is_file()
    assert not small.results.exists()
