"""What the tests of the twin share: packets made by hand, and a host without a process."""

import numpy as np

from robolearn.hardware.registers import STATE_BLOCK, Register, decode, encode, size_of
from robolearn.hardware.twin import TwinConfig
from robolearn.hardware.twin_arm import TwinArm

IDS = range(1, 7)
LIFT, ELBOW = 1, 2
REACH = (0.0, 0.9, -0.9, 0.0, 0.0, 0.3)  # stretched out: the heaviest for the shoulder


def packet(*body):
    return b"\xff\xff" + bytes([*body, ~sum(body) & 0xFF])


def sync_read(address, length):
    return packet(0xFE, 10, 0x82, address, length, *IDS)


STATE = sync_read(*STATE_BLOCK)


def sync_write(register, values):
    data = [byte for i, v in zip(IDS, values, strict=True) for byte in (i, *encode(register, v))]
    return packet(0xFE, len(data) + 4, 0x83, register, size_of(register), *data)


def parse(data):
    """The valid status packets: a list of (id, error, data)."""
    found = []
    while len(data) >= 6:
        end = data[3] + 4
        body, check = data[2 : end - 1], data[end - 1 : end]
        if data[:2] == b"\xff\xff" and check == bytes([~sum(body) & 0xFF]):
            found.append((body[0], body[2], body[3:]))
            data = data[end:]
        else:
            data = data[1:]
    return found


class Host:
    """What a driver would do, on an arm without a process."""

    def __init__(self, config=None, **options):
        self.arm = TwinArm(config or TwinConfig(**options))

    def say(self, data):
        return parse(b"".join(reply.data for reply in self.arm.receive(data)))

    def read(self, register):
        replies = self.say(sync_read(register, size_of(register)))
        return {servo: decode(register, data) for servo, _, data in replies}

    def write(self, register, values):
        values = [values] * 6 if isinstance(values, int) else values
        assert self.say(sync_write(register, values)) == []

    def go(self, position, seconds=1.5):
        """Commands a pose in contract units and waits."""
        angle = self.arm.joints.to_ctrl(np.array(position))
        ticks = np.round(self.arm.encoders.ticks(angle)).astype(int)
        self.write(Register.GOAL_POSITION, ticks.tolist())
        self.write(Register.TORQUE_ENABLE, 1)
        self.arm.advance(seconds)
        return ticks

    @property
    def position(self):
        return self.arm.joints.position(self.arm.physics.task.data.qpos)

    @property
    def angle(self):
        return self.arm.physics.angle.copy()

    @property
    def registers(self):
        return list(self.arm.state()["servos"].values())
