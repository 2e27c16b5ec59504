"""What the scripted experts share: inverse kinematics, smooth motion, human variety.

An expert is a generator of actions that looks at the simulator as it goes. Its `Hand` moves the
finger tips along straight lines with a minimum-jerk profile (Flash and Hogan 1985), the fingers
pointing down, and adds to each joint target what the servo will sag under load: servos of this
class are springs of 17.8 N m/rad, and a person who teleoperates corrects for it without thinking.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

import mink
import mujoco
import numpy as np

from robolearn.contract import JAW_RANGE, SAFE_ACCELERATION, SAFE_SPEED, SO101
from robolearn.envs.joints import JointMap
from robolearn.envs.scene import PAN_AXIS, arm_spec

if TYPE_CHECKING:
    from robolearn.envs.task import Task

# Part of an expert: yields actions and returns whether it worked.
Script = Generator[np.ndarray, None, bool]
IK_STEPS: Final = 4  # Newton steps for each control period, warm started
MIN_SECONDS: Final = 0.25  # no segment is shorter
ARRIVED: Final = 1e-6  # steps of a plan
# rad/s and rad/s^2: what the arm's driver lets through, less what the servos are told on top
# against gravity and their own lag.
PACE, SPURT = 0.9 * SAFE_SPEED, 0.5 * SAFE_ACCELERATION
# style -> range of the mean speed over a segment, m/s
SPEEDS: Final = {"any": (0.13, 0.20), "fast": (0.19, 0.24), "slow": (0.08, 0.12)}
# style -> the side that is taken first where a task leaves the choice: left 1, right -1
SIDES: Final = {"left-first": 1, "right-first": -1}
STYLES: Final = (*SPEEDS, *SIDES)
# What a demonstrator of quality 0 adds to a segment: share of its time, share of its length.
DAWDLING, WOBBLE = 1.5, 0.2


@dataclass(frozen=True)
class Demonstrator:
    """What kind of demonstrations are wanted.

    Attributes:
        style: one of `STYLES`.
        quality: 1 for an able demonstrator; towards 0 the ways get crooked and hesitant.

    Raises:
        ValueError: an unknown style, or a quality outside 0..1.
    """

    style: str = "any"
    quality: float = 1.0

    def __post_init__(self) -> None:
        """Checks."""
        if self.style not in STYLES:
            raise ValueError(f"style is {self.style!r}; choose one of {', '.join(STYLES)}")
        if not 0.0 <= self.quality <= 1.0:
            raise ValueError(f"quality is {self.quality}; give 0 (poor) to 1 (able)")


@dataclass(frozen=True)
class Style:
    """How one demonstrator moves."""

    rng: np.random.Generator  # for what makes the ways crooked
    quality: float
    side: int  # the side to take first: left 1, right -1, whichever 0
    speed: float  # m/s, mean over a segment
    opened: float  # gripper opening fraction to approach with
    closed: float  # gripper target when grasping; below the object's width, so that it squeezes
    lift: float  # m, extra height before the descent
    sloppiness: float  # m, standard deviation of the first approach

    @classmethod
    def draw(cls, rng: np.random.Generator, wanted: Demonstrator) -> "Style":
        """A person of everyday variety, of the kind that is wanted."""
        return cls(
            rng=rng.spawn(1)[0],
            quality=wanted.quality,
            side=SIDES.get(wanted.style, 0),
            speed=rng.uniform(*SPEEDS.get(wanted.style, SPEEDS["any"])),
            opened=rng.uniform(0.26, 0.34),
            closed=0.0,
            lift=rng.uniform(0.02, 0.04),
            sloppiness=rng.uniform(0.004, 0.012),
        )

    def phases(self, seconds: float, hz: float) -> np.ndarray:
        """How far a segment is, 0..1, after each control step of it (T,)."""
        steps = max(1, round(seconds * hz))
        phases = np.arange(1, steps + 1) / steps
        pause = round((1.0 - self.quality) * DAWDLING * steps * self.rng.uniform())
        return np.insert(phases, steps // 2, np.full(pause, phases[steps // 2]))

    def crookedness(self, way: np.ndarray) -> np.ndarray:
        """How far the middle of a segment is off the straight line, m (3,)."""
        off = self.rng.normal(size=3) * [1.0, 1.0, 0.5]
        return (1.0 - self.quality) * WOBBLE * float(np.linalg.norm(way)) * off


@cache
def _arm_model() -> mujoco.MjModel:
    return arm_spec().compile()


class Hand:
    """The finger tips, seen by an expert: where they should go, and the actions that bring them.

    Args:
        task: the task that the expert drives, just reset.
        style: speed and gripper settings.
        side: "left" or "right" of a pair of arms, "" of a single one.
        orientation_cost: m/rad, how much the pose of the fingers matters beside their place.
    """

    def __init__(
        self, task: "Task", style: Style, side: str = "", orientation_cost: float = 0.02
    ) -> None:
        prefix = f"{side}_" if side else ""
        own = replace(SO101, joints=tuple(f"{prefix}{joint}" for joint in SO101.joints))
        self.side, self.style, self._hz = side, style, task.arm.control_hz
        self._joints = JointMap(task.model, own)
        self.base = task.model.body(f"{prefix}base").pos.copy()  # m; arms look along x
        self._model = _arm_model()
        self._configuration = mink.Configuration(self._model)
        self._task = mink.FrameTask(
            "tool", "site", position_cost=1.0, orientation_cost=orientation_cost
        )
        self._limits = [mink.ConfigurationLimit(self._model)]
        self._data = mujoco.MjData(self._model)
        joints = self._joints.position(task.data.qpos)
        self._configuration.update(task.data.qpos[self._joints.qpos].copy())
        pose = self._configuration.get_transform_frame_to_world("tool", "site")
        self.position = pose.translation() + self.base
        self._twist = 0.0  # heading of the jaws relative to the arm's own plane, rad
        self._pitch = 0.0  # of the fingers, rad
        self._opening = float(joints[-1])
        self._rate = np.zeros(SO101.size)  # rad/s of the joints in the last control step

    @property
    def pose(self) -> np.ndarray:
        """This arm's part of `qpos` (J,) by the kinematics; its servos are told a little more."""
        return self._configuration.q.copy()

    def facing(self, position: Sequence[float] | np.ndarray) -> float:
        """The direction in which this arm reaches a point of the table, rad."""
        return facing(np.asarray(position)[:2] - self.base[:2])

    def move(
        self,
        position: Sequence[float] | np.ndarray,
        heading: float | None,
        opening: float,
        *,
        pitch: float = 0.0,
        speed: float = 1.0,
        seconds: float | None = None,
        straight: bool = False,
    ) -> Iterator[np.ndarray]:
        """Moves the tips in a straight line, or what a poor demonstrator takes for one.

        Where a joint would turn faster than `PACE`, or speed up too fast, the hand goes slower.

        Args:
            position: goal of the finger tips, m.
            heading: goal of the jaws' closing direction in the plane, rad; None lets it follow the
                arm.
            opening: goal of the gripper, 0..1.
            pitch: goal of the fingers' direction, rad: 0 down, pi/2 level and forward. With a
                pitch, the heading turns the jaws about the fingers.
            speed: factor on the style's speed.
            seconds: duration instead of speed, at least.
            straight: in any case, as where something is touched.
        """
        goal = np.asarray(position, dtype=float)
        twist = 0.0 if heading is None else heading - self.facing(goal)
        begin = (self.position, self._twist, self._pitch, self._opening)
        distance = float(np.linalg.norm(goal - self.position))
        seconds = seconds or max(MIN_SECONDS, distance / (self.style.speed * speed))
        off = self.style.crookedness(goal - self.position) * (not straight)
        phases = np.insert(self.style.phases(seconds, self._hz), 0, 0.0)

        def place(step: float) -> None:
            """Sets the hand's goal to where it should be after so many steps of the plan."""
            phase = np.interp(step, range(len(phases)), phases)
            s = minimum_jerk(phase)
            bow = np.sin(np.pi * phase) * off
            self.position = begin[0] + s * (goal - begin[0]) + bow
            self._twist = begin[1] + s * (twist - begin[1])
            self._pitch = begin[2] + s * (pitch - begin[2])
            self._opening = begin[3] + s * (opening - begin[3])

        done, last = 0.0, len(phases) - 1
        while last - done > ARRIVED:
            before, opened = self._configuration.q.copy(), self._opening
            ahead = min(1.0, last - done)
            place(done + ahead)
            share = self._reach(before, opened)
            done += share * ahead
            place(done)
            yield self._action(before)

    def rest(self) -> Iterator[np.ndarray]:
        """Stays where it is, for ever."""
        while True:
            before = self._configuration.q.copy()
            self._reach(before, self._opening)
            yield self._action(before)

    def _reach(self, before: np.ndarray, opened: float) -> float:
        """Moves the joints towards the hand's goal, as far as they may go in one control step.

        Args:
            before: where they are, (J,).
            opened: where the gripper is.

        Returns:
            The share of the way that they went, up to 1.
        """
        self._task.set_target(self._target())
        for _ in range(IK_STEPS):
            velocity = mink.solve_ik(
                self._configuration, [self._task], 1.0, "daqp", damping=1e-4, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
        way = self._configuration.q - before
        way[-1] = JAW_RANGE * (self._opening - opened)
        allowed = np.minimum(PACE, np.abs(self._rate) + SPURT / self._hz) / self._hz
        share = float(np.min(allowed / np.maximum(np.abs(way), allowed)))
        self._rate = share * way * self._hz
        self._configuration.update(before + share * way)
        return share

    def _action(self, before: np.ndarray) -> np.ndarray:
        """Joint targets, float32 (J,), that hold the hand against gravity on its way."""
        q = self._configuration.q
        rate = (q - before) * self._hz
        action = self._joints.from_ctrl(q + self._sag(q, rate))
        action[-1] = self._opening
        return action

    def _target(self) -> mink.SE3:
        """Fingers (tool x axis) pitched from down to forward, jaws (tool z axis) twisted."""
        place = self.position - self.base
        p, t, ahead = self._pitch, self._twist, facing(place)
        finger = np.array([np.sin(p), 0.0, -np.cos(p)])
        close = np.array([np.cos(p) * np.cos(t), np.sin(t), np.sin(p) * np.cos(t)])
        local = np.column_stack([finger, np.cross(close, finger), close])
        turn = mink.SO3.from_z_radians(ahead).as_matrix()
        return mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(turn @ local), place)

    def _sag(self, q: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """How far each servo stays behind its target at this pose and speed, rad (J,)."""
        self._data.qpos[:], self._data.qvel[:] = q, 0.0
        mujoco.mj_forward(self._model, self._data)
        damping = self._model.dof_damping * rate
        return (self._data.qfrc_bias + damping) / self._model.actuator_gainprm[:, 0]


def together(*scripts: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Runs one script for each arm side by side until all have ended; joins their actions.

    Args:
        scripts: each yields at least one action; one that has ended repeats its last.
    """
    actions: list[np.ndarray | None] = [None] * len(scripts)
    while True:
        fresh = [next(script, None) for script in scripts]
        if all(action is None for action in fresh):
            return
        actions = [a if b is None else b for a, b in zip(actions, fresh, strict=True)]
        yield np.concatenate([action for action in actions if action is not None])


def watched(actions: Iterator[np.ndarray], fine: Callable[[], bool]) -> Script:
    """Passes actions on until they end (True) or something is no longer fine (False)."""
    for action in actions:
        yield action
        if not fine():
            return False
    return True


def facing(position: Sequence[float] | np.ndarray) -> float:
    """The direction in which an arm at the origin reaches a point of the table, rad."""
    return float(np.arctan2(position[1], position[0] - PAN_AXIS))


def across(heading: float) -> np.ndarray:
    """The direction to the left of a heading, (2,)."""
    return np.array([-np.sin(heading), np.cos(heading)])


def minimum_jerk(phase: float) -> float:
    """The minimum-jerk profile, 0..1 over phase 0..1 (Flash and Hogan 1985, eq. 3)."""
    return phase**3 * (10.0 - 15.0 * phase + 6.0 * phase**2)
