"""The twin's arm without its process: bytes in, replies out, time when it is told to pass.

Everything here is exact: the same calls give the same bits. `robolearn.hardware.twin_server` puts
it behind a serial port.
"""

from typing import Any, Final

import numpy as np

from robolearn.contract import SO101
from robolearn.envs.joints import JointMap
from robolearn.envs.servo_model import ServoModel
from robolearn.envs.task import TIMESTEP
from robolearn.hardware.calibration import Calibration, JointCalibration
from robolearn.hardware.registers import (
    BAUD_RATES,
    FENCE,
    STATE_BLOCK,
    TICKS_PER_TURN,
    Instruction,
    Register,
)
from robolearn.hardware.twin import TwinConfig
from robolearn.hardware.twin_faults import Faults
from robolearn.hardware.twin_packets import Packet, PacketReader, Reply, answer, status_packet
from robolearn.hardware.twin_physics import GRIPPER_SHARE, ArmPhysics
from robolearn.hardware.twin_servo import Sensed, Servo

TICK: Final = 2 * np.pi / TICKS_PER_TURN  # rad
LOW_VOLTAGE: Final = 8.0  # V; above it the servos are the 12 V type
_STATE_READ: Final = bytes(STATE_BLOCK)


class Encoders:
    """Between joint angles, rad (J,), and encoder ticks (J,), homing offsets not counted.

    Args:
        calibration: the middle of each of its ranges is the middle of the joint's range.
        joints: the model's joints, for the gripper's range in rad.
    """

    def __init__(self, calibration: Calibration, joints: JointMap) -> None:
        arm = calibration.arm
        ends = [joints.to_ctrl(np.array(end)) for end in (arm.low, arm.high)]
        self._middle = np.mean(ends, axis=0)
        entries = calibration.joints
        self._zero = np.array([(e.range_min + e.range_max) / 2 + e.homing_offset for e in entries])
        self.scale = np.array([-1 / TICK if e.drive_mode else 1 / TICK for e in entries])

    def ticks(self, angle: np.ndarray) -> np.ndarray:
        """What the encoders count."""
        return self._zero + (angle - self._middle) * self.scale

    def angle(self, ticks: np.ndarray) -> np.ndarray:
        """The inverse of `ticks`."""
        return self._middle + (ticks - self._zero) / self.scale


class TwinArm:
    """Six servos on a bus, the arm that they move, and what is broken.

    Args:
        config: what to simulate.

    Attributes:
        servos: in the order of the arm's joints.
        physics: what they move.
        calibration: what a perfect calibration of this arm finds.
        encoders: what its angles are measured with.
        faults: what is switched on.
        plugged: whether the USB cable is in.
        slipped: ticks by which encoders count too much, float (J,).
        camera_faults: by camera, what is wrong with its stream; see `twin_faults.Camera`.

    Raises:
        ValueError: a config that cannot be simulated.
        OSError: the calibration or the servo file cannot be read.
    """

    def __init__(self, config: TwinConfig) -> None:
        self.config = config
        if len(config.pose) != SO101.size:
            raise ValueError(f"pose has {len(config.pose)} joints; the arm has {SO101.size}")
        self.physics = ArmPhysics(
            config.env,
            seed=config.seed,
            position=np.array(config.pose),
            voltage=config.voltage,
            backlash=config.backlash,
            image_size=config.image_size,
            servos=None if config.servo is None else ServoModel.load(config.servo, SO101),
        )
        self.arm, self.joints = self.physics.task.arm, self.physics.task.joints
        path = config.calibration
        self.calibration = Calibration.load(path, SO101) if path else Calibration.nominal(SO101)
        self.encoders = Encoders(self.calibration, self.joints)
        self.slipped = np.zeros(self.arm.size)
        self.plugged = True
        self.camera_faults: dict[str, str] = {}
        self._reader = PacketReader()
        self.servos = [Servo(_permanent(config, *entry)) for entry in self.calibration.items()]
        for servo, sensed in zip(self.servos, self._sense(), strict=True):
            servo.sensed = sensed
            servo.power_on()
        self.faults = Faults(self, config.seed)

    # The bus.

    def receive(
        self, data: bytes, *, baud_rate: int = BAUD_RATES[0], time: float = 0.0
    ) -> list[Reply]:
        """Lets the servos hear these bytes; returns what the host hears in return.

        Args:
            data: any piece of the stream.
            baud_rate: of the host.
            time: when, s, for the pause that ends half a packet.
        """
        replies: list[Reply] = []
        for packet in self._reader.feed(data, time):
            if self.config.lockstep and packet.servo == FENCE:
                replies.append(Reply(FENCE, status_packet(FENCE, 0)))
                continue
            if self.config.lockstep and _asks_for_state(packet):
                self.advance(self.config.lockstep_dt)
            if self.faults.hears():
                replies += self.faults.alter(self._answer(packet, baud_rate))
        return replies

    def _answer(self, packet: Packet, baud_rate: int) -> list[Reply]:
        awake = [s for s in self.servos if s.powered and not s.deaf]
        hearing = [s for s in awake if BAUD_RATES[s[Register.BAUD_RATE] % 8] == baud_rate]
        if awake and not hearing:
            return [Reply(packet.servo, b"\x00\x5a\xa5")]  # what a wrong speed makes of a reply
        return answer(hearing, packet)

    # Time.

    def advance(self, seconds: float) -> None:
        """Simulates this long, to the nearest `TIMESTEP`."""
        for _ in range(round(seconds / TIMESTEP)):
            self.step()

    def step(self) -> None:
        """Simulates `TIMESTEP` seconds."""
        pairs = zip(self.servos, self._sense(), strict=True)
        drives = [servo.step(TIMESTEP, sensed) for servo, sensed in pairs]
        orders = [drive or (np.nan, 0.0, 0.0) for drive in drives]
        ticks, gain, limit = np.array(orders).T
        target = self.encoders.angle(ticks - self.slipped)
        self.physics.step(np.where(gain > 0, target, self.physics.angle), gain, limit)

    def _sense(self) -> list[Sensed]:
        physics, encoders = self.physics, self.encoders
        columns = (
            encoders.ticks(physics.angle) + self.slipped,
            physics.velocity * encoders.scale,
            physics.duty * np.sign(encoders.scale),
            physics.current,
            np.full(self.arm.size, physics.voltage),
            physics.temperature,
        )
        return [Sensed(*row) for row in np.stack(columns, 1).tolist()]

    # The truth.

    def state(self) -> dict[str, Any]:
        """See `Twin.state`; without the port."""
        physics = self.physics
        return {
            "time": physics.time,
            "task": physics.task.task_description,
            "success": physics.success,
            "progress": physics.progress,
            "diverged": physics.diverged,
            "faults": self.faults.describe(),
            "servos": dict(zip(self.arm.joints, self._servo_states(), strict=True)),
        }

    def _servo_states(self) -> list[dict[str, float]]:
        data, joints = self.physics.task.data, self.joints
        position, velocity = joints.position(data.qpos), joints.velocity(data.qvel)
        rows = np.stack([position, velocity, self.physics.torque], 1).tolist()
        return [
            {
                **{register.name.lower(): servo[register] for register in Register},
                "powered": servo.powered,
                "setpoint": servo.setpoint,
                **dict(zip(("position", "velocity", "torque"), row, strict=True)),
            }
            for servo, row in zip(self.servos, rows, strict=True)
        ]

    def reset(self, seed: int, instruction: str | None = None, place: str = "stay") -> None:
        """Places the objects of the episode `seed`; see `ArmPhysics.reset`.

        An arm that is put somewhere else stays there: its servos' goals go with it.
        """
        self.physics.reset(seed, instruction, place)
        if place != "stay":
            for servo, sensed in zip(self.servos, self._sense(), strict=True):
                servo.settle(sensed)


def _permanent(config: TwinConfig, name: str, joint: JointCalibration) -> dict[Register, int]:
    """The permanent registers of a servo of this arm, as far as they are not the factory's."""
    registers = {Register.ID: joint.id, Register.RETURN_DELAY: 0}
    if config.calibrated:
        registers[Register.HOMING_OFFSET] = joint.homing_offset
        registers[Register.MIN_POSITION] = joint.range_min
        registers[Register.MAX_POSITION] = joint.range_max
    if SO101.joints.index(name) in SO101.grippers:
        registers[Register.MAX_TORQUE] = round(1000 * GRIPPER_SHARE)
    if config.voltage > LOW_VOLTAGE:
        registers |= {Register.MAX_VOLTAGE: 140, Register.MIN_VOLTAGE: 80}
    for register, value in config.registers.items():
        if register not in Register.__members__:
            choices = ", ".join(Register.__members__)
            raise ValueError(f"no register {register!r}; there are {choices}")
        registers[Register[register]] = value
    return registers


def _asks_for_state(packet: Packet) -> bool:
    reads = packet.instruction == Instruction.SYNC_READ
    return reads and packet.parameters.startswith(_STATE_READ)
