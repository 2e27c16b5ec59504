"""Goals on an arm, rehearsed on its twin: pictures, words, what is refused, and no plan."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import toy

from robolearn import goal_picture, robot
from robolearn.contract import SO101
from robolearn.dataset import EpisodeDataset
from robolearn.deploy import deploy, main
from robolearn.envs.pick_place import PHRASES
from robolearn.episodes import DatasetError, EpisodeWriter
from robolearn.examples import example_episode
from robolearn.goal_picture import take
from robolearn.goals import read_pictures
from robolearn.hardware.twin import Twin
from robolearn.options import DeployConfig, GoalPictureConfig
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.policies.goal_writer import GoalWriter
from robolearn.policies.latent_configs import GoalWriterConfig
from robolearn.sources import source_of

TASK = "robolearn/PickPlace-v0"
CAMERAS = {"top": (24, 42), "wrist": (24, 42)}


def saved(folder, config=toy.TINY_ACT2GOAL, farther=0.0, **changes):
    """A policy of the arm with random weights, which takes goals for farther away."""
    config = replace(config, **changes)
    policy = toy.tiny_policy(arm=SO101, cameras=CAMERAS, config=config)
    policy.env_id = TASK
    if farther:
        policy.backbone.distance.mlp[-1].bias.data += farther
    policy.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("deploy") / "policy", limit=1e9)


@pytest.fixture
def settings(tmp_path):
    return {"seconds": 1.0, "blackbox": tmp_path / "blackbox", "replan_every": 2}


def picture(path, colour=(10, 200, 30), size=(24, 42)):
    cv2.imwrite(str(path), np.full((*size, 3), colour[::-1], np.uint8))
    return str(path)


@pytest.mark.realtime
def test_a_policy_is_shown_pictures_on_the_twin(shown, settings, tmp_path, monkeypatch, capsys):
    seen, encode = [], Act2GoalPolicy.encode

    def noted(policy, observation, instructions):
        seen.append({camera: x.numpy() for camera, x in observation["goal_pixels"].items()})
        return encode(policy, observation, instructions)

    monkeypatch.setattr(Act2GoalPolicy, "encode", noted)
    goal = (
        f"top={picture(tmp_path / 'a.png')}",
        f"wrist={picture(tmp_path / 'b.png', (200, 10, 90), (48, 84))}",
    )
    config = DeployConfig(policy=shown, goal=goal, out=tmp_path / "data", **settings)
    assert main(config) == 0
    assert len(seen) >= 5
    for one in seen:
        assert one["top"].shape == one["wrist"].shape == (1, 24, 42, 3)
        assert (one["top"] == (10, 200, 30)).all()
        assert (one["wrist"] == (200, 10, 90)).all()
    dataset = EpisodeDataset(tmp_path / "data")
    assert dataset.cameras == CAMERAS
    assert dataset.frames("top").std() > 10  # what it saw, and not its goal
    assert np.ptp(dataset.columns["action"], 0).max() > 0.01  # it moved
    said = capsys.readouterr().out
    assert "no success" in said
    assert "no plan" not in said


@pytest.mark.realtime
def test_without_a_plan_the_arm_stays_and_the_distance_is_told(settings, tmp_path, capsys):
    policy = saved(tmp_path / "policy", farther=9.0)
    picture(tmp_path / "a.png")
    goal = (f"top={tmp_path / 'a.png'}", f"wrist={tmp_path / 'a.png'}")
    config = DeployConfig(policy=policy, goal=goal, out=tmp_path / "data", **settings)
    assert main(config) == 0
    said = capsys.readouterr().out
    assert "no plan found in" in said
    assert "the goal is an estimated" in said
    assert "steps away, which is beyond what was trained" in said
    targets = EpisodeDataset(tmp_path / "data").columns["action"]
    # What was measured at first is its target ever since: a sagging arm is not led downhill.
    assert np.ptp(targets[8:], 0).max() < 1e-4


def told_everything(folder, env_id):
    """A recording of random pictures that has been told all that the twin's task can ask for."""
    meanings = {meaning: text for text, meaning in PHRASES.all("held_out").items()}
    with EpisodeWriter(folder, arm=SO101, fps=20, cameras=CAMERAS) as writer:
        for seed, text in enumerate(meanings.values()):
            episode = example_episode(arm=SO101, cameras=CAMERAS, seed=seed, instruction=text)
            writer.append(replace(episode, env_id=env_id))
    return EpisodeDataset(folder)


@pytest.mark.realtime
@pytest.mark.parametrize("env_id", [TASK, "robolearn/SO101-v0"])
def test_words_find_a_recording_of_the_task_or_of_the_arm(
    shown, settings, tmp_path, capsys, env_id
):
    recorded = told_everything(tmp_path / "data", env_id)
    config = DeployConfig(
        policy=shown, goal=("words",), goal_data=tmp_path / "data", **settings | {"seconds": 0.5}
    )
    (episode,) = deploy(config)
    number = int(episode.goal_source.partition("episode ")[2].partition(":")[0])
    meant = [PHRASES.parse(text) for text in recorded.episodes.instruction]
    assert meant[number] == PHRASES.parse(episode.instruction)
    last = recorded.episodes.start[number] + recorded.episodes.length[number] - 1
    seen = episode.observations["goal_pixels/top"]
    assert (seen == recorded.frames("top")[last]).all()


@pytest.mark.realtime
def test_a_recording_of_something_else_shows_no_goal(shown, settings, tmp_path, monkeypatch):
    told_everything(tmp_path / "data", "robolearn/Stack-v0")
    config = DeployConfig(policy=shown, goal=("words",), goal_data=tmp_path / "data", **settings)
    opened, open_robot = [], robot.open_robot

    def noted(*args, **options):
        opened.append(open_robot(*args, **options))
        return opened[-1]

    monkeypatch.setattr("robolearn.deploy.open_robot", noted)
    with pytest.raises(DatasetError, match="not in robolearn/SO101-v0 or robolearn/PickPlace-v0"):
        next(deploy(config))
    with pytest.raises(ConnectionError):  # the arm was let go of
        opened[0].unwrapped.stage.twin.state()


@pytest.mark.realtime
def test_a_goal_is_imagined_on_the_twin(settings, tmp_path, capsys):
    where = saved(tmp_path / "policy", limit=1e9)
    latents, words = source_of(where).load().latents, ("blue", "cube", "red")
    sizes = (latents.count, latents.channels)
    tiny = GoalWriterConfig(width=16, depth=1, words=4)
    GoalWriter(tiny, sizes, words, source_of(where).fingerprint).save(tmp_path / "writer")
    goal = ("imagined", str(tmp_path / "writer"))
    config = DeployConfig(policy=where, goal=goal, **settings | {"seconds": 0.5})
    assert main(config) == 0
    assert f"it was shown imagined by {tmp_path / 'writer'}: " in capsys.readouterr().out


def test_a_picture_that_the_arms_cameras_took_is_a_goal(shown, tmp_path, capsys):
    with Twin(env=TASK, lockstep=True, image_size=(24, 42)) as twin:
        cameras = {name: twin.cameras[name].removesuffix(".mjpg") + ".rgb" for name in CAMERAS}
        config = GoalPictureConfig(policy=shown, cameras=cameras, out=tmp_path / "goal")
        assert goal_picture.main(config) == 0
        there = {name: twin.picture(name) for name in CAMERAS}
    said = capsys.readouterr().out
    goal = said.rpartition("--goal ")[2].split()
    found = read_pictures(goal, CAMERAS)
    assert all((found[name] == there[name]).all() for name in CAMERAS)
    assert there["top"].std() > 10
    with pytest.raises(ValueError, match="top, wrist; give --cameras top SOURCE wrist SOURCE"):
        take(replace(config, cameras={"top": "0"}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "is shown its goal; give --goal top=FILE wrist=FILE, which `robolearn goal-picture`"),
        ({"goal": ("demonstration",)}, "--goal demonstration is drawn by a simulator"),
        ({"goal": ("scene",)}, "--goal scene is drawn by a simulator.*give --goal top=FILE"),
        ({"goal": ("green.png",)}, "the policy looks through top, wrist; give --goal top=FILE"),
        ({"goal": ("top=green.png", "side=green.png")}, "looks through top, wrist"),
        ({"goal": ("top=green.png", "wrist=square.png")}, "square.png is 24x24 pixels and the"),
        ({"goal": ("top=green.png", "wrist=none.png")}, "none.png is no picture"),
        ({"goal": ("words",)}, "--goal-data FOLDER"),
        ({"goal": ("imagined",)}, "there is no goal-writer in .*; fit one with"),
    ],
    ids=["none", "demonstration", "scene", "one", "camera", "size", "file", "words", "imagined"],
)
def test_what_cannot_be_shown_is_said_before_the_arm_is_opened(
    shown, tmp_path, monkeypatch, changes, words
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robolearn.deploy.open_robot", None)
    picture("green.png")
    picture("square.png", size=(24, 24))
    with pytest.raises((ValueError, OSError), match=words):
        next(deploy(DeployConfig(policy=shown, **changes)))


def test_a_policy_that_is_told_its_goal_is_shown_none(tmp_path):
    told = saved(tmp_path / "told", config=toy.TINY)
    with pytest.raises(ValueError, match="is told its goal and shown none; leave out --goal"):
        next(deploy(DeployConfig(policy=told, goal=("top.png",))))
    with pytest.raises(ValueError, match="it needs no picture"):
        take(GoalPictureConfig(policy=told, cameras={"top": "0", "wrist": "1"}))
