"""`Bus`: the servos of one arm on one serial line; a whole cycle goes through, or it raises.

Ticks and registers end here: `robolearn.hardware.calibration` turns ticks into SI units. An
instruction to all servos (a sync write) has no answer, so only reading back tells that it arrived.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from robolearn.hardware.line import BusError as BusError
from robolearn.hardware.line import BusLost as BusLost
from robolearn.hardware.line import Line, Tap
from robolearn.hardware.port import Status
from robolearn.hardware.registers import (
    AMPERE,
    BAUD_RATES,
    BROADCAST,
    GOAL_BLOCK,
    MODEL_NUMBER,
    STATE_BLOCK,
    TICKS_PER_TURN,
    Instruction,
    Register,
    decode,
    encode,
    size_of,
)

TIMEOUT: Final = 0.02  # s; a cycle of six takes 1.4 ms on the wire, an FTDI adapter 16 ms more
MAX_SERVOS: Final = 30  # whose goals fit into the longest packet of the SDK, 250 bytes
RELEASES: Final = 3  # how often torque off is broadcast, because nobody confirms a broadcast


@dataclass(frozen=True)
class ServoStates:
    """What all servos measured in one cycle; arrays are (N,), in the order of `Bus.ids`."""

    time: float  # s, the bus's clock, when the answer was complete
    position: np.ndarray  # int, ticks
    velocity: np.ndarray  # ticks/s
    load: np.ndarray  # signed share of the full duty, -1..1
    voltage: np.ndarray  # V
    temperature: np.ndarray  # deg C
    current: np.ndarray  # A
    alarms: np.ndarray  # uint8, bits of `Alarm`
    moving: np.ndarray  # bool


class Bus(Line):
    """N servos on a serial port. A second thread waits for its turn.

    Args:
        port: the path of the serial device; may be set anew before `connect`.
        ids: the servos, in the order of all arrays.
        baud_rate: bits per second.
        timeout: s from sending a packet until all answers must be there.
        clock: stamps what is read and tapped, s.
        tap: gets every packet that is sent ("tx") and the answers to it in one piece ("rx").
        lockstep: a twin in lockstep is behind the port; it tells what is lost, not the timeout.

    Raises:
        ValueError: ids that are no servo ids, or twice the same.
    """

    def __init__(
        self,
        port: str,
        ids: Sequence[int],
        *,
        baud_rate: int = BAUD_RATES[0],
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        tap: Tap | None = None,
        lockstep: bool = False,
    ) -> None:
        super().__init__(port, baud_rate, timeout, clock, tap, lockstep=lockstep)
        self.ids = tuple(ids)
        if not 0 < len(set(self.ids)) == len(self.ids) <= MAX_SERVOS:
            raise ValueError(f"ids are {self.ids}; give 1 to {MAX_SERVOS} different ones")
        if not all(0 <= servo < BROADCAST for servo in self.ids):
            raise ValueError(f"ids are {self.ids}; servos have ids from 0 to {BROADCAST - 1}")

    # What the control loop does.

    def read_states(self) -> ServoStates:
        """Reads the state of all servos in one cycle.

        Raises:
            BusError: a servo did not answer in time, or the answer is not right in every byte.
        """
        start, size = STATE_BLOCK
        packets = self._sync_read(start, size)
        now = self.clock()

        def column(register: Register) -> np.ndarray:
            part = slice(register - start, register - start + size_of(register))
            return np.array([decode(register, packet.data[part]) for packet in packets])

        errors = np.array([packet.error for packet in packets])
        return ServoStates(
            time=now,
            position=column(Register.PRESENT_POSITION),
            velocity=column(Register.PRESENT_VELOCITY).astype(np.float64),
            load=column(Register.PRESENT_LOAD) / 1000.0,
            voltage=column(Register.PRESENT_VOLTAGE) / 10.0,
            temperature=column(Register.PRESENT_TEMPERATURE).astype(np.float64),
            current=column(Register.PRESENT_CURRENT) * AMPERE,
            alarms=(errors | column(Register.STATUS)).astype(np.uint8),
            moving=column(Register.MOVING) > 0,
        )

    def write_goals(
        self, position: ArrayLike, *, velocity: ArrayLike, acceleration: ArrayLike
    ) -> None:
        """Sends every servo its goal and how fast it may go there, in one packet.

        Velocity and acceleration are rounded up; 0, which may mean unlimited, is refused.

        Args:
            position: ticks, (N,).
            velocity: ticks/s, (N,) or one for all.
            acceleration: ticks/s^2, (N,) or one for all, in steps of 100.

        Raises:
            ValueError: a value that the register cannot hold; nothing was sent.
            BusLost: the port is gone.
        """
        n, hundreds = len(self.ids), np.ceil(np.asarray(acceleration) / 100.0)
        columns = (
            (Register.ACCELERATION, _integers("acceleration / 100", hundreds, n, 1, 254)),
            (Register.GOAL_POSITION, _integers("position", position, n, 0, TICKS_PER_TURN - 1)),
            (Register.GOAL_TIME, [0] * n),
            (Register.GOAL_VELOCITY, _integers("velocity", np.ceil(velocity), n, 1, 0x7FFF)),
        )
        start, size = GOAL_BLOCK
        goals = [
            b"".join(encode(register, values[k]) for register, values in columns) for k in range(n)
        ]
        self._sync_write(start, size, goals)

    def write_torque_limits(self, share: ArrayLike) -> None:
        """Limits the torque to a share of the stall torque, 0..1, (N,) or one for all.

        Raises:
            ValueError: a share that is not within 0..1.
            BusLost: the port is gone.
        """
        per_mille = np.multiply(share, 1000.0)
        limits = _integers("torque limit in 0.1 %", per_mille, len(self.ids), 0, 1000)
        self.write(Register.TORQUE_LIMIT, limits)

    # Registers.

    def read(self, register: Register, servo: int | None = None) -> np.ndarray:
        """A register of every servo, int (N,), or of one, int (1,).

        Raises:
            BusError: no right answer in time.
        """
        size = size_of(register)
        if servo is None:
            packets = self._sync_read(register, size)
        else:
            packets = self.exchange(
                servo, Instruction.READ, bytes([register, size]), (servo,), size
            )
        return np.array([decode(register, packet.data) for packet in packets])

    def write(self, register: Register, values: ArrayLike, servo: int | None = None) -> None:
        """Writes a register of every servo, unconfirmed, or of one servo, which confirms.

        Raises:
            ValueError: a value that the register cannot hold; nothing was sent.
            BusError: the one servo did not confirm.
        """
        if register == Register.TORQUE_ENABLE and not np.isin(values, (0, 1)).all():
            raise ValueError(f"TORQUE_ENABLE is {values!r}; it must be 0 or 1")
        if register == Register.ID and servo is None:
            raise ValueError("an ID is written to one servo at a time; name the servo")
        self._write(register, values, servo)

    def _write(self, register: Register, values: ArrayLike, servo: int | None) -> None:
        count = len(self.ids) if servo is None else 1
        integers = _integers(register.name, values, count, -0xFFFF, 0xFFFF)
        data = [encode(register, value) for value in integers]
        if servo is None:
            self._sync_write(register, size_of(register), data)
        else:
            self.exchange(servo, Instruction.WRITE, bytes([register]) + data[0], (servo,))

    def _sync_read(self, start: int, size: int) -> list[Status]:
        parameters = bytes([start, size, *self.ids])
        return self.exchange(BROADCAST, Instruction.SYNC_READ, parameters, self.ids, size)

    def _sync_write(self, start: int, size: int, data: list[bytes]) -> None:
        parameters = bytes([start, size])
        for servo, part in zip(self.ids, data, strict=True):
            parameters += bytes([servo]) + part
        self.exchange(BROADCAST, Instruction.SYNC_WRITE, parameters)

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """Inside this context, what is written to the registers below TORQUE_ENABLE is kept.

        Raises:
            BusError: a servo did not unlock.
        """
        try:
            for servo in self.ids:
                self.write(Register.LOCK, 0, servo)
            yield
        finally:
            self.write(Register.LOCK, 1)

    # Torque.

    def enable_torque(self) -> None:
        """Switches the torque of all servos on, unconfirmed; write goals first.

        Raises:
            BusLost: the port is gone.
        """
        self.write(Register.TORQUE_ENABLE, 1)

    def release(self) -> tuple[int, ...]:
        """Switches the torque of all servos off as well as it can; never raises, never stops early.

        Takes at most `2 * timeout` for each servo that does not answer.

        Returns:
            The ids that did not confirm that their torque is off.
        """
        with self._turn:
            for _ in range(RELEASES):
                with suppress(Exception):  # neither a bad line nor a full disk behind the tap
                    self.write(Register.TORQUE_ENABLE, 0)
            return tuple(servo for servo in self.ids if not self._is_released(servo))

    def _is_released(self, servo: int) -> bool:
        with suppress(Exception):
            self.write(Register.TORQUE_ENABLE, 0, servo)
        with suppress(Exception):
            return int(self.read(Register.TORQUE_ENABLE, servo)[0]) == 0
        return False

    # Who is there.

    def ping(self, servo: int) -> int:
        """The model number of a servo.

        Raises:
            BusError: it does not answer.
        """
        self.exchange(servo, Instruction.PING, answering=(servo,))
        return int(self.read(Register.MODEL, servo)[0])

    def check_servos(self) -> None:
        """Checks that all servos are there, of the right model and with equal firmware.

        Raises:
            BusError: they are not; the message says which.
        """
        models = self.read(Register.MODEL)
        for servo, model in zip(self.ids, models, strict=True):
            if model != MODEL_NUMBER:
                raise BusError(
                    f"servo {servo} has model number {model}; an STS3215 has {MODEL_NUMBER}"
                )
        major, minor = self.read(Register.FIRMWARE_MAJOR), self.read(Register.FIRMWARE_MINOR)
        versions = [f"{a}.{b}" for a, b in zip(major, minor, strict=True)]
        if len(set(versions)) > 1:
            found = ", ".join(f"servo {s} has {v}" for s, v in zip(self.ids, versions, strict=True))
            raise BusError(f"the firmware differs: {found}; update it with Feetech's software")

    @classmethod
    def scan(
        cls,
        port: str,
        ids: Sequence[int] = range(1, 17),
        baud_rates: Iterable[int] = BAUD_RATES,
        timeout: float = TIMEOUT,
    ) -> dict[int, dict[int, int]]:
        """Looks for servos: the baud rates at which any answer -> their ids -> model numbers.

        Waits a timeout for every id at every rate at which it does not answer, 3 s in all.

        Raises:
            BusLost: the port cannot be opened, or is gone.
        """
        found: dict[int, dict[int, int]] = {}
        for baud_rate in baud_rates:
            with cls(port, ids, baud_rate=baud_rate, timeout=timeout) as bus:
                for servo in ids:
                    try:
                        model = bus.ping(servo)
                    except BusLost:
                        raise
                    except BusError:
                        continue
                    found.setdefault(baud_rate, {})[servo] = model
        return found


def _integers(name: str, values: ArrayLike, count: int, low: int, high: int) -> list[int]:
    """One integer per servo, the nearest ones.

    Raises:
        ValueError: the wrong number of values, or one that is not within low..high.
    """
    array = np.asarray(values, np.float64)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{name} has shape {array.shape}; give one value, or {count}")
    if not ((array >= low) & (array <= high)).all():  # not true of NaN either
        raise ValueError(f"{name} is {array.tolist()}; it must lie within {low}..{high}")
    rounded: list[int] = np.broadcast_to(np.rint(array).astype(int), (count,)).tolist()
    return rounded
