"""The permanent registers of servos: what they shall hold, and writing it all or not at all."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.bus import Bus, BusError, BusLost
from robolearn.hardware.calibration import CalibrationError
from robolearn.hardware.registers import Register

Wanted = dict[Register, np.ndarray]  # the values of a register of all servos, int (J,)
Difference = tuple[int, Register, int]  # index of the joint, register, what the servo holds

# Bits of PHASE: speeds in ticks/s, and positions beyond one turn, which this project cannot use.
FINE_SPEED, MULTI_TURN = 4, 16
# The gripper may pinch something for hours; with these, LeRobot's, its motor survives that.
GRIPPER: Final = {
    Register.MAX_TORQUE: 500,  # half of stall
    Register.PROTECTION_CURRENT: 250,  # 1.6 A
    Register.OVERLOAD_TORQUE: 25,  # %, of which the servo bears 2 s
}
ATTEMPTS: Final = 4  # of which all but one may be lost on the way


def insist[T](call: Callable[[], T]) -> T:
    """Calls until an answer is not lost on the way.

    Raises:
        BusError: again and again, or the port is gone.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return call()
        except BusLost:
            raise
        except BusError:
            pass
    return call()


def settings(bus: Bus, arm: ArmSpec, *, leader: bool) -> Wanted:
    """What the servos of an arm have to hold besides its calibration.

    They answer at once, are in position mode, report one turn and take speeds in ticks/s; and
    unless it is a leader arm, which is never driven, the gripper is too weak to burn its motor. The
    gains stay as they are.
    """
    zeros = np.zeros(arm.size, np.int64)
    wanted = {
        Register.RETURN_DELAY: zeros,
        Register.MODE: zeros,
        Register.PHASE: insist(partial(bus.read, Register.PHASE)) & ~MULTI_TURN | FINE_SPEED,
    }
    for register, value in ({} if leader else GRIPPER).items():
        wanted[register] = insist(partial(bus.read, register))
        wanted[register][list(arm.grippers)] = value
    return wanted


def check_modes(bus: Bus) -> None:
    """Refuses servos that would take a goal or a speed for something else than it is.

    Raises:
        BusError: a servo does not answer.
        CalibrationError: the message names the servo.
    """
    modes, phases = (bus.read(register) for register in (Register.MODE, Register.PHASE))
    for servo, mode, phase in zip(bus.ids, modes, phases, strict=True):
        if mode != 0 or phase & MULTI_TURN or not phase & FINE_SPEED:
            raise CalibrationError(
                f"servo {servo} has MODE {mode} and PHASE {phase}, in which goals and speeds mean "
                "something else; robolearn calibrate sets them right"
            )


def differences(bus: Bus, wanted: Wanted) -> list[Difference]:
    """Where the servos hold something else than wanted."""
    found = []
    for register, values in wanted.items():
        held = insist(partial(bus.read, register))
        found += [(int(j), register, int(held[j])) for j in np.flatnonzero(held != values)]
    return sorted(found)


def write_servos(bus: Bus, wanted: Wanted) -> list[Difference]:
    """Writes permanent registers of limp servos and reads them back; Ctrl-C waits meanwhile.

    If a servo stops answering, all get their old values back, as far as they can be reached.

    Returns:
        What was different.

    Raises:
        BusError: a servo does not answer.
        CalibrationError: a servo does not keep what was written.
    """
    with _ctrl_c_waits():
        before = differences(bus, wanted)
        with bus.unlocked():
            try:
                for joint, register, _ in before:
                    _write(bus, joint, register, wanted[register][joint])
            except BusError:
                for joint, register, value in before:
                    with suppress(BusError):
                        _write(bus, joint, register, value)
                raise
        for joint, register, value in differences(bus, wanted):
            raise CalibrationError(
                f"servo {bus.ids[joint]} holds {value} in {register.name} after "
                f"{wanted[register][joint]} was written; switch the arm off and on and try again"
            )
    return before


def _write(bus: Bus, joint: int, register: Register, value: int) -> None:
    insist(lambda: bus.write(register, value, bus.ids[joint]))


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Ctrl-C takes effect at the end of this context."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
