"""The serial port below a bus: the bytes of packets, out and in.

    FF FF | id | length | instruction | parameters | checksum     a packet to the servos
    FF FF | id | length | error byte  | data       | checksum     a status packet, the answer

The vendor's SDK (feetech-servo-sdk) builds and sends the packets. Its reader is not used: it polls,
counts time with a clock that can be set, does not check lengths, drops the error byte in a group
read, and takes an answer that comes late for the answer to the next question.
"""

import fcntl
import os
import select
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, ClassVar, Final, NamedTuple

import serial
from scservo_sdk import COMM_SUCCESS, PacketHandler, PortHandler

from robolearn.hardware.registers import BROADCAST, FENCE, Instruction

HEADER: Final = b"\xff\xff"
FRAME: Final = 6  # bytes of a status packet besides its data
QUIET: Final = 2.0  # ms to look on when enough bytes have come, but some of them are noise
WRITE_TIMEOUT: Final = 0.1  # s until a port that accepts no bytes counts as gone
TWIN_PATIENCE: Final = 60.0  # s until a twin in lockstep counts as dead
PACKETS: Final = PacketHandler(0)  # protocol 0: words are little-endian
FENCE_PACKET: Final = bytes([*HEADER, FENCE, 2, Instruction.PING, 0xFF])
FENCE_REPLY: Final = bytes([*HEADER, FENCE, 2, 0, 0])


class Status(NamedTuple):
    """What one servo answered."""

    servo: int
    error: int  # bits of `Alarm`
    data: bytes


class Port(PortHandler):
    """The SDK's port, made exclusive, monotonic in time, and waiting without polling.

    Any method may raise OSError or termios.error: the device is gone, or cannot be opened.

    Args:
        name: the path of the device.
        baud_rate: bits per second.
    """

    write_timeout: ClassVar[float] = WRITE_TIMEOUT

    def __init__(self, name: str, baud_rate: int) -> None:
        super().__init__(name)
        self.baudrate, self.packet_timeout = baud_rate, 0.0
        self._lock: IO[str] | None = None

    # What the SDK calls.

    def getCFlagBaud(self, baudrate: int) -> int:
        """Every rate is allowed; the SDK's own list lacks 76800."""
        return baudrate

    def setupPort(self, cflag_baud: int) -> bool:
        """Opens the device and locks it against other processes."""
        self._lock = _lock_device(self.port_name)
        self.ser = serial.Serial(
            self.port_name, cflag_baud, timeout=0, write_timeout=self.write_timeout, exclusive=True
        )
        # FTDI adapters else sit on an answer for 16 ms. Others, and pseudo-terminals, have no such
        # mode, and pyserial has it on Linux only: there an answer is not held back by the adapter.
        with suppress(ValueError, NotImplementedError):
            self.ser.set_low_latency_mode(True)
        self.is_open = True
        return True

    def closePort(self) -> None:
        """Lets go of the device and the lock, whatever state they are in."""
        self.is_open = False
        for resource in (self.ser, self._lock):
            with suppress(OSError):
                if resource is not None:
                    resource.close()

    def clearPort(self) -> None:
        """Throws away what came late, before the next packet is sent."""
        self.ser.reset_input_buffer()

    def getCurrentTime(self) -> float:
        """Milliseconds on a clock that nobody can set."""
        return time.monotonic() * 1000.0

    def readPort(self, length: int) -> bytes:
        """Up to `length` bytes, as soon as there are any; b"" when the packet timeout is over."""
        left = max(self.packet_timeout - self.getTimeSinceStart(), 0.0) / 1000.0
        ready, _, _ = select.select([self.ser], [], [], left)
        return self.ser.read(length) if ready else b""

    # What the bus calls.

    def send(self, servo: int, instruction: Instruction, parameters: bytes) -> bytes:
        """Sends one packet and returns it."""
        packet = [*HEADER, servo, len(parameters) + 2, instruction, *parameters, 0]
        self.is_using = False  # else the SDK refuses for ever after a packet that failed
        result = PACKETS.txPacket(self, packet)
        if result != COMM_SUCCESS:
            raise OSError(PACKETS.getTxRxResult(result))
        return bytes(packet)

    def receive(self, count: int, length: int) -> bytes:
        """Whatever comes until `count` status packets with `length` bytes of data are complete.

        `setPacketTimeoutMillis` says beforehand how long that may take.
        """
        received = b""
        while chunk := self.readPort(4096):
            received += chunk
            if len(received) >= count * (FRAME + length):
                if len(parse(received, length)[0]) >= count:
                    break
                self.packet_timeout = min(self.packet_timeout, self.getTimeSinceStart() + QUIET)
            if self.isPacketTimeout():
                break
        return received


class LockstepPort(Port):
    """The port of a twin in lockstep, which tells when it has dealt with a packet.

    So what it has not answered by then is lost, and no clock on the wall takes part in that.
    """

    write_timeout = TWIN_PATIENCE
    _received = b""

    def send(self, servo: int, instruction: Instruction, parameters: bytes) -> bytes:
        """Sends one packet, waits until the twin has dealt with it, and returns it."""
        packet = super().send(servo, instruction, parameters)
        self.ser.write(FENCE_PACKET)
        self.setPacketTimeoutMillis(1000.0 * TWIN_PATIENCE)
        self._received = b""
        while not self._received.endswith(FENCE_REPLY):
            if not (chunk := self.readPort(4096)):
                raise OSError("the twin does not answer")
            self._received += chunk
        return packet

    def receive(self, count: int, length: int) -> bytes:
        """What came in answer to the last packet."""
        del count, length
        return self._received.removesuffix(FENCE_REPLY)


def _lock_device(port: str) -> IO[str]:
    """Locks the device behind `port`, whatever link leads there; the kernel unlocks it at exit."""
    device = str(Path(port).resolve(strict=True)).replace("/", "-")
    lock = Path(tempfile.gettempdir(), f"robolearn{device}.lock").open("a+")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        with lock:
            raise OSError(f"process {lock.read()} uses it; stop that one first") from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def parse(received: bytes, length: int) -> tuple[list[Status], str]:
    """The valid status packets with `length` bytes of data, and what is wrong with the others.

    Bytes that do not begin a packet are noise and skipped: some half-duplex adapters make one when
    the direction changes.
    """
    packets, flaw = [], ""
    start = received.find(HEADER)
    while start >= 0:
        packet = received[start : start + FRAME + length]
        wrong = _flaw(packet, length)
        if not wrong:
            packets.append(Status(packet[2], packet[4], packet[5:-1]))
        elif packet[2:3] < bytes([BROADCAST]):  # no servo has such an id
            flaw = flaw or wrong
        start = received.find(HEADER, start + (1 if wrong else len(packet)))
    return packets, flaw


def _flaw(packet: bytes, length: int) -> str:
    if packet[3:4] != bytes([length + 2]):
        return "a status packet has the wrong length"
    if len(packet) < FRAME + length:
        return "a status packet breaks off"
    if ~sum(packet[2:-1]) & 0xFF != packet[-1]:
        return "a status packet has the wrong checksum"
    return ""
