"""`ServoArm`: an arm of bus servos in SI units; what the driver reads and writes every cycle."""

from typing import Final

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.bus import Bus, BusLost, ServoStates
from robolearn.hardware.calibration import RADIANS, Calibration
from robolearn.hardware.limiter import Limits
from robolearn.hardware.registers import Register
from robolearn.hardware.safety_types import Reading

RECONNECT: Final = 0.5  # s between attempts to open a lost port
# The motor of the STS3215 (Rhoban's bam, feetech_sts3215_7_4V): what duty means as torque.
TORQUE_CONSTANT: Final = 1.2116  # N m/A
RESISTANCE: Final = 2.676  # ohm
# The servos' own limits are wider than ours: they are a second wall, not a second planner.
ENVELOPE: Final = 1.5
MAX_ACCELERATION: Final = 25_400.0  # ticks/s^2 that the register holds


class ServoArm:
    """The servos of one arm.

    Args:
        arm: names and units of the joints.
        bus: the servos, in the order of the joints.
        calibration: between ticks and contract units.
    """

    def __init__(self, arm: ArmSpec, bus: Bus, calibration: Calibration) -> None:
        self.arm, self.bus, self.calibration = arm, bus, calibration
        self.torque = False  # whether the servos may have torque
        self._torque_limit: np.ndarray | None = None  # as last written
        self._next_attempt = -np.inf

    def connect(self) -> None:
        """Opens the port and checks servos and calibration; nothing moves.

        Servos may have torque from a program that died; then `torque` says so.

        Raises:
            OSError, ValueError: no port, wrong servos, or a calibration that is not theirs.
        """
        self.bus.connect()
        self.bus.check_servos()
        self.calibration.check_servos(self.bus)
        self.torque = bool(self.bus.read(Register.TORQUE_ENABLE).any())

    def read(self, now: float, *, with_torque: bool) -> Reading:
        """One cycle's reading; a lost port is opened again first.

        Args:
            now: s, when the cycle began.
            with_torque: also ask the servos whether their torque is on.

        Raises:
            BusError: not all servos answered.
        """
        self._reconnect(now)
        states = self.bus.read_states()
        torque = self.bus.read(Register.TORQUE_ENABLE) > 0 if with_torque else None
        return self._reading(states, now, torque)

    def _reconnect(self, now: float) -> None:
        if self.bus.is_connected:
            return
        if now < self._next_attempt:
            raise BusLost(f"{self.bus.port} is gone")
        self._next_attempt = now + RECONNECT
        self.connect()
        self._torque_limit = None

    def _reading(self, states: ServoStates, now: float, torque: np.ndarray | None) -> Reading:
        calibration, scale = self.calibration, self.calibration.scale
        return Reading(
            time=now,
            position=calibration.position(states.position),
            velocity=states.velocity * scale,
            effort=self._effort(states),
            current=np.abs(states.current),
            voltage=states.voltage,
            temperature=states.temperature,
            alarms=states.alarms,
            calibrated=True,  # else `connect` would have refused
            torque=torque,
        )

    def _effort(self, states: ServoStates) -> np.ndarray:
        """N m: current from duty, voltage and back-EMF, times the torque constant."""
        speed = states.velocity * RADIANS
        volts = states.load * states.voltage - TORQUE_CONSTANT * speed
        sign = np.sign(self.calibration.scale)
        return sign * TORQUE_CONSTANT * volts / RESISTANCE

    def drive(self, goal: np.ndarray, torque_limit: np.ndarray, limits: Limits) -> None:
        """Writes torque limits, goal and, if it is off, the torque switch.

        The servos get the limits of the motion as well, so that these outlive this process.

        Args:
            goal: contract units, (J,).
            torque_limit: share of stall, (J,).
            limits: of the motion.

        Raises:
            BusLost: the port is gone.
        """
        if self._torque_limit is None or not np.array_equal(torque_limit, self._torque_limit):
            self.bus.write_torque_limits(torque_limit)
            self._torque_limit = torque_limit
        scale = np.abs(self.calibration.scale)
        self.bus.write_goals(
            self.calibration.ticks(goal),
            velocity=ENVELOPE * limits.velocity / scale,
            acceleration=np.minimum(ENVELOPE * limits.acceleration / scale, MAX_ACCELERATION),
        )
        if not self.torque:
            self.torque = True
            self.bus.enable_torque()

    def release(self) -> str:
        """Switches the torque off; returns which joints did not confirm it, in words, or ""."""
        silent = self.bus.release()
        self.torque, self._torque_limit = bool(silent), None
        names = [self.arm.joints[self.bus.ids.index(servo)] for servo in silent]
        return f"{', '.join(names)} did not confirm that the torque is off" if names else ""
