"""The checks that find a fault: pure functions of the thresholds and one `Moment`.

`CHECKS` lists what is looked at while the torque is on, `ENGAGE_CHECKS` what before it comes on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety_types import Fault, Reading, SafetyConfig

Found = tuple[np.ndarray, np.ndarray]  # which joints, bool (J,), and the measured values (J,)


@dataclass(frozen=True)
class Moment:
    """What a check may look at.

    Attributes:
        arm: the arm.
        scale: units of `agent_pos` per rad, (J,).
        reading: the newest one.
        previous: the one before.
        goal: what the servos were told last, (J,); None when they are limp.
        voltage: V at engaging, (J,).
        confirmed: whether the servos have said that their torque is on.
    """

    arm: ArmSpec
    scale: np.ndarray
    reading: Reading
    previous: Reading
    goal: np.ndarray | None
    voltage: np.ndarray
    confirmed: bool

    @property
    def lag(self) -> np.ndarray:
        """How far each joint is from its goal, rad (J,); 0 for a gripper, which squeezes by it."""
        if self.goal is None:
            return np.zeros(self.arm.size)
        lag = np.abs(self.goal - self.reading.position) / self.scale
        lag[list(self.arm.grippers)] = 0.0
        return lag


def jumped(config: SafetyConfig, moment: Moment) -> Found:
    """A step between two readings that no servo can do, rad."""
    seconds = moment.reading.time - moment.previous.time
    step = np.abs(moment.reading.position - moment.previous.position) / moment.scale
    return step > config.servo_speed * seconds + config.encoder_noise, step


def dropped(config: SafetyConfig, moment: Moment) -> Found:
    """A torque switch that is off although the servo had said it was on."""
    torque = moment.reading.torque
    on = np.ones(moment.arm.size, bool) if torque is None else torque.astype(bool)
    return moment.confirmed & ~on, on


def lagging(config: SafetyConfig, moment: Moment) -> Found:
    """Far from the goal, rad."""
    return moment.lag > config.max_lag, moment.lag


def pushing(config: SafetyConfig, moment: Moment) -> Found:
    """Much current, and yet behind the goal, A."""
    current = np.abs(moment.reading.current)
    return (moment.lag > config.block_lag) & (current > config.block_current), current


def sagging(config: SafetyConfig, moment: Moment) -> Found:
    """Much less voltage than at engaging, V; a limp arm draws nothing."""
    voltage, loaded = moment.reading.voltage, moment.goal is not None
    return loaded & (voltage < (1.0 - config.max_sag) * moment.voltage), voltage


def overheated(config: SafetyConfig, moment: Moment) -> Found:
    """Too hot to go on, deg C."""
    return moment.reading.temperature >= config.too_hot, moment.reading.temperature


def alarmed(config: SafetyConfig, moment: Moment, bits: Alarm) -> Found:
    """An alarm bit of the servo."""
    alarms = moment.reading.alarms
    return (alarms & int(bits)) != 0, alarms


def overloaded(config: SafetyConfig, moment: Moment) -> Found:
    """Overload of a joint that carries; a gripper that squeezes for long just has less torque."""
    found, alarms = alarmed(config, moment, Alarm.OVERLOAD)
    found[list(moment.arm.grippers)] = False
    return found, alarms


def uncalibrated(config: SafetyConfig, moment: Moment) -> Found:
    """No calibration to rely on."""
    bad = np.full(moment.arm.size, not moment.reading.calibrated)
    return bad, bad


def mispowered(config: SafetyConfig, moment: Moment) -> Found:
    """A supply that is none of this servo's, V."""
    voltage = moment.reading.voltage
    return (voltage < config.min_voltage) | (voltage > config.max_voltage), voltage


def heated(config: SafetyConfig, moment: Moment) -> Found:
    """Too hot to begin, deg C."""
    return moment.reading.temperature >= config.hot, moment.reading.temperature


def misplaced(config: SafetyConfig, moment: Moment) -> Found:
    """Out of the joint range by more than a margin, in the units of `agent_pos`."""
    position, margin = moment.reading.position, config.engage_margin * moment.scale
    low, high = np.array(moment.arm.low) - margin, np.array(moment.arm.high) + margin
    return (position < low) | (position > high), position


def moving(config: SafetyConfig, moment: Moment) -> Found:
    """Not at rest, rad/s."""
    speed = np.abs(moment.reading.velocity) / moment.scale
    return speed > config.engage_speed, speed


@dataclass(frozen=True)
class Check:
    """One rule.

    Attributes:
        find: finds the joints that break it.
        words: about one such joint; `{joint}` is its name and `{value}` what `find` measured.
        fault: what it is called.
        lasting: whether it must last for `SafetyConfig.trip_seconds`.
    """

    find: Callable[[SafetyConfig, Moment], Found]
    words: str
    fault: Fault = Fault.NONE
    lasting: bool = False

    def describe(self, arm: ArmSpec, joints: np.ndarray, values: np.ndarray) -> str:
        """What is wrong with the joints of a mask (J,); "" for none."""
        return ", ".join(
            self.words.format(joint=arm.joints[j], value=values[j]) for j in np.flatnonzero(joints)
        )


ALARMS: Final = tuple(
    Check(find, f"{{joint}} reports its {bit.name} alarm".lower(), fault)
    for bit, find, fault in (
        (Alarm.ENCODER, partial(alarmed, bits=Alarm.ENCODER), Fault.ENCODER),
        (Alarm.OVERHEAT, partial(alarmed, bits=Alarm.OVERHEAT), Fault.SERVO_OVERHEAT),
        (Alarm.OVERLOAD, overloaded, Fault.OVERLOAD),
        (Alarm.OVERCURRENT, partial(alarmed, bits=Alarm.OVERCURRENT), Fault.OVERCURRENT),
        (Alarm.VOLTAGE, partial(alarmed, bits=Alarm.VOLTAGE), Fault.VOLTAGE),
    )
)
# While the torque is on.
CHECKS: Final = (
    Check(jumped, "{joint} seems to have moved by {value:.2f} rad at once", Fault.ENCODER),
    Check(dropped, "{joint} has switched its torque off", Fault.TORQUE_LOST),
    *ALARMS,
    Check(overheated, "{joint} is at {value:.0f} deg C", Fault.OVERHEAT),
    Check(lagging, "{joint} is {value:.2f} rad from its goal", Fault.TRACKING, lasting=True),
    Check(pushing, "{joint} pushes with {value:.1f} A", Fault.BLOCKED, lasting=True),
    Check(sagging, "{joint} has only {value:.1f} V", Fault.VOLTAGE, lasting=True),
)
# Before the torque comes on.
ENGAGE_CHECKS: Final = (
    Check(uncalibrated, "calibrate {joint}"),
    Check(mispowered, "{joint} has {value:.1f} V; check the supply"),
    Check(heated, "{joint} is at {value:.0f} deg C; let it cool down"),
    *ALARMS,
    Check(misplaced, "{joint} is at {value:.2f}, out of its range; move it by hand"),
    Check(moving, "{joint} moves at {value:.1f} rad/s; hold the arm still"),
)


def first_finding(checks: Iterable[Check], config: SafetyConfig, moment: Moment) -> str:
    """What the first check that finds something says; "" when all is well."""
    for check in checks:
        if words := check.describe(moment.arm, *check.find(config, moment)):
            return words
    return ""
