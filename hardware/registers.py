"""The control table of the Feetech STS3215, as far as this project uses it.

Sources: the tables of the vendor (ftservo/FTServo_Python) and of lerobot (`motors/feetech`), which
agree on all of these. Words are little-endian; a signed register is sign and magnitude, its sign
being a single bit.
"""

from enum import IntEnum, IntFlag
from typing import Final

TICKS_PER_TURN: Final = 4096
CENTRE: Final = 2048  # ticks: the middle of a turn
MODEL_NUMBER: Final = 777  # of an STS3215
BROADCAST: Final = 0xFE
# No servo's id: a twin in lockstep answers to it when it has dealt with all that came before.
FENCE: Final = 0xFD
# Register 6 holds the position in this list.
BAUD_RATES: Final = (1_000_000, 500_000, 250_000, 128_000, 115_200, 76_800, 57_600, 38_400)


class Instruction(IntEnum):
    """What a packet asks for."""

    PING = 0x01
    READ = 0x02
    WRITE = 0x03
    REG_WRITE = 0x04
    ACTION = 0x05
    RESET = 0x06
    SYNC_READ = 0x82
    SYNC_WRITE = 0x83


class Alarm(IntFlag):
    """The bits of a status packet's error byte and of the register STATUS."""

    VOLTAGE = 1
    ENCODER = 2
    OVERHEAT = 4
    OVERCURRENT = 8
    OVERLOAD = 32


class Register(IntEnum):
    """The address of each register. See `size_of` and `sign_bit_of`."""

    # Kept without power, and written only while LOCK is 0.
    FIRMWARE_MAJOR = 0
    FIRMWARE_MINOR = 1
    MODEL = 3
    ID = 5
    BAUD_RATE = 6
    RETURN_DELAY = 7  # 2 us
    STATUS_LEVEL = 8  # 1: every instruction is answered; 0: only reads and pings
    MIN_POSITION = 9
    MAX_POSITION = 11
    MAX_TEMPERATURE = 13  # deg C
    MAX_VOLTAGE = 14  # 0.1 V
    MIN_VOLTAGE = 15  # 0.1 V
    MAX_TORQUE = 16  # 0.1 % of stall; copied to TORQUE_LIMIT at power-on
    PHASE = 18
    UNLOADING = 19  # alarms that switch the torque off
    LED_ALARM = 20
    P_GAIN = 21
    D_GAIN = 22
    I_GAIN = 23
    STARTUP_FORCE = 24
    DEAD_ZONE_CW = 26
    DEAD_ZONE_CCW = 27
    PROTECTION_CURRENT = 28  # 6.5 mA
    HOMING_OFFSET = 31  # ticks; present = actual - offset
    MODE = 33  # 0: position
    PROTECTIVE_TORQUE = 34  # % that is left after an overload
    PROTECTION_TIME = 35  # 10 ms of overload until it latches
    OVERLOAD_TORQUE = 36  # % from which a load counts as overload
    OVERCURRENT_TIME = 38  # 10 ms
    # Lost without power.
    TORQUE_ENABLE = 40  # 0 off, 1 on; 128 redefines the present position as 2048
    ACCELERATION = 41  # 100 ticks/s^2; 0: unlimited
    GOAL_POSITION = 42
    GOAL_TIME = 44
    GOAL_VELOCITY = 46  # ticks/s; 0: unlimited or none, as PHASE bit 3 says
    TORQUE_LIMIT = 48  # 0.1 % of stall
    LOCK = 55  # 0: the registers above TORQUE_ENABLE can be written
    PRESENT_POSITION = 56
    PRESENT_VELOCITY = 58  # ticks/s
    PRESENT_LOAD = 60  # 0.1 % of full duty, not torque
    PRESENT_VOLTAGE = 62  # 0.1 V
    PRESENT_TEMPERATURE = 63  # deg C
    ASYNC_WRITE = 64
    STATUS = 65  # Alarm bits
    MOVING = 66
    PRESENT_CURRENT = 69  # 6.5 mA
    MAX_ACCELERATION = 85


WORDS: Final = frozenset(
    {
        Register.MODEL,
        Register.MIN_POSITION,
        Register.MAX_POSITION,
        Register.MAX_TORQUE,
        Register.STARTUP_FORCE,
        Register.PROTECTION_CURRENT,
        Register.HOMING_OFFSET,
        Register.GOAL_POSITION,
        Register.GOAL_TIME,
        Register.GOAL_VELOCITY,
        Register.TORQUE_LIMIT,
        Register.PRESENT_POSITION,
        Register.PRESENT_VELOCITY,
        Register.PRESENT_LOAD,
        Register.PRESENT_CURRENT,
    }
)
SIGN_BITS: Final = {
    Register.HOMING_OFFSET: 11,
    Register.GOAL_POSITION: 15,
    Register.GOAL_VELOCITY: 15,
    Register.PRESENT_POSITION: 15,
    Register.PRESENT_VELOCITY: 15,
    Register.PRESENT_LOAD: 10,
}
# What the driver reads every cycle in one go, and what it writes.
STATE_BLOCK: Final = (Register.PRESENT_POSITION, 15)
GOAL_BLOCK: Final = (Register.ACCELERATION, 7)
AMPERE: Final = 0.0065  # of one count of PRESENT_CURRENT


def size_of(register: Register) -> int:
    """Bytes of a register, 1 or 2."""
    return 2 if register in WORDS else 1


def encode(register: Register, value: int) -> bytes:
    """The register's bytes.

    Raises:
        ValueError: the value does not fit.
    """
    size, sign_bit = size_of(register), SIGN_BITS.get(register)
    limit = 1 << (8 * size if sign_bit is None else sign_bit)
    if not (0 if sign_bit is None else 1 - limit) <= value < limit:
        raise ValueError(f"{register.name} cannot be {value}; it has {size} bytes")
    sign = 1 << sign_bit if sign_bit is not None and value < 0 else 0
    return (abs(value) | sign).to_bytes(size, "little")


def decode(register: Register, data: bytes) -> int:
    """The inverse of `encode`."""
    raw, sign_bit = int.from_bytes(data, "little"), SIGN_BITS.get(register)
    if sign_bit is None:
        return raw
    magnitude = raw & ((1 << sign_bit) - 1)
    return -magnitude if raw >> sign_bit & 1 else magnitude
