"""What the scripted experts share: inverse kinematics, smooth motion, human variety.

An expert is a generator of actions that looks at the simulator as it goes. Its `Hand` moves the
finger tips along straight lines with a minimum-jerk profile (Flash and Hogan 1985), the fingers
pointing down, and adds to each joint target what the servo will sag under load: servos of this
class are springs of 17.8 N m/rad, and a person who teleoperates corrects for it without thinking.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import mink
import mujoco
import numpy as np

from robolearn.envs.scene import PAN_AXIS, arm_spec

if TYPE_CHECKING:
    from robolearn.envs.base import ManipulationEnv

# Part of an expert: yields actions and returns whether it worked.
Script = Generator[np.ndarray, None, bool]
IK_STEPS: Final = 4  # Newton steps for each control period, warm started
MIN_SECONDS: Final = 0.25  # no segment is shorter


@dataclass(frozen=True)
class Style:
    """How one demonstrator moves."""

    speed: float  # m/s, mean over a segment
    opened: float  # gripper opening fraction to approach with
    closed: float  # gripper target when grasping; below the object's width, so that it squeezes
    lift: float  # m, extra height before the descent
    sloppiness: float  # m, standard deviation of the first approach

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        """A person of everyday variety."""
        return cls(
            speed=rng.uniform(0.13, 0.20),
            opened=rng.uniform(0.26, 0.34),
            closed=0.0,
            lift=rng.uniform(0.02, 0.04),
            sloppiness=rng.uniform(0.004, 0.012),
        )


@cache
def _arm_model() -> mujoco.MjModel:
    return arm_spec().compile()


class Hand:
    """The finger tips, seen by an expert: where they should go, and the actions that bring them.

    Args:
        env: the environment that the expert drives, just reset.
        style: speed and gripper settings.
    """

    def __init__(self, env: "ManipulationEnv", style: Style) -> None:
        self._env, self._style = env, style
        self._model = _arm_model()
        self._configuration = mink.Configuration(self._model)
        self._task = mink.FrameTask("tool", "site", position_cost=1.0, orientation_cost=0.02)
        self._limits = [mink.ConfigurationLimit(self._model)]
        self._data = mujoco.MjData(self._model)
        joints = env.joints.position(env.data.qpos)
        self._configuration.update(env.data.qpos[env.joints.qpos].copy())
        pose = self._configuration.get_transform_frame_to_world("tool", "site")
        self.position = pose.translation().copy()
        self._twist = 0.0  # heading of the jaws relative to the arm's own plane, rad
        self._opening = float(joints[-1])

    def move(
        self,
        position: Sequence[float],
        heading: float | None,
        opening: float,
        *,
        speed: float = 1.0,
        seconds: float | None = None,
    ) -> Iterator[np.ndarray]:
        """Moves the tips in a straight line.

        Args:
            position: goal of the finger tips, m.
            heading: goal of the jaws' closing direction in the plane, rad; None lets it follow the
                arm.
            opening: goal of the gripper, 0..1.
            speed: factor on the style's speed.
            seconds: duration instead of speed.
        """
        goal = np.asarray(position, dtype=float)
        twist = 0.0 if heading is None else heading - facing(goal)
        begin = (self.position, self._twist, self._opening)
        distance = float(np.linalg.norm(goal - self.position))
        seconds = seconds or max(MIN_SECONDS, distance / (self._style.speed * speed))
        steps = max(1, round(seconds * self._env.arm.control_hz))
        for k in range(1, steps + 1):
            s = minimum_jerk(k / steps)
            self.position = begin[0] + s * (goal - begin[0])
            self._twist = begin[1] + s * (twist - begin[1])
            self._opening = begin[2] + s * (opening - begin[2])
            yield self._action()

    def rest(self) -> Iterator[np.ndarray]:
        """Stays where it is, for ever."""
        while True:
            yield self._action()

    def _action(self) -> np.ndarray:
        """Joint targets, float32 (J,), that hold the present goal of the hand against gravity."""
        before = self._configuration.q.copy()
        self._task.set_target(self._target())
        for _ in range(IK_STEPS):
            velocity = mink.solve_ik(
                self._configuration, [self._task], 1.0, "daqp", damping=1e-4, limits=self._limits
            )
            self._configuration.integrate_inplace(velocity, 1.0)
        q = self._configuration.q
        rate = (q - before) * self._env.arm.control_hz
        action = self._env.joints.from_ctrl(q + self._sag(q, rate))
        action[-1] = self._opening
        return action

    def _target(self) -> mink.SE3:
        """Fingers down (tool x axis), jaws closing along the heading (tool z axis)."""
        heading = facing(self.position) + self._twist
        down, close = np.array([0.0, 0.0, -1.0]), np.array([np.cos(heading), np.sin(heading), 0.0])
        rotation = np.column_stack([down, np.cross(close, down), close])
        return mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rotation), self.position)

    def _sag(self, q: np.ndarray, rate: np.ndarray) -> np.ndarray:
        """How far each servo stays behind its target at this pose and speed, rad (J,)."""
        self._data.qpos[:], self._data.qvel[:] = q, 0.0
        mujoco.mj_forward(self._model, self._data)
        damping = self._model.dof_damping * rate
        return (self._data.qfrc_bias + damping) / self._model.actuator_gainprm[:, 0]


def watched(actions: Iterator[np.ndarray], fine: Callable[[], bool]) -> Script:
    """Passes actions on until they end (True) or something is no longer fine (False)."""
    for action in actions:
        yield action
        if not fine():
            return False
    return True


def facing(position: Sequence[float] | np.ndarray) -> float:
    """The direction in which the arm reaches a point of the table, rad."""
    return float(np.arctan2(position[1], position[0] - PAN_AXIS))


def minimum_jerk(phase: float) -> float:
    """The minimum-jerk profile, 0..1 over phase 0..1 (Flash and Hogan 1985, eq. 3)."""
    return phase**3 * (10.0 - 15.0 * phase + 6.0 * phase**2)
