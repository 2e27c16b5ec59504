"""`robolearn bench-act2goal`: within and beyond what is known, before and after practice."""

import json
from dataclasses import replace

import pytest

from robolearn.bench import act2goal as bench_act2goal
from robolearn.bench.act2goal import BenchAct2GoalConfig
from robolearn.bench.act2goal_methods import PRACTICES
from robolearn.bench.act2goal_tables import (
    act2goal_table,
    distance_table,
    practice_table,
    scene_table,
)
from robolearn.learn_options import AdaptConfig
from robolearn.policies.configs import FlowConfig, SmallConfig
from robolearn.policies.latent_configs import Act2GoalConfig

QUICK = {
    "act2goal": Act2GoalConfig(
        horizon=8, hidden=16, depth=1, width=16, latents=4, autoencoder_steps=2
    ),
    "flow": FlowConfig(
        horizon=8, hidden=16, depth=1, goal="pictures", backbone=SmallConfig(width=16, channels=4)
    ),
}
PRACTICE = {"rounds": 1, "episodes": 2, "updates": 2, "batch_size": 4, "steps": 12}


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_act2goal, "METHODS", QUICK)
    monkeypatch.setattr(bench_act2goal, "PRACTICES", {"practice": PRACTICE})
    return BenchAct2GoalConfig(
        tasks=("Reach",),
        methods=tuple(QUICK),
        practising=("flow",),
        results=tmp_path / "results",
        out=tmp_path / "out",
        demonstrations=3,
        steps=2,
        batch_size=4,
        evaluate=1,
        episodes=3,
        workers=0,
    )


def test_all_methods_see_the_same_episodes_within_and_beyond(small, monkeypatch):
    figures = bench_act2goal.bench(small)
    rows = figures["tasks"]["Reach"]
    assert list(rows) == ["act2goal", "flow", "flow+practice"]
    first = rows["act2goal"]
    for row in rows.values():
        assert row["n"] == 3
        assert row["plan_ms"] > 0
        for part in ("in_distribution", "out_of_distribution"):
            assert row["by_seed"][part] == [row[part]["success"]]
            assert 0.0 <= row["no_plan"][part] <= 1.0
        # Sorted by what the expert needed, which is the same for all of them.
        bins = row["by_distance"]
        assert [part["n"] for part in bins] == [1, 1, 1]
        assert [part["steps"] for part in bins] == [p["steps"] for p in first["by_distance"]]
        assert 0 < bins[0]["steps"][0] <= bins[1]["steps"][0] <= bins[2]["steps"][0]
    for part in ("in_distribution", "out_of_distribution"):
        gain = rows["flow"][part]["success"] - first[part]["success"]
        assert rows["flow"][part]["gain_points"] == pytest.approx(100 * gain)
    practised = rows["flow+practice"]
    gain = practised["in_distribution"]["success"] - rows["flow"]["in_distribution"]["success"]
    assert practised["forgetting_points"] == pytest.approx(-100 * gain)
    assert practised["minutes"] > 0
    assert [len(curve) for curve in practised["curves"]] == [2]  # before, and after one round
    beyond = small.out / "Reach" / "flow-0" / "eval-novel_object" / "result.json"
    assert json.loads(beyond.read_text())["split"] == "novel_object"
    # A second run finds everything done, and says the same.
    monkeypatch.setattr("robolearn.bench.prepared.train", None)
    monkeypatch.setattr("robolearn.evaluate.evaluate", None)
    assert bench_act2goal.bench(small) == figures
    with pytest.raises(ValueError, match="begun with other settings"):
        bench_act2goal.bench(replace(small, steps=3))


def test_tables_are_made_of_the_result_file(small):
    bench_act2goal.bench(replace(small, episodes=1))
    results = {"act2goal": json.loads((small.results / "act2goal.json").read_text())}
    rows = act2goal_table(results)
    assert rows[0] == ["", "Reach", "mean", "points", "a decision"]
    assert [row[0] for row in rows[1:]] == ["`act2goal`", "`flow`"]
    assert rows[1][3] == ""  # the first is compared with nothing
    (near,) = distance_table(results)[1:]  # one episode is one distance
    assert near[0] == "Reach"
    assert " to " in near[1]
    (practised,) = practice_table(results)[1:]
    assert practised[:2] == ["Reach", "`flow+practice`"]
    assert practised[-1].endswith(" points")
    novel = {"act2goal-novel-scene": results["act2goal"]}
    assert [row[1] for row in scene_table(novel)[1:]] == ["`act2goal`", "`flow`", "`flow+practice`"]
    assert [row[-1] for row in scene_table(novel)[1:]] == ["", "", practised[5]]
    for table in (act2goal_table, distance_table, practice_table, scene_table):
        assert table({})[1][0] == "not measured yet"


def test_a_split_has_a_summary_of_its_own(small):
    assert small.name == "act2goal"
    assert replace(small, split="novel_scene").name == "act2goal-novel-scene"


def test_every_way_of_practice_is_options_of_adapt(tmp_path):
    usual = AdaptConfig(policy=tmp_path, out=tmp_path)
    practices = {name: replace(usual, **changes) for name, changes in PRACTICES.items()}
    assert practices["practice"] == usual
    assert practices["practice-successes"].learn_from == "successes"
    assert practices["practice-failures"].learn_from == "failures"
    assert len({str(practice) for practice in practices.values()}) == len(PRACTICES)


def test_practice_that_cannot_be_is_refused_before_anything_is_done(small):
    with pytest.raises(ValueError, match="--minutes is 0"):
        bench_act2goal.bench(replace(small, minutes=0.0))
    assert not (small.out / "Reach").exists()


def test_bad_options_are_named(small):
    with pytest.raises(ValueError, match="--methods has sarsa; choose among act2goal, flow"):
        replace(small, methods=("sarsa",))
    with pytest.raises(ValueError, match="--practising has flow; choose among act2goal"):
        replace(small, methods=("act2goal",))
    with pytest.raises(ValueError, match="--practices has sleep; choose among practice"):
        replace(small, practices=("sleep",))
    with pytest.raises(ValueError, match="--tasks has none"):
        replace(small, tasks=())
    with pytest.raises(ValueError, match="--episodes is 0; give it 1 or more"):
        replace(small, episodes=0)
    with pytest.raises(ValueError, match="split is 'nowhere'; choose one of train"):
        bench_act2goal.bench(replace(small, split="nowhere"))


def test_what_is_cut_off_between_two_tasks_leaves_the_summary_alone(small, monkeypatch):
    def rows(self):
        if self.task == "Lift":
            raise KeyboardInterrupt
        yield "flow", {}

    monkeypatch.setattr(bench_act2goal.Compared, "rows", rows)
    monkeypatch.setattr(bench_act2goal, "_over_tasks", lambda tasks: {})
    with pytest.raises(KeyboardInterrupt):
        bench_act2goal.bench(replace(small, tasks=("Reach", "Lift"), practising=()))
    assert not small.results.exists()
