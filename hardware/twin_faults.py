"""What can go wrong with the twin's servos, supply and cameras, and all faults by name.

A fault begins when it is switched on and ends when it is switched off; some are over at once
(`brownout`, `overload`) and leave only their consequences. `twin.fault("stuck", servo=3)` makes the
dataclass of that name with those fields.
"""

import dataclasses
import random
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from robolearn.hardware.registers import Alarm, Register
from robolearn.hardware.twin_packets import Reply
from robolearn.hardware.twin_wire import (
    Corrupt,
    Drop,
    Duplicate,
    Fault,
    Late,
    Noise,
    Truncate,
    Unheard,
    WrongId,
)

if TYPE_CHECKING:
    from robolearn.hardware.twin_arm import TwinArm
    from robolearn.hardware.twin_servo import Servo

CAMERA_FAULTS: Final = ("stall", "freeze", "end")


@dataclass
class ServoFault(Fault):
    """Concerns one servo."""

    servo: int  # its place on the arm, from 1; also its id, unless that was changed

    def of(self, arm: "TwinArm") -> "Servo":
        """The servo.

        Raises:
            ValueError: there is no such servo.
        """
        if not 1 <= self.servo <= len(arm.servos):
            raise ValueError(f"there is no servo {self.servo}; they are 1 to {len(arm.servos)}")
        return arm.servos[self.servo - 1]


class Silent(ServoFault):
    """The servo obeys and does not answer."""

    def begin(self, arm: "TwinArm") -> None:
        """Checks that there is such a servo."""
        self.of(arm)

    def alter(self, reply: Reply, rng: random.Random) -> list[Reply]:
        """Nothing."""
        del rng
        return [] if reply.servo == self.servo else [reply]


class Deaf(ServoFault):
    """The servo neither obeys nor answers; if it held the joint, it still does."""

    def begin(self, arm: "TwinArm") -> None:
        """Cuts its data line."""
        self.of(arm).deaf = True

    def end(self, arm: "TwinArm") -> None:
        """Mends the line."""
        self.of(arm).deaf = False


class PowerLoss(Fault):
    """No servo has power, while the USB side lives on."""

    def begin(self, arm: "TwinArm") -> None:
        """The arm goes limp and silent."""
        for servo in arm.servos:
            servo.power_off()

    def end(self, arm: "TwinArm") -> None:
        """All servos boot."""
        for servo in arm.servos:
            servo.power_on()


@dataclass
class Brownout(Fault):
    """Servos reboot because their voltage broke down for a moment."""

    servo: int | None = None  # none: all

    def begin(self, arm: "TwinArm") -> None:
        """Torque off, volatile registers lost."""
        for place, servo in enumerate(arm.servos, 1):
            if self.servo in (None, place):
                servo.power_on()


class Unplug(Fault):
    """The USB cable is out; when it is in again, the port has another name."""

    def begin(self, arm: "TwinArm") -> None:
        """The servos keep their power."""
        arm.plugged = False

    def end(self, arm: "TwinArm") -> None:
        """The twin opens a new port."""
        arm.plugged = True


@dataclass
class Camera(Fault):
    """A camera's stream stalls, freezes in one picture, or ends."""

    camera: str
    what: str = "stall"

    def begin(self, arm: "TwinArm") -> None:
        """From the next picture on."""
        if self.what not in CAMERA_FAULTS:
            raise ValueError(f"what is {self.what!r}; choose one of {', '.join(CAMERA_FAULTS)}")
        arm.camera_faults[self.camera] = self.what

    def end(self, arm: "TwinArm") -> None:
        """New pictures come again."""
        arm.camera_faults.pop(self.camera, None)


@dataclass
class Voltage(Fault):
    """The power supply gives something else."""

    volts: float

    def begin(self, arm: "TwinArm") -> None:
        """Sets the supply."""
        if not self.volts > 0:
            raise ValueError(f"voltage is {self.volts} V; for none at all use the fault power_loss")
        self._before, arm.physics.supply = arm.physics.supply, self.volts

    def end(self, arm: "TwinArm") -> None:
        """As before."""
        arm.physics.supply = self._before


@dataclass
class ReportedAlarm(ServoFault):
    """The servo reports an alarm, with its consequences."""

    alarm: str = "VOLTAGE"

    def begin(self, arm: "TwinArm") -> None:
        """Sets the bit."""
        if self.alarm not in Alarm.__members__:
            raise ValueError(f"no alarm {self.alarm!r}; there are {', '.join(Alarm.__members__)}")
        self.of(arm).forced |= Alarm[self.alarm]

    def end(self, arm: "TwinArm") -> None:
        """Clears it."""
        self.of(arm).forced &= ~Alarm[self.alarm]


class Overload(ServoFault):
    """The overload protection trips now; it lasts until the torque is switched off."""

    def begin(self, arm: "TwinArm") -> None:
        """Latches the alarm."""
        self.of(arm).latched |= Alarm.OVERLOAD


class Stuck(ServoFault):
    """The joint does not move, whatever pulls at it."""

    def begin(self, arm: "TwinArm") -> None:
        """Jams it."""
        self.of(arm)
        arm.physics.stuck[self.servo - 1] = True

    def end(self, arm: "TwinArm") -> None:
        """Frees it."""
        arm.physics.stuck[self.servo - 1] = False


@dataclass
class EncoderJump(ServoFault):
    """The encoder's magnet slips: from now on it counts something else."""

    ticks: int = 500

    def begin(self, arm: "TwinArm") -> None:
        """Shifts it."""
        self.of(arm)
        arm.slipped[self.servo - 1] += self.ticks

    def end(self, arm: "TwinArm") -> None:
        """Shifts it back."""
        arm.slipped[self.servo - 1] -= self.ticks


@dataclass
class Heat(ServoFault):
    """The motor has this temperature; when the fault ends, it cools from there."""

    celsius: float = 75.0

    def begin(self, arm: "TwinArm") -> None:
        """Holds the temperature."""
        self.of(arm)
        arm.physics.heated[self.servo - 1] = self.celsius

    def end(self, arm: "TwinArm") -> None:
        """Lets it cool."""
        arm.physics.heated[self.servo - 1] = np.nan


@dataclass
class Eeprom(ServoFault):
    """A register holds another value than it should."""

    register: str = "HOMING_OFFSET"
    value: int = 0

    def begin(self, arm: "TwinArm") -> None:
        """Changes the register."""
        if self.register not in Register.__members__:
            raise ValueError(f"no register {self.register!r}; see robolearn.hardware.registers")
        servo, register = self.of(arm), Register[self.register]
        self._before, servo[register] = servo[register], self.value

    def end(self, arm: "TwinArm") -> None:
        """As before."""
        self.of(arm)[Register[self.register]] = self._before


@dataclass
class WrongModel(Eeprom):
    """Another type of servo, the STS3250 by default."""

    register: str = "MODEL"
    value: int = 2825


@dataclass
class WrongFirmware(Eeprom):
    """Another firmware than its neighbours'."""

    register: str = "FIRMWARE_MINOR"
    value: int = 9


NAMES: Final[dict[str, type[Fault]]] = {
    "unheard": Unheard,
    "drop": Drop,
    "corrupt": Corrupt,
    "truncate": Truncate,
    "late": Late,
    "duplicate": Duplicate,
    "noise": Noise,
    "wrong_id": WrongId,
    "silent": Silent,
    "deaf": Deaf,
    "power_loss": PowerLoss,
    "brownout": Brownout,
    "unplug": Unplug,
    "camera": Camera,
    "voltage": Voltage,
    "alarm": ReportedAlarm,
    "overload": Overload,
    "stuck": Stuck,
    "encoder_jump": EncoderJump,
    "heat": Heat,
    "eeprom": Eeprom,
    "wrong_model": WrongModel,
    "wrong_firmware": WrongFirmware,
}


class Faults:
    """The faults of one arm that are on at present.

    Args:
        arm: the arm.
        seed: of everything random in them.
    """

    def __init__(self, arm: "TwinArm", seed: int) -> None:
        self._arm, self._rng = arm, random.Random(seed)
        self._active: list[tuple[str, Fault]] = []

    def begin(self, name: str, **options: Any) -> None:  # noqa: ANN401 (the fault's own)
        """Switches a fault on; the same one may be on several times, say for two servos.

        Raises:
            ValueError: no such fault, or not with these options; nothing has changed.
        """
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
            raise ValueError(f"no fault {name!r}, did you mean {near!r}? All: {', '.join(NAMES)}")
        try:
            fault = NAMES[name](**options)
        except TypeError:
            fields = ", ".join(field.name for field in dataclasses.fields(NAMES[name])) or "nothing"
            raise ValueError(f"the fault {name!r} takes {fields}, not {options}") from None
        fault.begin(self._arm)
        self._active.append((name, fault))

    def end(self, name: str | None = None) -> None:
        """Switches off the faults of this name, or all; the last one that came goes first."""
        ending = [entry for entry in self._active if name in (None, entry[0])]
        self._active = [entry for entry in self._active if entry not in ending]
        for _, fault in reversed(ending):
            fault.end(self._arm)

    def hears(self) -> bool:
        """Whether the next instruction reaches the servos."""
        return all([fault.hears(self._rng) for _, fault in self._active])

    def alter(self, replies: list[Reply]) -> list[Reply]:
        """What of these replies reaches the host."""
        for _, fault in self._active:
            replies = [altered for reply in replies for altered in fault.alter(reply, self._rng)]
        return replies

    def describe(self) -> list[dict[str, Any]]:
        """Names and settings, as JSON values."""
        return [{"name": name, **dataclasses.asdict(fault)} for name, fault in self._active]
