"""`robolearn reproduce`: what runs again, and which figures count as moved."""

import json
import sys
from pathlib import Path

import pytest

from robolearn import cli
from robolearn.bench import reproduce as module
from robolearn.bench.reproduce import Moved, ReproduceConfig, alike, anew, main, reproduce

README = """<!-- table:serve -->
<!-- /table -->
<!-- table:success -->
<!-- /table -->
"""

SERVE = {
    "command": "robolearn bench-serve --policy runs/demo",
    "config": {"results": "docs/results"},
}


def demo(success=0.9, low=0.85, high=0.94, seconds=600.0):
    """A result file of the demo."""
    return {
        "command": "robolearn demo --results docs/results",
        "config": {"out": "runs/demo", "results": "docs/results"},
        "success": success,
        "success_low": low,
        "success_high": high,
        "success_shuffled_instructions": 0.1,
        "n": 200,
        "seeds": [0, 199],
        "wall_seconds": seconds,
        "latency_ms": {"p50": 10.0, "p99": 20.0},
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A checkout with one result, and what the commands that run would write."""
    results = tmp_path / "docs/results"
    results.mkdir(parents=True)
    (results / "demo.json").write_text(json.dumps(demo()))
    (tmp_path / "README.md").write_text(README)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def commands(monkeypatch):
    """What runs, and what it finds: a dict of result files that may be changed."""
    ran, found = [], {"demo": demo()}

    def run(arguments, *, check):
        assert not check
        assert arguments[:3] == [sys.executable, "-m", "robolearn"]
        ran.append(arguments[3:])
        folder = Path(arguments[arguments.index("--results") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        for name, figures in found.items():
            (folder / f"{name}.json").write_text(json.dumps(figures))
        return type("Done", (), {"returncode": 0 if found else 1})

    monkeypatch.setattr(module.subprocess, "run", run)
    return ran, found


def test_the_command_runs_anew_in_a_folder_of_its_own(project, commands):
    ran, _ = commands
    assert main(ReproduceConfig()) == 0
    out = "runs/reproduce"
    assert ran == [["demo", "--out", f"{out}/demo", "--results", f"{out}/results"]]
    assert main(ReproduceConfig()) == 0
    assert len(ran) == 1  # it was done


def test_what_moved_is_named(project, commands, capsys):
    _, found = commands
    found["demo"] = demo(success=0.7, low=0.63, high=0.76, seconds=660.0)
    (cell,), _ = reproduce(ReproduceConfig())
    assert isinstance(cell, Moved)
    assert (cell.table, cell.column) == ("success", "preset `demo`")
    assert (cell.before[:8], cell.now[:8]) == ("**90 %**", "**70 %**")
    assert main(ReproduceConfig()) == 1
    assert "1 of the figures moved" in capsys.readouterr().out


def test_parts_that_are_done_are_not_run_again(project, commands):
    ran, found = commands
    parts = {
        name: {"command": f"robolearn bench --parts {name}", "config": {}}
        for name in ("env", "data")
    }
    for part in parts.values():
        part["config"] = {"results": "docs/results"}
    speed = {"parts": parts}
    (project / "docs/results/speed.json").write_text(json.dumps(speed))
    found |= {"speed": {"parts": {"env": parts["env"]}}}
    reproduce(ReproduceConfig(only=("speed",)))
    assert [line[-2:] for line in ran] == [["--parts", name] for name in ("env", "data")]
    ran.clear()
    reproduce(ReproduceConfig(only=("speed",)))
    assert [line[-1] for line in ran] == ["data"]  # which still left nothing


def test_a_command_that_fails_says_so(project, commands, capsys):
    commands[1].clear()
    (project / "docs/results/serve.json").write_text(json.dumps(SERVE))
    assert reproduce(ReproduceConfig()) == ([], ["demo", "serve"])  # one keeps no other from it
    assert main(ReproduceConfig()) == 1
    assert "demo, serve could not be made again: see above" in capsys.readouterr().out


def test_unknown_names_are_refused(project):
    with pytest.raises(ValueError, match="no result speed in docs/results; there are demo"):
        reproduce(ReproduceConfig(only=("speed",)))


def test_runs_are_of_this_reproduction_and_policies_too():
    asked = {"command": "robolearn x --policy runs/demo --out a b --agents a=runs/long/run --n 9"}
    folders = {"out": Path("new/arm"), "results": Path("new/results")}
    found = anew({**asked, "config": {"out": "a"}}, folders, Path("new"))
    expected = "x --policy new/demo b --agents a=new/long/run --n 9 --out new/arm"
    assert found == expected.split()
    asked = {"command": "robolearn x --policy runs/other --data runs/more", "config": {}}
    found = anew(asked, folders, Path("new"))  # nothing here makes the other one
    assert found == ["x", "--policy", "new/demo", "--data", "runs/more"]


def test_rows_of_several_commands_are_measured_at_once(project, commands):
    ran, found = commands
    asked = {"command": "robolearn bench --results=there --tasks Write Lift --parts experts"}
    asked |= {"config": {"tasks": ["Write", "Lift"], "results": "docs/results"}}
    experts = {**asked, "tasks": {"Write": {}, "Lift": {}, "Push": {}}}
    (project / "docs/results/experts.json").write_text(json.dumps(experts))
    found |= {"experts": experts}
    reproduce(ReproduceConfig(only=("experts",)))
    assert ran[0][:3] == ["bench", "--parts", "experts"]
    assert not {"--tasks", "Write", "--results=there"} & {*ran[0]}


def test_all_results_of_this_project_can_be_made_anew(monkeypatch, tmp_path):
    """With options that there still are, in folders of their own, with policies made before."""
    ran = []
    for name, _, _ in cli.COMMANDS.values():
        monkeypatch.setattr(f"robolearn.{name}.main", lambda config: ran.append(config) or 0)
    monkeypatch.setattr(module, "_runs", lambda _, arguments: not cli.main(arguments))
    monkeypatch.chdir(Path(module.__file__).parents[2])
    made = tmp_path / "new"
    reproduce(ReproduceConfig(out=made))
    assert {config.results for config in ran} == {made / "results"}
    outs = [config.out for config in ran if hasattr(config, "out")]
    assert len({*outs}) == len(outs)
    assert all(out.is_relative_to(made) for out in outs)
    parts = [config.parts for config in ran if hasattr(config, "parts")]
    assert {("worlds",), ("faults",), ("peers",)} <= {*parts}
    policies = [Path(config.policy) for config in ran if hasattr(config, "policy")]
    assert {*policies} == {made / "demo"}
    assert {*policies} < {*outs}


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("**90 %** (85 % to 94 %), n = 200", "**86 %** (80 % to 90 %), n = 200", True),
        ("**90 %** (85 % to 94 %), n = 200", "**70 %** (63 % to 76 %), n = 200", False),
        ("10 and 20 ms", "11 and 22 ms", True),
        ("10 and 20 ms", "10 and 40 ms", False),
        ("296,960", "300,000", True),
        ("9 % (8 % to 10 %) and 5 % (4 % to 6 %)", "9 % (8 % to 10 %) and 5 % (4 % to 6 %)", True),
        ("9 % (8 % to 10 %) and 5 % (4 % to 6 %)", "9 % (8 % to 10 %) and 3 % (2 % to 3 %)", False),
        ("+12.0 (p 1e-05)", "+8.1 (p 0.002)", True),
        ("+12.0 (p 1e-05)", "+1.1 (p 0.6)", False),
        ("+12.0 (p 1e-05)", "-12.0 (p 1e-05)", False),
        ("-0.3 (p 0.9)", "+0.3 (p 0.9)", True),
        ("not measured yet", "12 %", False),
        ("`robolearn demo`", "`robolearn demo --out x`", True),
    ],
)
def test_a_cell_moves_when_it_says_something_else(before, now, same):
    assert alike(before, now, 0.25) is same
