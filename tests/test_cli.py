"""The command line: help at once, errors in one line, and the whole way in one command."""

import json
import os
import signal
import subprocess
import sys

import pytest
import toy

from robolearn import cli
from robolearn.demo import SIZES, demo
from robolearn.options import DemoConfig

HEAVY = ("torch", "mujoco", "lerobot", "accelerate", "matplotlib", "scipy", "av")
HELP = """
import sys
from robolearn.cli import main
try:
    main(sys.argv[1:])
finally:
    print()
    print(*sys.modules)
"""


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_imports_nothing_heavy(command):
    output = subprocess.run(
        [sys.executable, "-c", HELP, *command.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    modules = output.splitlines()[-1].split()
    assert output.startswith("usage: ")
    assert "robolearn.cli" in modules
    assert not [name for name in HEAVY if name in modules]


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    assert cli.main(["-h"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    assert cli.main([]) == 2


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"robolearn {command}" in text
    assert "noqa" not in text
    config = cli.COMMANDS[command][1]
    fields = getattr(cli._load(config), "__dataclass_fields__", {}) if config else {}
    assert all(name.replace("_", "-") in text.lower() for name in fields)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_unknown_options_are_an_error(command, capsys):
    needed = ["pusht"] if command == "bench-foreign" else []
    needed += ["runs/x/eval"] if command in ("report", "bench run", "bench compare") else []
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), *needed, "--wings", "2"])
    assert ended.value.code == 2
    assert "--wings" in capsys.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("evaluate", "eval"), ("?", "")])
def test_an_unknown_command_gets_its_near_match(typed, meant, capsys):
    assert cli.main([typed]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"no command {typed!r}; did you mean '{meant}" in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("eval --policy {tmp}/none", "neither a checkpoint nor a run with checkpoints"),
        ("eval --policy {run} --out {tmp}/e --env robolearn/Pick", "near matches: robolearn/"),
        ("train --data {tmp}/none --out {tmp}/run", "holds no recorded episode"),
        ("train --data {data} --out {run}", "holds a run; add --resume"),
        ("train --data {data} --out {tmp}/run --resume", "no checkpoint to resume"),
        ("train --data {data} --out {tmp}/run --device warp", "no device 'warp'"),
        ("record --out {tmp}/d --env robolearn/Fly-v0", "no environment 'robolearn/Fly-v0'"),
        ("report {tmp}/none", "holds no result.json"),
        ("demo --out {tmp}/f/x --preset tiny --workers 0", "cannot write to"),
    ],
)
def test_bad_input_is_one_line_on_stderr(tmp_path, toy_data, toy_run, capsys, arguments, message):
    (tmp_path / "f").write_text("in the way")
    arguments = arguments.format(tmp=tmp_path, data=toy_data, run=toy_run).split()
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("robolearn ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"robolearn {arguments[0]}: ")
    assert message in lines[0]
    assert "Traceback" not in captured.err


def test_a_bug_shows_where_it_is(monkeypatch):
    monkeypatch.setattr("robolearn.list_envs.env_ids", lambda: [].pop())
    with pytest.raises(IndexError):
        cli.main(["envs"])


def test_the_environments_are_listed(capsys):
    assert cli.main(["envs"]) == 0
    assert "robolearn/PickPlace-v0" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_finished(tmp_path):
    """Also that the workers, which get the signal too, do not print a traceback each."""
    arguments = ["record", "--out", str(tmp_path / "d"), "--env", toy.ENV_ID, "--workers", "2"]
    arguments += ["--image-size", "12", "16", "--episodes", "1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "robolearn", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
        start_new_session=True,
    )
    info = tmp_path / "d" / "meta" / "info.json"
    while not info.exists():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    assert "robolearn record: interrupted; what is on disk stays" in said
    assert "Traceback" not in said
    assert json.loads(info.read_text())["total_episodes"] >= 1


def test_the_demo_goes_the_whole_way(demo_folder):
    """The smoke test of everything: real simulator, camera images, default policy, videos."""
    run = demo_folder / "runs" / "demo"
    assert "data:video/mp4;base64," in (run / "report.html").read_text()
    summary = json.loads((demo_folder / "results" / "tiny.json").read_text())
    assert summary["command"].startswith("robolearn demo --preset tiny")
    assert summary["n"] == SIZES["tiny"].evaluate
    figures = {"success", "success_low", "success_high", "success_shuffled_instructions"}
    assert figures | {"wall_seconds", "versions", "seeds", "config_hash"} <= summary.keys()
    shuffled = json.loads((run / "eval-shuffled" / "result.json").read_text())
    assert shuffled["instructions"] == "shuffled"
    # What is there is gone on with, so other settings are refused.
    with pytest.raises(ValueError, match="holds the demo 'tiny' with seed 0"):
        demo(DemoConfig("tiny", run, workers=0, seed=5))


def test_a_demo_that_was_stopped_before_the_first_checkpoint_starts_again(tmp_path, monkeypatch):
    """A crash while it is written leaves an unfinished folder, which is nothing to resume."""
    (tmp_path / "checkpoints" / "0000020.partial" / "model").mkdir(parents=True)
    asked = []
    monkeypatch.setattr("robolearn.demo.record", lambda config: None)
    monkeypatch.setattr("robolearn.demo.train", asked.append)
    monkeypatch.setattr("robolearn.demo.evaluate", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo(DemoConfig("tiny", tmp_path))
    assert [config.resume for config in asked] == [False]
