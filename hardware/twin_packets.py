"""The bus as the servos of the twin see it: bytes in, packets out, and who answers what.

Protocol 0 of Feetech. An instruction is `FF FF ID LENGTH INSTRUCTION parameters CHECKSUM`, a
status `FF FF ID LENGTH ERROR data CHECKSUM`. LENGTH counts what follows it; CHECKSUM is the
inverted sum of what follows the header. A servo answers what it does not understand with silence.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from robolearn.hardware.registers import BROADCAST, Instruction, Register
from robolearn.hardware.twin_servo import Servo

HEADER: Final = b"\xff\xff"
PAUSE: Final = 0.1  # s without a byte, after which half a packet is given up
DELAY_UNIT: Final = 2e-6  # s, of the register RETURN_DELAY


class Packet(NamedTuple):
    """An instruction packet."""

    servo: int
    instruction: int
    parameters: bytes


class Reply(NamedTuple):
    """A status packet on its way to the host."""

    servo: int
    data: bytes
    delay: float = 0.0  # s, after the reply before it


def checksum(body: bytes) -> int:
    """Of a packet without header and checksum."""
    return ~sum(body) & 0xFF


def status_packet(servo: int, error: int, data: bytes = b"") -> bytes:
    """The bytes of a status packet."""
    body = bytes([servo, len(data) + 2, error]) + data
    return HEADER + body + bytes([checksum(body)])


class PacketReader:
    """Finds the instruction packets in a stream of bytes, however it is cut into pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._last = 0.0

    def feed(self, data: bytes, time: float = 0.0) -> list[Packet]:
        """The packets that these bytes complete; damaged ones are skipped.

        Args:
            data: what came in.
            time: when, s; after a pause the rest of an old packet is forgotten.
        """
        if time - self._last > PAUSE:
            self._buffer.clear()
        self._last = time
        self._buffer += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> Packet | None:
        buffer = self._buffer
        while (start := buffer.find(HEADER)) >= 0:
            del buffer[:start]
            if len(buffer) < 4:
                return None
            servo, length = buffer[2], buffer[3]
            if servo > BROADCAST or length < 2:
                del buffer[0]  # a third FF is no id: the header may begin one byte later
                continue
            end = 4 + length
            if len(buffer) < end:
                return None
            body, check = bytes(buffer[2 : end - 1]), buffer[end - 1]
            if check == checksum(body):
                del buffer[:end]
                return Packet(servo, body[2], body[3:])
            del buffer[0]
        del buffer[: len(buffer) - buffer.endswith(HEADER[:1])]  # the next byte may complete it
        return None


def answer(servos: Sequence[Servo], packet: Packet) -> list[Reply]:
    """Lets the servos obey an instruction and returns what they reply, in order.

    Args:
        servos: those that hear it.
        packet: the instruction.
    """
    match packet.instruction:
        case Instruction.SYNC_READ:
            return _sync_read(servos, packet)
        case Instruction.SYNC_WRITE:
            _sync_write(servos, packet)
            return []
    everyone = packet.servo == BROADCAST
    addressed = [s for s in servos if everyone or s[Register.ID] == packet.servo]
    replies = [_obey(servo, packet) for servo in sorted(addressed, key=lambda s: s[Register.ID])]
    if everyone and packet.instruction != Instruction.PING:
        return []
    return [reply for reply in replies if reply is not None]


def _obey(servo: Servo, packet: Packet) -> Reply | None:
    # Made first: a servo that is given a new id, or a new status level, still answers as the old.
    acknowledgement = _reply(servo) if servo[Register.STATUS_LEVEL] else None
    parameters = packet.parameters
    match packet.instruction:
        case Instruction.PING:
            return _reply(servo)
        case Instruction.READ if len(parameters) == 2:
            return _reply(servo, servo.read(*parameters))
        case Instruction.WRITE if len(parameters) > 1:
            servo.write(parameters[0], parameters[1:])
        case Instruction.REG_WRITE if len(parameters) > 1:
            servo.write_later(parameters[0], parameters[1:])
        case Instruction.ACTION:
            servo.act()
        case _:
            return None
    return acknowledgement


def _reply(servo: Servo, data: bytes = b"") -> Reply:
    packet = status_packet(servo[Register.ID], servo.alarms, data)
    return Reply(servo[Register.ID], packet, DELAY_UNIT * servo[Register.RETURN_DELAY])


def _sync_read(servos: Sequence[Servo], packet: Packet) -> list[Reply]:
    """One reply from each servo that is named and there, in the order of the names."""
    if packet.servo != BROADCAST or len(packet.parameters) < 3:
        return []
    address, length, *names = packet.parameters
    by_id = {servo[Register.ID]: servo for servo in servos}
    named = [by_id[name] for name in names if name in by_id]
    return [_reply(servo, servo.read(address, length)) for servo in named]


def _sync_write(servos: Sequence[Servo], packet: Packet) -> None:
    if packet.servo != BROADCAST or len(packet.parameters) < 2:
        return
    address, length, data = packet.parameters[0], packet.parameters[1], packet.parameters[2:]
    by_id = {servo[Register.ID]: servo for servo in servos}
    for start in range(0, len(data) - length, length + 1):
        name, values = data[start], data[start + 1 : start + 1 + length]
        if name in by_id and values:
            by_id[name].write(address, values)
