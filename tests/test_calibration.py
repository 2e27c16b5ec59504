"""hardware/calibration.py: ticks and contract units, against LeRobot's own reader, and sanity."""

import json
import pickle
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.contract import SO101
from robolearn.envs.scene import arm_spec
from robolearn.hardware.calibration import (
    JAW_TRAVEL,
    Calibration,
    CalibrationError,
    JointCalibration,
)
from robolearn.hardware.registers import Register
from robolearn.units import unit_map

NOMINAL = Calibration.nominal(SO101)


@st.composite
def calibrations(draw):
    def joint(servo):
        low = draw(st.integers(0, 2000))
        return JointCalibration(
            id=servo,
            drive_mode=draw(st.integers(0, 1)),
            homing_offset=draw(st.integers(-2047, 2047)),
            range_min=low,
            range_max=draw(st.integers(low + 200, 4095)),
        )

    return Calibration(SO101, tuple(joint(servo) for servo in range(1, 7)))


def changed(joint, **values):
    """The nominal calibration with one joint changed."""
    joints = dict(NOMINAL) | {joint: replace(NOMINAL[joint], **values)}
    return Calibration(SO101, tuple(joints.values()))


# Conversion --------------------------------------------------------------------------------------


@given(calibrations(), st.lists(st.integers(0, 4095), min_size=6, max_size=6))
def test_ticks_survive_the_way_to_contract_units_and_back(calibration, ticks):
    position = calibration.position(np.array(ticks))
    np.testing.assert_array_equal(calibration.ticks(position), ticks)
    np.testing.assert_array_equal(calibration.ticks(position[None]), [ticks])


@given(calibrations())
def test_drive_mode_turns_the_joint_round(calibration):
    middle, centre = calibration.ticks(np.add(SO101.low, SO101.high) / 2), np.ones(6, int)
    step = calibration.position(middle + centre) - calibration.position(middle)
    np.testing.assert_allclose(step, calibration.scale)
    sign = [-1 if joint.drive_mode else 1 for joint in calibration.values()]
    np.testing.assert_array_equal(np.sign(step), sign)


@given(calibrations())
def test_the_limits_are_the_ends_of_the_calibrated_range(calibration):
    low, high = calibration.limits
    ends = {"range_min": low, "range_max": high}
    for index, joint in enumerate(calibration.values()):
        for name, end in ends.items():
            other = {"range_min": "range_max", "range_max": "range_min"}[name]
            expected = getattr(joint, other if joint.drive_mode else name)
            assert calibration.ticks(end)[index] == expected
    assert (low[5], high[5]) == pytest.approx((0.0, 1.0))


def test_the_nominal_range_is_that_of_the_model():
    low, high = NOMINAL.limits
    half_a_tick = np.abs(NOMINAL.scale) / 2 + 1e-9
    assert (np.abs(low - SO101.low) <= half_a_tick).all()
    assert (np.abs(high - SO101.high) <= half_a_tick).all()
    assert {joint.range_min + joint.range_max for joint in NOMINAL.values()} == {2 * 2047}
    assert NOMINAL.ids == (1, 2, 3, 4, 5, 6)
    NOMINAL.check()


def test_the_jaw_travels_as_in_the_model():
    low, high = arm_spec().compile().joint("gripper").range
    assert high - low == pytest.approx(JAW_TRAVEL)


@given(calibrations(), st.lists(st.integers(0, 4095), min_size=6, max_size=6))
def test_lerobot_reads_the_same_degrees(calibration, ticks):
    bus = lerobot_bus(calibration, "degrees")
    scale, offset = unit_map(SO101, "degrees")
    read = np.array(list(bus._normalize(dict(zip(bus.ids, ticks, strict=True))).values()))
    ours = calibration.position(np.array(ticks))
    # lerobot's degrees ignore the drive mode, and its gripper is clipped.
    forward = np.array([not joint.drive_mode for joint in calibration.values()])[:5]
    theirs = read * scale + offset
    np.testing.assert_allclose(ours[:5][forward], theirs[:5][forward])
    assert np.clip(ours[5], 0.0, 1.0) == pytest.approx(theirs[5])


@given(calibrations(), st.floats(0.0, 1.0))
def test_lerobot_agrees_about_the_drive_mode_in_percent(calibration, share):
    bus = lerobot_bus(calibration, "percent")
    ticks = np.array([round(j.range_min + share * j.span) for j in calibration.values()])
    read = np.array(list(bus._normalize(dict(zip(bus.ids, ticks.tolist(), strict=True))).values()))
    low, high = calibration.limits
    ours = (calibration.position(ticks) - low) / (high - low)
    np.testing.assert_allclose(ours[:5], read[:5] / 200 + 0.5, atol=1e-9)
    assert ours[5] == pytest.approx(read[5] / 100)


def lerobot_bus(calibration, units):
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus
    from lerobot.utils import import_utils

    modes = {"degrees": MotorNormMode.DEGREES, "percent": MotorNormMode.RANGE_M100_100}
    modes = [*[modes[units]] * 5, MotorNormMode.RANGE_0_100]
    motors = {
        name: Motor(joint.id, "sts3215", mode)
        for (name, joint), mode in zip(calibration.items(), modes, strict=True)
    }
    theirs = {name: MotorCalibration(**values) for name, values in calibration.to_dict().items()}
    # An extra of lerobot that reading needs not; only its configuration of servos does.
    with patch.dict(import_utils._require_package_cache, deepdiff=True):
        return FeetechMotorsBus("", motors, theirs)


# The file ----------------------------------------------------------------------------------------


def test_lerobot_and_we_read_each_others_files(tmp_path):
    import draccus
    from lerobot.motors import MotorCalibration

    calibration = changed("elbow_flex", homing_offset=-986, range_min=901, range_max=3110)
    calibration.save(tmp_path / "ours.json")
    with (tmp_path / "ours.json").open() as file, draccus.config_type("json"):
        theirs = draccus.load(dict[str, MotorCalibration], file)
    assert {name: vars(joint) for name, joint in theirs.items()} == calibration.to_dict()
    with (tmp_path / "theirs.json").open("w") as file, draccus.config_type("json"):
        draccus.dump(theirs, file, indent=4)
    assert Calibration.load(tmp_path / "theirs.json", SO101) == calibration


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("gripper"), "for shoulder_pan, .* wrist_roll; so101 has shoulder_pan"),
        (lambda c: c.update(head=c["gripper"]), "gripper, head; so101 has"),
        (lambda c: c.clear(), "for no joint; so101 has"),
        (lambda c: c["gripper"].pop("id"), "gripper must have id, drive_mode, homing_offset"),
        (lambda c: c["gripper"].update(speed=1), "gripper must have .* and nothing else"),
        (lambda c: c["gripper"].update(range_min=1.5), "gripper has .* must be integers"),
        (lambda c: c["gripper"].update(range_max=None), "gripper has .* must be integers"),
        (lambda c: c["gripper"].update(range_min=3000, range_max=3000), "range 3000..3000, which"),
        (lambda c: c["gripper"].update(range_max=4096), "gripper has the range .*4096, which must"),
        (lambda c: c["gripper"].update(range_min=-1), "gripper has the range -1.*, which must"),
        (lambda c: c["gripper"].update(homing_offset=-2048), "homing_offset -2048, beyond"),
        (lambda c: c["gripper"].update(drive_mode=2), "drive_mode 2, which must be 0 or 1"),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path, damage, message):
    values = NOMINAL.to_dict()
    damage(values)
    path = tmp_path / "arm.json"
    path.write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match=message) as caught:
        Calibration.load(path, SO101)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "[1, 2]", '"text"', "\udcff"])
def test_a_file_that_is_no_calibration_is_refused(tmp_path, content):
    path = tmp_path / "arm.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CalibrationError, match="cannot use the calibration .*arm.json"):
        Calibration.load(path, SO101)


def test_the_hash_tells_calibrations_apart():
    assert NOMINAL.hash == Calibration.from_dict(NOMINAL.to_dict(), SO101).hash
    for change in ({"range_min": 1500}, {"homing_offset": 1}, {"drive_mode": 1}, {"id": 7}):
        assert changed("gripper", **change).hash != NOMINAL.hash


def test_a_calibration_travels_between_processes():
    low, _ = NOMINAL.limits
    again = pickle.loads(pickle.dumps(NOMINAL))
    assert again == NOMINAL
    assert list(again) == list(SO101.joints)
    np.testing.assert_array_equal(again.limits[0], low)
    with pytest.raises(KeyError):
        again["tail"]


# Sanity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("joint", "values", "message"),
    [
        ("elbow_flex", {"range_min": 1800, "range_max": 2300}, "elbow_flex was moved through 23%"),
        ("elbow_flex", {"range_min": 0, "range_max": 4095}, "elbow_flex has 186% .* crossed from"),
        ("gripper", {"range_min": 0, "range_max": 4095}, "gripper has 327%"),
        ("wrist_roll", {"range_min": 1000, "range_max": 3000}, "wrist_roll was moved through 55%"),
        ("gripper", {"id": 5}, "gripper shares id 5"),
        ("gripper", {"range_min": 3000, "range_max": 1000}, "gripper has the range 3000..1000"),
        ("shoulder_pan", {"homing_offset": 2048}, "shoulder_pan has homing_offset 2048"),
        ("shoulder_pan", {"drive_mode": -1}, "shoulder_pan has drive_mode -1, which"),
    ],
)
def test_an_implausible_calibration_is_refused_in_words(joint, values, message):
    with pytest.raises(CalibrationError, match=f"calibrate the arm again: {message}"):
        changed(joint, **values).check()


def test_all_flaws_are_told_at_once():
    joints = [replace(joint, id=1, range_max=joint.range_min + 10) for joint in NOMINAL.values()]
    with pytest.raises(CalibrationError) as caught:
        Calibration(SO101, tuple(joints)).check()
    assert str(caught.value).count("shares id") == 5
    assert str(caught.value).count("was moved through") == 6


# Ranges that owners of an SO-101 have published.
PUBLISHED = [
    [(746, 3477), (822, 3211), (901, 3110), (849, 3216), (135, 3984), (1975, 3565)],
    [(725, 3449), (862, 3253), (842, 3047), (909, 3254), (139, 3971), (2032, 3288)],
    [(943, 3337), (775, 3266), (890, 3081), (652, 3222), (0, 4095), (1925, 3343)],
    [(743, 3458), (915, 3273), (154, 2334), (805, 3142), (66, 3894), (1456, 2901)],
    [(974, 3369), (820, 3231), (910, 3122), (920, 3228), (0, 4095), (1532, 2772)],
    [(758, 3447), (1360, 3746), (996, 3200), (577, 2913), (0, 4095), (1656, 3100)],
]


@pytest.mark.parametrize("ranges", PUBLISHED)
def test_calibrations_of_real_arms_are_plausible(ranges):
    joints = [JointCalibration(k, 0, 0, *ends) for k, ends in enumerate(ranges, start=1)]
    Calibration(SO101, tuple(joints)).check()


class Registers:
    """Stands in for a bus."""

    def __init__(self, values):
        self.values = {register: array.copy() for register, array in values.items()}

    def read(self, register):
        return self.values[register]


@pytest.mark.parametrize(
    "register", [Register.HOMING_OFFSET, Register.MIN_POSITION, Register.MAX_POSITION]
)
def test_servos_of_another_arm_are_noticed(register):
    servos = Registers(NOMINAL.registers)
    NOMINAL.check_servos(servos)
    servos.values[register][3] += 1
    with pytest.raises(CalibrationError, match=f"wrist_flex: the servo has .* in {register.name}"):
        NOMINAL.check_servos(servos)
