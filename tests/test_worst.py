"""The worst dynamics: a search that finds a corner, goes on after a kill, and can be replayed."""

import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest

from robolearn import cli
from robolearn.bench.as_typed import eval_command
from robolearn.bench.suite import load_suite
from robolearn.bench.worst import POINTS, BenchWorstConfig, Remembered, _Trials, worst
from robolearn.bench.worst_report import course
from robolearn.bench.worst_search import Box, grade, score, search
from robolearn.evaluate import evaluate
from robolearn.journal import Journal
from robolearn.options import EvalConfig
from robolearn.workers import crew

REACH = "robolearn/Reach-v0"


def searched(judge, seed=0, evaluations=160, factors=(), level=2):
    box = Box(factors, level)
    ended = search(box, judge, evaluations, np.random.default_rng(seed), population=8)
    return box, ended


class Fake:
    """Scores that fall towards the corner of heavy things, little friction and much delay."""

    WORST = {"mass": 1, "friction": -1, "damping": 1, "servo": -1, "delay": 1}

    def __init__(self, box):
        self.box, self.points = box, []

    def distance(self, point):
        total = 0.0
        for name, value in point.items():
            low, high = self.box.ends[name]
            total += abs(value - (high if self.WORST[name] > 0 else low)) / (high - low)
        return total

    def __call__(self, points):
        self.points += points
        return [self.distance(point) for point in points]


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_worst_corner(seed):
    fake = Fake(Box((), 2))
    searched(fake, seed)
    found = min(fake.points, key=fake.distance)
    assert fake.distance(found) < 0.25 < fake.distance(fake.points[0])  # of 5
    assert all(
        low <= point[name] <= high
        for point in fake.points
        for name, (low, high) in fake.box.ends.items()
    )


def test_the_seed_alone_decides_and_numpys_own_generator_stays():
    courses = []
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    for seed in (1, 1, 2):
        fake = Fake(Box((), 2))
        searched(fake, seed, evaluations=24)
        courses.append(fake.points)
    assert courses[0] == courses[1] != courses[2]
    assert np.random.get_state()[1].tolist() == before


def test_it_ends_where_nothing_makes_a_difference():
    _, ended = searched(lambda points: [0.5] * len(points), evaluations=800)
    assert ended != "budget"


def test_the_box_is_as_wide_as_variations_of_its_level():
    assert Box((), 4).ends == {
        "mass": (0.5, 2.0),
        "friction": (0.4, 2.5),
        "damping": (0.5, 2.0),
        "servo": (0.6667, 1.5),
        "delay": (0.0, 0.1),
    }
    assert Box(("mass", "delay"), 2).ends == {"mass": (0.7071, 1.414), "delay": (0.0, 0.05)}
    assert Box(("mass", "delay"), 2).point(np.zeros(2)) == {"mass": 1.0, "delay": 0.025}


@pytest.mark.parametrize(
    ("names", "level", "words"),
    [
        ((), 0, "--level is 0; choose one from 1 to 4"),
        ((), 5, "--level is 5"),
        (("mass", "wind"), 2, "no factor 'wind'; choose from mass, friction, damping, servo"),
        (("mass",), 2, "give --factors two different names or more"),
        (("mass", "mass"), 2, "give --factors two different names or more"),
    ],
)
def test_what_no_box_is(names, level, words):
    with pytest.raises(ValueError, match=words):
        Box(names, level)


def solved(length):
    return {"success": True, "progress": 1.0, "length": length}


def failed(progress):
    return {"success": False, "progress": progress, "length": 100}


def test_fewer_successes_are_worse_then_less_progress_then_more_time():
    soon, late, nearly, hardly = solved(20), solved(90), failed(0.9), failed(0.1)
    worse_and_worse = [
        [soon, soon],
        [soon, late],
        [soon, nearly],
        [late, nearly],
        [late, hardly],
        [nearly, nearly],
        [hardly, hardly],
    ]
    scores = [score(episodes, limit=100) for episodes in worse_and_worse]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)
    assert 0.0 <= scores[-1] < scores[0] <= 1.0
    assert grade(solved(100), 100) == grade(failed(1.0), 100) == 0.5


def played(trials, counted):
    """Rows of a policy that takes ever longer and fails ever more often with ever more mass."""
    for dynamics, seed in trials:
        counted.append((dynamics["mass"], seed))
        success = seed % 10 / 10 + 0.75 > dynamics["mass"] - dynamics["friction"] / 10
        yield solved(int(100 * dynamics["mass"])) if success else failed(0.5)


class Killed(Exception):
    """As if by a signal."""


def test_a_killed_search_goes_on_and_ends_the_same(tmp_path):
    settings = EvalConfig(policy="expert", env=REACH, episodes=5)

    def run(path, counted, dies_after=1000):
        done = []

        def advance():
            done.append(1)
            if len(done) == dies_after:
                raise Killed

        with Journal(path, {"about": 1}) as journal:
            judge = Remembered(settings, lambda t: played(t, counted), journal, advance)
            searched(judge, evaluations=40, factors=("mass", "friction"), level=4)
        return judge.course

    whole, first, second = [], [], []
    expected = run(tmp_path / "whole", whole)
    with pytest.raises(Killed):
        run(tmp_path / "cut", first, dies_after=13)
    assert run(tmp_path / "cut", second) == expected
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()
    assert first[: 13 * 5] + second == whole
    assert 13 < len(expected) <= 40
    assert {seed for _, seed in whole} == set(range(5))
    assert course(expected)[1][-1] == min(row["successes"] for row in expected) / 5


def test_a_crew_plays_every_point_as_one_process_does():
    """Its workers stay from generation to generation, and open each dynamics anew."""
    trials = _Trials(EvalConfig(policy="expert", env=REACH))
    points = [{"mass": 1.5, "delay": 0.08}, {"mass": 1.0, "delay": 0.0}]
    generations = [[(point, seed) for point in points for seed in (0, 1)], [(points[0], 0)]]
    outcomes = []
    for workers in (0, 1):
        with crew(trials, workers) as play:
            rows = [row for generation in generations for row in play(generation)]
        outcomes.append([(row["seed"], row["length"], row["moves"]) for row in rows])
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == outcomes[0][4] != outcomes[0][2]


def config(out, **changes):
    small = {"episodes": 2, "evaluations": 4, "population": 4, "fresh": 3, "videos": 1}
    settings = {"policy": "expert", "env": REACH, "level": 4, "workers": 0, **small}
    return BenchWorstConfig(out=out, **{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny search of a real task."""
    settings = config(tmp_path_factory.mktemp("worst"))
    return settings, worst(settings)


def test_the_result_says_what_was_found_on_fresh_seeds(finished):
    settings, figures = finished
    stored = json.loads((settings.out / "result.json").read_text())
    assert {key: stored[key] for key in figures} == json.loads(json.dumps(figures))
    points = stored["search"]["points"]
    assert points[0]["dynamics"] == {
        "mass": 1.0,
        "friction": 1.0,
        "damping": 1.0,
        "servo": 1.0,
        "delay": 0.0,
    }
    assert stored["search"]["found"] == min(points, key=lambda row: row["score"])
    assert stored["dynamics"] == stored["search"]["found"]["dynamics"]
    assert (stored["search"]["seeds"], stored["worst"]["seeds"]) == ([0, 1], [2, 4])
    assert stored["nominal"]["seeds"] == [2, 4]
    assert {"success_low", "success_high"} <= stored["worst"].keys()
    assert {"p_value", "gain_points_low", "lost"} <= stored["pair"].keys()
    assert {"command", "versions", "config_hash"} <= stored.keys()


def test_the_page_stands_alone(finished):
    settings, figures = finished
    text = (settings.out / "worst.html").read_text()
    assert shlex.split(figures["replay"])[:2] == ["robolearn", "eval"]
    assert "data:video/mp4;base64," in text
    assert text.count("<svg") == 6
    assert "http" not in text.replace("http-equiv", "")


def test_what_was_found_can_be_typed_again(finished, tmp_path, monkeypatch):
    settings, figures = finished
    typed = []
    monkeypatch.setattr("robolearn.evaluate.main", lambda config: typed.append(config) or 0)
    assert cli.main(shlex.split(figures["replay"])[1:]) == 0
    (again,) = typed
    assert again.dynamics == figures["dynamics"]
    assert again.episodes == 3
    result = evaluate(replace(again, out=tmp_path, videos=0, workers=0))
    before = json.loads((settings.out / "worst" / "result.json").read_text())["episodes"]
    played = [(e["seed"], e["success"], e["length"]) for e in result["episodes"]]
    assert played == [(e["seed"], e["success"], e["length"]) for e in before]


def test_every_option_is_replayed_as_it_was():
    settings = EvalConfig(
        policy="a run", env=REACH, guided=False, ensemble=-0.1, goal=("a", "b"), delay=2, seed=5
    )
    words = shlex.split(eval_command(settings))
    assert "--no-guided" in words
    assert words[words.index("--goal") :][:3] == ["--goal", "a", "b"]
    assert words[words.index("--policy") + 1] == "a run"
    assert "--episodes" not in words


def test_its_suite_has_both_dynamics(finished):
    settings, figures = finished
    nominal, found = load_suite(str(settings.out / "suite.toml")).tasks
    assert (nominal.env, nominal.dynamics) == (REACH, {})
    assert found.dynamics == figures["dynamics"]


def test_a_finished_search_plays_nothing_again_and_more_goes_on(finished, tmp_path, monkeypatch):
    settings, figures = finished
    settings = replace(settings, out=shutil.copytree(settings.out, tmp_path / "copy"))
    with monkeypatch.context() as patched:
        patched.setattr("robolearn.bench.worst._Player.run", lambda *trial: 1 / 0)
        patched.setattr("robolearn.evaluate.run_seeds", lambda *job: 1 / 0)
        assert worst(settings) == figures
    points = settings.out / POINTS
    before = points.read_bytes()
    more = worst(replace(settings, evaluations=8))
    assert points.read_bytes().startswith(before)
    assert more["search"]["points"][:5] == figures["search"]["points"]
    assert len(more["search"]["points"]) == 9
    with pytest.raises(ValueError, match=r"other settings \(episodes .*take another --out"):
        worst(replace(settings, episodes=3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--level", "9"], "--level is 9; choose one from 1 to 4"),
        (["--factors", "mass", "wind"], "no factor 'wind'; choose from mass, friction"),
        (["--env", "robolearn/Rech-v0"], "no environment 'robolearn/Rech-v0'; near matches"),
        (["--policy", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_gets_a_sentence(tmp_path, capsys, options, words):
    typed = ["--policy", "expert", "--env", REACH, "--out", str(tmp_path / "out"), *options]
    assert cli.main(["bench", "worst", *typed]) == 1
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"population": 2}, "--population is 2; give it 4 or more"),
        ({"evaluations": 3}, "--evaluations is 3; give it 8 or more"),
        ({"fresh": 0}, "--fresh is 0; give it 1 or more"),
    ],
)
def test_counts_that_leave_nothing_to_do(counts, words):
    with pytest.raises(ValueError, match=words):
        BenchWorstConfig(policy="expert", **counts)


def test_it_prints_what_it_found(finished, capsys):
    settings, _ = finished
    typed = ["--policy", "expert", "--env", REACH, "--level", "4", "--out", str(settings.out)]
    counts = {"episodes": 2, "evaluations": 4, "population": 4, "fresh": 3, "workers": 0}
    small = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    assert cli.main(["bench", "worst", *typed, *small]) == 0
    text = capsys.readouterr().out
    assert "worst: mass" in text
    assert "on fresh seeds" in text
    assert "robolearn eval --policy expert" in text
