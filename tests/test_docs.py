"""The documents: what they tell people to type works, and their tables are what was measured."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir
from importlib import import_module
from pathlib import Path

import gymnasium
import pytest
from PIL import Image
from test_packaging import git_files

from robolearn import cli, docs
from robolearn.bench import taco_tables
from robolearn.bench.aloe_tables import aloe_table
from robolearn.bench.taco_report import ABLATIONS, SCORERS
from robolearn.hardware.env import PARKED
from robolearn.hardware.guardian import DIED
from robolearn.hardware.safety_types import Fault

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*docs.documents(ROOT), ROOT / "docs" / "results" / "README.md"]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

# What is too long or would change this machine, and what runs in its place. Every other command has
# to be in AS_IT_IS. For `make demo`, the fixture `demo_folder` has run the smallest preset.
INSTEAD = {
    "make setup": "make -n setup",
    "make demo": "make -n demo",
    "make test": "make -n test",
    "make lint typecheck": "make -n lint typecheck",
    "make bench": "make -n bench",
    "make docs": "make -n docs",
    'make test ARGS="-k units"': 'make -n test ARGS="-k units"',
    "source .venv/bin/activate": "test -x $(command -v robolearn)",
    "pre-commit install": "pre-commit validate-config .pre-commit-config.yaml",
    "python -m pytest tests/test_stats.py": "python -m pytest -p no:cacheprovider "
    "tests/test_stats.py",
    "python docs/picture.py": "python docs/picture.py $FOLDER/picture.png",
    "robolearn envs --gallery docs": "robolearn envs --gallery $FOLDER/gallery "
    "--only robolearn/Reach-v0",
    # A window, a person at the keyboard, and what takes long.
    "robolearn record --out data/mine --env robolearn/Stack-v0 --teleop keyboard --viewer "
    "--episodes 20": "true",
    "robolearn bench --parts experts tasks": "true",
    "robolearn bench --parts peers": "true",
    "robolearn bench --parts soak": "true",
    "robolearn bench run quick": "robolearn bench run quick --videos 1 --workers 0",
    "robolearn bench run tabletop --agents flow=runs/demo taco=runs/demo+taco": "true",
    "robolearn bench compare runs/older runs/bench/tabletop": "cp -r runs/bench/quick runs/older "
    "&& robolearn bench compare runs/older runs/bench/quick",
    # Needs a package of others and its simulator; tests/test_foreign.py has a toy.
    "robolearn envs --install metaworld": "true",
    "robolearn record --env foreign:metaworld/reach-v3 --out data/reach "
    "--variations tremble 4": "true",
    "robolearn record --env foreign:metaworld/reach-v3 --obs-type state --out data/mw "
    "--episodes 50": "true",
    "robolearn train --data data/mw --obs-type state --out runs/mw": "true",
    "robolearn eval --policy runs/mw": "true",
    "robolearn bench run metaworld-mt10": "true",
    "robolearn bench-arm --policy runs/demo": "true",
    "robolearn bench-taco --policy runs/demo": "true",
    "robolearn bench-aloe": "true",
    "robolearn bench-aloe --obs-type pixels_agent_pos": "true",
    "robolearn bench-act2goal": "true",
    "robolearn improve --base runs/demo --out runs/improved --rounds 3": "robolearn improve "
    "--base runs/demo --out runs/improved --rounds 1 --episodes 1 --evaluate 1 --videos 0 "
    "--workers 0 --algo.critic.steps 2 --algo.actor.steps 2",
    "robolearn online --out runs/online": "robolearn online --out runs/online --iterations 1 "
    "--episodes 1 --slots 1 --algo.decoder-steps 2",
    "robolearn eval --policy runs/online --replan-every 8": "robolearn eval --policy runs/online "
    "--replan-every 8 --episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/improved --scorer critic --candidates 16 --replan-every 8": ""
    "robolearn eval --policy runs/improved --scorer critic --candidates 16 --replan-every 8 "
    "--episodes 1 --videos 0 --workers 0",
    "robolearn bench-serve --policy runs/demo": "true",
    # Needs two GPUs; tests/test_train_processes.py has two processes.
    "accelerate launch --multi_gpu --num_processes 2 -m robolearn train --data data/cubes "
    "--out runs/cubes --device cuda": "true",
    # Starts a cluster; tests/test_cluster.py has one.
    "robolearn bench-scale --policy runs/demo": "true",
    "robolearn eval --policy runs/demo --ray local": "true",
    "robolearn record --out data/cubes --ray auto": "true",
    "robolearn bench-policies": "true",
    "robolearn bench-foreign metaworld --variations tremble 4": "true",
    "robolearn bench-foreign aloha --tasks gym_aloha/AlohaTransferCube-v0 "
    "--variations tremble 1": "true",
    "robolearn bench-foreign pusht --demonstrations 200": "true",
    "robolearn record --out data/cubes": "robolearn record --out data/cubes --episodes 2 "
    "--workers 0",
    "robolearn train --data data/cubes --out runs/cubes": "robolearn train --data data/cubes "
    "--out runs/cubes --steps 2 --batch-size 4 --threads 1",
    "robolearn train --policy diffusion --data data/cubes --out runs/diffusion": "robolearn train "
    "--policy diffusion --data data/cubes --out runs/diffusion --steps 2 --batch-size 4 "
    "--threads 1",
    "robolearn eval --policy runs/diffusion --out runs/diffusion/eval": "robolearn eval "
    "--policy runs/diffusion --out runs/diffusion/eval --episodes 1 --videos 0 --workers 0",
    "robolearn train --policy taco --base runs/demo": "robolearn train --policy taco "
    "--base runs/demo --frames 64 --policy.fourier 64",
    "robolearn eval --policy runs/demo --scorer taco --candidates 16": "robolearn eval "
    "--policy runs/demo --scorer taco --candidates 16 --episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/demo --delay 4": "robolearn eval --policy runs/demo --delay 4 "
    "--episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/cubes": "robolearn eval --policy runs/cubes --episodes 1 "
    "--videos 0 --workers 0",
    "robolearn eval --policy runs/demo --variations push 2": "robolearn eval --policy runs/demo "
    "--variations push 2 --episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/demo --variations camera 1 light 2 --videos 0": "robolearn eval "
    "--policy runs/demo --variations camera 1 light 2 --episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/demo --dynamics mass 1.4 friction 0.6": "robolearn eval "
    "--policy runs/demo --dynamics mass 1.4 friction 0.6 --episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/demo --dynamics mass 1.4 friction 0.6 delay 0.05": "robolearn "
    "eval --policy runs/demo --dynamics mass 1.4 friction 0.6 delay 0.05 --episodes 1 --videos 0 "
    "--workers 0",
    "robolearn bench worst --policy runs/demo --level 2 --out runs/worst": "robolearn bench worst "
    "--policy runs/demo --level 2 --out runs/worst --episodes 1 --evaluations 4 --population 4 "
    "--fresh 1 --videos 1 --workers 0",
    "robolearn record --out data/varied --variations texture 2 distractors 2": "robolearn record "
    "--out data/varied --variations texture 2 distractors 2 --episodes 1 --workers 0",
    "robolearn train --policy act2goal --data data/cubes --out runs/a2g": "robolearn record "
    "--out data/cubes --episodes 2 --workers 0 && robolearn train --policy act2goal "
    "--data data/cubes --out runs/a2g --steps 2 --batch-size 4 --threads 1 "
    "--policy.autoencoder-steps 2",
    "robolearn eval --policy runs/a2g": "robolearn eval --policy runs/a2g --episodes 1 --videos 1 "
    "--workers 0",
    "robolearn eval --policy runs/a2g --goal top=top.png wrist=wrist.png --episodes 1": "robolearn "
    "eval --policy runs/a2g --goal top=top.png wrist=wrist.png --episodes 1 --videos 0 --workers 0",
    "robolearn eval --policy runs/a2g --goal words --goal-data data/cubes": "robolearn eval "
    "--policy runs/a2g --goal words --goal-data data/cubes --episodes 1 --videos 0 --workers 0 "
    '--instruction "pick up the red cube and put it in the blue bin"',
    "robolearn train --policy subgoal-filter --base runs/a2g": "robolearn train "
    "--policy subgoal-filter --base runs/a2g --policy.steps 2",
    "robolearn eval --policy runs/a2g --scorer subgoal-filter --candidates 4": "robolearn eval "
    "--policy runs/a2g --scorer subgoal-filter --candidates 4 --episodes 1 --videos 0 --workers 0",
    "robolearn train --policy goal-writer --base runs/a2g": "robolearn train --policy goal-writer "
    "--base runs/a2g --policy.steps 2",
    "robolearn eval --policy runs/a2g --goal imagined": "robolearn eval --policy runs/a2g --goal "
    "imagined --episodes 1 --videos 0 --workers 0",
    "robolearn train --policy susie --data data/cubes --out runs/susie": "robolearn train --policy "
    "susie --data data/cubes --out runs/susie --steps 2 --batch-size 4 --threads 1 "
    "--policy.autoencoder-steps 2",
    "robolearn eval --policy runs/susie": "robolearn eval --policy runs/susie --episodes 1 "
    "--videos 0 --workers 0",
    "robolearn train --policy cem --data data/cubes --out runs/cem": "robolearn train --policy cem "
    "--data data/cubes --out runs/cem --steps 2 --batch-size 4 --threads 1 "
    "--policy.autoencoder-steps 2",
    "robolearn eval --policy runs/cem": "robolearn eval --policy runs/cem --episodes 1 "
    "--videos 0 --workers 0",
    "robolearn adapt --policy runs/a2g --env robolearn/PickPlace-v0 --split novel_scene "
    "--minutes 10 --out runs/adapted": "robolearn adapt --policy runs/a2g --env "
    "robolearn/PickPlace-v0 --split novel_scene --out runs/adapted --rounds 1 --episodes 1 "
    "--steps 8 --updates 2 --batch-size 4 --evaluate 1 --workers 0",
    "robolearn eval --policy runs/adapted --split novel_scene": "robolearn eval --policy "
    "runs/adapted --split novel_scene --episodes 1 --videos 0 --workers 0",
    "robolearn train --data data/cubes --out runs/shown --policy.goal pictures": "robolearn train "
    "--data data/cubes --out runs/shown --policy.goal pictures --steps 2 --batch-size 4 "
    "--threads 1",
    "robolearn train --policy saw --data data/cubes --out runs/saw": "robolearn train --policy saw "
    "--data data/cubes --out runs/saw --steps 2 --batch-size 4 --threads 1",
    "robolearn eval --policy runs/saw": "robolearn eval --policy runs/saw --episodes 1 --videos 0 "
    "--workers 0",
    "robolearn eval --policy runs/shown": "robolearn eval --policy runs/shown --episodes 1 "
    "--videos 0 --workers 0",
    "robolearn deploy --policy runs/demo": "robolearn deploy --policy runs/demo --seconds 1",
    "robolearn deploy --policy runs/a2g --goal top=top.png wrist=wrist.png": "robolearn deploy "
    "--policy runs/a2g --goal top=top.png wrist=wrist.png --seconds 1",
    # Videos in place of cameras; and a policy that has learned nothing, if no page before had one.
    "robolearn goal-picture --policy runs/a2g --cameras top /dev/video0 wrist /dev/video2 "
    "--out goal": "robolearn record --out data/cubes --episodes 2 --workers 0 && robolearn train "
    "--policy act2goal --data data/cubes --out runs/arm-a2g --steps 2 --batch-size 4 --threads 1 "
    "--policy.autoencoder-steps 2 && robolearn goal-picture --policy runs/arm-a2g --out goal "
    "--cameras top $(ls data/cubes/videos/*top/*/* | head -n 1) "
    "wrist $(ls data/cubes/videos/*wrist/*/* | head -n 1)",
    "robolearn deploy --policy runs/a2g --goal top=goal/top.png wrist=goal/wrist.png": "robolearn "
    "deploy --policy runs/arm-a2g --goal top=goal/top.png wrist=goal/wrist.png --seconds 1",
    # Large models of others; tests/test_backbones.py has small ones.
    "robolearn train --data data/cubes --out runs/dino --policy.backbone pretrained": "true",
    "robolearn train --data data/cubes --out runs/stable --policy.backbone stable-control": "true",
    # Likewise; tests/test_video_model.py has a small one.
    "robolearn train --policy act2goal --data data/cubes --out runs/a2g-video "
    "--policy.video Lightricks/LTX-Video --policy.video-lora 16": "true",
    # Only parsed, by another test below: a preset, a device and a folder other than those above.
    "robolearn demo --results docs/results": "true",
    "robolearn demo --preset long --out runs/long --results docs/results": "true",
    "robolearn eval --policy runs/demo --device cuda --out runs/demo/eval-cuda": "true",
}
AS_IT_IS = {
    "robolearn report runs/cubes/eval",
    "robolearn report runs/a2g/eval",
    "robolearn doctor",
    "robolearn bench list",
    "robolearn envs",
    "robolearn card --policy runs/demo",
}
# These work on the checkout, all others in `demo_folder`.
IN_CHECKOUT = ("make ", "pre-commit ", "python ")

RESULT = {
    "command": "robolearn demo --results docs/results",
    "versions": {"mujoco": "4.0.0"},
    "success": 0.915,
    "success_low": 0.868,
    "success_high": 0.9463,
    "n": 200,
    "seeds": [0, 199],
    "success_shuffled_instructions": 0.2,
    "wall_seconds": 1330.0,
    "latency_ms": {"p50": 11.4, "p99": 20.6},
}
SPEED = {
    "parts": {"env": {"command": "robolearn bench --parts env", "versions": {"numpy": "2.2"}}},
    "step_rate_share_of_mj_step": 0.8312,
    "batched_share_of_mj_step": None,
    "pixels_speedup_over_default_render": 51.7,
}


def name_of(path):
    return str(path.relative_to(ROOT))


def shell(command, folder):
    """Runs a command as in an activated environment; what works on the checkout runs there."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT if command.startswith(IN_CHECKOUT) else folder,
        env={**os.environ, "PATH": path, "FOLDER": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_blocks_run(path, demo_folder, capsys):
    """In the order of the document, as a reader would."""
    for block in FENCE.finditer(path.read_text()):
        if block["language"] == "bash":
            for command in block["text"].splitlines():
                assert command in {*INSTEAD, *AS_IT_IS}, f"say in this test how to run: {command}"
                shell(INSTEAD.get(command, command), demo_folder)
        elif block["language"] == "python":
            with chdir(demo_folder):
                known = set(gymnasium.registry)
                exec(compile(block["text"], path.name, "exec"), {"__name__": "__main__"})
                for env_id in set(gymnasium.registry) - known:
                    del gymnasium.registry[env_id]
            assert capsys.readouterr().out, f"this prints nothing:\n{block['text']}"


def test_every_block_is_one_that_these_tests_run():
    for path in DOCUMENTS:
        languages = {match["language"] for match in FENCE.finditer(path.read_text())}
        assert languages <= {"bash", "python", ""}, name_of(path)


def test_no_replaced_command_is_left_over():
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert [command for command in {*INSTEAD, *AS_IT_IS} if command not in text] == []


def test_make_targets_are_the_commands_that_the_documents_name():
    for target, command in {
        "demo": "robolearn demo",
        "bench": "robolearn bench",
        "test": "python -m pytest",
        "docs": "python -m robolearn.docs",
    }.items():
        dry_run = ["make", "--no-print-directory", "-n", target]  # make starts this test
        plain = {k: v for k, v in os.environ.items() if k not in ("ARGS", "MAKEFLAGS")}
        said = subprocess.run(dry_run, cwd=ROOT, env=plain, capture_output=True, text=True)
        last = said.stdout.splitlines()[-1].strip()
        assert last.partition(" -m realtime")[0] == f".venv/bin/{command}"


def test_every_fault_is_explained():
    text = (ROOT / "docs" / "arm.md").read_text()
    assert [f for f in (*filter(None, Fault), DIED, PARKED) if f"`{f}`" not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_options_exist(path, monkeypatch):
    """Also those of commands that run on another scale here, or not at all."""
    text = path.read_text()
    for command in re.findall(r"^robolearn .*$|(?<=`)robolearn \w[^`]* -[^`]*(?=`)", text, re.M):
        name, options = cli.split(shlex.split(command)[1:])
        if name not in cli.COMMANDS:
            assert name == "COMMAND"  # as in "robolearn COMMAND --help"
            continue
        modules = {cli.COMMANDS[name][0]}
        if name in cli.METHODS:
            modules |= {module for module, *_ in cli.METHODS[name].values()}
        for module in modules:
            monkeypatch.setattr(import_module(f"robolearn.{module}"), "main", succeed)
        assert cli.main([name, *options]) == 0, command


def succeed(*config):
    return 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        file = path.parent / file if file else path
        assert file.exists(), f"{name_of(path)} links to {target}"
        assert not anchor or anchor in anchors(file), f"{name_of(path)} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_the_text_names_exist(path):
    name = r"(?:tests|docs|assets|envs|robolearn)/\w+\.(?:py|md|xml)"
    named = set(re.findall(rf"(?<![\w/]){name}", path.read_text()))
    assert [file for file in named if not (ROOT / file).exists()] == []


def anchors(path):
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_document_is_linked():
    linked = set()
    for path in DOCUMENTS:
        targets = re.findall(r"\]\(([^)#\s]+)", path.read_text())
        linked |= {(path.parent / target).resolve() for target in targets if "://" not in target}
    assert {name_of(path) for path in DOCUMENTS[1:] if path not in linked} == set()


def test_no_file_names_a_place_on_somebodys_machine():
    place_names = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w+")
    for path in git_files():
        if path.is_file() and not path.is_symlink() and path.suffix not in {".png", ".mp4"}:
            found = place_names.search(path.read_text(errors="ignore"))
            assert not found, f"{name_of(path)}: {found[0]}"


def test_the_picture_is_small_and_wide():
    path = ROOT / "docs" / "pickplace.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as picture:
        assert picture.width > 1200
        picture.verify()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_tables_are_those_of_the_result_files(path):
    text = path.read_text()
    assert docs.render(text, docs.load_results(ROOT / docs.RESULTS)) == text, "run make docs"


def table(name, results):
    return docs.render(f"<!-- table:{name} -->\nit was so\n<!-- /table -->\n", results)


def test_success_table():
    text = table("success", {"demo": RESULT})
    for cell in ("**91.5 %** (86.8 % to 94.6 %)", "20 %", "200, seeds 0 to 199", "22 minutes"):
        assert f"| {cell} | not measured yet |" in text
    assert "| 11 and 21 ms | not measured yet |" in text
    assert "| `robolearn demo --results docs/results` | not measured yet |" in text
    assert "it was so" not in text


def test_figures_that_a_result_file_lacks_are_not_measured():
    older = {k: v for k, v in RESULT.items() if k != "latency_ms"}
    assert "99th percentile | not measured yet |" in table("success", {"demo": older})


def test_speed_table():
    text = table("speed", {"speed": SPEED})
    assert "| **83.1 %** | at least 80 % |" in text
    assert "| not measured yet | at least 85 % |" in text
    assert "| **52 x** | at least 20 x |" in text
    assert text.count("not measured yet") == 2


def test_tasks_table_joins_experts_and_speeds():
    expert = {"success": 0.982, "success_low": 0.966, "success_high": 0.991, "n": 500}
    experts = {"experts": {"tasks": {"Lift": {**expert, "mean_length": 84.0}}}}
    speed = {"step_rate_share_of_mj_step": 0.81, "batched_share_of_mj_step": 0.9}
    speed |= {"pixels_speedup_over_default_render": 51.2, "reset_ms": 0.21}
    text = table("tasks", {**experts, "speed": {"tasks": {"Lift": speed, "Fold": speed}}})
    success = "**98.2 %** (96.6 % to 99.1 %), n = 500 | 4.2 s"
    assert f"| Lift | {success} | 81 % | 90 % | 51 x | 0.21 ms |" in text
    assert "| Fold | not measured yet | not measured yet | 81 % |" in text
    assert "not measured yet" in table("tasks", {})


def test_taco_tables():
    row = {"success": 0.632, "success_low": 0.589, "success_high": 0.673, "gained": 25, "lost": 9}
    row |= {"gain_points": 3.2, "p_value": 0.0092}
    names = ("base", "taco", "taco_2", "taco_50", *SCORERS)
    task = {"n": 500, **dict.fromkeys(names, row)}
    mean = {key: value for key, value in row.items() if key not in ("success_low", "success_high")}
    taco = {"config": {"compared": 16, "ablated": ["Lift"]}}
    taco["tasks"] = {sort: {"Lift": task} for sort in ("structured", "scatter")}
    taco["structured"] = {"n": 500, **dict.fromkeys(names, mean)}
    taco["scatter"] = {"n": 500, **dict.fromkeys(names, mean)}
    taco["ablations"] = {"Lift": {"n": 500, "taco": row, **dict.fromkeys(ABLATIONS, row)}}
    taco |= {f"latency_{kind}_p{q}_ms": 12.34 for kind in ("one", "many") for q in (50, 99)}
    success, points = "**63.2 %** (58.9 % to 67.3 %)", "+3.2 (p 0.0092)"
    text = table("taco", {"taco": taco})
    assert "| one candidate | TACO, 16 candidates | points | only TACO | only one |" in text
    assert f"| Lift, scatter, n = 500 | {success} | {success} | {points} | 25 | 9 |" in text
    assert f"| all of them, scatter | **63.2 %** | **63.2 %** | {points} | 25 | 9 |" in text
    text = table("taco-scorers", {"taco": taco})
    assert "| 16 candidates | TACO | nearest neighbour | Mahalanobis distance |" in text
    assert f"| Lift, scatter, n = 500 | {' | '.join([points] * len(SCORERS))} |" in text
    text = table("taco-candidates", {"taco": taco})
    assert "| candidates | 1 | 2 | 16 | 50 |" in text
    assert "| Lift | 63.2 % | 63.2 % | 63.2 % | 63.2 % |" in text
    text = table("taco-ablations", {"taco": taco})
    assert f"| TACO as it is, Lift, n = 500 | {success} |   |" in text
    assert f"| no prior | {success} | {points} |" in text
    text = table("taco-latency", {"taco": taco})
    assert "| 32 candidates | 12.3 ms | 12.3 ms |" in text
    assert "| 32 candidates, nothing shared | not measured yet | not measured yet |" in text


def test_aloe_table():
    base = {"success": 0.7, "success_low": 0.6, "success_high": 0.8, "per_hour": 300.4}
    chosen = {**base, "success": 0.95, "gain_points": 25.0, "p_value": 1e-9, "critic_auc": 0.99}
    cells = {"base": base, "aloe+critic": chosen}
    head, first, second = aloe_table({"aloe": {"tasks": {"Sort": cells}, "mean": cells}})
    assert head == ["", "Sort", "mean", "points", "per hour", "AUC"]
    assert first == ["`base`", "**70 %** (60 % to 80 %)", "70 %", "", "300", ""]
    assert second[0] == "`aloe+critic`"
    assert second[2:] == ["95 %", "+25.0 (p 1e-09)", "300", "0.990"]
    assert aloe_table({})[1][0] == "not measured yet"
    known = {"aloe-state": {"tasks": {"Sort": cells}, "mean": cells}}
    assert "`aloe+critic`" in table("aloe-state", known)
    assert "not measured yet" in table("aloe", known)


@pytest.mark.parametrize("name", list(taco_tables.TABLES))
def test_taco_tables_without_a_result_say_so(name):
    assert "not measured yet" in table(name, {})


def test_peers_and_soak_tables():
    row = {"steps_per_s": 1630.0, "mj_step_share": 0.65, "reset_ms": 0.2, "pictures_per_s": 160.0}
    text = table("peers", {"speed": {"peers": {"Fetch": row, "Broken": {"error": "no"}}}})
    assert "| Fetch | 1630 | 65 % | 0.2 ms | 160 |" in text
    assert "| Broken | not measured yet |" in text
    soak = {"steps": 10_000_000, "nans": 0, "memory_growth_bytes": 3 * 2**20, "tasks": {"Lift": {}}}
    text = table("soak", {"soak": soak})
    assert "| tasks | 1 |" in text
    assert "| control steps with random actions | 10,000,000 |" in text
    assert "| memory that they took | 3 MiB |" in text
    assert "| exceptions | not measured yet |" in text


def test_policies_table_has_a_row_for_each_that_was_measured():
    row = {**RESULT, "samples_per_s": 1712.4, "samples": 513_720, "parameters": 1_234_567}
    row |= {"open_loop_error": 0.02, "standing_still_error": 0.05}
    nothing = {**row, "success": 0.0, "success_low": 0.0, "n": 20}
    measured = {"config": {"minutes": 7.5}, "policies": {"act": nothing, "flow": row}}
    text = table("policies", {"policies": measured})
    assert "| 7.5 minutes of training | success |" in text
    cells = "11 and 21 ms | 1712 | 513,720 | 1.2 million | 1.1°, still 2.9° |"
    assert f"| flow | **91.5 %** (86.8 % to 94.6 %), n = 200 | {cells}" in text
    assert f"| LeRobot ACT | **0 %** (0 % to 94.6 %), n = 20 | {cells}" in text
    assert text.index("| flow") < text.index("| LeRobot ACT")
    assert "Diffusion" not in text
    assert "| not measured yet |" in table("policies", {})


def test_source_table_lists_every_part():
    text = table("sources", {"demo": {**RESULT, "machine": "two cores"}, "speed": SPEED})
    assert "| `demo.json` | `robolearn demo --results docs/results` | two cores, mujoco 4" in text
    assert "| `speed.json`, env | `robolearn bench --parts env` | numpy 2.2 |" in text
    assert "not measured yet" in table("sources", {})


def test_update_writes_what_has_changed_once(tmp_path, capsys):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text("<!-- table:success -->\n<!-- /table -->\n")
    (tmp_path / "CONTRIBUTING.md").write_text("nothing to fill\n")
    (tmp_path / "docs" / "results" / "demo.json").write_text(json.dumps(RESULT))
    with chdir(tmp_path):
        assert docs.main() == 0
        assert capsys.readouterr().out == "wrote README.md\n"
        assert docs.main() == 0
        assert capsys.readouterr().out == "all tables are up to date\n"
    assert "91.5 %" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "CONTRIBUTING.md").read_text() == "nothing to fill\n"


@pytest.mark.parametrize(
    ("readme", "words"),
    [
        ("<!-- table:sucess -->\n<!-- /table -->\n", "no table 'sucess'; there are success, "),
        ("<!-- table:speed -->\n", "a table has no end"),
        (None, "has no README.md"),
    ],
)
def test_documents_that_cannot_be_filled_are_left_alone(tmp_path, capsys, readme, words):
    (tmp_path / "CONTRIBUTING.md").write_text("")
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    with chdir(tmp_path):
        assert docs.main() == 1
    assert words in capsys.readouterr().err
    assert readme is None or (tmp_path / "README.md").read_text() == readme


def test_a_damaged_result_file_is_named(tmp_path):
    (tmp_path / "demo.json").write_text('{"success": 0.9')
    with pytest.raises(docs.DocsError, match=r"demo\.json is damaged .* measure again"):
        docs.load_results(tmp_path)
