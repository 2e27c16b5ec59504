"""Ticks of the servos <-> units of the contract, by the calibration file of LeRobot.

The file holds five integers for each joint, of which the servo keeps three in its own memory:

    present position = encoder - homing_offset, in range_min..range_max; id and drive_mode besides

The middle of the calibrated range is the middle of the arm's joint range, as in `robolearn.units`:

    rad      = (low + high) / 2 +- (ticks - (range_min + range_max) / 2) * 2 pi / 4095
    gripper  = (ticks - range_min) / (range_max - range_min), or 1 minus that

with the second alternative where `drive_mode` is 1. Source: lerobot's `MotorCalibration` and its
modes `DEGREES` and `RANGE_0_100`. It takes a turn for 4095 ticks, though the servo has 4096, and in
`DEGREES` it ignores `drive_mode`, of which its own calibration never makes a 1.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from robolearn.config import config_hash
from robolearn.contract import ArmSpec
from robolearn.files import write_atomic
from robolearn.hardware.registers import Register

LAST_TICK: Final = 4095
RADIANS: Final = 2.0 * np.pi / LAST_TICK  # of one tick
JAW_TRAVEL: Final = 1.919862  # rad from closed to open: the joint `gripper` of assets/so101.xml
MAX_OFFSET: Final = 2047  # ticks; HOMING_OFFSET has eleven bits and a sign
# The calibrated range over that of the model. In six published calibrations of an SO-101 it is 0.95
# to 1.27. A joint that crosses from tick 4095 to 0 seems to turn all the way, 1.64 or more; the
# wrist roll may do so, 1.13, and LeRobot writes just that for it.
SPAN: Final = (0.9, 1.3)


class CalibrationError(ValueError):
    """A calibration that cannot be used; the message says what to do."""


class Registers(Protocol):
    """Where the servos' own values come from: a `Bus`, or a stand-in."""

    def read(self, register: Register) -> np.ndarray:
        """The register of every servo, int (J,), in the order of the joints."""


@dataclass(frozen=True)
class JointCalibration:
    """One joint, in ticks; the fields of LeRobot."""

    id: int
    drive_mode: int  # 1: the joint's angle falls where the ticks rise
    homing_offset: int
    range_min: int
    range_max: int

    @property
    def span(self) -> int:
        """Ticks from end to end."""
        return self.range_max - self.range_min


@dataclass(frozen=True)
class Calibration(Mapping[str, JointCalibration]):
    """A calibrated arm: joint name -> `JointCalibration`, in the order of the arm's joints.

    Arrays have the shape (J,), or (..., J) where they are converted.
    """

    arm: ArmSpec
    joints: tuple[JointCalibration, ...]

    def __getitem__(self, joint: str) -> JointCalibration:
        try:
            return self.joints[self.arm.joints.index(joint)]
        except ValueError:
            raise KeyError(joint) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.arm.joints)

    def __len__(self) -> int:
        return self.arm.size

    # Conversion.

    @cached_property
    def scale(self) -> np.ndarray:
        """Contract units per tick, float64 (J,); negative where `drive_mode` is 1."""
        per_tick = np.full(self.arm.size, RADIANS)
        for gripper in self.arm.grippers:
            per_tick[gripper] = 1.0 / self.joints[gripper].span
        return np.where([joint.drive_mode for joint in self.joints], -per_tick, per_tick)

    @cached_property
    def _middle(self) -> tuple[np.ndarray, np.ndarray]:
        """The middle of each range, in ticks and in contract units."""
        ticks = np.array([(joint.range_min + joint.range_max) / 2 for joint in self.joints])
        return ticks, np.add(self.arm.low, self.arm.high) / 2

    def position(self, ticks: np.ndarray) -> np.ndarray:
        """Joint positions, contract units, float64; not clipped."""
        middle, centre = self._middle
        return centre + (ticks - middle) * self.scale

    def ticks(self, position: np.ndarray) -> np.ndarray:
        """The nearest ticks, int64; the inverse of `position`, not clipped either."""
        middle, centre = self._middle
        return np.rint((position - centre) / self.scale + middle).astype(np.int64)

    @cached_property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The ends of the calibrated range, contract units, float64: lowest and highest."""
        ends = [self.position(self._field(name)) for name in ("range_min", "range_max")]
        return np.minimum(*ends), np.maximum(*ends)

    # The servos.

    @property
    def ids(self) -> tuple[int, ...]:
        """The servos of the joints."""
        return tuple(joint.id for joint in self.joints)

    def _field(self, name: str) -> np.ndarray:
        return np.array([getattr(joint, name) for joint in self.joints])

    @property
    def registers(self) -> dict[Register, np.ndarray]:
        """What the servos' own memory has to hold, int (J,) each."""
        return {
            Register.HOMING_OFFSET: self._field("homing_offset"),
            Register.MIN_POSITION: self._field("range_min"),
            Register.MAX_POSITION: self._field("range_max"),
        }

    def check_servos(self, bus: Registers) -> None:
        """Checks that the servos were calibrated with this very file.

        Raises:
            CalibrationError: a servo holds something else.
            BusError: the servos do not answer.
        """
        for register, expected in self.registers.items():
            held = bus.read(register)
            for joint in np.flatnonzero(held != expected):
                raise CalibrationError(
                    f"{self.arm.joints[joint]}: the servo has {held[joint]} in {register.name} and "
                    f"the calibration {expected[joint]}; choose the file of this arm, or calibrate"
                )

    def check(self) -> None:
        """Checks that the calibration is plausible for the arm.

        Raises:
            CalibrationError: it is not; the message names the joints.
        """
        found = [f"{name} {flaw}" for name, joint in self.items() for flaw in _flaws(joint)]
        for index, (name, joint) in enumerate(self.items()):
            if self.ids.index(joint.id) < index:
                found.append(f"{name} shares id {joint.id} with another joint")
            found += [f"{name} {flaw}" for flaw in _span_flaws(joint, _travel(self.arm, index))]
        if found:
            raise CalibrationError(f"calibrate the arm again: {'; '.join(found)}")

    # Making, reading, writing.

    @classmethod
    def nominal(cls, arm: ArmSpec) -> "Calibration":
        """Servos 1, 2, ... whose range is that of the model, around tick 2047."""
        middle = LAST_TICK // 2
        halves = [round(_travel(arm, index) / RADIANS / 2) for index in range(arm.size)]
        joints = [
            JointCalibration(servo, 0, 0, middle - half, middle + half)
            for servo, half in enumerate(halves, start=1)
        ]
        return cls(arm, tuple(joints))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], arm: ArmSpec) -> "Calibration":
        """From what the JSON file holds: joint name -> the fields of `JointCalibration`.

        Raises:
            CalibrationError: not the arm's joints, or not five possible integers for each.
        """
        if set(values) != set(arm.joints):
            raise CalibrationError(
                f"the calibration is for {', '.join(values) or 'no joint'}; {arm.name} has "
                f"{', '.join(arm.joints)}"
            )
        return cls(arm, tuple(_joint(name, values[name]) for name in arm.joints))

    def to_dict(self) -> dict[str, dict[str, int]]:
        """The inverse of `from_dict`."""
        return {name: asdict(joint) for name, joint in self.items()}

    @classmethod
    def load(cls, path: Path, arm: ArmSpec) -> "Calibration":
        """Reads a calibration file, such as those in LeRobot's cache.

        Raises:
            CalibrationError: no such file, or not a calibration of this arm.
        """
        try:
            values = json.loads(path.read_text())
            return cls.from_dict(values if isinstance(values, dict) else {}, arm)
        except (OSError, ValueError) as error:
            raise CalibrationError(f"cannot use the calibration {path}: {error}") from error

    def save(self, path: Path) -> None:
        """Writes the file as LeRobot does.

        Raises:
            OSError: the folder cannot be written.
        """
        write_atomic(path, json.dumps(self.to_dict(), indent=4).encode())

    @property
    def hash(self) -> str:
        """Twelve hex digits that differ whenever a number differs."""
        return config_hash(self.joints)


def _joint(name: str, values: object) -> JointCalibration:
    names = [field.name for field in fields(JointCalibration)]
    if not isinstance(values, dict) or set(values) != set(names):
        raise CalibrationError(f"{name} must have {', '.join(names)}, and nothing else")
    if not all(type(value) is int for value in values.values()):  # True is no number here
        raise CalibrationError(f"{name} has {values}; all of these must be integers")
    joint = JointCalibration(**values)
    for flaw in _flaws(joint):
        raise CalibrationError(f"{name} {flaw}")
    return joint


def _travel(arm: ArmSpec, index: int) -> float:
    """Radians that a joint turns in the model."""
    return JAW_TRAVEL if index in arm.grippers else arm.high[index] - arm.low[index]


def _flaws(joint: JointCalibration) -> Iterator[str]:
    if joint.drive_mode not in (0, 1):
        yield f"has drive_mode {joint.drive_mode}, which must be 0 or 1"
    if abs(joint.homing_offset) > MAX_OFFSET:
        yield f"has homing_offset {joint.homing_offset}, beyond +-{MAX_OFFSET}"
    if not 0 <= joint.range_min < joint.range_max <= LAST_TICK:
        yield f"has the range {joint.range_min}..{joint.range_max}, which must rise in 0..4095"


def _span_flaws(joint: JointCalibration, travel: float) -> Iterator[str]:
    share = joint.span * RADIANS / travel
    if 0.0 < share < SPAN[0]:
        yield f"was moved through {share:.0%} of its range; move it from stop to stop"
    if share > SPAN[1]:
        yield (
            f"has {share:.0%} of its range: it crossed from tick {LAST_TICK} to 0; begin with the "
            "joint in the middle of its range"
        )
