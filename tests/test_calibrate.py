"""`robolearn calibrate` with a scripted hand on the twin's limp arm."""

import io
import json
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.contract import SO101
from robolearn.hardware.bus import Bus, BusError, BusLost
from robolearn.hardware.calibrate import CalibrateConfig, Terminal, calibrate, main
from robolearn.hardware.calibration import RADIANS, Calibration, CalibrationError
from robolearn.hardware.measure import FULL_TURN, POSES, Measured, Row, flaw, unwrapped
from robolearn.hardware.registers import TICKS_PER_TURN, Register
from robolearn.hardware.twin import Twin

MIDDLE = dict(zip(SO101.joints, np.add(SO101.low, SO101.high) / 2, strict=True))
SPEED = 2.0  # rad/s of the twin's hand
DT = 0.05  # s that pass with each look
# Where the encoders were mounted: four joints pass from tick 4095 to 0 on their way.
OFFSETS = (1800, -1500, 40, 900, -2000, 1300)
NOMINAL = Calibration.nominal(SO101)
TRUTH = Calibration(
    SO101,
    tuple(
        replace(joint, homing_offset=offset)
        for joint, offset in zip(NOMINAL.joints, OFFSETS, strict=True)
    ),
)
MEASURED = [joint for joint in SO101.joints if joint not in FULL_TURN]
FACTORY = {
    Register.HOMING_OFFSET: 0,
    Register.MIN_POSITION: 0,
    Register.MAX_POSITION: 4095,
    Register.RETURN_DELAY: 250,
    Register.MAX_TORQUE: 1000,
    Register.PROTECTION_CURRENT: 500,
    Register.OVERLOAD_TORQUE: 80,
}
# How the other joints give way when one goes to its lower or upper stop.
AWAY = {
    ("shoulder_lift", 1): {"elbow_flex": -1.69, "wrist_flex": -1.0},
    ("elbow_flex", 1): {"shoulder_lift": -1.7},
}
# Ticks to which an end is found. The twin's forearm meets its upper arm shortly before the stop.
TOLERANCE = {("elbow_flex", "range_max"): 80}


class Hand:
    """Does what it is asked to, unless `mistakes` says otherwise.

    `mistakes` maps a joint to what goes wrong the first time: a function of the hand, called in
    the middle of the motion, or a share of the way.
    """

    def __init__(self, twin, mistakes=None, answer=""):
        self.twin, self.mistakes, self.answer = twin, dict(mistakes or {}), answer
        self.said, self.asked, self.watched = [], [], []

    def say(self, text):
        self.said.append(text)

    def ask(self, text):
        self.asked.append(text)
        self.twin.push(MIDDLE)
        self.twin.advance(2.5)
        return self.answer

    def watch(self, text, look):
        joint = text.split(":")[0]
        self.watched.append(joint)
        mistake = self.mistakes.pop(joint, 1.0)
        share = mistake if isinstance(mistake, float) else 1.0
        index = SO101.joints.index(joint)
        for side, end in enumerate((SO101.low[index], SO101.high[index])):
            away = MIDDLE | AWAY.get((joint, side), {})
            way = share * (end - MIDDLE[joint])
            # Fast until shortly before the stop, then gently against it.
            fast = round(0.45 * (1 + side) * NOMINAL[joint].span * RADIANS / SPEED / DT) + 4
            for part, looks in ((0.9, fast), (0.95, 2), (0.97, 2), (0.99, 2), (1.01, 8)):
                self.twin.push(away | {joint: MIDDLE[joint] + part * way})
                rows = [look() for _ in range(looks)]
                assert all(row.low <= row.now <= row.high for row in rows)
            if callable(mistake):
                mistake(self)
                look()


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    file = tmp_path_factory.mktemp("truth") / "truth.json"
    TRUTH.save(file)
    with Twin(calibrated=False, lockstep=True, lockstep_dt=DT, calibration=file) as running:
        yield running


@pytest.fixture
def factory(twin):
    """The servos as they are delivered, the cable in."""
    twin.mend()
    with Bus(twin.port, range(1, 7), timeout=1.0) as bus, bus.unlocked():
        bus.release()
        for register, value in FACTORY.items():
            bus.write(register, value)
    return twin


@pytest.fixture
def config(factory, tmp_path):
    return CalibrateConfig(factory.port, tmp_path / "arm.json")


@pytest.fixture
def measured(config):
    """Everything is measured, nothing is written; returns how to forget joints."""
    middle = {name: (2047 + joint.homing_offset) % 4096 for name, joint in TRUTH.items()}
    ends = {
        name: (
            middle[name] - 2047 + TRUTH[name].range_min,
            middle[name] - 2047 + TRUTH[name].range_max,
        )
        for name in MEASURED
    }
    partial = config.out.with_name("arm.json.partial")

    def forget(*names, **wrong_middle):
        rest = {name: ends[name] for name in MEASURED if name not in names}
        Measured(config.ids, middle | wrong_middle, rest).save(partial)

    forget()
    return forget


def interrupt(hand):
    """Ctrl-C."""
    raise KeyboardInterrupt


def held(twin, *registers):
    """What the servos hold, by joint."""
    servos = twin.state()["servos"]
    return {
        joint: tuple(servo[register.name.lower()] for register in registers or FACTORY)
        for joint, servo in servos.items()
    }


def assert_as_true(calibration):
    """The ends are where the twin has them, to a few ticks of the encoder."""
    for name in MEASURED:
        found, true = calibration[name], TRUTH[name]
        for end in ("range_min", "range_max"):
            difference = getattr(found, end) + found.homing_offset
            difference -= getattr(true, end) + true.homing_offset
            assert abs(unwrapped(difference, 0)) <= TOLERANCE.get((name, end), 6), (name, end)


# The whole procedure -----------------------------------------------------------------------------


def test_a_new_arm_is_calibrated(factory, config, monkeypatch, tmp_path, capsys):
    constants = pytest.importorskip("lerobot.utils.constants")
    monkeypatch.setattr(constants, "HF_LEROBOT_CALIBRATION", tmp_path / "lerobot")
    hand = Hand(factory)
    calibration = calibrate(replace(config, lerobot_id="my_arm"), hand)

    assert hand.watched == MEASURED
    assert len(hand.asked) == 1
    assert all(description in hand.asked[0] for description, _ in POSES.values())
    assert_as_true(calibration)
    roll = calibration["wrist_roll"]
    assert (roll.range_min, roll.range_max) == (0, 4095)
    middle = TRUTH["wrist_roll"].homing_offset + 2047
    assert abs(unwrapped(2047 + roll.homing_offset - middle, 0)) <= 6

    assert Calibration.load(config.out, SO101) == calibration
    theirs = tmp_path / "lerobot/robots/so_follower/my_arm.json"
    assert theirs.read_bytes() == config.out.read_bytes()
    assert not list(tmp_path.glob("*.partial"))

    servos = factory.state()["servos"]
    assert {servo["lock"] for servo in servos.values()} == {1}
    assert {servo["return_delay"] for servo in servos.values()} == {0}
    gripper = held(factory, Register.MAX_TORQUE, Register.OVERLOAD_TORQUE)
    assert (gripper["gripper"], gripper["elbow_flex"]) == ((500, 25), (1000, 80))
    with Bus(factory.port, calibration.ids, timeout=1.0) as bus:
        calibration.check_servos(bus)
        # And the arm knows where it is.
        position = calibration.position(bus.read_states().position)
    true = [servo["position"] for servo in factory.state()["servos"].values()]
    np.testing.assert_allclose(position, true, atol=0.06)

    assert main(replace(config, check=config.out)) == 0
    said = capsys.readouterr().out
    assert f"fits the servos on {factory.port}" in said
    assert "calibrating changes that" not in said


def test_an_interruption_changes_no_servo_and_loses_no_joint(factory, config, measured):
    measured(*MEASURED[2:])
    before, first = held(factory), Hand(factory, {"wrist_flex": interrupt})
    with pytest.raises(KeyboardInterrupt):
        calibrate(config, first)
    assert first.watched == ["elbow_flex", "wrist_flex"]
    assert "the same command goes on from there" in first.said[-1]
    assert held(factory) == before
    assert not config.out.exists()

    second = Hand(factory)
    assert_as_true(calibrate(config, second))
    assert second.watched == ["wrist_flex", "gripper"]
    assert "holds shoulder_pan, shoulder_lift, elbow_flex" in second.asked[0]
    assert len(second.asked) == 1  # not for the middle pose


def test_an_unplugged_cable_loses_no_joint(factory, config, measured):
    measured("gripper")
    before = held(factory)
    first = Hand(factory, {"gripper": lambda hand: factory.fault("unplug")})
    with pytest.raises(BusLost):
        calibrate(config, first)
    assert "the same command goes on from there" in first.said[-1]
    factory.mend("unplug")
    assert held(factory) == before
    second = Hand(factory)
    assert_as_true(calibrate(replace(config, port=factory.port), second))
    assert second.watched == ["gripper"]


def test_a_joint_that_moved_too_little_is_measured_again(factory, config, measured):
    measured("elbow_flex")
    hand = Hand(factory, {"elbow_flex": 0.5})
    assert_as_true(calibrate(config, hand))
    assert hand.watched == ["elbow_flex", "elbow_flex"]
    (complaint,) = [text for text in hand.said if "Only this joint again" in text]
    assert re.search("elbow_flex was moved through 5.% of its range", complaint)


def test_a_middle_far_off_is_asked_for_again(factory, config, measured):
    measured("wrist_flex", wrist_flex=600)  # its true middle is 2947
    hand = Hand(factory)
    assert_as_true(calibrate(config, hand))
    assert hand.watched == ["wrist_flex", "wrist_flex"]
    assert "wrist_flex goes past the end of the encoder's turn" in hand.said[0]
    assert POSES["wrist_flex"][0] in hand.asked[1]
    assert "elbow_flex" not in hand.asked[1]


def test_a_bad_line_is_borne(factory, config, measured):
    measured("wrist_flex")
    steps = iter((lambda: factory.fault("drop", one_in=60), factory.mend))
    hand = Hand(factory, {"wrist_flex": lambda hand: next(steps)()})
    assert_as_true(calibrate(config, hand))
    assert next(steps, "no more") == "no more"


# Writing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("leader", [False, True])
def test_what_is_measured_is_written(factory, config, measured, leader):
    hand = Hand(factory)
    calibration = calibrate(replace(config, leader=leader), hand)
    registers = held(factory, *calibration.registers)
    for name, joint in calibration.items():
        assert registers[name] == (joint.homing_offset, joint.range_min, joint.range_max)
    assert held(factory, Register.MAX_TORQUE)["gripper"] == (1000 if leader else 500,)
    assert ("gripper: MAX_TORQUE was 1000 and is 500 now" in hand.said) != leader
    assert "elbow_flex: RETURN_DELAY was 250 and is 0 now" in hand.said


def test_a_stiff_arm_is_not_dropped(factory, config, measured):
    with Bus(factory.port, config.ids, timeout=1.0) as bus:
        bus.enable_torque()
    stiff = []

    class Careful(Hand):
        def ask(self, text):
            stiff.append((text, held(self.twin, Register.TORQUE_ENABLE)["elbow_flex"]))
            return ""

    calibrate(config, Careful(factory))
    assert [(("hold it" in text), torque) for text, torque in stiff] == [
        (False, (1,)),
        (True, (1,)),
    ]
    assert held(factory, Register.TORQUE_ENABLE)["elbow_flex"] == (0,)


def test_the_human_may_begin_anew(factory, config, measured):
    hand = Hand(factory, {"shoulder_pan": interrupt}, answer="n")
    with pytest.raises(KeyboardInterrupt):
        calibrate(config, hand)
    assert len(hand.asked) == 2  # also for the middle pose
    assert hand.watched == ["shoulder_pan"]


@pytest.fixture
def at_write(monkeypatch):
    """Lets something happen before the n-th confirmed write of a permanent register."""
    write, count = Bus.write, 0

    def install(n, event):
        def counting(self, register, values, servo=None):
            nonlocal count
            count += servo is not None and register < Register.TORQUE_ENABLE
            if count == n:
                event()
            return write(self, register, values, servo)

        monkeypatch.setattr(Bus, "write", counting)

    return install


def test_ctrl_c_waits_for_the_servos(factory, config, measured, at_write):
    at_write(5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        calibrate(config, Hand(factory))
    ends = {joint: values[1:] for joint, values in held(factory).items()}
    assert ends["gripper"][:2] == (TRUTH["gripper"].range_min, TRUTH["gripper"].range_max)
    assert_as_true(calibrate(config, Hand(factory)))


def test_a_servo_that_falls_silent_leaves_the_others_as_they_were(
    factory, config, measured, at_write
):
    before = held(factory)
    at_write(11, lambda: factory.fault("deaf", servo=3))
    with pytest.raises(BusError, match="servo 3"):
        calibrate(config, Hand(factory))
    after = held(factory)
    assert {joint for joint in before if after[joint] != before[joint]} <= {"elbow_flex"}
    assert not config.out.exists()
    factory.mend()
    assert_as_true(calibrate(config, Hand(factory)))


def test_a_cable_pulled_while_writing_is_mended_by_the_next_run(
    factory, config, measured, at_write
):
    before = held(factory)
    at_write(14, lambda: factory.fault("unplug"))
    with pytest.raises(BusLost):
        calibrate(config, Hand(factory))
    factory.mend("unplug")
    assert held(factory) != before
    with Bus(factory.port, config.ids, timeout=1.0) as bus, pytest.raises(CalibrationError):
        TRUTH.check_servos(bus)
    assert_as_true(calibrate(replace(config, port=factory.port), Hand(factory)))


# Checking ----------------------------------------------------------------------------------------


def test_a_file_of_another_arm_does_not_fit(factory, config, measured, tmp_path, capsys):
    calibrate(config, Hand(factory))
    NOMINAL.save(tmp_path / "other.json")
    with pytest.raises(CalibrationError, match="shoulder_pan: the servo has"):
        main(replace(config, check=tmp_path / "other.json"))
    factory.fault("eeprom", servo=6, register="MAX_TORQUE", value=1000)
    assert main(replace(config, check=config.out)) == 0
    assert "gripper has 1000 in MAX_TORQUE; calibrating changes that" in capsys.readouterr().out


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids": (1, 2, 3)}, "give 6, one for each joint"),
        ({"ids": (1, 2, 3, 4, 5, 5)}, "different ones"),
        ({"lerobot_id": "../arm"}, "is no name for an arm"),
    ],
)
def test_bad_options_are_refused(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        calibrate(CalibrateConfig("/dev/none", tmp_path / "arm.json", **options), Hand(None))


def test_an_unfinished_file_must_be_of_this_arm_and_whole(tmp_path):
    config = CalibrateConfig("/dev/none", tmp_path / "arm.json")
    partial = tmp_path / "arm.json.partial"
    Measured((7, 8, 9, 10, 11, 12)).save(partial)
    with pytest.raises(ValueError, match="is of servos .*; delete it to begin anew"):
        calibrate(config, Hand(None))
    for text in ("{", "[]", json.dumps({"ids": [1], "middle": {"knee": 1}, "ends": {}})):
        partial.write_text(text)
        with pytest.raises(ValueError, match="is damaged"):
            calibrate(config, Hand(None))


def test_it_takes_a_terminal(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(ValueError, match="takes a human"):
        main(CalibrateConfig("/dev/none", tmp_path / "arm.json"))


@pytest.mark.realtime  # beside other tests on all cores it once waited for ever
def test_a_human_at_a_terminal(monkeypatch, capsys):
    master, slave = os.openpty()
    looks = []

    def look():
        looks.append(Row("elbow_flex", 100, 200, 300, 0.5))
        if len(looks) == 3:
            os.write(master, b"\n")
        return looks[-1]

    with os.fdopen(slave) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        Terminal().watch("elbow_flex: folded", look)
    os.close(master)
    assert len(looks) >= 3
    said = capsys.readouterr().out
    assert "elbow_flex: folded" in said
    assert "50%" in said


# Ticks -------------------------------------------------------------------------------------------


@given(st.integers(-9000, 9000), st.integers(-2047, 2047))
def test_the_turns_of_an_encoder_are_counted(before, step):
    assert unwrapped((before + step) % TICKS_PER_TURN, before) == before + step


@given(st.integers(0, 4095), st.integers(-3000, 0), st.integers(0, 3000))
def test_a_joint_without_flaws_can_be_written(middle, low, high):
    ends = {"elbow_flex": (middle + low, middle + high)}
    joint = Measured(tuple(range(1, 7)), {"elbow_flex": middle}, ends).joint("elbow_flex")
    if not flaw("elbow_flex", joint):
        Calibration(SO101, tuple((dict(NOMINAL) | {"elbow_flex": joint}).values())).check()
