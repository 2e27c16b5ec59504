"""In lockstep no process's slowness changes a bit: each is halted far longer than any timeout."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pytest
from observing import assert_same, run

from robolearn.contract import SO101
from robolearn.hardware.bus import Bus, BusError, BusLost
from robolearn.hardware.calibration import Calibration
from robolearn.hardware.client import Driver
from robolearn.hardware.driver import DriverConfig
from robolearn.hardware.registers import Register
from robolearn.hardware.safety_types import SafetyConfig, State
from robolearn.hardware.twin import Twin
from robolearn.registry import make_env

IDS = range(1, 7)
HALT, GO = 0.15, 0.03  # s; a bus waits 0.02 s for an answer, a reader 0.1 s for half a packet


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    blackbox = tmp_path_factory.mktemp("blackbox")
    with closing(make_env("robolearn/SO101-v0", blackbox=blackbox)) as env:
        yield env


@pytest.fixture(scope="module")
def expected(env):
    return run(env, seed=7)


@pytest.fixture(scope="module")
def twin():
    with Twin(pose=SO101.home, lockstep=True) as running:
        yield running


@pytest.fixture
def bus(twin):
    with Bus(twin.port, IDS, lockstep=True) as bus:
        yield bus
    twin.mend()


@contextmanager
def halted(process):
    """The process stands still most of the time, as if the machine had other things to do."""
    done = threading.Event()

    def halt():
        while not done.wait(GO):
            os.kill(process, signal.SIGSTOP)
            time.sleep(HALT)
            os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=halt)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def process_of(env, who):
    if who == "twin":
        return env.unwrapped.stage.twin._process.pid
    return driver_of(env.unwrapped.driver.config.blackbox)


def driver_of(blackbox):
    (live,) = blackbox.glob("live-*")
    return int(live.name.removeprefix("live-"))


@pytest.mark.parametrize("who", ["twin", "driver"])
def test_same_bits_however_slow_a_process_is(env, expected, who):
    with halted(process_of(env, who)):
        assert_same(run(env, seed=7), expected)
    assert env.unwrapped.driver.read().lost == 0


def test_a_driver_starts_beside_a_slow_twin(tmp_path):
    with Twin(pose=SO101.home, lockstep=True) as twin:
        calibration = Calibration.from_dict(twin.calibration(), SO101)
        safety = SafetyConfig(on_exit="limp")
        config = DriverConfig(
            twin.port, calibration, safety=safety, blackbox=tmp_path, lockstep=True
        )
        with halted(twin._process.pid), Driver(config) as driver:
            assert driver.engage().torque


def test_a_slow_answer_is_waited_for(twin, bus):
    with halted(twin._process.pid):
        for _ in range(10):
            assert bus.read(Register.MODEL).tolist() == [777] * 6


def test_what_is_written_has_arrived(twin, bus):
    with halted(twin._process.pid):
        for value in (100, 200, 300):
            bus.write(Register.TORQUE_LIMIT, value)
            servos = twin.state()["servos"].values()
            assert [servo["torque_limit"] for servo in servos] == [value] * 6


def test_a_lost_answer_costs_no_time(twin, bus):
    twin.fault("silent", servo=3)
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(BusError, match="no valid answer from servo 3; ") as caught:
            bus.read_states()
        assert caught.value.missing == (3,)
    assert time.monotonic() - began < 20.0


def test_late_is_what_comes_after_the_next_reading(twin, bus):
    """How late a reply is counts in the arm's time, 0.02 s with each reading."""
    twin.fault("late", servo=2, seconds=0.015, times=1)
    bus.read_states()
    twin.fault("late", servo=2, seconds=0.05, times=1)
    lost = 0
    for _ in range(6):
        try:
            bus.read_states()
        except BusError:
            lost += 1
    assert lost == 3
    bus.read_states()


def test_a_twin_that_dies_is_noticed():
    with Twin(lockstep=True) as twin, Bus(twin.port, IDS, lockstep=True) as bus:
        bus.read_states()
        twin._process.kill()
        with pytest.raises(BusLost, match="is gone"):
            bus.read_states()


KILLED = """
import os, sys
from pathlib import Path
from robolearn.registry import make_env
env = make_env("robolearn/SO101-v0", obs_type="state", blackbox=Path(sys.argv[1]))
env.reset(seed=1)
os.kill(os.getpid(), 9)
"""


def test_a_driver_ends_when_client_and_twin_are_killed_together(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path])
    assert killed.returncode == -signal.SIGKILL
    driver, give_up = driver_of(tmp_path), time.monotonic() + 120
    while is_there(driver):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_state_from_before_a_verb_is_no_answer_to_it(env, monkeypatch):
    """A program that is interrupted between two looks at the driver once took one for the other."""
    driver = env.unwrapped.driver
    driver.limp()
    driver.advance(150)  # until it has sunk
    late, advance = [driver.read()], driver.advance

    def interrupted():
        now = advance()
        return late.pop() if late else now

    monkeypatch.setattr(driver, "advance", interrupted)
    assert driver.engage().state is State.ENGAGED
    assert not late
