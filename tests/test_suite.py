"""Suites: whatever may change a number is part of their hash."""

import pytest
import toy

from robolearn.bench.suite import NOT_THE_SUITES, Suite, SuiteTask, load_suite, suite_names
from robolearn.options import EvalConfig

PLAIN = {"title": "two", "episodes": 3, "tasks": (SuiteTask(toy.ENV_ID),)}


def suite(**changes):
    return Suite(**{**PLAIN, **changes})


@pytest.mark.parametrize("name", suite_names())
def test_the_projects_suites_can_be_read(name):
    found = load_suite(name)
    assert found.name == name
    assert found.title
    assert len(found.hash) == 12
    assert len({load_suite(other).hash for other in suite_names()}) == len(suite_names())


@pytest.mark.parametrize(
    "changes",
    [
        {"episodes": 4},
        {"seed": 1},
        {"replan_every": 2},
        {"candidates": 8},
        {"paraphrases": "train"},
        {"stop": 0.05},
        {"tasks": (SuiteTask(toy.ENV_ID, split="novel_scene"),)},
        {"tasks": (SuiteTask(toy.ENV_ID, variations={"push": 1}),)},
        {"tasks": (SuiteTask(toy.ENV_ID, instruction=toy.INSTRUCTIONS[0]),)},
        {"tasks": (SuiteTask("robolearn/Lift-v0"),)},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
def test_what_changes_a_number_changes_the_hash(changes):
    assert suite(**changes).hash != suite().hash


def test_what_changes_no_number_does_not():
    assert suite(title="other", name="x", agents={"expert": "expert"}).hash == suite().hash


def test_every_setting_of_an_evaluation_is_fixed_unless_it_is_the_agents():
    """A setting that is added to evaluations is part of the hash by itself."""
    (fixed,) = suite().fixed()["tasks"].values()
    assert fixed.keys() == (set(vars(EvalConfig(policy=""))) - {*NOT_THE_SUITES}) | {"steps"}
    assert fixed["steps"] == toy.STEPS


def test_only_agents_with_a_scorer_have_candidates():
    task = suite().tasks[0]
    assert suite().settings(task, "x").candidates == 1
    assert suite().settings(task, "x", scorer="taco").candidates == 16


@pytest.mark.parametrize(
    ("task", "label"),
    [
        (SuiteTask("robolearn/Lift-v0"), "Lift"),
        (SuiteTask("toy:Toy-v0", split="novel_scene"), "Toy-novel_scene"),
        (SuiteTask("robolearn/Lift-v0", variations={"slip": 2, "mass": 1}), "Lift-mass1-slip2"),
    ],
)
def test_labels_tell_tasks_apart(task, label):
    assert task.label == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = 'x'\nepisodes = 1\ntasks = []", "one task or more; this one has none"),
        ("title = 'x'\nepisodes = 0\ntasks = [{env = 'a'}]", "1 episode or more"),
        (
            "title = 'x'\nepisodes = 1\ntasks = [{env = 'a'}, {env = 'a'}]",
            "two of its tasks are called a",
        ),
        ("title = 'x'\nepisodes = 1\nspeed = 2\ntasks = [{env = 'a'}]", "unknown key speed"),
        ("title = 'x'\ntasks = [{env = 'a'}]", "episodes"),
        ("title = ", "is no suite"),
    ],
)
def test_what_is_no_suite_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_suite(str(path))


def test_an_unknown_suite_or_environment_is_named():
    with pytest.raises(ValueError, match=r"no suite 'fast'; choose among .*pick-place, "):
        load_suite("fast")
    with pytest.raises(ValueError, match=r"near matches: robolearn/Lift-v0"):
        assert suite(tasks=(SuiteTask("robolearn/Lifts-v0"),)).hash
