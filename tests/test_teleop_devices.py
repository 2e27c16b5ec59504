"""Keyboard, gamepad and leader arm: taking over never jumps, letting go holds."""

import importlib
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.contract import SO101, pair_of
from robolearn.hardware import gamepad
from robolearn.hardware.bus import BusError, BusLost
from robolearn.hardware.calibration import Calibration, CalibrationError
from robolearn.hardware.gamepad import GamepadTeleop, PadState, PygamePad
from robolearn.hardware.keyboard import FIRST_REPEAT, REPEAT, HeldKeys, KeyboardTeleop, KeyReader
from robolearn.hardware.leader import MAX_LOST, RECONNECT, Leader
from robolearn.hardware.teleop import LONGEST_STEP, PLAY, Clutch, Jog, TeleopError, TeleopSample

POSE = np.array([0.0, -0.3, 0.2, 0.5, 0.1, 0.4])  # well within the limits
LOW, HIGH = SO101.limits
GRIPPER = SO101.grippers[0]
joint_positions = st.lists(st.floats(-2, 2), min_size=6, max_size=6).map(np.array)


class Clock:
    """Seconds that pass only when a test lets them."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


# Clutch and jog ----------------------------------------------------------------------------------


@given(devices=st.lists(joint_positions, min_size=1, max_size=5), robot=joint_positions)
def test_a_clutch_begins_at_the_robot_and_adds_the_motion_of_the_device(devices, robot):
    clutch = Clutch()
    for device in devices:
        target = clutch.follow(device, robot if device is devices[0] else np.full(6, np.nan))
        np.testing.assert_allclose(target, robot + (device - devices[0]), atol=1e-12)


@given(
    first=joint_positions,
    moved=joint_positions,
    robot=joint_positions,
    second=joint_positions,
    pickup=st.sets(st.integers(0, 5)),
)
def test_engaging_again_begins_where_the_robot_is_then(first, moved, robot, second, pickup):
    clutch = Clutch(tuple(pickup))
    clutch.follow(first, robot)
    clutch.follow(moved, robot)
    clutch.release()
    np.testing.assert_allclose(clutch.follow(second, moved), moved, atol=1e-12)


@given(positions=st.lists(st.floats(0, 1), min_size=2, max_size=30), robot=st.floats(0, 1))
def test_a_pickup_joint_never_jumps_and_never_gets_further_off(positions, robot):
    clutch = Clutch(pickup=[0])
    target, off = robot, abs(robot - positions[0])
    for before, device in zip(positions[:1] + positions, positions, strict=False):
        [new] = clutch.follow(np.array([device]), np.array([robot]))
        assert abs(new - target) <= 2 * abs(device - before) + 1e-9 + PLAY
        assert abs(new - device) <= off + 1e-9
        target, off = new, abs(new - device)


def test_a_gripper_that_is_engaged_half_open_can_close_after_all():
    clutch = Clutch(pickup=[0])
    assert clutch.follow(np.array([0.1]), np.array([0.6])) == pytest.approx(0.6)
    targets = [clutch.follow(np.array([x]), np.array([0.6]))[0] for x in (0.0, 0.2, 0.4, 0.0)]
    assert targets[-1] == pytest.approx(0.0)
    assert targets[0] == pytest.approx(0.4, abs=PLAY)


def test_the_jitter_of_a_device_at_rest_moves_nothing():
    clutch = Clutch(pickup=[0])
    for step in range(1000):
        target = clutch.follow(np.array([0.2 + 0.4 * PLAY * (-1) ** step]), np.array([0.8]))
    assert target == pytest.approx(0.8, abs=PLAY)


def test_jogging_begins_at_the_robot_moves_by_the_time_and_stops_at_the_limits():
    jog, velocity = Jog(SO101), np.full(6, 0.5)
    np.testing.assert_allclose(jog.follow(velocity, POSE, 10.0), POSE)
    np.testing.assert_allclose(jog.follow(velocity, POSE - 1, 10.05), POSE + 0.025)
    late = jog.follow(velocity, POSE, 60.0)  # the program was busy: no leap
    np.testing.assert_allclose(late, POSE + 0.025 + 0.5 * LONGEST_STEP)
    for tick in range(100):
        target = jog.follow(velocity, POSE, 60.1 + 0.1 * tick)
    np.testing.assert_allclose(target, HIGH)
    jog.release()
    np.testing.assert_allclose(jog.follow(velocity, POSE, 90.0), POSE)


# Held keys ---------------------------------------------------------------------------------------


def test_a_held_key_lasts_until_shortly_after_its_last_repeat():
    keys, start = HeldKeys(), 5.0
    assert keys.press(["q"], start) == {"q"}
    assert keys.held(start + 0.6) == {"q"}  # not repeated yet
    assert keys.moving(start + 0.6) == set()
    for tick in range(30):  # repeats come after 0.5 s, 30 a second
        assert keys.press(["q"], start + 0.5 + tick / 30) == set()
    last = start + 0.5 + 29 / 30
    assert keys.held(last + 0.9 * REPEAT) == {"q"} == keys.moving(last + 0.9 * REPEAT)
    assert keys.held(last + 1.1 * REPEAT) == set() == keys.moving(last + 1.1 * REPEAT)
    assert keys.press(["q"], last + 1.0) == {"q"}


def test_a_tap_moves_shortly_and_holds_longer():
    keys = HeldKeys()
    keys.press(["q", "w"], 5.0)
    assert keys.moving(5.0 + 0.9 * REPEAT) == {"q", "w"}
    assert keys.moving(5.0 + 1.1 * REPEAT) == set()
    assert keys.held(5.0 + 0.9 * FIRST_REPEAT) == {"q", "w"}
    assert keys.held(5.0 + 1.1 * FIRST_REPEAT) == set()


# The keyboard as a device ------------------------------------------------------------------------


class FakeKeys:
    def __init__(self):
        self.alive, self.next, self.closed = True, [], False

    def pressed(self):
        keys, self.next = self.next, []
        return keys

    def close(self):
        self.closed = True


@pytest.fixture
def keys():
    return FakeKeys()


def hold(teleop, keys, clock, key, seconds, position=POSE):
    """Holds a key down as a terminal shows it: at once, after 0.5 s, then 30 times a second."""
    samples, start, due = [], clock.now, 0.0
    while clock.now - start < seconds:
        if clock.now - start >= due - 1e-9:
            keys.next.append(key)
            due = due + 1 / 30 if due else 0.5
        samples.append(teleop.read(position))
        clock.now += 0.02
    return samples


def test_nobody_drives_until_a_key_is_pressed(keys, clock):
    sample = KeyboardTeleop(keys, clock=clock).read(POSE)
    assert sample == TeleopSample(100.0, None, engaged=False)


@pytest.mark.parametrize(
    ("key", "joint", "direction"),
    [("q", 0, 1), ("a", 0, -1), ("w", 1, 1), ("g", 4, -1), ("t", 4, 1), ("u", 5, 1), ("j", 5, -1)],
)
def test_a_key_jogs_its_joint_alone(keys, clock, key, joint, direction):
    teleop = KeyboardTeleop(keys, clock=clock, speed=0.3, gripper_speed=0.2)
    samples = hold(teleop, keys, clock, key, 1.5)
    assert all(sample.engaged and sample.alive for sample in samples)
    moved = samples[-1].action - POSE
    assert np.count_nonzero(np.abs(moved) > 1e-6) == 1
    speed = 0.2 if joint == GRIPPER else 0.3
    # It moves for REPEAT at first, and from the first repeat on.
    seconds = REPEAT + (1.5 - 0.5)
    assert moved[joint] == pytest.approx(direction * speed * seconds, abs=3 * 0.02 * speed)


def test_letting_go_of_a_key_hands_the_arm_back(keys, clock):
    teleop = KeyboardTeleop(keys, clock=clock)
    hold(teleop, keys, clock, "q", 1.0)
    clock.now += REPEAT
    released = teleop.read(POSE)
    assert (released.action, released.engaged, released.alive) == (None, False, True)
    keys.next = [" "]
    np.testing.assert_allclose(teleop.read(POSE + 0.1).action, POSE + 0.1, atol=1e-6)


def test_space_takes_the_arm_and_moves_nothing(keys, clock):
    samples = hold(KeyboardTeleop(keys, clock=clock), keys, clock, " ", 1.5)
    for sample in samples:
        assert sample.engaged
        assert sample.action.dtype == np.float32
        np.testing.assert_allclose(sample.action, POSE, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "mark"),
    [
        ("\n", "success"),
        ("\r", "success"),
        ("x", "failure"),
        ("\x7f", "rerecord"),
        ("\t", "end"),
        ("\x1b", "estop"),
    ],
)
def test_a_mark_comes_once_per_press_and_drives_nothing(keys, clock, key, mark):
    samples = hold(KeyboardTeleop(keys, clock=clock), keys, clock, key, 1.5)
    assert [sample.marks for sample in samples if sample.marks] == [frozenset({mark})]
    assert samples[0].marks
    assert not any(sample.engaged for sample in samples)


def test_a_lost_terminal_holds_even_with_a_key_down(keys, clock):
    teleop = KeyboardTeleop(keys, clock=clock)
    keys.next = ["q"]
    assert teleop.read(POSE).engaged
    keys.alive = False
    sample = teleop.read(POSE)
    assert (sample.action, sample.engaged, sample.alive) == (None, False, False)
    with teleop:
        pass
    assert keys.closed


# The terminal ------------------------------------------------------------------------------------


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    yield SimpleNamespace(master=master, slave=slave, mode=termios.tcgetattr(slave))
    for descriptor in (master, slave):
        with suppress(OSError):
            os.close(descriptor)


def collect(reader, count, patience=20.0):
    """The next `count` keys; none of the calls waits."""
    keys, end = [], time.monotonic() + patience
    while len(keys) < count and time.monotonic() < end:
        keys += reader.pressed()
    return keys


def test_keys_arrive_at_once_in_lower_case_without_echo(terminal):
    with KeyReader(terminal.slave) as reader:
        assert reader.pressed() == []
        os.write(terminal.master, b"qQ \t\x7f")
        assert collect(reader, 5) == ["q", "q", " ", "\t", "\x7f"]
        os.set_blocking(terminal.master, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal.master, 1)  # an echo would be here


def test_escape_is_told_from_arrows_and_function_keys(terminal):
    with KeyReader(terminal.slave) as reader:
        os.write(terminal.master, b"\x1b[A\x1bOP\x1b[15~\x1b[1;5Cq\x1b")
        keys = collect(reader, 6)
    assert keys.count("\x1b") == 1
    assert [key for key in keys if len(key) == 1] == ["q", "\x1b"]


def test_what_was_typed_before_is_not_for_the_arm(terminal):
    os.write(terminal.master, b"\x1bqqq\n")
    with KeyReader(terminal.slave) as reader:
        assert reader.pressed() == []


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_terminal_is_restored_whatever_happens(terminal, error):
    try:
        with KeyReader(terminal.slave) as reader:
            assert termios.tcgetattr(terminal.slave) != terminal.mode
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        pass
    assert termios.tcgetattr(terminal.slave) == terminal.mode
    assert reader.pressed() == []
    reader.close()


PROGRAM = """
import os, sys, time
from robolearn.hardware.keyboard import KeyReader
reader = KeyReader(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY))
print("ready", flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "number"),
    [
        ("time.sleep(60)", signal.SIGTERM),
        ("time.sleep(60)", signal.SIGHUP),
        ("time.sleep(60)", signal.SIGINT),
        ("raise RuntimeError('nobody closes the reader')", None),
        ("sys.exit(0)", None),
    ],
)
def test_the_terminal_is_restored_however_the_program_ends(terminal, end, number):
    command = [sys.executable, "-c", PROGRAM.format(end=end), os.ttyname(terminal.slave)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as program:
        assert program.stdout.readline() == b"ready\n"
        if number is not None:
            assert termios.tcgetattr(terminal.slave) != terminal.mode
            program.send_signal(number)
        program.wait(timeout=30)
    assert termios.tcgetattr(terminal.slave) == terminal.mode


def test_signals_go_back_to_what_they_were_and_own_handlers_stay(terminal):
    def own(number, frame):
        pass

    before = signal.signal(signal.SIGHUP, own)
    try:
        with KeyReader(terminal.slave):
            assert signal.getsignal(signal.SIGHUP) is own
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_closes_is_noticed(terminal):
    with KeyReader(terminal.slave) as reader:
        os.close(terminal.master)
        assert collect(reader, 1, patience=0.1) == []
        assert not reader.alive


def test_something_else_than_a_terminal_is_refused(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(TeleopError, match="needs a termin"):
        KeyReader(file.fileno())


# Gamepad -----------------------------------------------------------------------------------------


class FakePad:
    def __init__(self):
        self.sticks, self.buttons, self.there, self.closed = {}, set(), True, False

    def read(self):
        return PadState(self.sticks, frozenset(self.buttons)) if self.there else None

    def close(self):
        self.closed = True


@pytest.fixture
def pad():
    return FakePad()


def drive(teleop, clock, seconds=1.0, position=POSE):
    """The change of the target in that time."""
    first = teleop.read(position)
    for _ in range(round(seconds / 0.02)):
        clock.now += 0.02
        sample = teleop.read(position)
    return sample.action - first.action


@pytest.mark.parametrize(
    ("sticks", "buttons", "joint", "velocity"),
    [
        ({"left_x": 1.0}, set(), 0, 0.4),
        ({"left_y": -1.0}, set(), 1, 0.4),
        ({"left_y": 0.55}, set(), 1, -0.2),
        ({"right_y": -0.55}, set(), 2, -0.2),
        ({}, {"dpad_up"}, 3, -0.4),
        ({"right_x": -1.001}, set(), 4, -0.4),
        ({"left_trigger": 1.0}, set(), 5, 0.1),
        ({"right_trigger": 0.55}, set(), 5, -0.05),
    ],
)
def test_sticks_set_joint_velocities(pad, clock, sticks, buttons, joint, velocity):
    pad.sticks, pad.buttons = sticks, buttons | {"right_shoulder"}
    teleop = GamepadTeleop(pad, speed=0.4, gripper_speed=0.1, clock=clock)
    moved = drive(teleop, clock)
    expected = np.zeros(6)
    expected[joint] = velocity
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_of_a_pair_one_arm_is_driven_at_a_time(pad, clock):
    pair = pair_of(SO101)
    teleop, start = GamepadTeleop(pad, pair, speed=0.4, clock=clock), np.tile(POSE, 2)
    pad.sticks, driving = {"left_x": 1.0}, {"right_shoulder"}
    for moved in (0, 6, 0):
        pad.buttons = driving
        expected = np.zeros(12)
        expected[moved] = 0.4
        np.testing.assert_allclose(drive(teleop, clock, position=start), expected, atol=1e-6)
        pad.buttons = driving | {"left_shoulder"}
        teleop.read(start)


@given(st.floats(-0.1, 0.1))
def test_a_stick_near_its_centre_moves_nothing(value):
    pad, clock = FakePad(), Clock()
    pad.sticks, pad.buttons = {"left_x": value, "right_y": -value}, {"right_shoulder"}
    np.testing.assert_array_equal(drive(GamepadTeleop(pad, clock=clock), clock), 0.0)


def test_without_the_deadman_sticks_do_nothing_and_marks_count(pad, clock):
    teleop = GamepadTeleop(pad, clock=clock)
    pad.sticks, pad.buttons = {"left_x": 1.0}, {"b"}
    sample = teleop.read(POSE)
    assert (sample.action, sample.engaged, sample.marks) == (None, False, {"estop"})
    assert teleop.read(POSE).marks == frozenset()  # still held
    pad.buttons = {"a", "start", "right_shoulder"}
    assert teleop.read(POSE).marks == {"success", "end"}
    pad.buttons = {"x", "y", "dpad_up"}
    assert teleop.read(POSE).marks == {"failure", "rerecord"}


def test_a_lost_gamepad_holds_and_one_that_is_back_begins_at_the_robot(pad, clock):
    teleop = GamepadTeleop(pad, clock=clock)
    pad.sticks, pad.buttons = {"left_x": 1.0}, {"right_shoulder"}
    drive(teleop, clock)
    pad.there = False
    sample = teleop.read(POSE)
    assert (sample.action, sample.engaged, sample.alive) == (None, False, False)
    pad.there = True
    np.testing.assert_allclose(teleop.read(POSE + 0.2).action, POSE + 0.2, atol=1e-6)
    teleop.close()
    assert pad.closed


def fake_pygame(monkeypatch, pads):
    """Stands in for pygame with Xbox pads, each a dict from SDL's names to values."""
    names = [f"AXIS_{name}" for name in gamepad.STICKS.values()]
    names += [f"BUTTON_{name}" for name in gamepad.BUTTONS.values()]
    constants = {f"CONTROLLER_{name}": number for number, name in enumerate(names)}
    pump = SimpleNamespace(pump=lambda: None)
    window = SimpleNamespace(init=lambda: None)

    class Controller:
        def __init__(self, index):
            self.state = pads[index]
            self.get_axis = self.get_button = lambda number: self.state.get(names[number], 0)

        def attached(self):
            return self.state.get("attached", True)

        def quit(self):
            self.state["quit"] = True

    modules = {
        "pygame": SimpleNamespace(event=pump, display=window, **constants),
        "pygame._sdl2.controller": SimpleNamespace(
            init=lambda: None,
            get_count=lambda: len(pads),
            is_controller=lambda index: "AXIS_LEFTX" in pads[index],
            Controller=Controller,
        ),
    }
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)


@pytest.fixture
def environment(monkeypatch):
    for name in ("PYGAME_HIDE_SUPPORT_PROMPT", "SDL_VIDEODRIVER"):
        monkeypatch.setenv(name, "dummy")
    for name in ("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "SDL_NO_SIGNAL_HANDLERS"):
        monkeypatch.setenv(name, "1")


@pytest.mark.usefixtures("environment")
def test_a_pad_is_read_through_pygame_by_name(monkeypatch):
    state = {"AXIS_LEFTX": -32767, "AXIS_TRIGGERRIGHT": 32767, "BUTTON_RIGHTSHOULDER": 1}
    fake_pygame(monkeypatch, [state])
    pad = PygamePad()
    sticks, buttons = pad.read()
    assert {name: value for name, value in sticks.items() if value} == {
        "left_x": -1.0,
        "right_trigger": 1.0,
    }
    assert buttons == {"right_shoulder"}
    state["attached"] = False
    assert pad.read() is None
    pad.close()
    assert state["quit"]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("pads", [[], [{"a steering wheel": 1}]])
def test_without_a_gamepad_it_says_so(monkeypatch, pads):
    fake_pygame(monkeypatch, pads)
    with pytest.raises(TeleopError, match="no gamepad number 0; connect one"):
        GamepadTeleop()


@pytest.mark.usefixtures("environment")
def test_without_pygame_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(TeleopError, match="run `pip install pygame`"):
        GamepadTeleop()


# Leader ------------------------------------------------------------------------------------------

CALIBRATION = Calibration.nominal(SO101)


class FakeBus:
    """A leader's servos: a pose, or the error that reading raises."""

    def __init__(self, pose=POSE):
        self.pose, self.error, self.refused, self.stiff = pose, None, None, ()
        self.is_connected, self.connects, self.releases = False, 0, 0

    def connect(self):
        self.connects += 1
        if self.refused:
            raise self.refused
        self.is_connected = True

    def close(self):
        self.is_connected = False

    def release(self):
        self.releases += 1
        return self.stiff

    def read(self, register):
        return CALIBRATION.registers[register]

    def read_states(self):
        if not self.is_connected:
            raise BusLost("not open")
        if isinstance(self.error, BusLost):
            self.is_connected = False
        if self.error:
            raise self.error
        return SimpleNamespace(position=CALIBRATION.ticks(self.pose))


@pytest.fixture
def bus():
    return FakeBus()


TICK = 0.002  # contract units, of the coarsest joint


def test_a_leader_goes_limp_and_the_robot_follows_its_motion(bus, clock):
    leader = Leader(bus, CALIBRATION, clock=clock)
    assert (bus.connects, bus.releases) == (1, 1)
    robot = POSE + 0.2
    np.testing.assert_allclose(leader.read(robot).action, robot, atol=1e-6)
    bus.pose = POSE + [0.3, -0.1, 0.0, -0.2, 0.1, 0.0]
    expected = robot + [0.3, -0.1, 0.0, -0.2, 0.1, 0.0]
    sample = leader.read(POSE)
    np.testing.assert_allclose(sample.action, np.clip(expected, LOW, HIGH), atol=TICK)
    assert (sample.engaged, sample.alive, sample.marks) == (True, True, frozenset())
    leader.close()
    assert not bus.is_connected


def test_the_gripper_comes_to_agree_with_that_of_the_leader(bus, clock):
    leader, robot = Leader(bus, CALIBRATION, clock=clock), POSE.copy()
    robot[GRIPPER] = 0.9
    for opening in (0.3, 1.0, 0.0):
        bus.pose = np.append(POSE[:GRIPPER], opening)
        action = leader.read(robot).action
    assert action[GRIPPER] == pytest.approx(0.0, abs=TICK)


def test_targets_stay_within_the_limits_of_the_arm(bus, clock):
    leader = Leader(bus, CALIBRATION, clock=clock)
    leader.read(HIGH)
    bus.pose = POSE + 0.5
    action = leader.read(HIGH).action
    assert np.all(action <= HIGH)
    assert np.all(action >= LOW)


def test_a_lost_cycle_repeats_the_target_and_three_hold(bus, clock):
    leader = Leader(bus, CALIBRATION, clock=clock)
    first = leader.read(POSE)
    bus.error = BusError("servo 3 is silent", (3,))
    for _ in range(MAX_LOST - 1):
        np.testing.assert_array_equal(leader.read(POSE + 0.5).action, first.action)
    lost = leader.read(POSE)
    assert (lost.action, lost.engaged, lost.alive) == (None, False, False)
    bus.error, bus.pose = None, POSE - 0.1  # it was moved meanwhile
    robot = POSE + 0.05
    back = leader.read(robot)
    assert back.alive
    np.testing.assert_allclose(back.action, robot, atol=1e-6)


def test_an_unplugged_leader_holds_at_once_and_is_opened_again_now_and_then(bus, clock):
    leader = Leader(bus, CALIBRATION, clock=clock)
    leader.read(POSE)
    bus.error = bus.refused = BusLost("unplugged")
    for _ in range(round(2.5 * RECONNECT / 0.02)):
        sample = leader.read(POSE)
        assert (sample.engaged, sample.alive) == (False, False)
        clock.now += 0.02
    assert bus.connects == 1 + 3
    bus.error = bus.refused = None
    bus.stiff = (2,)  # it must not hold against the human's hand
    clock.now += RECONNECT
    assert not leader.read(POSE).alive
    assert not leader.read(POSE).alive
    bus.stiff = ()
    clock.now += RECONNECT
    assert leader.read(POSE).alive


class Pedal:
    def __init__(self):
        self.sample, self.closed = TeleopSample(0.0, None, engaged=False), False

    def read(self, position):
        return self.sample

    def close(self):
        self.closed = True


def test_a_pedal_decides_when_the_leader_drives(bus, clock):
    pedal = Pedal()
    leader = Leader(bus, CALIBRATION, pedal, clock)
    pedal.sample = TeleopSample(0.0, None, engaged=False, marks=frozenset({"estop"}))
    sample = leader.read(POSE)
    assert (sample.action, sample.engaged, sample.alive) == (None, False, True)
    assert sample.marks == {"estop"}
    pedal.sample = TeleopSample(0.0, POSE + 1, engaged=True)
    np.testing.assert_allclose(leader.read(POSE).action, POSE, atol=1e-6)
    pedal.sample = TeleopSample(0.0, None, engaged=False)
    assert leader.read(POSE).action is None
    bus.pose = POSE - 0.2  # moved while the pedal is up
    pedal.sample = TeleopSample(0.0, POSE, engaged=True)
    np.testing.assert_allclose(leader.read(POSE).action, POSE, atol=1e-6)
    pedal.sample = TeleopSample.lost(0.0)
    assert not leader.read(POSE).alive
    leader.close()
    assert pedal.closed


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"refused": BusLost("/dev/x cannot be opened")}, BusLost, "cannot be opened"),
        ({"stiff": (2, 5)}, TeleopError, "servos 2, 5 of the leader did not go limp"),
        ({"read": lambda register: np.zeros(6, int)}, CalibrationError, "choose the file of this"),
    ],
)
def test_a_leader_that_cannot_be_used_is_refused_and_all_is_closed(bus, change, error, words):
    vars(bus).update(change)
    pedal = Pedal()
    with pytest.raises(error, match=words):
        Leader(bus, CALIBRATION, pedal)
    assert not bus.is_connected
    assert pedal.closed
