"""The vocabulary of the safety layer: states, faults, thresholds, and what goes in and out."""

from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from math import sqrt
from typing import Final, Literal, Self, get_args

import numpy as np

from robolearn.contract import SAFE_ACCELERATION, SAFE_SPEED
from robolearn.hardware.limiter import JERK

ExitPolicy = Literal["park", "hold", "limp"]


class State(StrEnum):
    """What the arm does."""

    DISCONNECTED = "disconnected"  # the servos do not answer
    LIMP = "limp"  # no torque
    ENGAGING = "engaging"  # the torque is coming on; the arm stays where it is
    ENGAGED = "engaged"  # follows goals
    HOLD = "hold"  # brakes and stays
    PARKING = "parking"  # moves to its resting pose, then goes limp
    FAULT = "fault"  # does what the fault's `Reaction` says


class Verb(IntEnum):
    """What a user may ask for besides a goal; each is given for one tick."""

    NONE = 0
    ENGAGE = 1  # torque on, or back to work after `STOP`
    STOP = 2  # brake and stay until told otherwise
    PARK = 3
    LIMP = 4  # torque off at once: the arm sinks
    RESET_FAULT = 5


class Fault(StrEnum):
    """Why the arm stopped by itself; `NONE` is empty, so that a fault is true."""

    NONE = ""
    COMMUNICATION = "communication"  # the servos do not answer
    TRACKING = "tracking"  # far from where it was told to be
    BLOCKED = "blocked"  # pushes hard and does not get there
    OVERHEAT = "overheat"  # our own limit, below that of the servo
    VOLTAGE = "voltage"  # the supply breaks down
    ENCODER = "encoder"  # positions that cannot be true
    SERVO_OVERHEAT = "servo_overheat"  # the servo's alarms
    OVERCURRENT = "overcurrent"
    OVERLOAD = "overload"
    TORQUE_LOST = "torque_lost"  # a servo has switched itself off, as after a brown-out
    TORQUE_REFUSED = "torque_refused"  # a servo did not switch on
    CAMERA = "camera"  # a camera is frozen, and goals go on arriving
    ESTOP = "emergency_stop"


class Reaction(IntEnum):
    """What the arm does in a fault, the gentlest first; a worse fault may only make it stronger."""

    HOLD_LOW = 0  # brake, then hold with reduced torque
    YIELD = 1  # go to where the arm was when it happened, with reduced torque: stops pushing
    PARK = 2  # park with reduced torque, then go limp
    LIMP = 3  # torque off


REACTIONS: Final = {
    Fault.COMMUNICATION: Reaction.HOLD_LOW,
    Fault.CAMERA: Reaction.HOLD_LOW,
    Fault.VOLTAGE: Reaction.HOLD_LOW,
    Fault.TRACKING: Reaction.YIELD,
    Fault.BLOCKED: Reaction.YIELD,
    Fault.OVERLOAD: Reaction.YIELD,
    Fault.OVERCURRENT: Reaction.YIELD,
    Fault.OVERHEAT: Reaction.PARK,
    # The servo is off already, or would run away from a position that is wrong.
    Fault.SERVO_OVERHEAT: Reaction.LIMP,
    Fault.ENCODER: Reaction.LIMP,
    Fault.TORQUE_LOST: Reaction.LIMP,
    Fault.TORQUE_REFUSED: Reaction.LIMP,
    Fault.ESTOP: Reaction.LIMP,
}
# After `STOP` nothing but the loss of torque may move the arm: a person may be near it.
STOPPED: Final = {Reaction.YIELD: Reaction.HOLD_LOW, Reaction.PARK: Reaction.LIMP}


@dataclass(frozen=True)
class Reading:
    """One cycle's answer of all servos, in the units of the contract; arrays (J,).

    Attributes:
        time: s, when the answer was complete, on the clock of `Supervisor.tick`.
        position: `agent_pos`.
        velocity: `agent_vel`.
        effort: `agent_effort`.
        current: A; the sign does not matter.
        voltage: V.
        temperature: deg C.
        alarms: bits of `Alarm`, uint8.
        calibrated: whether the servos' memory agrees with the calibration file.
        torque: whether each servo says that its torque is on; None in cycles that did not ask.
    """

    time: float
    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray
    current: np.ndarray
    voltage: np.ndarray
    temperature: np.ndarray
    alarms: np.ndarray
    calibrated: bool = False
    torque: np.ndarray | None = None

    @classmethod
    def blank(cls, size: int) -> Self:
        """What is known before the first reading: nothing."""
        zeros = np.zeros(size)
        return cls(-np.inf, zeros, zeros, zeros, zeros, zeros, zeros, np.zeros(size, np.uint8))

    def is_sound(self, size: int) -> bool:
        """Whether all arrays have the shape (size,) and every number is finite."""
        values = (getattr(self, field.name) for field in fields(self))
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        numbers = all(a.shape == (size,) and np.isfinite(a).all() for a in arrays)
        return numbers and bool(np.isfinite(self.time))


@dataclass(frozen=True)
class Request:
    """What the user wants in this tick.

    Attributes:
        goal: joint targets in the units of `agent_pos`, (J,); None: nothing new.
        goal_time: s, when the goal was made, on the clock of `Supervisor.tick`; a goal becomes
            stale unless this changes.
        verb: see `Verb`.
        estop: whether the emergency stop is pressed.
        camera_age: s, of the newest picture when the goal was made, of the camera that is worst:
            it tells a frozen camera, not a slow policy.
        alone: whether the program that drove the arm is gone.
    """

    goal: np.ndarray | None = None
    goal_time: float = -np.inf
    verb: Verb = Verb.NONE
    estop: bool = False
    camera_age: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class Command:
    """What to write to the servos, in this order: torque limits, goal, torque switch.

    Attributes:
        goal: (J,), in the units of `agent_pos`; None: write none.
        torque_enable: whether the torque is to be on.
        torque_limit: share of stall, (J,).
        state: the supervisor's state.
        fault: the latched fault.
        limited: whether the request had a goal and this is another one.
        events: what happened in this tick, in words: every transition with its reason, and
            everything that was refused.
    """

    goal: np.ndarray | None
    torque_enable: bool
    torque_limit: np.ndarray
    state: State
    fault: Fault
    limited: bool
    events: tuple[str, ...]


EXIT_VERB: Final = {"park": Verb.PARK, "hold": Verb.STOP, "limp": Verb.LIMP}
# Resting poses, by arm: folded, so that little falls when the torque goes off.
PARK: Final = {"so101": (0.0, -1.6, 1.5, 1.0, 0.0, 0.1)}


@dataclass(frozen=True)
class SafetyConfig:
    """Every threshold of the safety layer.

    Angles count at the joint; the jaw of a gripper is a joint like any other.
    """

    # Motion. The limits of collaborative arms (libfranka: 10 rad/s^2), scaled to a table-top arm.
    velocity: float = SAFE_SPEED  # rad/s; the servo itself does 5.2
    acceleration: float = SAFE_ACCELERATION  # rad/s^2
    jerk: float = JERK * SAFE_ACCELERATION  # rad/s^3
    range_margin: float = 0.02  # rad kept from the ends of the range

    # Torque. A servo counts 80 % of stall as overload and shuts down after 2 s of it.
    torque: float = 0.75  # share of stall
    gripper_torque: float = 0.5  # share of stall; lerobot's value
    hold_torque: float = 0.7  # of the above, in long holds and faults; 1 N m at 7.4 V holds the arm
    engage_torque: float = 0.2  # of the above, when the torque comes on
    ramp_seconds: float = 0.5  # from `engage_torque` to all

    # Engaging.
    engage_margin: float = 0.1  # rad that the arm may be out of its range by (i2rt: 0.1)
    engage_speed: float = 0.5  # rad/s; a hand, or gravity, is still moving the arm
    engage_seconds: float = 2.0  # s within which the servos must confirm their torque
    min_voltage: float = 4.5  # V; below it the servo is near its own limit of 4
    max_voltage: float = 13.5  # V; a 12 V supply and its tolerance

    # Missing goals, s. deoxys_control: 0.2 and 1.
    stale_goal: float = 0.2  # without a new goal: hold
    hold_relax: float = 0.8  # in hold: down to `hold_torque`
    hold_park: float = 7.0  # in hold: park
    max_rejects: int = 3  # invalid goals in a row: hold
    stale_camera: float = 0.12  # age of the newest picture: hold; three or four at 30 frames/s
    dead_camera: float = 0.5  # age of the newest picture: fault; lerobot's limit

    # Communication.
    max_lost: int = 3  # cycles in a row without an answer
    reading_age: float = 0.06  # s; an older reading counts as none

    # Faults.
    trip_seconds: float = 0.3  # s that lag, push or voltage drop must last to be a fault
    max_lag: float = 0.26  # rad between goal and joint; droop takes 0.09, top speed 0.1 more
    block_lag: float = 0.09  # rad behind the goal ...
    block_current: float = 1.6  # A ... at 60 % of the stall current of 2.7 A
    max_sag: float = 0.25  # share of the voltage at engaging that may be missing
    servo_speed: float = 7.0  # rad/s; faster is impossible (no load at 12 V: 5.2)
    encoder_noise: float = 0.05  # rad between two readings, on top
    warm: float = 55.0  # deg C: warn
    hot: float = 60.0  # deg C: from here the torque goes down, to half at `too_hot`
    too_hot: float = 65.0  # deg C: stop; the servo switches itself off at 70
    fault_patience: float = 10.0  # s that a fault waits for `reset_fault`; then park and go limp

    # Parking.
    park: tuple[float, ...] | None = None  # pose, (J,); None: `PARK`, or the arm's home
    park_seconds: float = 3.0  # s at the usual limits; see `parking`
    on_exit: ExitPolicy = "park"  # what becomes of the arm when the program ends

    @property
    def parking(self) -> float:
        """Seconds after which an arm goes limp where it is; a slower one has longer to park."""
        slower = (SAFE_SPEED / self.velocity, sqrt(SAFE_ACCELERATION / self.acceleration))
        return self.park_seconds * max(1.0, *slower)

    def __post_init__(self) -> None:
        """Refuses limits that are none.

        Raises:
            ValueError: the message names the limit.
        """
        for name in ("velocity", "acceleration", "jerk"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give it a number above 0")
        if self.velocity > self.servo_speed:
            raise ValueError(
                f"velocity is {self.velocity} rad/s; no servo does more than {self.servo_speed}"
            )
        if self.on_exit not in get_args(ExitPolicy):
            raise ValueError(f"on_exit is {self.on_exit!r}; choose park, hold or limp")
