"""Agents side by side: the same seeds, nothing twice, and honest words about differences."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import toy

from robolearn import checkpoint, cli
from robolearn.bench.compare import BenchCompareConfig, compare
from robolearn.bench.leaderboard import _levels
from robolearn.bench.run import Agent, BenchRunConfig, clear, contestants, run
from robolearn.bench.sequential import sequential_p
from robolearn.bench.standings import THRESHOLDS, Entry, standings
from robolearn.bench.suite import load_suite
from robolearn.contract import SO101
from robolearn.evaluate import JOURNAL, evaluate
from robolearn.options import EvalConfig
from robolearn.results import versions
from robolearn.stats import holm, mcnemar_exact, paired_difference, wilson

SUITE = """
title = "the toy, and one goal of it"
episodes = {episodes}
replan_every = 2
candidates = 2
stop = {stop}
tasks = [
    {{ env = "toy:Toy-v0" }},
    {{ env = "toy:Toy-v0", split = "blue", instruction = "go left to the blue dot" }},
]
"""


def write_suite(folder, name="mine", episodes=6, stop=0.0):
    path = folder / f"{name}.toml"
    path.write_text(SUITE.format(episodes=episodes, stop=stop))
    return path


def config(folder, *agents, **changes):
    suite = changes.pop("suite", None) or str(write_suite(folder))
    plain = {"out": folder / "out", "videos": 0, "workers": 0}
    return BenchRunConfig(suite, agents=agents, **{**plain, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory, toy_run):
    """A run of the expert, a policy, and the policy with a scorer."""
    folder = tmp_path_factory.mktemp("bench")
    agents = ("able=expert", f"novice={toy_run}", f"chosen={toy_run}+medoid")
    settings = config(folder, *agents, videos=1)
    return settings, run(settings)


def outcomes(settings, agent, label):
    path = settings.out / agent / label / "result.json"
    return {e["seed"]: e["success"] for e in json.loads(path.read_text())["episodes"]}


def test_all_agents_play_the_same_seeds_of_every_task(finished):
    settings, figures = finished
    assert list(figures["agents"]) == ["able", "novice", "chosen"]
    for label in ("Toy", "Toy-blue"):
        assert {tuple(outcomes(settings, name, label)) for name in figures["agents"]} == {
            tuple(range(6))
        }
        able = figures["agents"]["able"]["tasks"][label]
        assert able["failed_seeds"] == [0, 5]  # where the toy's expert never starts
        assert (able["success_low"], able["success_high"]) == wilson(4, 6)
    chosen = json.loads((settings.out / "chosen" / "Toy" / "result.json").read_text())
    assert (chosen["scorer"], chosen["candidates"], chosen["replan_every"]) == ("medoid", 2, 2)
    blue = json.loads((settings.out / "able" / "Toy-blue" / "result.json").read_text())
    assert {e["instruction"] for e in blue["episodes"]} == {"go left to the blue dot"}


def test_the_summary_says_what_was_fixed(finished):
    settings, figures = finished
    stored = json.loads((settings.out / "bench.json").read_text())
    suite = load_suite(settings.suite)
    assert stored["suite"]["hash"] == suite.hash == figures["suite"]["hash"]
    assert stored["suite"]["tasks"] == suite.fixed()["tasks"]
    assert stored["agents"].keys() == figures["agents"].keys()
    assert {"command", "versions", "machine", "revision", "config_hash"} <= stored.keys()
    novice = stored["agents"]["novice"]
    assert novice["fingerprint"] == checkpoint.fingerprint(Path(novice["source"]))
    assert len(novice["profile"]) == len(THRESHOLDS)
    assert novice["profile"][-1] >= novice["success"]


def test_the_time_of_training_is_told_where_it_is_known(finished, toy_run):
    settings, figures = finished
    last = json.loads((toy_run / "log.jsonl").read_text().splitlines()[-1])
    agents = figures["agents"]
    assert agents["novice"]["training_seconds"] == last["seconds"] > 0
    assert agents["able"]["training_seconds"] is None  # nobody trained the expert
    chart = (settings.out / "bench.html").read_text().partition("Success against training time")[2]
    chart = chart.partition("</figure>")[0]
    assert "novice" in chart
    assert "able" not in chart


def test_pairs_are_tested_on_the_shared_seeds(finished):
    settings, figures = finished
    assert [(p["agent"], p["against"]) for p in figures["pairs"]] == [
        ("novice", "able"),
        ("chosen", "able"),
    ]
    tests = []
    for pair in figures["pairs"]:
        for label, row in pair["tasks"].items():
            a, b = (
                list(outcomes(settings, pair[who], label).values()) for who in ("agent", "against")
            )
            assert row["p_value"] == mcnemar_exact(a, b)
            low, high = paired_difference(a, b)
            assert (row["gain_points_low"], row["gain_points_high"]) == (100 * low, 100 * high)
            tests.append(row)
    assert [row["p_holm"] for row in tests] == holm([row["p_value"] for row in tests])


def test_a_finished_run_plays_nothing_again(finished, monkeypatch):
    settings, figures = finished
    monkeypatch.setattr("robolearn.evaluate.run_seeds", lambda *job: 1 / 0)
    assert run(settings)["agents"] == figures["agents"]


def test_further_agents_join_a_run(finished, tmp_path):
    settings, figures = finished
    again = run(replace(settings, agents=(settings.agents[0], "twin=expert")))
    assert again["agents"]["able"] == figures["agents"]["able"]
    assert again["pairs"][0]["all"]["p_value"] == 1.0
    assert again["pairs"][0]["all"]["pairs_for_5_points"] is None
    run(settings)


class Page(HTMLParser):
    """The ids and the references of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []


def test_every_cell_of_the_page_leads_to_its_episodes(finished):
    settings, figures = finished
    text = (settings.out / "bench.html").read_text()
    page = Page(text)
    assert len(page.links) == len(set(page.links)) == 6
    cells = {name for name in page.ids if name.startswith("cell-")}  # the charts have ids too
    assert {link.removeprefix("#") for link in page.links} == cells
    assert page.sources
    assert all(source.startswith("data:video/mp4;base64,") for source in page.sources)
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert text.index('id="cell-Toy-novice"') < text.index('id="cell-Toy-able"')  # weakest first


def test_the_markdown_has_the_same_figures(finished):
    settings, _ = finished
    text = (settings.out / "bench.md").read_text()
    assert "| Toy | 66.7 % (4/6) |" in text
    assert "| novice | able | Toy |" in text
    assert {len(row.split("|")) for row in text.split("\n\n")[2].splitlines()} == {7}


def test_bench_can_be_typed(finished, capsys):
    settings, _ = finished
    typed = ["bench", "run", settings.suite, "--out", str(settings.out), "--videos", "1"]
    assert cli.main([*typed, "--workers", "0", "--agents", *settings.agents]) == 0
    said = capsys.readouterr().out
    assert "able: success 66.7%" in said
    assert "novice against able: " in said
    assert "pairs" in said
    assert cli.main(["bench", "list"]) == 0
    assert load_suite("tabletop").hash in capsys.readouterr().out


def test_a_run_that_is_killed_goes_on(tmp_path, toy_run):
    """Finished episodes keep the very times that their decisions took: none was repeated."""
    suite = write_suite(tmp_path, episodes=12)
    arguments = ["bench", "run", str(suite), "--agents", f"novice={toy_run}", "--videos", "0"]
    arguments += ["--out", str(tmp_path / "out"), "--workers", "0"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    command = [sys.executable, "-m", "robolearn", *arguments]
    journal = tmp_path / "out" / "novice" / "Toy" / JOURNAL
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert not (journal.parent / "result.json").exists()
    whole = journal.read_bytes().rpartition(b"\n")[0].split(b"\n")
    kept = [json.loads(line) for line in whole[1:]]
    assert 3 <= len(kept) < 12
    journal.write_bytes(b"\n".join(whole) + b'\n{"seed": 4')  # and the crash left half a line
    agents = (f"novice={toy_run}",)
    resumed = run(config(tmp_path, *agents, suite=str(suite)))
    fresh = run(config(tmp_path, *agents, suite=str(suite), out=tmp_path / "fresh"))
    episodes = json.loads((journal.parent / "result.json").read_text())["episodes"]
    assert [e["seed"] for e in episodes] == list(range(12))
    for row, episode in zip(kept, episodes, strict=False):
        assert all(row[key] == value for key, value in episode.items())
    assert timeless(resumed) == timeless(fresh)
    assert not journal.exists()


def timeless(figures):
    """The figures without what a clock has measured, or says where it was."""
    if isinstance(figures, dict):
        left = {"latency_ms", "wall_seconds", "config_hash"}
        return {key: timeless(value) for key, value in figures.items() if key not in left}
    return figures


def test_rows_about_something_else_are_not_gone_on_with(tmp_path, toy_run):
    settings = EvalConfig(
        policy=str(toy_run), out=tmp_path, env=toy.ENV_ID, episodes=3, videos=0, workers=0
    )
    settings = replace(settings, replan_every=2)
    with pytest.raises(ZeroDivisionError):
        evaluate(settings, lambda rows: len(rows) == 2 and 1 / 0)
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == 3
    other = evaluate(replace(settings, replan_every=1))
    plain = evaluate(replace(settings, replan_every=1, out=tmp_path / "fresh"))
    assert [e["progress"] for e in other["episodes"]] == [e["progress"] for e in plain["episodes"]]


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        (("runs/demo",), "is no agent; give NAME=SOURCE"),
        (("a/b=expert",), "is no agent"),
        (("a=expert", "a=expert"), "two agents are called 'a'"),
        ((), "no agent to measure"),
        (("a=runs/none",), "neither a checkpoint nor a run"),
        (("a=expert+taco",), "has no candidates"),
    ],
)
def test_agents_that_cannot_be_measured(tmp_path, agents, message):
    with pytest.raises(ValueError, match=message):
        run(config(tmp_path, *agents))


def test_a_scorer_is_all_that_follows_the_first_plus(tmp_path):
    assert Agent.parse("x=runs/a+taco+medoid") == Agent("x", "runs/a", "taco+medoid")
    (tmp_path / "a+b").mkdir()
    assert Agent.parse(f"x={tmp_path}/a+b") == Agent("x", f"{tmp_path}/a+b")
    suite = load_suite("quick")
    assert [a.name for a in contestants(["mine=runs/a"], suite)] == ["mine", "expert"]
    assert contestants(["expert=runs/a"], suite) == [Agent("expert", "runs/a")]


@pytest.mark.parametrize(
    ("arm", "cameras", "message"),
    [(toy.TOY_ARM, None, "toy"), (SO101, {"side": (48, 84)}, "camera is 'side'")],
    ids=["arm", "cameras"],
)
def test_a_policy_that_does_not_fit_is_refused_at_once(
    tmp_path, monkeypatch, arm, cameras, message
):
    """Before the first episode, although another agent comes first and would fit."""
    toy.tiny_policy(arm=arm, cameras=cameras or {"top": (48, 84)}).save(tmp_path / "foreign")
    monkeypatch.setattr("robolearn.evaluate.run_seeds", lambda *job: 1 / 0)
    agents = ("able=expert", f"foreign={tmp_path / 'foreign'}")
    with pytest.raises(ValueError, match=message):
        run(config(tmp_path, *agents, suite="quick"))


def test_a_folder_belongs_to_one_suite_and_a_name_to_one_agent(finished, tmp_path, toy_run):
    settings, _ = finished
    other = write_suite(tmp_path, episodes=7)
    with pytest.raises(ValueError, match="begun with other settings"):
        run(replace(settings, suite=str(other)))
    with pytest.raises(ValueError, match=r"holds another agent than able=.* give it another name"):
        run(replace(settings, agents=(f"able={toy_run}",)))


def test_runs_are_compared_pair_by_pair(finished, tmp_path, toy_run, capsys):
    settings, figures = finished
    later = config(tmp_path, f"novice={toy_run}")
    run(later)
    both = compare(BenchCompareConfig((settings.out, later.out), out=tmp_path / "both"))
    names = [f"{settings.out}:novice", f"{later.out}:novice"]
    assert list(both["agents"]) == ["able", names[0], "chosen", names[1]]
    pairs = {(p["agent"], p["against"]): p["all"] for p in both["pairs"]}
    assert list(pairs) == [(names[1], k) for k in ("able", names[0], "chosen")]
    same = pairs[names[1], names[0]]
    assert (same["gained"], same["lost"], same["p_value"]) == (0, 0, 1.0)
    before = {(p["agent"], p["against"]): p["all"] for p in figures["pairs"]}
    assert pairs[names[1], "able"]["p_value"] == before["novice", "able"]["p_value"]
    assert (tmp_path / "both" / "bench.html").exists()
    assert cli.main(["bench", "compare", str(settings.out), str(later.out)]) == 0
    assert "novice against able: " in capsys.readouterr().out


def test_versions_that_differ_are_told_and_not_mixed(finished, tmp_path, monkeypatch, capsys):
    settings, _ = finished
    monkeypatch.setattr("robolearn.bench.run.versions", lambda: {**versions(), "mujoco": "9.9"})
    with pytest.raises(ValueError, match=r"begun with other settings \(mujoco .*, not 9\.9\)"):
        run(settings)
    later = config(tmp_path, "able=expert")
    run(later)
    assert json.loads((later.out / "bench.json").read_text())["versions"]["mujoco"] == "9.9"
    assert cli.main(["bench", "compare", str(settings.out), str(later.out)]) == 0
    assert (
        f"mujoco differs, and may be the cause: {versions()['mujoco']} in "
        in capsys.readouterr().out
    )


def test_the_summary_goes_where_results_are_under_a_name_of_its_own(finished, tmp_path):
    """`aloha.json` and `pusht.json` are of bench-foreign."""
    settings, figures = finished
    run(replace(settings, results=tmp_path))
    (path,) = tmp_path.iterdir()
    assert path.name == "suite-mine.json"
    assert json.loads(path.read_text())["suite"]["hash"] == figures["suite"]["hash"]


def test_runs_of_suites_that_differ_are_not_compared(finished, tmp_path):
    settings, _ = finished
    other = config(tmp_path, "able=expert", suite=str(write_suite(tmp_path, episodes=2)))
    run(other)
    with pytest.raises(ValueError, match="suites that differ give numbers that cannot be compared"):
        compare(BenchCompareConfig((settings.out, other.out)))
    with pytest.raises(ValueError, match="two runs or more"):
        compare(BenchCompareConfig((settings.out,)))
    with pytest.raises(ValueError, match="holds no finished run"):
        compare(BenchCompareConfig((settings.out, tmp_path)))


def test_an_agent_that_is_clearly_worse_stops_early(tmp_path, toy_run):
    suite = write_suite(tmp_path, episodes=25, stop=0.05)
    figures = run(config(tmp_path, "able=expert", f"novice={toy_run}", suite=str(suite)))
    able, novice = (figures["agents"][name]["tasks"]["Toy"] for name in ("able", "novice"))
    assert able["n"] == 25
    assert novice["n"] < 20
    row = figures["pairs"][0]["tasks"]["Toy"]
    assert row["n"] == novice["n"]
    assert row["p_value"] <= 0.05
    assert row["gain_points_high"] < 100.0 * (novice["success"] - able["success"]) + 100.0
    # The interval holds at every n, so it is wider than Wilson's.
    assert novice["success_high"] > wilson(novice["successes"], novice["n"])[1]
    with pytest.raises(
        ValueError, match=r"against another first agent than novice=.* that one first"
    ):
        run(config(tmp_path, f"novice={toy_run}", "able=expert", suite=str(suite)))


def test_it_stops_at_the_first_seed_at_which_the_test_is_clear(tmp_path):
    first = tmp_path / "result.json"
    first.write_text(json.dumps({"episodes": [{"success": True}] * 20}))
    enough = clear(first, 0.05)
    lost = [{"success": False}] * 20
    assert [enough(lost[:n]) for n in range(12)].index(True) == 8
    assert not enough([{"success": True}] * 20)


def entry(name, successes, progress=0.5, worlds=("a", "b")):
    """An agent with the same outcomes on two tasks, of these environments."""
    episodes = [
        {"seed": k, "success": bool(s), "progress": 1.0 if s else progress, "length": 10}
        for k, s in enumerate(successes)
    ]
    result = {
        "n": len(episodes),
        "successes": int(sum(successes)),
        "success": float(np.mean(successes)),
        "episodes": episodes,
        "latency_ms": {"p50": 1.0, "p99": 2.0},
        "wall_seconds": 3.0,
        "failures": {"dropped": int(len(episodes) - sum(successes))},
        "policy": "runs/x",
        "seeds": [0, len(episodes) - 1],
        "config_hash": "0",
    }
    results = {label: result | {"env_id": world} for label, world in zip("AB", worlds, strict=True)}
    return Entry(name, {"scorer": ""}, Path(), results)


def test_standings_by_hand():
    half, all_ = entry("half", [1, 0] * 20), entry("all", [1] * 40)
    figures = standings([all_, half], [(half, all_)], 0.0)
    row = figures["agents"]["half"]
    assert row["success"] == 0.5
    low, high = wilson(20, 40)
    assert row["success_low"] == pytest.approx(0.5 - (0.5 - low) / np.sqrt(2))
    assert row["success_high"] == pytest.approx(0.5 + (high - 0.5) / np.sqrt(2))
    assert row["failures"] == {"dropped": 40}
    assert row["score_iqm"] == pytest.approx(0.75)
    assert row["profile"][0] == 1.0
    assert row["profile"][-1] == 0.5
    pair = figures["pairs"][0]["all"]
    assert (pair["gain_points"], pair["gained"], pair["lost"]) == (-50.0, 0, 40)
    assert pair["p_value"] == pytest.approx(2 * 0.5**40)
    assert pair["improvement"] == pytest.approx(0.25)
    assert pair["pairs_for_5_points"] > 1000
    assert figures["agents"]["all"]["success_low"] < 0.97


@pytest.mark.parametrize("stop", [0.0, 0.05])
def test_a_seed_of_two_tasks_in_one_environment_counts_once(stop):
    good, bad = [1, 1, 1, 0] * 5, [0, 1, 1, 0] * 5
    for worlds, pairs in ((("a", "b"), 10), (("a", "a"), 5)):
        first, second = (entry(n, s, worlds=worlds) for n, s in (("first", good), ("second", bad)))
        figures = standings([first, second], [(first, second)], stop)
        row = figures["pairs"][0]["all"]
        assert (row["gained"], row["lost"]) == (10, 0)  # seeds, task by task
        test = sequential_p if stop else mcnemar_exact
        assert row["p_value"] == pytest.approx(test([True] * pairs, [False] * pairs))
        task = figures["agents"]["first"]["tasks"]["A"]
        same = figures["agents"]["first"]["success_low"] == pytest.approx(task["success_low"])
        assert same is (worlds == ("a", "a"))


def test_a_curve_is_of_one_task():
    plain = {"env": "Lift", "split": "train", "instruction": "", "dynamics": {}}
    other = plain | {"env": "Stack"}
    tasks = {
        "Lift": plain | {"variations": {}},
        "Lift-blue": plain | {"split": "blue", "variations": {}},
        "Lift-push1": plain | {"variations": {"push": 1}},
        "Lift-push3": plain | {"variations": {"push": 3}},
        "Stack-push2": other | {"variations": {"push": 2}},
        "Lift-slip1": plain | {"variations": {"slip": 1}},
    }
    assert _levels({"tasks": tasks}) == {"push": {0: "Lift", 1: "Lift-push1", 3: "Lift-push3"}}
    tasks["Stack-push3"] = other | {"variations": {"push": 3}}
    assert _levels({"tasks": tasks}) == {
        "push of Lift, train": {0: "Lift", 1: "Lift-push1", 3: "Lift-push3"},
        "push of Stack, train": {2: "Stack-push2", 3: "Stack-push3"},
    }
