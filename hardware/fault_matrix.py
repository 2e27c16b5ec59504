"""The fault matrix: everything that shall not hurt anybody, and what the servos do about it.

A row says how a fault is provoked, what the servos' registers must show in the end and within how
long, what the black box must tell, and how the arm gets back to work. `tests/test_faults.py` holds
the stack to it and `robolearn bench-arm` measures it; `fault_trial` tries one row.
"""

import signal
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Literal

import numpy as np

from robolearn.contract import SO101
from robolearn.hardware import fault_acts as do
from robolearn.hardware.fault_acts import Act, kill, twin
from robolearn.hardware.registers import Alarm
from robolearn.hardware.safety_types import Fault

PATIENCE: Final = 15.0  # s for what happens on the clock of a busy machine
PARKED: Final = 3.3  # s: parking takes three at most
AT_ONCE: Final = 0.1  # s


class End(StrEnum):
    """What the servos' registers show in the end."""

    LIMP = "limp"  # no servo has torque
    HOLD = "hold"  # all have, and their goals stand still
    WORKS = "works"  # they follow the learner as if nothing were wrong


class Recovery(StrEnum):
    """How the arm gets back to work once the cause is gone; Python never starts anew."""

    ITSELF = "itself"
    RESET = "reset"  # `Driver.reset_fault`, where there is one, and `Driver.engage`
    RESTART = "restart"  # a new `Driver`


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    provoke: Act
    end: End
    seconds: float  # within which that must be so, on the arm's clock
    _: KW_ONLY
    group: Literal["bus", "servo", "host", "input"]
    fault: str = ""  # the code that is latched
    told: str = ""  # what an event in the black box, or a refusal, must say
    recovery: Recovery = Recovery.RESET
    prepare: Act = do.nothing  # brings the rig to where the fault can happen
    realtime: bool = False  # processes or streams die, which needs the clock on the wall


_bus = partial(Row, group="bus")
_harmless = partial(Row, group="bus", end=End.WORKS, seconds=1.5, recovery=Recovery.ITSELF)
_lost = partial(Row, group="bus", end=End.HOLD, seconds=0.5, fault=Fault.COMMUNICATION)
BUS: Final = (
    _harmless("some replies lost", twin("drop", one_in=60.0), told="no valid answer"),
    _harmless("some replies corrupt", twin("corrupt", one_in=60.0)),
    _harmless("some replies truncated", twin("truncate", one_in=60.0)),
    _harmless("some replies twice", twin("duplicate", one_in=60.0)),
    _harmless("noise on the line", twin("noise", one_in=10.0)),
    _harmless("some replies with a wrong id", twin("wrong_id", one_in=60.0)),
    _harmless("a reply 50 ms late", twin("late", seconds=0.05, times=1)),
    _harmless("some instructions lost", twin("unheard", one_in=15.0)),
    _harmless("a second program opens the port", do.intrude, told="stop that one first"),
    _lost("all replies lost", twin("drop")),
    _lost("all replies corrupt", twin("corrupt")),
    _lost("all replies truncated", twin("truncate")),
    _lost("all replies with a wrong id", twin("wrong_id")),
    _lost("replies 60 ms late", twin("late", servo=6, seconds=0.06, times=8)),
    _lost("all instructions lost", twin("unheard")),
    _lost("a servo is silent", twin("silent", servo=3), told="servo 3"),
    _lost("a servo is deaf", twin("deaf", servo=3), told="servo 3"),
    _lost("unplugged, back under its name", twin("unplug"), told="gone"),
    _lost(
        "unplugged, back under another name",
        twin("unplug"),
        told="gone",
        recovery=Recovery.RESTART,
    ),
    _bus("power loss", twin("power_loss"), End.LIMP, AT_ONCE, fault=Fault.COMMUNICATION),
    _bus("brown-out of all", twin("brownout"), End.LIMP, AT_ONCE, fault=Fault.TORQUE_LOST),
    _bus(
        "brown-out of one",
        twin("brownout", servo=2),
        End.LIMP,
        0.6,  # the servos' torque switches are read twice a second
        fault=Fault.TORQUE_LOST,
        told="shoulder_lift has switched its torque off",
    ),
)


def _alarm(alarm: Alarm, end: End, seconds: float, fault: Fault) -> Row:
    return Row(
        f"alarm {alarm.name}".lower(),
        twin("alarm", servo=3, alarm=alarm.name),
        end,
        seconds,
        group="servo",
        fault=fault,
        told=f"its {alarm.name} alarm".lower(),
    )


_servo = partial(Row, group="servo")
_refused = partial(Row, group="servo", end=End.LIMP, seconds=AT_ONCE, recovery=Recovery.RESTART)
_HOT, _TOO_HOT = (twin("heat", servo=3, celsius=celsius) for celsius in (67.0, 75.0))
_SLIPPED, _MOVED = twin("encoder_jump", servo=1), twin("eeprom", servo=1, value=300)
SERVO: Final = (
    _alarm(Alarm.VOLTAGE, End.HOLD, 0.5, Fault.VOLTAGE),
    _alarm(Alarm.ENCODER, End.LIMP, AT_ONCE, Fault.ENCODER),
    _alarm(Alarm.OVERHEAT, End.LIMP, AT_ONCE, Fault.SERVO_OVERHEAT),
    _alarm(Alarm.OVERCURRENT, End.HOLD, 1.0, Fault.OVERCURRENT),
    _alarm(Alarm.OVERLOAD, End.HOLD, 1.0, Fault.OVERLOAD),
    _servo("overload latched", twin("overload", servo=2), End.HOLD, 1.0, fault=Fault.OVERLOAD),
    _servo("stuck joint", do.jam, End.HOLD, 3.0, fault=Fault.BLOCKED, told="shoulder_pan pushes"),
    _servo("encoder slips", _SLIPPED, End.LIMP, AT_ONCE, fault=Fault.ENCODER, told="at once"),
    _servo("homing offset changes", _MOVED, End.LIMP, AT_ONCE, fault=Fault.ENCODER),
    _servo("hot", _HOT, End.LIMP, PARKED, fault=Fault.OVERHEAT, told="67 deg C"),
    _servo("hotter than a servo bears", _TOO_HOT, End.LIMP, AT_ONCE, fault=Fault.SERVO_OVERHEAT),
    _servo("supply sags", twin("voltage", volts=5.0), End.HOLD, 1.0, fault=Fault.VOLTAGE),
    _refused("wrong model", do.refuse("wrong_model", servo=2), told="model number 2825"),
    _refused("wrong firmware", do.refuse("wrong_firmware", servo=2), told="firmware differs"),
    _refused(
        "calibration of another arm", do.refuse("eeprom", servo=2, value=7), told="HOMING_OFFSET"
    ),
)

_host = partial(Row, group="host")
_died = partial(Row, group="host", seconds=PATIENCE, recovery=Recovery.RESTART, realtime=True)
_learner = partial(_died, prepare=do.start_learner)
_killed = partial(_died, end=End.LIMP, fault="driver_died")
HOST: Final = (
    _learner("learner gets SIGTERM", kill(signal.SIGTERM, "learner"), End.HOLD),
    _learner("learner gets SIGHUP", kill(signal.SIGHUP, "learner"), End.HOLD),
    _learner("learner gets SIGKILL", kill(signal.SIGKILL, "learner"), End.HOLD),
    _learner("learner is gone for good", kill(signal.SIGKILL, "learner"), End.LIMP),
    _learner("learner freezes", kill(signal.SIGSTOP, "learner"), End.HOLD),
    _learner("learner gets SIGINT", kill(signal.SIGINT, "learner"), End.LIMP),
    _learner("exception in the policy", kill(signal.SIGUSR1, "learner"), End.LIMP),
    _died("driver gets SIGTERM", kill(signal.SIGTERM, "driver"), End.LIMP),
    _killed("driver gets SIGKILL", kill(signal.SIGKILL, "driver")),
    _killed("driver freezes", kill(signal.SIGSTOP, "driver")),
    _died("guardian gets SIGKILL", kill(signal.SIGKILL, "guardian"), End.LIMP),
    _host(
        "policy freezes",
        do.ask(lambda _: None),
        End.HOLD,
        0.6,
        told="no goal for",
        recovery=Recovery.ITSELF,
    ),
    _host(
        "the system's clock steps",
        do.nothing,
        End.WORKS,
        1.5,
        recovery=Recovery.RESTART,
        prepare=do.step_clock,
    ),
)

_input = partial(Row, group="input")
_bad = partial(_input, end=End.HOLD, seconds=0.6, recovery=Recovery.ITSELF)
_camera = partial(
    _input,
    end=End.HOLD,
    seconds=PATIENCE,
    prepare=do.open_camera,
    realtime=True,
)
INPUT: Final = (
    _bad("NaN", do.always(np.nan), told="is nan"),
    _bad("one joint is NaN", do.always(np.nan, *SO101.home[1:]), told="shoulder_pan is nan"),
    _bad("infinity", do.always(np.inf), told="is inf"),
    _bad("a million", do.always(1e6), seconds=4.0),
    _bad("five joints", do.always(*SO101.home[1:]), told="shape (5,)"),
    _bad("leader arm lost", do.cut_leader, prepare=do.open_leader),
    _input("chunks that jump", do.ask(do.jump), End.WORKS, 1.5, recovery=Recovery.ITSELF),
    _input(
        "pictures stop",
        do.age_pictures,
        End.HOLD,
        0.5,
        fault=Fault.CAMERA,
        told="the newest picture is",
    ),
    _camera("camera stream stalls", twin("camera", camera="top", what="stall")),
    _camera("camera stream ends", twin("camera", camera="top", what="end")),
    _input("stop, and goals go on", do.stop, End.HOLD, 0.5, told="stopped"),
    _input(
        "emergency stop",
        do.press_estop,
        End.LIMP,
        AT_ONCE,
        fault=Fault.ESTOP,
        told="is pressed",
    ),
)
MATRIX: Final = (*BUS, *SERVO, *HOST, *INPUT)
