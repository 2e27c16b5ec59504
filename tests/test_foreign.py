"""Tasks of other packages behind the contract: a toy of no package at all, and the real ones."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import strangers
from gymnasium.utils.env_checker import check_env
from observing import assert_same, run

from robolearn import venvs
from robolearn.cli import main
from robolearn.contract import ActionError, Info
from robolearn.dataset import EpisodeDataset
from robolearn.envs import foreign_packages
from robolearn.envs.foreign_packages import PACKAGES, PREFIX, Package
from robolearn.envs.foreign_pusht_script import DETOUR, FAR, QUICK, _length, _paced, _room, _turned
from robolearn.envs.foreign_worker import Away, decode, encode
from robolearn.options import RecordConfig
from robolearn.record import record
from robolearn.registry import make_env, spec_of

TOY = "foreign:strangers:Slider-v0"
pytestmark = pytest.mark.filterwarnings("ignore:.*infinity")  # the contract wants it so
EVERY = [(package, PREFIX + name) for package, known in PACKAGES.items() for name in known.ids]


@pytest.fixture
def env():
    with closing(make_env(TOY, obs_type="state")) as env:
        yield env


def test_an_environment_of_others_keeps_the_contract(env):
    check_env(env.unwrapped, skip_render_check=True)
    observation, info = env.reset(seed=3)
    assert info[Info.TASK] == env.unwrapped.task == "Slider-v0"
    assert {*observation} == {"agent_pos", "agent_vel", "agent_effort", "environment_state"}
    assert info[Info.SEED] == 3
    assert env.unwrapped.metadata["render_fps"] == env.unwrapped.arm.control_hz == 10
    assert env.spec.id == TOY


def test_success_ends_the_episode_with_the_contracts_reward(env):
    env.reset(seed=0)
    for step in range(1, 20):
        _, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
        assert reward == float(terminated) == float(info[Info.IS_SUCCESS])
        assert info[Info.GRADE + "return"] == pytest.approx(-1.0 * step)
        if terminated:
            break
    assert terminated
    assert info[Info.PROGRESS] == 1.0
    assert not truncated


def test_the_time_limit_is_the_packages(env):
    assert spec_of(TOY).max_episode_steps == strangers.STEPS
    env.reset(seed=0)
    steps = [env.step(-np.ones(2, np.float32)) for _ in range(strangers.STEPS)]
    assert [step[3] for step in steps] == [False] * (strangers.STEPS - 1) + [True]


def test_actions_are_checked_and_limited(env):
    env.reset(seed=0)
    with pytest.raises(ActionError, match="action_1 is nan"):
        env.step(np.array([0.0, np.nan], np.float32))
    info = env.step(np.array([9.0, 0.5], np.float32))[4]
    assert info[Info.ACTION_SENT].tolist() == [1.0, 0.5]
    assert info[Info.LIMITED]


def test_actions_that_are_no_targets_are_learned_as_they_are(env):
    assert env.unwrapped.arm.grippers == (0, 1)


def test_pictures_have_the_size_that_was_asked_for():
    with closing(make_env(TOY, image_size=(12, 20), render_mode="rgb_array")) as env:
        observation, _ = env.reset(seed=0)
        assert observation["pixels"]["view"].shape == (12, 20, 3)
        assert observation["pixels"]["view"].max() > 0
        assert env.render().shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        ("foreign:Nowhere-v0", {}, "no environment 'foreign:Nowhere-v0'"),
        ("foreign:no_such_module:X-v0", {}, "no_such_module"),
        (TOY, {"cameras": ("wrist",)}, "no camera 'wrist'; choose among view"),
        (TOY, {"obs_type": "depth"}, "obs_type is 'depth'"),
        (TOY, {"split": "novel"}, "has no option split"),
        ("foreign:strangers:Discrete-v0", {}, "policies give bounded vectors"),
        (TOY, {"variations": {"push": 1}}, "push varies simulated tasks"),
    ],
    ids=["id", "module", "camera", "obs_type", "option", "actions", "variation"],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(env_id, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(env_id, **options)


def test_an_unknown_instruction_is_refused(env):
    with pytest.raises(ValueError, match="no task 'fly', but: Slider-v0"):
        env.reset(seed=0, options={"instruction": "fly"})


def test_messages_travel_unchanged():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    sent = {"a": np.float32(0.1), "pixels": {"top": picture}, "b": [1, "x", None, True]}
    got = decode(encode(sent))
    assert got["pixels"]["top"].dtype == np.uint8
    np.testing.assert_array_equal(got["pixels"]["top"], picture)
    assert got["a"] == np.float32(0.1)
    assert got["b"] == sent["b"]


@pytest.fixture
def away(monkeypatch, tmp_path):
    """The toy in a process of its own, which does not know robolearn."""
    package = Package(("no-such-package",), ("strangers:Slider-v0",))
    kind = foreign_packages.Kind("toys", "foreign_doors:Door", strangers.STEPS)
    monkeypatch.setitem(PACKAGES, "toys", package)
    monkeypatch.setitem(foreign_packages.KINDS, "strangers:", kind)
    python, tests = tmp_path / "python", Path(strangers.__file__).parent
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tests} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(foreign_packages.venvs, "python_of", lambda folder: python)


def test_a_process_of_its_own_changes_nothing(away, monkeypatch):
    with closing(make_env(TOY)) as far:
        assert isinstance(far.unwrapped._door, Away)
        there = run(far, 7)
        far.unwrapped.draw_every = 3
        spared = run(far, 7)
        monkeypatch.delitem(foreign_packages.KINDS, "strangers:")
        with closing(make_env(TOY)) as near:
            assert not isinstance(near.unwrapped._door, Away)
            assert_same(there, run(near, 7))
            near.unwrapped.draw_every = 3
            assert_same(spared, run(near, 7))
        with pytest.raises(ValueError, match="no task 'fly'"):
            far.reset(options={"instruction": "fly"})
        assert far.unwrapped._door._process.poll() is None
    assert far.unwrapped._door._process.poll() is not None


def test_a_crash_in_a_process_of_its_own_is_an_error(away):
    with closing(make_env("foreign:strangers:Crash-v0", obs_type="state")) as env:
        env.reset(seed=0)
        with pytest.raises(RuntimeError, match="ArithmeticError: the simulator broke"):
            env.step(np.zeros(2, np.float32))


def test_what_is_missing_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv(foreign_packages.HOME, str(tmp_path))
    monkeypatch.setattr(Package, "is_here", lambda self: False)
    with pytest.raises(ValueError, match=r"gym-pusht is missing.*robolearn\[pusht\]"):
        make_env("foreign:gym_pusht/PushT-v0")
    with pytest.raises(ValueError, match="metaworld is missing.*robolearn envs --install meta"):
        make_env("foreign:metaworld/reach-v3")


def test_each_package_is_installed_in_an_environment_of_its_own(monkeypatch, tmp_path, capsys):
    asked = {}
    monkeypatch.setenv(foreign_packages.HOME, str(tmp_path))
    monkeypatch.setattr(foreign_packages.venvs, "install", asked.__setitem__)
    assert main(["envs", "--install", "aloha", "robosuite"]) == 0
    names = ("aloha", "robosuite")
    assert asked == {tmp_path / name: PACKAGES[name].requirements for name in names}
    assert f"aloha is installed in {tmp_path / 'aloha'}" in capsys.readouterr().out


def test_a_package_that_cannot_be_installed_says_why(monkeypatch, tmp_path, capsys):
    def fail(folder, requirements):
        raise subprocess.CalledProcessError(1, requirements, stderr="building\nno space left")

    monkeypatch.setattr(foreign_packages.venvs, "install", fail)
    assert main(["envs", "--install", "aloha"]) == 1
    assert "aloha cannot be installed: no space left" in capsys.readouterr().err
    assert main(["envs", "--install", "alohha"]) == 1
    assert "no package 'alohha'; choose among pusht, aloha" in capsys.readouterr().err


def test_a_task_without_an_expert_records_nothing(tmp_path, capsys):
    assert main(["record", "--out", str(tmp_path / "d"), "--env", TOY]) == 1
    assert "foreign:strangers:Slider-v0 has no scripted expert" in capsys.readouterr().err


@pytest.mark.parametrize(("package", "env_id"), EVERY, ids=[env_id for _, env_id in EVERY])
def test_real_packages_keep_the_contract(package, env_id):
    """Those that are installed; `robolearn envs` tells which are."""
    if foreign_packages.state_of(package) == "missing":
        pytest.skip(f"{package} is missing: {foreign_packages.how_to_install(package)}")
    with closing(make_env(env_id, obs_type="state")) as env:
        check_env(env.unwrapped, skip_render_check=True)
        first, other = run(env, 3), run(env, 4)
        np.random.seed(123)
        assert_same(first, run(env, 3))
        assert any(not np.array_equal(first[0][k], other[0][k]) for k in first[0])
    with closing(make_env(env_id, obs_type="state")) as another:
        assert_same(first, run(another, 3))
    with closing(make_env(env_id, image_size=(24, 32), max_episode_steps=5)) as env:
        observation, info = env.reset(seed=3)
        assert info[Info.TASK]
        for picture in observation["pixels"].values():
            assert picture.shape == (24, 32, 3)
            assert picture.std() > 5
        np.testing.assert_array_equal(observation["agent_pos"], first[0]["agent_pos"])


def test_meta_worlds_script_demonstrates(tmp_path):
    if foreign_packages.state_of("metaworld") == "missing":
        pytest.skip(foreign_packages.how_to_install("metaworld"))
    env_id = "foreign:metaworld/reach-v3"
    record(RecordConfig(out=tmp_path, env=env_id, obs_type="state", episodes=2, workers=0))
    dataset = EpisodeDataset(tmp_path)
    assert dataset.episodes.success.all()
    assert dataset.episodes.env_id == (env_id,) * 2
    assert dataset.arm.joints == ("dx", "dy", "dz", "gripper")
    setup = json.loads((tmp_path / "meta" / "robolearn.json").read_text())
    assert setup["notes"]["versions"]["metaworld"]


@pytest.mark.parametrize(
    ("package", "name", "farthest"),
    [
        ("aloha", "gym_aloha/AlohaTransferCube-v0", 0.01),
        ("aloha", "gym_aloha/AlohaInsertion-v0", 0.01),
        ("pusht", "gym_pusht/PushT-v0", QUICK),
    ],
)
def test_our_scripts_solve(package, name, farthest, tmp_path):
    if foreign_packages.state_of(package) == "missing":
        pytest.skip(foreign_packages.how_to_install(package))
    env_id = PREFIX + name
    record(RecordConfig(out=tmp_path, env=env_id, obs_type="state", episodes=2, workers=0))
    dataset = EpisodeDataset(tmp_path)
    assert dataset.episodes.success.all()
    assert dataset.episodes.seed.tolist() == [1_000_000, 1_000_001]  # at the first try
    first, arm = dataset.episodes.start, dataset.arm
    joints = [k for k in range(arm.size) if k not in arm.grippers]
    moved = dataset.columns["action"][first] - dataset.columns["agent_pos"][first]
    assert np.abs(moved[:, joints]).max() < 1.001 * farthest  # it begins where the arms are


PUSHES = """
import json, sys, gymnasium, gym_pusht, numpy as np
sys.path.insert(0, sys.argv[1])
import foreign_pusht_script as script
found = []
for seed in (1000000, 1000003, 0):  # in the first two the pusher begins in the T
    task = gymnasium.make("gym_pusht/PushT-v0", disable_env_checker=True).unwrapped
    task.reset(seed=seed)
    world, pusher = script._World(task), np.array(task.agent.position)
    around = script._Surroundings(world.shape(), pusher)
    push = max(script._pushes(world, pusher), key=lambda push: push.rate)
    found.append([push.rate, around.effort(push.way)])
print(json.dumps(found))
"""


def test_pushes_gain_and_the_pusher_goes_around_the_t():
    if not (python := venvs.python_of(foreign_packages.folder_of("pusht"))):
        pytest.skip(foreign_packages.how_to_install("pusht"))
    told = venvs.output_of(python, "-c", PUSHES, str(Path(foreign_packages.__file__).parent))
    for rate, effort in json.loads(told.splitlines()[-1]):
        assert rate > 0.3  # pixels in a step
        assert 0.0 < effort < DETOUR


def test_the_pusher_keeps_its_pace_and_arrives():
    way = np.array([[0.0, 0.0], [30.0, 0.0], [30.0, 40.0]])
    places = np.array([*_paced(way, 20.0)])
    assert places.tolist() == [[20.0, 0.0], [30.0, 10.0], [30.0, 30.0], [30.0, 40.0]]
    assert _length(way) == 70.0


@pytest.mark.parametrize(
    ("start", "towards", "room"),
    [([256.0, 256.0], [1.0, 0.0], FAR), ([500.0, 256.0], [1.0, 0.0], 12), ([0.0, 9], [-1, 0], 1)],
)
def test_a_push_ends_within_the_field(start, towards, room):
    assert _room(np.array(start), np.array(towards)) == room


def test_turning_is_counter_clockwise():
    assert _turned(np.array([[1.0, 0.0]]), np.pi / 2) == pytest.approx(np.array([[0.0, 1.0]]))
