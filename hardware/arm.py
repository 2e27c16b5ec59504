"""`ServoArm`: an arm of bus servos in SI units; what the driver reads and writes every cycle."""

from typing import Final

import numpy as np

from robolearn.contract import ArmSpec
from robolearn.hardware.bus import Bus, BusError, BusLost, ServoStates
from robolearn.hardware.calibration import RADIANS, Calibration
from robolearn.hardware.eeprom import check_modes
from robolearn.hardware.limiter import Limits
from robolearn.hardware.registers import Register
from robolearn.hardware.safety_types import Reading

RECONNECT: Final = 0.5  # s between attempts to open a lost port
# The motor of the STS3215 (Rhoban's bam, feetech_sts3215_7_4V): what duty means as torque.
TORQUE_CONSTANT: Final = 1.2116  # N m/A
RESISTANCE: Final = 2.676  # ohm
# The servos' own limits are wider than ours: they are a second wall, not a second planner. A servo
# takes each goal for the last one and is ready to stop there, so that it stays v^2 / 2a behind
# goals that move at v: at 1.5 rad/s by 38 ms with 20 rad/s^2, and by 19 ms with twice as much.
VELOCITY_ROOM: Final = 1.5
ACCELERATION_ROOM: Final = 2.0
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
        self._known = False  # whether they have said so since the port was opened
        self._next_attempt = -np.inf

    def connect(self) -> None:
        """Opens the port and checks servos and calibration; nothing moves.

        Servos may have torque from a program that died; then `torque` says so.

        Raises:
            OSError, ValueError: no port, wrong servos, or a calibration that is not theirs.
        """
        self._known = False
        self.bus.connect()
        try:
            self.bus.check_servos()
            check_modes(self.bus)
            self.calibration.check_servos(self.bus)
            self.torque = bool(self.bus.read(Register.TORQUE_ENABLE).any())
        except BaseException:
            self.bus.close()  # or the next cycle would take strangers for this arm
            raise

    def read(self, now: float, *, with_torque: bool) -> Reading:
        """One cycle's reading; a lost port is opened again first.

        Args:
            now: s, when the cycle began.
            with_torque: also ask the servos whether their torque is on.

        Raises:
            BusError: not all servos answered.
        """
        self._reconnect(now)
        states, torque = self.bus.read_states(), None
        if with_torque or not self._known:  # servos that were off and on again have lost it
            torque = self.bus.read(Register.TORQUE_ENABLE) > 0
            self._known = True
        return self._reading(states, now, torque)

    def _reconnect(self, now: float) -> None:
        if self.bus.is_connected:
            return
        if now < self._next_attempt:
            raise BusLost(f"{self.bus.port} is gone")
        self._next_attempt = now + RECONNECT
        self.connect()

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

    def write(
        self, goal: np.ndarray, torque_limit: np.ndarray, limits: Limits, *, enable: bool
    ) -> None:
        """Writes torque limits and goals, and switches the torque on if it is off and shall be on.

        The servos get the limits of the motion as well, so that these outlive this process. After
        the port was lost nothing is written until the servos have said whether they have torque.

        Args:
            goal: contract units, (J,).
            torque_limit: share of stall, (J,).
            limits: of the motion.
            enable: whether the torque shall be on.

        Raises:
            BusError: the port is gone, or the torque stays off because the servos did not take
                goal and limit over.
        """
        if not self._known:
            return
        ticks, scale = self.calibration.ticks(goal), np.abs(self.calibration.scale)
        self.bus.write_torque_limits(torque_limit)
        self.bus.write_goals(
            ticks,
            velocity=VELOCITY_ROOM * limits.velocity / scale,
            acceleration=np.minimum(
                ACCELERATION_ROOM * limits.acceleration / scale, MAX_ACCELERATION
            ),
        )
        if enable and not self.torque:
            self._check_goals(ticks, torque_limit)
            self.torque = True
            self.bus.enable_torque()

    def _check_goals(self, ticks: np.ndarray, torque_limit: np.ndarray) -> None:
        """Reads back what was written: with an old goal, switching the torque on would be a jump.

        Raises:
            BusError: the servos hold something else.
        """
        goals = self.bus.read(Register.GOAL_POSITION)
        limits = self.bus.read(Register.TORQUE_LIMIT)
        if not np.array_equal(goals, ticks) or np.abs(limits - 1000 * torque_limit).max() > 1:
            raise BusError("the servos did not take the goal over; the torque stays off")

    def release(self) -> str:
        """Switches the torque off; returns which joints did not confirm it, in words, or ""."""
        silent = self.bus.release()
        self.torque = bool(silent)
        names = [self.arm.joints[self.bus.ids.index(servo)] for servo in silent]
        return f"{', '.join(names)} did not confirm that the torque is off" if names else ""
