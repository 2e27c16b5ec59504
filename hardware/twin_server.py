"""The process of the twin: its serial port, its clock, and the one thread that owns the arm.

The thread waits for bytes, for the next physics step and for calls of other threads, and does one
thing at a time; so nothing needs a lock. Other threads hand it functions through `TwinServer.call`.
"""

import fcntl
import json
import os
import queue
import select
import signal
import struct
import sys
import termios
import threading
import time
import tty
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from robolearn.config import from_json
from robolearn.envs.task import TIMESTEP
from robolearn.hardware.registers import FENCE
from robolearn.hardware.twin import TwinConfig
from robolearn.hardware.twin_arm import TwinArm
from robolearn.hardware.twin_http import Gateway

CHUNK: Final = 4096
STALL: Final = 0.1  # s; if the machine lets the twin wait longer, that time does not pass in it
PRIORITY: Final = -10  # niceness: servos of metal answer in time however busy the machine is
SWITCH_INTERVAL: Final = 0.0005  # s; ten times shorter than usual: drawing must not delay the bus
# Linux tells any speed by this call; the portable one knows only some.
_TCGETS2, _TERMIOS2 = 0x802C542A, struct.Struct("4I20B2I")


class PseudoTerminal:
    """A serial port of which this side is the servos'.

    Attributes:
        name: what the other side opens.
    """

    def __init__(self) -> None:
        # Both ends stay open: when the other side closes the port, it must stay alive.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)  # now, lest the first bytes are echoed or cooked
        os.set_blocking(self._master, False)
        self.name = os.ttyname(self._slave)

    def fileno(self) -> int:
        """For select."""
        return self._master

    @property
    def baud_rate(self) -> int:
        """What the other side has set."""
        if sys.platform != "linux":
            return termios.tcgetattr(self._slave)[5]
        data = fcntl.ioctl(self._slave, _TCGETS2, bytes(_TERMIOS2.size))
        return _TERMIOS2.unpack(data)[-1]

    def read(self) -> bytes:
        """What has come in."""
        try:
            return os.read(self._master, CHUNK)
        except BlockingIOError:
            return b""

    def write(self, data: bytes) -> None:
        """Sends; what nobody reads is lost once the buffer is full."""
        with suppress(BlockingIOError):
            os.write(self._master, data)

    def close(self) -> None:
        """Hangs up."""
        os.close(self._master)
        os.close(self._slave)


class TwinServer:
    """Runs an arm behind a serial port.

    Args:
        arm: the arm; from now on only `run` and what it is handed by `call` may touch it.

    Attributes:
        port: the serial port's name, or "" while it is unplugged.
    """

    def __init__(self, arm: TwinArm) -> None:
        self._arm = arm
        self._terminal = PseudoTerminal()
        self.port = self._terminal.name
        self._outbox: deque[tuple[float, bytes]] = deque()  # when to send what
        self._lockstep = arm.config.lockstep
        # s; what is due before time passes again, in lockstep, is sent now.
        self._ahead = arm.config.lockstep_dt - TIMESTEP / 2 if self._lockstep else 0.0
        self._calls: queue.SimpleQueue[tuple[Callable[[TwinArm], Any], Future]] = (
            queue.SimpleQueue()
        )
        self._wake_read, self._wake_write = os.pipe()

    def call[T](self, function: Callable[[TwinArm], T]) -> T:
        """Lets the owner run `function(arm)`; returns or raises what that does. For any thread."""
        future: Future[T] = Future()
        self._calls.put((function, future))
        os.write(self._wake_write, b"!")
        return future.result()

    def run(self) -> None:
        """Works for ever."""
        next_step = time.monotonic() + TIMESTEP
        while True:
            now = self._now()
            if not self._lockstep:
                next_step = self._catch_up(next_step, now)
            self._send(now)
            due = min(next_step, self._outbox[0][0]) if self._outbox else next_step
            wait = None if self._lockstep else max(0.0, due - time.monotonic())
            terminal, wake = self._terminal.fileno(), self._wake_read
            ready, _, _ = select.select([terminal, wake], [], [], wait)
            if terminal in ready:
                self._receive()
            if wake in ready:
                os.read(wake, CHUNK)
                self._answer_calls()

    def _now(self) -> float:
        """s, of the clock by which replies are late: in lockstep the arm's, else the wall's."""
        return self._arm.physics.time if self._lockstep else time.monotonic()

    def _catch_up(self, next_step: float, now: float) -> float:
        """Simulates what is due; returns when the next step is."""
        if now - next_step > STALL:
            next_step = now
        while next_step <= now:
            self._arm.step()
            next_step += TIMESTEP
        return next_step

    def _receive(self) -> None:
        data, baud_rate = self._terminal.read(), self._terminal.baud_rate
        replies = self._arm.receive(data, baud_rate=baud_rate, time=self._now())
        now = self._now()
        due = self._outbox[-1][0] if self._outbox else now  # a stream does not overtake itself
        for reply in replies:
            if reply.servo == FENCE:  # not of the stream: what is late now has missed its question
                self._send(now)
                self._terminal.write(reply.data)
                continue
            due = max(due, now) + reply.delay
            self._outbox.append((due, reply.data))
        self._send(now)

    def _send(self, now: float) -> None:
        ready = []
        while self._outbox and self._outbox[0][0] <= now + self._ahead:
            ready.append(self._outbox.popleft()[1])
        if ready and self.port:
            self._terminal.write(b"".join(ready))

    def _answer_calls(self) -> None:
        while not self._calls.empty():
            function, future = self._calls.get()
            try:
                future.set_result(function(self._arm))
            except Exception as error:  # noqa: BLE001 (the caller's, who gets it)
                future.set_exception(error)
        if self._arm.plugged != bool(self.port):
            self._replug()

    def _replug(self) -> None:
        """Hangs up, or shows the port that was opened then."""
        if self._arm.plugged:
            self.port = self._terminal.name
            return
        # The new port is opened before the old one closes: so it cannot get the same name.
        old, self._terminal, self.port = self._terminal, PseudoTerminal(), ""
        self._outbox.clear()
        old.close()


def serve(config: TwinConfig, announce: Callable[[str, str, Mapping[str, str]], None]) -> None:
    """Runs a twin in this process, for ever.

    Args:
        config: what to simulate.
        announce: is told the serial port, the URL and the cameras' URLs when all is ready.

    Raises:
        ValueError: a config that cannot be simulated.
        OSError: the HTTP port is taken, or the calibration file cannot be read.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    arm = TwinArm(config)
    server = TwinServer(arm)
    gateway = Gateway(server, config, arm.physics.task)
    announce(server.port, gateway.url, gateway.cameras)
    server.run()


def _end_with_parent() -> None:
    """The parent holds the other end of stdin, and lets go of it in whatever way it ends."""
    sys.stdin.buffer.read()
    os._exit(0)


def _tell(**message: object) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    """What `Twin` starts: reads a config from stdin and tells on stdout how it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    config = from_json(TwinConfig, json.loads(sys.stdin.readline()))
    if not config.lockstep:
        with suppress(OSError):  # where that is allowed, as the driver does it
            os.nice(PRIORITY)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(config, lambda port, url, cameras: _tell(http_port=int(url.rpartition(":")[2])))
    except (ValueError, OSError) as error:
        _tell(error=str(error))


if __name__ == "__main__":
    main()
