"""The firmware of one STS3215, as the twin has it: registers, limits, protection, trajectory.

Pure and without any I/O: packets arrive as `read` and `write`, time arrives as `step(dt, sensed)`,
and what comes out is a `Drive` for the motor. Positions are ticks, 4096 a turn.

Not simulated: speed, PWM and step mode (the motor stays off), GOAL_TIME, the D and I gains, the
dead zones, and the direction bits of PHASE. It is not documented which alarms latch; here heat,
current and overload do, until the torque is switched off; the others last as long as their cause.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from robolearn.hardware.registers import (
    AMPERE,
    CENTRE,
    MODEL_NUMBER,
    TICKS_PER_TURN,
    Alarm,
    Register,
    decode,
    encode,
    size_of,
)

FACTORY: Final = {
    Register.FIRMWARE_MAJOR: 3,
    Register.FIRMWARE_MINOR: 10,
    Register.MODEL: MODEL_NUMBER,
    Register.ID: 1,
    Register.BAUD_RATE: 0,
    Register.RETURN_DELAY: 250,
    Register.STATUS_LEVEL: 1,
    Register.MIN_POSITION: 0,
    Register.MAX_POSITION: TICKS_PER_TURN - 1,
    Register.MAX_TEMPERATURE: 70,
    Register.MAX_VOLTAGE: 80,
    Register.MIN_VOLTAGE: 40,
    Register.MAX_TORQUE: 1000,
    Register.PHASE: 12,
    Register.UNLOADING: 44,
    Register.LED_ALARM: 47,
    Register.P_GAIN: 32,
    Register.D_GAIN: 32,
    Register.I_GAIN: 0,
    Register.STARTUP_FORCE: 16,
    Register.DEAD_ZONE_CW: 1,
    Register.DEAD_ZONE_CCW: 1,
    Register.PROTECTION_CURRENT: 500,
    Register.HOMING_OFFSET: 0,
    Register.MODE: 0,
    Register.PROTECTIVE_TORQUE: 20,
    Register.PROTECTION_TIME: 200,
    Register.OVERLOAD_TORQUE: 80,
    Register.OVERCURRENT_TIME: 200,
    Register.MAX_ACCELERATION: 254,
}
PERMANENT: Final = range(Register.ID, Register.TORQUE_ENABLE)  # writable while LOCK is 0
VOLATILE: Final = range(Register.TORQUE_ENABLE, Register.LOCK + 1)
RECENTRE: Final = 128  # a value of TORQUE_ENABLE
FINE_SPEED, ZERO_IS_MAXIMUM, MULTI_TURN = 4, 8, 16  # bits of PHASE
COARSE_SPEED: Final = 0.732 * TICKS_PER_TURN / 60  # ticks/s, the speed unit without FINE_SPEED
TOP_SPEED: Final = 3400.0  # ticks/s, the firmware's own limit
UNLIMITED: Final = 1e9  # ticks/s^2
STANDSTILL: Final = 10.0  # ticks/s, below which a servo counts as at rest
TIME_UNIT: Final = 0.01  # s, of PROTECTION_TIME and OVERCURRENT_TIME


class Sensed(NamedTuple):
    """What a servo measures."""

    encoder: float = CENTRE  # ticks, turns included, before the homing offset
    velocity: float = 0.0  # ticks/s
    duty: float = 0.0  # of the motor's PWM, -1..1
    current: float = 0.0  # A
    voltage: float = 7.4  # V
    temperature: float = 25.0  # deg C


class Drive(NamedTuple):
    """What the position controller does with the motor; without one the motor is off."""

    target: float  # ticks, as `Sensed.encoder` counts them
    gain: float  # stiffness relative to P_GAIN = 32
    limit: float  # largest torque as a share of stall


class Servo:
    """One servo; `servo[register]` gets and sets registers past all locks.

    Args:
        permanent: registers that differ from `FACTORY`.

    Attributes:
        powered: whether it has power; it starts without.
        deaf: hears nothing and says nothing (a fault).
        forced: alarms that a fault reports.
        latched: alarms that stay until the torque is switched off.
        sensed: the last measurement.
        setpoint: where the trajectory is now, ticks, as PRESENT_POSITION counts them.
        speed: of the setpoint, ticks/s.
    """

    def __init__(self, permanent: dict[Register, int]) -> None:
        self.memory = bytearray(256)
        self._decoded: dict[Register, int] = {}  # what `memory` says, for speed
        self.powered = self.deaf = False
        self.forced = self.latched = Alarm(0)
        self.sensed = Sensed()
        self.setpoint = self.speed = 0.0
        self._overloaded = self._overcurrent = 0.0  # s
        self._later: tuple[int, bytes] | None = None
        for register, value in {**FACTORY, **permanent}.items():
            self[register] = value

    def __getitem__(self, register: Register) -> int:
        value = self._decoded.get(register)
        if value is not None:
            return value
        if register in PRESENT:
            return PRESENT[register](self)
        data = bytes(self.memory[register : register + size_of(register)])
        return self._decoded.setdefault(register, decode(register, data))

    def __setitem__(self, register: Register, value: int) -> None:
        self.memory[register : register + size_of(register)] = encode(register, value)
        self._decoded.clear()

    def power_on(self) -> None:
        """Boots: the volatile registers take their defaults and the torque is off."""
        self.powered = True
        self.memory[VOLATILE.start : VOLATILE.stop] = bytes(len(VOLATILE))
        self._decoded.clear()
        self.latched, self._later = Alarm(0), None
        self._overloaded = self._overcurrent = 0.0
        self[Register.LOCK] = 1
        self[Register.TORQUE_LIMIT] = self[Register.MAX_TORQUE]
        self.settle(self.sensed)

    def settle(self, sensed: Sensed) -> None:
        """Makes the place where it is now its goal."""
        self.sensed = sensed
        self[Register.GOAL_POSITION] = self.present
        self.setpoint, self.speed = float(self.present), 0.0

    def power_off(self) -> None:
        """Cuts the power."""
        self.powered = False

    # What packets do.

    def read(self, address: int, length: int) -> bytes:
        """The bytes of the registers from `address` on; zeros where nothing is documented."""
        for register, value in PRESENT.items():
            if address <= register + 1 and register < address + length:
                where = slice(register, register + size_of(register))
                self.memory[where] = encode(register, value(self))
        return bytes(self.memory[address : address + length]).ljust(length, b"\0")

    def write(self, address: int, data: bytes) -> None:
        """Writes what may be written now and ignores the rest."""
        writable = {*VOLATILE, Register.MAX_ACCELERATION}
        if self[Register.LOCK] == 0:
            writable.update(PERMANENT)
        before = self.memory[Register.TORQUE_ENABLE]
        for place, value in enumerate(data, address):
            if place in writable:
                self.memory[place] = value
        self._decoded.clear()
        if address <= Register.TORQUE_ENABLE < address + len(data):
            self._switch(before)

    def _switch(self, before: int) -> None:
        """Acts on a write of TORQUE_ENABLE, which was `before`."""
        if self[Register.TORQUE_ENABLE] == RECENTRE:
            self[Register.TORQUE_ENABLE] = before
            offset = round(self.sensed.encoder) % TICKS_PER_TURN - CENTRE
            self[Register.HOMING_OFFSET] = max(offset, 1 - CENTRE)
        elif self[Register.TORQUE_ENABLE] == 0:
            self.latched = Alarm(0)
            self._overloaded = self._overcurrent = 0.0

    def write_later(self, address: int, data: bytes) -> None:
        """Keeps a write until `act`."""
        self._later = address, data

    def act(self) -> None:
        """Does what `write_later` kept."""
        if self._later is not None:
            self.write(*self._later)
        self._later = None

    # What is measured.

    @property
    def present(self) -> int:
        """The position as the servo reports it, ticks."""
        ticks = round(self.sensed.encoder) - self[Register.HOMING_OFFSET]
        if self[Register.PHASE] & MULTI_TURN:
            return _clamp(ticks, -0x7FFF, 0x7FFF)
        return ticks % TICKS_PER_TURN

    @property
    def alarms(self) -> Alarm:
        """What the error byte of a status packet says now."""
        volts = self.sensed.voltage * 10
        good = self[Register.MIN_VOLTAGE] <= volts <= self[Register.MAX_VOLTAGE]
        return self.latched | self.forced | (Alarm(0) if good else Alarm.VOLTAGE)

    @property
    def driving(self) -> bool:
        """Whether the motor gets any power."""
        released = self.alarms & Alarm(self[Register.UNLOADING]) & ~Alarm.OVERLOAD
        on = self[Register.TORQUE_ENABLE] == 1 and self[Register.MODE] == 0
        return self.powered and on and not released

    # What time does.

    def step(self, dt: float, sensed: Sensed) -> Drive | None:
        """Passes `dt` seconds; returns what the motor shall do, None being nothing."""
        self.sensed = sensed
        if self.powered:
            self._protect(dt)
        if not self.driving:
            self.setpoint, self.speed = float(self.present), 0.0
            return None
        self._follow(dt)
        return Drive(self._unwrapped(), self[Register.P_GAIN] / 32, self._torque_limit())

    def _protect(self, dt: float) -> None:
        """Latches heat at once, overload and overcurrent when they have lasted."""
        heavy = abs(self.sensed.duty) * 100 >= self[Register.OVERLOAD_TORQUE]
        strong = abs(self.sensed.current) >= self[Register.PROTECTION_CURRENT] * AMPERE
        self._overloaded = self._overloaded + dt if heavy else 0.0
        self._overcurrent = self._overcurrent + dt if strong else 0.0
        margin = dt / 2  # sums of dt are not exact
        if self._overloaded + margin > TIME_UNIT * self[Register.PROTECTION_TIME]:
            self.latched |= Alarm.OVERLOAD
        if self._overcurrent + margin > TIME_UNIT * self[Register.OVERCURRENT_TIME]:
            self.latched |= Alarm.OVERCURRENT
        if self.sensed.temperature >= self[Register.MAX_TEMPERATURE]:
            self.latched |= Alarm.OVERHEAT

    def _torque_limit(self) -> float:
        limit = min(self[Register.TORQUE_LIMIT] / 1000, 1.0)
        if (self.latched | self.forced) & Alarm.OVERLOAD:
            return min(limit, self[Register.PROTECTIVE_TORQUE] / 100)
        return limit

    def _follow(self, dt: float) -> None:
        """Moves the setpoint towards the goal as GOAL_VELOCITY and ACCELERATION allow."""
        distance = self._goal() - self.setpoint
        change = dt * (self[Register.ACCELERATION] * 100 or UNLIMITED)
        # The fastest step from which it can still stop in time.
        braking = math.sqrt(change * (change + 2 * abs(distance) / dt)) - change
        wanted = math.copysign(min(braking, self._top_speed()), distance)
        self.speed = _clamp(wanted, self.speed - change, self.speed + change)
        self.setpoint += self.speed * dt

    def _goal(self) -> int:
        low, high = self[Register.MIN_POSITION], self[Register.MAX_POSITION]
        goal = self[Register.GOAL_POSITION]
        return _clamp(goal, low, high) if low < high else goal  # equal limits are none

    def _top_speed(self) -> float:
        """Of the setpoint, ticks/s."""
        phase, goal = self[Register.PHASE], abs(self[Register.GOAL_VELOCITY])
        if goal == 0:
            return TOP_SPEED if phase & ZERO_IS_MAXIMUM else 0.0
        return min(goal * (1.0 if phase & FINE_SPEED else COARSE_SPEED), TOP_SPEED)

    def _unwrapped(self) -> float:
        """The setpoint as the encoder counts, in the turn in which the servo is.

        A servo that reports one turn only knows no way across the seam: pushed over it, it goes
        back the long way round.
        """
        offset = self[Register.HOMING_OFFSET]
        if self[Register.PHASE] & MULTI_TURN:
            return self.setpoint + offset
        turn = (round(self.sensed.encoder) - offset) // TICKS_PER_TURN
        return self.setpoint + offset + turn * TICKS_PER_TURN

    def _is_moving(self) -> bool:
        return abs(self.speed) >= STANDSTILL or abs(self.sensed.velocity) >= STANDSTILL


# How each register that only the servo writes comes about.
PRESENT: Final[dict[Register, Callable[[Servo], int]]] = {
    Register.PRESENT_POSITION: lambda s: s.present,
    Register.PRESENT_VELOCITY: lambda s: _clamp(round(s.sensed.velocity), -0x7FFF, 0x7FFF),
    Register.PRESENT_LOAD: lambda s: round(1000 * s.sensed.duty),
    Register.PRESENT_VOLTAGE: lambda s: _clamp(round(10 * s.sensed.voltage), 0, 255),
    Register.PRESENT_TEMPERATURE: lambda s: _clamp(round(s.sensed.temperature), 0, 255),
    Register.ASYNC_WRITE: lambda s: int(s._later is not None),
    Register.STATUS: lambda s: int(s.alarms),
    Register.MOVING: lambda s: int(s._is_moving()),
    Register.PRESENT_CURRENT: lambda s: _clamp(round(abs(s.sensed.current) / AMPERE), 0, 0xFFFF),
}


def _clamp[T: float](value: T, low: T, high: T) -> T:
    return min(max(value, low), high)
