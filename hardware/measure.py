"""Measuring where the joints of a limp arm end, while a human moves them.

All positions are ticks of the encoders, which the servos' own settings do not touch.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from robolearn.contract import SO101
from robolearn.files import write_atomic
from robolearn.hardware.bus import Bus
from robolearn.hardware.calibration import (
    LAST_TICK,
    MAX_OFFSET,
    SPAN,
    Calibration,
    JointCalibration,
)
from robolearn.hardware.eeprom import insist
from robolearn.hardware.registers import TICKS_PER_TURN, Register

ARM: Final = SO101
FULL_TURN: Final = ("wrist_roll",)  # joints without stops
MIDDLE: Final = LAST_TICK // 2  # what a servo shall report in the middle of the joint's range
# Each joint's middle, and how it gets from stop to stop.
POSES: Final = {
    "shoulder_pan": ("the arm points straight ahead", "all the way to the left and to the right"),
    "shoulder_lift": ("the upper arm stands upright", "all the way back and down to the front"),
    "elbow_flex": ("the forearm is level and points ahead", "folded, and stretched out"),
    "wrist_flex": ("the hand continues the forearm straight", "all the way up and down"),
    "wrist_roll": ("the moving jaw is on top", ""),
    "gripper": ("the jaws are half open", "quite closed, and wide open"),
}


class Row(NamedTuple):
    """What is known of the joint that moves."""

    joint: str
    low: int  # ticks
    now: int
    high: int
    share: float  # from low to high, of the model's range


class Human(Protocol):
    """Who moves the arm."""

    def say(self, text: str) -> None:
        """Tells something."""

    def ask(self, text: str) -> str:
        """Asks for something, waits for Enter and returns what was typed."""

    def watch(self, text: str, look: Callable[[], Row]) -> None:
        """Asks for something, and shows what `look` returns again and again until Enter."""


@dataclass(frozen=True)
class Measured:
    """What is known so far, in ticks of the encoders; those of the ends may exceed one turn."""

    ids: tuple[int, ...]
    middle: dict[str, int] = field(default_factory=dict)  # joint -> 0..4095
    ends: dict[str, tuple[int, int]] = field(default_factory=dict)  # joint -> lowest and highest

    def save(self, path: Path) -> None:
        """Writes it, for the next run."""
        write_atomic(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """Reads it.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            values = json.loads(path.read_text())
            ends = {joint: (int(low), int(high)) for joint, (low, high) in values["ends"].items()}
            middle = {joint: int(encoder) for joint, encoder in values["middle"].items()}
            if strangers := {*middle, *ends}.difference(ARM.joints):
                raise ValueError(f"there is no joint {', '.join(strangers)}")
            return cls(tuple(values["ids"]), middle, ends)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it to begin anew") from None

    def joint(self, name: str) -> JointCalibration:
        """The calibration of a joint of which all is measured."""
        offset = min(self.middle[name] - MIDDLE, MAX_OFFSET)
        low, high = (0, LAST_TICK)
        if name not in FULL_TURN:
            low, high = (end - offset for end in self.ends[name])
        return JointCalibration(self.ids[ARM.joints.index(name)], 0, offset, low, high)


def model_span(name: str) -> int:
    """From end to end of the model's joint, ticks."""
    return Calibration.nominal(ARM)[name].span


def share(name: str, joint: JointCalibration) -> float:
    """The joint's range as a share of the model's."""
    return joint.span / model_span(name)


def crosses_seam(joint: JointCalibration) -> bool:
    """Whether the joint turns past the tick at which its servo begins to count anew."""
    return joint.range_min < 0 or joint.range_max > LAST_TICK


def flaw(name: str, joint: JointCalibration) -> str:
    """What is wrong with a measured joint and what to do about it, or ""."""
    if name in FULL_TURN:
        return ""
    if crosses_seam(joint):
        return (
            "goes past the end of the encoder's turn, because its middle pose was far from the "
            f"middle; put it there again: {POSES[name][0]}"
        )
    if share(name, joint) < SPAN[0]:
        return f"was moved through {share(name, joint):.0%} of its range; go from stop to stop"
    if share(name, joint) > SPAN[1]:
        return f"has {share(name, joint):.0%} of its range; look whether its horn is loose"
    return ""


class Session:
    """One arm and one human.

    Args:
        bus: open, and the servos limp.
        human: moves the arm.
        partial: where each measurement is kept at once.
        measured: what is known already.

    All that talks to the servos may raise BusError.
    """

    def __init__(self, bus: Bus, human: Human, partial: Path, measured: Measured) -> None:
        self._bus, self._human = bus, human
        self._partial, self._measured = partial, measured
        self._offset = insist(lambda: bus.read(Register.HOMING_OFFSET))

    def run(self) -> Calibration:
        """Measures what is missing."""
        if not self._measured.middle:
            self._centre(ARM.joints)
        for name in ARM.joints:
            if name not in FULL_TURN and name not in self._measured.ends:
                self._measure(name)
        return Calibration(ARM, tuple(map(self._measured.joint, ARM.joints)))

    def _keep(self, measured: Measured) -> None:
        measured.save(self._partial)
        self._measured = measured

    def _centre(self, names: Sequence[str]) -> None:
        """Measures the middle pose of some joints."""
        poses = "".join(f"\n  {name}: {POSES[name][0]}" for name in names)
        self._human.ask(
            f"Put the arm, which is limp, into the middle of its ranges:{poses}\nthen Enter"
        )
        encoders = dict(zip(ARM.joints, self._encoders().tolist(), strict=True))
        middle = self._measured.middle | {name: encoders[name] for name in names}
        self._keep(replace(self._measured, middle=middle))

    def _measure(self, name: str) -> None:
        """Measures the ends of a joint until they are plausible."""
        while True:
            ends = self._watch(name)
            measured = replace(self._measured, ends=self._measured.ends | {name: ends})
            joint = measured.joint(name)
            if not (wrong := flaw(name, joint)):
                break
            self._human.say(f"{name} {wrong}. Only this joint again.")
            if crosses_seam(joint):
                self._centre([name])
        self._keep(measured)
        self._human.say(f"{name}: {joint.span} ticks, {share(name, joint):.0%} of the model's")

    def _watch(self, name: str) -> tuple[int, int]:
        """The lowest and the highest position of a joint while the human moves it."""
        index = ARM.joints.index(name)
        now = unwrapped(self._encoders()[index], self._measured.middle[name])
        low = high = now

        def look() -> Row:
            nonlocal now, low, high
            now = unwrapped(self._encoders()[index], now)
            low, high = min(low, now), max(high, now)
            return Row(name, low, now, high, (high - low) / model_span(name))

        self._human.watch(
            f"{name}: {POSES[name][1]}, slowly, the other joints out of its way; then Enter", look
        )
        return low, high

    def _encoders(self) -> np.ndarray:
        """Where the encoders are, int (J,), 0..4095."""
        return (insist(self._bus.read_states).position + self._offset) % TICKS_PER_TURN


def unwrapped(encoder: int, before: int) -> int:
    """The encoder's position, turns included, that is nearest to the one before."""
    half = TICKS_PER_TURN // 2
    return before + (int(encoder) - before + half) % TICKS_PER_TURN - half
