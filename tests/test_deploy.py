"""`robolearn deploy` and `record --robot` on the twin, with a scripted human beside the policy."""

import time

import numpy as np
import pytest

from robolearn import robot
from robolearn.contract import SO101
from robolearn.dataset import EpisodeDataset
from robolearn.deploy import deploy, main
from robolearn.hardware.teleop import Teleop, TeleopSample
from robolearn.options import DeployConfig, RecordConfig, RobotOptions
from robolearn.record import record
from robolearn.registry import make_env

pytestmark = pytest.mark.realtime


class Script(Teleop):
    """Does one thing per step; `None` leaves the arm alone, a number moves the pan joint."""

    def __init__(self, *plan):
        self.plan, self.step, self.closed = plan, -1, False

    def read(self, position):
        self.step += 1
        told = self.plan[min(self.step, len(self.plan) - 1)]
        now = time.monotonic()
        if isinstance(told, str):
            if told == "gone":
                return TeleopSample.lost(now)
            self.plan = (*self.plan[: self.step], None, *self.plan[self.step + 1 :])  # once
            return TeleopSample.of(now, None, frozenset({told}))
        if told is None:
            return TeleopSample.of(now, None)
        target = np.array(position, float)
        target[0] += told
        return TeleopSample.of(now, target)

    def close(self):
        self.closed = True


@pytest.fixture
def human(monkeypatch):
    """Puts a script in the place of the device."""

    def take_seat(*plan):
        script = Script(*plan)
        monkeypatch.setattr(robot, "open_teleop", lambda options: script)
        # One read for each step: a busy machine may otherwise look often while it waits.
        monkeypatch.setattr("robolearn.hardware.intervention.LOOK_EVERY", 1e9)
        return script

    return take_seat


@pytest.fixture
def settings(tmp_path):
    return {"seconds": 1.0, "blackbox": tmp_path / "blackbox"}


def test_a_policy_runs_on_the_twin(demo_folder, settings, tmp_path, capsys):
    config = DeployConfig(
        policy=str(demo_folder / "runs/demo"), episodes=2, out=tmp_path / "data", **settings
    )
    assert main(config) == 0
    dataset = EpisodeDataset(tmp_path / "data")
    assert len(dataset.episodes) == 2
    assert dataset.cameras == {"top": (48, 84), "wrist": (48, 84)}
    assert dataset.frames("top").std() > 10
    assert "episode 2: " in (said := capsys.readouterr().out)
    assert "success 0 of 2" in said
    assert not list((tmp_path / "blackbox").glob("2*"))  # nothing went wrong


def test_the_first_picture_of_an_episode_is_not_of_the_one_before(tmp_path):
    options = {"port": "twin", "realtime": True, "blackbox": tmp_path}
    with make_env("robolearn/SO101-v0", **options) as env:
        for seed in (3, 4):
            first = env.reset(seed=seed)[0]["pixels"]
            for camera, seen in first.items():
                there = env.unwrapped.stage.twin.picture(camera).astype(int)
                assert np.abs(there - seen).mean() < 2  # another scene differs by 9 and more


def test_a_human_takes_over_and_both_actions_are_kept(demo_folder, settings, human):
    script = human(None, None, 0.05, 0.05, 0.05, None, "success")
    (episode,) = deploy(DeployConfig(policy=str(demo_folder / "runs/demo"), **settings))
    assert episode.success[-1]
    assert episode.terminated
    driven = np.flatnonzero(episode.intervention)
    assert len(driven) == 3
    pan = episode.action[:, 0]
    assert np.all(np.diff(pan[driven]) > 0)
    wanted = episode.action_requested[driven]  # the policy's own, which did not run
    assert np.abs(wanted - episode.action[driven]).max() > 0.01
    assert script.closed


def test_a_lost_device_holds_the_arm(demo_folder, settings, human):
    human(None, None, "gone")
    (episode,) = deploy(DeployConfig(policy=str(demo_folder / "runs/demo"), **settings))
    late = episode.action[8:]
    assert np.abs(late - late[0]).max() < 1e-4  # the limiter has braked; the policy moves by 1e-2
    assert not episode.intervention.any()


def test_an_episode_that_the_human_wants_again_is_not_kept(demo_folder, settings, human):
    human(None, None, "rerecord", None, None, "end")
    episodes = list(deploy(DeployConfig(policy=str(demo_folder / "runs/demo"), **settings)))
    assert len(episodes) == 1
    assert episodes[0].truncated


def test_the_emergency_stop_ends_everything(demo_folder, settings, human, tmp_path, capsys):
    human(None, None, "estop")
    config = DeployConfig(policy=str(demo_folder / "runs/demo"), episodes=3, **settings)
    assert main(config) == 1
    assert "emergency_stop" in (said := capsys.readouterr().out)
    assert "episode 2" not in said
    assert list((tmp_path / "blackbox").glob("*emergency_stop*"))


def test_a_human_demonstrates(settings, human, tmp_path):
    human(0.02, 0.02, 0.02, 0.02, "success")
    config = RecordConfig(
        out=tmp_path / "demos", robot="so101", teleop="keyboard", episodes=1, **settings
    )
    assert record(config) == 1
    dataset = EpisodeDataset(tmp_path / "demos")
    assert dataset.arm == SO101
    assert dataset.episodes.success.all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"robot": "panda"}, "robot is 'panda'; choose one of so101, lerobot"),
        ({"robot": "lerobot:so101_follower", "teleop": "mouse"}, "choose one of none"),
        ({"teleop": "mouse"}, "teleop is 'mouse'; choose one of none, keyboard, gamepad, leader"),
        ({"teleop": "leader"}, "a leader arm needs its port and its calibration"),
        ({"port": "/dev/ttyACM9"}, "/dev/ttyACM9 needs a calibration: make one with"),
    ],
)
def test_what_is_missing_is_said(options, words):
    with pytest.raises((ValueError, OSError), match=words):
        robot.open_robot(RobotOptions(**options), autonomous=True)


def test_recording_a_human_needs_a_device(tmp_path):
    with pytest.raises(ValueError, match="--teleop keyboard, gamepad or leader:PORT"):
        record(RecordConfig(out=tmp_path / "d", robot="so101"))
