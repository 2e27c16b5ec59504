"""The serial line below a bus: a question out, all answers in, or an error."""

import os
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from robolearn.hardware.port import LockstepPort, Port, Status, parse
from robolearn.hardware.registers import Instruction

Tap = Callable[[float, str, bytes], None]


class BusError(OSError):
    """The servos did not answer as they should; nothing of what they said is used.

    Attributes:
        missing: the ids without a valid answer.
    """

    def __init__(self, message: str, missing: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class BusLost(BusError):
    """The port is gone or was never there; nothing works until `Bus.connect` has succeeded."""


class Line:
    """Questions and answers over a serial port; the arguments are those of `Bus`."""

    def __init__(
        self,
        port: str,
        baud_rate: int,
        timeout: float,
        clock: Callable[[], float],
        tap: Tap | None,
        *,
        lockstep: bool = False,
    ) -> None:
        self.port, self.baud_rate, self.timeout = port, baud_rate, timeout
        self.clock, self.tap, self.lockstep = clock, tap, lockstep
        self._port: Port | None = None
        # Re-entrant: a signal handler may release the servos in the middle of a cycle.
        self._turn = threading.RLock()

    @property
    def is_connected(self) -> bool:
        """Whether the port is open; False from the moment that it was found gone."""
        return self._port is not None

    def connect(self) -> None:
        """Opens the port, or opens it again.

        Raises:
            BusLost: it is not there, not allowed, or in use.
        """
        with self._turn:
            self.close()
            port = (LockstepPort if self.lockstep else Port)(self.port, self.baud_rate)
            try:
                port.openPort()
            except (OSError, termios.error, ValueError) as error:
                port.closePort()
                raise BusLost(f"{self.port} cannot be opened: {_reason(error)}") from error
            self._port = port

    def close(self) -> None:
        """Closes the port; the servos keep their torque and their goals. Never raises."""
        with self._turn:
            if self._port is not None:
                self._port.closePort()
            self._port = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _usable_port(self) -> Iterator[Port]:
        """The open port; any failure of it closes it."""
        if self._port is None:
            raise BusLost(f"{self.port} is not open; call connect first")
        try:
            yield self._port
        except (OSError, termios.error) as error:  # termios.error is no OSError
            self.close()
            raise BusLost(
                f"{self.port} is gone ({_reason(error)}); plug it in and connect again"
            ) from error

    def exchange(
        self,
        servo: int,
        instruction: Instruction,
        parameters: bytes = b"",
        answering: Sequence[int] = (),
        length: int = 0,
    ) -> list[Status]:
        """Sends a packet, and returns a status packet with `length` bytes for each `answering` id.

        Raises:
            BusError: anything else came, or too late.
        """
        with self._turn:
            with self._usable_port() as port:
                port.setPacketTimeoutMillis(1000.0 * self.timeout)
                sent = port.send(servo, instruction, parameters)
            self._record("tx", sent)
            if not answering:
                return []
            with self._usable_port() as port:
                received = port.receive(len(answering), length)
            self._record("rx", received)
        return self._check(received, answering, length)

    def _record(self, direction: str, data: bytes) -> None:
        if self.tap is not None and data:
            self.tap(self.clock(), direction, data)

    def _check(self, received: bytes, answering: Sequence[int], length: int) -> list[Status]:
        packets, flaw = parse(received, length)
        answered = [packet.servo for packet in packets]
        if not flaw and answered == list(answering):
            return packets
        missing = tuple(servo for servo in answering if servo not in answered)
        strangers = [servo for servo in answered if servo not in answering]
        if strangers:
            flaw = flaw or f"servo {strangers[0]} answered and was not asked"
        elif not missing:
            flaw = flaw or "answers came twice or in the wrong order"
        else:
            flaw = flaw or "check cables and power"
        silent = f"no valid answer from servo {', '.join(map(str, missing))}; " if missing else ""
        raise BusError(f"{self.port}: {silent}{flaw}", missing)


def _reason(error: Exception) -> str:
    """In words: pyserial repeats itself, and termios gives numbers."""
    code, file = error.args[0] if error.args else None, getattr(error, "filename", None)
    if not isinstance(code, int):
        return str(error)
    return os.strerror(code) + (f" ({file})" if file else "")
