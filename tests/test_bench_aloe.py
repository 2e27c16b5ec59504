"""`robolearn bench-aloe`: methods at equal numbers of interactions, and what goes into the file."""

import json
from dataclasses import replace

import pytest

from robolearn.bench import aloe as bench_aloe
from robolearn.bench.aloe import BenchAloeConfig, Method
from robolearn.policies.improver_configs import (
    ActorConfig,
    AloeConfig,
    BcConfig,
    CriticConfig,
    DaggerConfig,
)

ACTOR = ActorConfig(steps=2, batch_size=8)
CRITIC = CriticConfig(heads=2, hidden=16, depth=1, steps=3, batch_size=8, samples=2)
QUICK = {
    "bc": Method(BcConfig(actor=ACTOR)),
    "dagger": Method(DaggerConfig(actor=ACTOR), correct=True),
    "aloe": Method(AloeConfig(critic=CRITIC, actor=ACTOR), judged=16),
}


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_aloe, "METHODS", QUICK)
    return BenchAloeConfig(
        tasks=("Reach",),
        methods=tuple(QUICK),
        seeds=(0,),
        results=tmp_path / "results",
        out=tmp_path / "out",
        demonstrations=3,
        steps=3,
        collected=2,
        episodes=2,
        candidates=2,
        workers=0,
        conditions=("recovery", "unseen"),
    )


def test_all_methods_begin_with_the_same_policy_and_have_the_same_budget(small, monkeypatch):
    figures = bench_aloe.bench(small)
    row = figures["tasks"]["Reach"]
    assert set(row) == {"base", *QUICK, "aloe+critic"}
    for name, cell in row.items():
        assert cell["n"] == 2
        assert len(cell["by_seed"]) == 1
        gain = cell["success"] - row["base"]["success"]
        assert cell["gain_points"] == pytest.approx(100 * gain)
        assert 0.0 <= cell["recovery"] <= 1.0
        assert 0.0 <= cell["unseen"] <= 1.0
        if name != "base":
            assert cell["seconds_per_round"] > 0
    # Whoever is not corrected collects with the very same policy on the very same seeds.
    assert row["bc"]["interactions"] == row["aloe"]["interactions"]
    conditions = small.out / "Reach" / "bc-0"
    pushed, unseen = (
        json.loads((conditions / f"eval-{name}" / "result.json").read_text())
        for name in ("recovery", "unseen")
    )
    assert pushed["variations"] == {"push": 2}
    assert unseen["split"].startswith("novel_")
    written = json.loads((small.results / "aloe-state.json").read_text())
    assert written["mean"] == figures["mean"]
    # A second run finds everything done, and says the same.
    monkeypatch.setattr("robolearn.bench.prepared.train", None)
    monkeypatch.setattr("robolearn.evaluate.evaluate", None)
    assert bench_aloe.bench(small) == figures
    with pytest.raises(ValueError, match="begun with other settings"):
        bench_aloe.bench(replace(small, collected=3))


def test_bad_options_are_named(small):
    with pytest.raises(ValueError, match="--methods has sarsa; choose among bc, dagger"):
        bench_aloe.bench(replace(small, methods=("sarsa",)))
    with pytest.raises(ValueError, match="--conditions has dark; choose among recovery, unseen"):
        bench_aloe.bench(replace(small, conditions=("dark",)))
    with pytest.raises(ValueError, match="--rounds is 0"):
        bench_aloe.bench(replace(small, rounds=0))


def test_what_is_cut_off_between_two_tasks_leaves_the_summary_alone(small, monkeypatch):
    def compared(config, task, seed):
        if task == "Lift":
            raise KeyboardInterrupt
        yield "base", {}

    monkeypatch.setattr(bench_aloe, "compared", compared)
    for name in ("_over_seeds", "_over_tasks"):
        monkeypatch.setattr(bench_aloe, name, lambda rows: {})
    with pytest.raises(KeyboardInterrupt):
        bench_aloe.bench(replace(small, tasks=("Reach", "Lift")))
    assert not small.results.exists()
