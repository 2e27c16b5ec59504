"""The page of `robolearn bench-taco`, of made-up figures."""

import json
import re

import pytest
from test_report import Page

from robolearn.bench.taco_report import ABLATIONS, SCORERS, curve, write_taco_report
from robolearn.stats import wilson


def made_up(successes, gained=0, lost=0, p=1.0):
    """An outcome of 500 episodes."""
    low, high = wilson(successes, 500)
    return {
        "success": successes / 500,
        "success_low": low,
        "success_high": high,
        "gain_points": (gained - lost) / 5,
        "gained": gained,
        "lost": lost,
        "p_value": p,
        "latency_p50_ms": 4.5,
    }


def a_task(base):
    row = {"n": 500, "base": made_up(base)}
    row |= {f"taco_{n}": made_up(base + n, n + 9, 9, 0.5 / n) for n in (2, 50)}
    return row | {name: made_up(base + 16, 25, 9, 0.0092) for name in SCORERS}


@pytest.fixture
def summary():
    """Two tasks of one sort, ablations on one of them, and latencies."""
    tasks = {"PickPlace": a_task(300), "Lift": a_task(400)}
    mean = {name: row for name, row in a_task(350).items() if name != "n"}
    times = {f"latency_{k}_p{q}_ms": 10.0 + q for k in ("one", "many", "naive") for q in (50, 99)}
    ablations = {name: made_up(310, 4, 10, 0.18) for name in ABLATIONS}
    return {
        "command": "robolearn bench-taco --policy runs/demo",
        "config": {
            "compared": 16,
            "episodes": 500,
            "demonstrations": 1600,
            "good": 30,
            "policy": "runs/<demo>",
        },
        "config_hash": "9c1f0a77",
        "versions": {"torch": "2.11.0"},
        "revision": "abc",
        "machine": "two cores",
        "tasks": {"structured": tasks},
        "structured": {"n": 1000, **mean},
        "ablations": {"PickPlace": {"n": 500, "taco": made_up(316), **ablations}},
        "latency_ratio_32_to_1": 1.62,
        "latency_saving_over_naive": 0.91,
        **times,
    }


def page_of(summary, folder):
    (folder / "taco.json").write_text(json.dumps(summary))
    write_taco_report(folder / "taco.json", folder / "report.html")
    return Page(folder / "report.html")


def test_the_page_has_every_figure(summary, tmp_path):
    page = page_of(summary, tmp_path)
    low, high = wilson(316, 500)
    interval = f"{100 * low:.1f}–{100 * high:.1f} %"
    assert f"TACO 63.2 % {interval} +3.2 25 / 9 0.0092 4.5 ms" in page.rows
    assert f"TACO as it is 63.2 % {interval} 4.5 ms" in page.rows
    assert [row for row in page.rows if row.startswith("no prior 62.0 %") and "4 / 10" in row]
    for label in (*SCORERS.values(), *ABLATIONS.values()):
        assert [row for row in page.rows if row.startswith(label)], label
    for figure in ("+3.2 points by TACO, structured (p 0.0092)", "60.0 / 109.0 ms", "91.0 %",
                   "1.62", "runs/<demo>", "robolearn bench-taco --policy runs/demo"):  # fmt: skip
        assert figure in page.text
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 2


def test_the_page_stands_alone(summary, tmp_path):
    page = page_of(summary, tmp_path)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    for reference in page.values("href") + page.values("xlink:href"):
        assert reference[1:] in ids
    assert page.values("src") == []
    assert not re.search(r"https?:|@import|<link|url\([^#]", page.source)


def test_a_page_of_what_was_measured_so_far(summary, tmp_path):
    text = page_of(summary, tmp_path).text
    assert "Ablations on PickPlace" in text
    assert "Saved by sharing" in text
    del (
        summary["ablations"],
        summary["latency_ratio_32_to_1"],
        summary["tasks"]["structured"]["Lift"],
    )
    text = page_of(summary, tmp_path).text
    assert "PickPlace" in text
    assert not [word for word in ("Ablations", "Latency", "Lift") if word in text]


def test_the_curve_begins_with_the_plain_policy():
    assert [point[:2] for point in curve(a_task(300), 16)] == [
        (1, 0.6),
        (2, 0.604),
        (16, 0.632),
        (50, 0.7),
    ]
