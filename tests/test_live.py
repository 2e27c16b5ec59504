"""Driving a simulated task by hand."""

import mujoco.viewer
import numpy as np
import pytest

from robolearn import robot
from robolearn.contract import SO101, SO101_PAIR
from robolearn.dataset import EpisodeDataset
from robolearn.envs.live import Live
from robolearn.hardware.intervention import Intervention
from robolearn.hardware.keyboard import KeyboardTeleop
from robolearn.hardware.teleop import Teleop, TeleopSample
from robolearn.options import RecordConfig
from robolearn.record import record
from robolearn.registry import make_env

TASK = "robolearn/Reach-v0"
PERIOD = 1.0 / SO101.control_hz


class Clock:
    """Stands still unless somebody sleeps."""

    def __init__(self):
        self.time, self.slept = 10.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds

    def now(self):
        return self.time


class Scripted(Teleop):
    """Turns the first joint; marks what it is told to at a step."""

    def __init__(self, marks):
        self.marks, self.steps, self.closed = marks, 0, False

    def read(self, position):
        self.steps += 1
        target = np.array(position, float)
        target[0] += 0.02
        return TeleopSample.of(0.0, target, frozenset(self.marks.get(self.steps, ())))

    def close(self):
        self.closed = True


@pytest.fixture
def task():
    env = make_env(TASK, obs_type="state")
    yield env
    env.close()


def test_a_step_lasts_a_control_period(task):
    clock = Clock()
    live = Live(task, now=clock.now, sleep=clock.sleep)
    observation, _ = live.reset(seed=0)
    for _ in range(3):
        live.step(observation["agent_pos"])
    assert clock.slept == pytest.approx([PERIOD] * 3)
    clock.time += 1.0  # a human was away
    live.step(observation["agent_pos"])
    live.step(observation["agent_pos"])
    assert clock.slept[3:] == pytest.approx([0.0, PERIOD])


def test_no_screen_is_a_sentence(task, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no display")

    monkeypatch.setattr(mujoco.viewer, "launch_passive", fail)
    with pytest.raises(ValueError, match="cannot open a window .no display.; set DISPLAY, or"):
        Live(task, viewer=True)


def test_the_window_follows_and_closes(task, monkeypatch):
    calls = []

    class Window:
        def sync(self):
            calls.append("sync")

        def close(self):
            calls.append("close")

    monkeypatch.setattr(mujoco.viewer, "launch_passive", lambda *args, **options: Window())
    live = Live(task, viewer=True, sleep=lambda seconds: None)
    observation, _ = live.reset(seed=0)
    live.step(observation["agent_pos"])
    live.close()
    assert calls == ["sync", "sync", "close"]


def test_a_driven_episode_is_recorded(tmp_path, monkeypatch):
    teleop = Scripted({4: ["rerecord"], 9: ["success"], 14: ["failure"]})
    monkeypatch.setitem(robot.TELEOPS, "keyboard", lambda options, where, arm: teleop)
    held = record(RecordConfig(out=tmp_path / "data", env=TASK, episodes=2, teleop="keyboard"))
    data = EpisodeDataset(tmp_path / "data")
    assert held == len(data.episodes) == 2
    assert data.episodes.length.tolist() == [5, 5]
    assert data.columns["intervention"].all()
    assert data.columns["terminated"][[4, 9]].all()  # a success and a failure: both are ends
    assert data.episodes.success.tolist() == [True, False]
    assert np.diff(data.columns["action"][:5, 0]) == pytest.approx(0.02, abs=1e-5)
    assert teleop.closed


def test_the_emergency_stop_ends_a_simulated_episode(task):
    env = Intervention(task, Scripted({2: ["estop"]}), autonomous=False)
    observation, _ = env.reset(seed=0)
    ends = [env.step(observation["agent_pos"])[3] for _ in range(2)]
    assert ends == [False, True]


def test_a_human_needs_a_device(tmp_path):
    with pytest.raises(ValueError, match="a human needs a device"):
        record(RecordConfig(out=tmp_path / "data", robot="so101"))


class Keys:
    """Keys that are held, one list for each read."""

    alive = True

    def __init__(self, *pressed):
        self.queue = list(pressed)

    def pressed(self):
        return self.queue.pop(0)

    def close(self):
        pass


def test_one_key_switches_to_the_other_arm():
    clock = Clock()
    keys = Keys(["q"], ["q"], ["c"], [], [], ["q"], ["q"])
    teleop = KeyboardTeleop(keys, SO101_PAIR, clock=clock.now)
    position, moved = np.array(SO101_PAIR.home), []
    for _ in range(7):
        sample = teleop.read(position)
        moved.append(
            np.flatnonzero(sample.action != position.astype(np.float32)).tolist()
            if sample.engaged
            else None
        )
        clock.time += 0.3 if len(moved) in (3, 4) else 0.05
    assert moved[1] == [0]  # the left arm's first joint
    assert moved[-1] == [6]  # the right one's


def test_a_leader_drives_one_arm():
    options = RecordConfig(out="x", teleop="leader:/dev/null")
    with pytest.raises(ValueError, match="drives one SO-101, not so101_pair; take --teleop key"):
        robot.open_teleop(options, SO101_PAIR)
