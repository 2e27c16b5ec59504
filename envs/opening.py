"""What the tasks share that open or close a drawer or a door, the parts of some furniture.

How far a part is open is a fraction of its way: 0 closed, 1 fully open. Success: the named part is
open as far as the instruction says, give or take `TOLERANCE`, it hardly moves any more, the gripper
has let go of it, and the other part is about where it was; all of that for `hold_seconds`. The
tolerance is that of ARNOLD (arXiv 2304.04321).
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import furniture, scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import facing
from robolearn.envs.furniture import SIDES
from robolearn.envs.language import ANY_SPLIT, Number, Words
from robolearn.envs.lookup import hinge
from robolearn.envs.opening_expert import OpeningExpert
from robolearn.envs.task import Start, State

TOLERANCE: Final = 0.1  # of the way
AT_REST: Final = 0.05  # of the way per second
WORK_CENTRE: Final = (0.25, 0.0)
WORK_AREA: Final = (0.23, 0.4)  # m: 84 pixels of the top camera show a handle's width at 4
NEAREST, FARTHEST = (0.285, -0.03), (0.31, 0.03)  # x and y of the middle of the front, m
MAX_YAW: Final = 0.2  # rad, from facing the arm's base
VIDEO_EYE: Final = (-0.02, -0.40, 0.36)  # m: `video` looks at the fronts
WORTH: Final = 0.9  # progress of a part that is at its goal
TO_HANDLE, TO_GOAL = 0.8, 0.7  # what a metre to the handle and the whole way take off it

# The sensor data: where the tool sees both handles, then contact counts of the parts.
SEEN: Final = slice(0, 6)
TOUCH: Final = slice(6, 8)
# The goal vector: how far open, the part as a one-hot vector, where both parts started, and the
# one-hot vector again with each number three times, which picks a handle out of `SEEN`.
GOAL, PART, STARTED, PICKED = 0, slice(1, 3), slice(3, 5), slice(5, 11)
ASKED: Final = slice(0, 3)


def slots(
    part: str, low: float, high: float, train: Sequence[float], novel: Sequence[float]
) -> dict[str, Words | Number]:
    """What a template names: `{part}`, for example the left drawer, and how far open, `{goal}`.

    Args:
        part: "drawer" or "door".
        low: the least percentage that can be asked for.
        high: the greatest.
        train: the percentages that are drawn.
        novel: those of the split "novel_state".
    """
    values = {ANY_SPLIT: train, "novel_state": novel}
    goal = Number("the opening in percent", low, high, 0.01, values)
    return {"part": Words(tuple(f"{side} {part}" for side in SIDES)), "goal": goal}


class OpeningTask(ManipulationEnv):
    """Brings the named drawer or door to the opening that the instruction asks for.

    A task says which furniture it is, how far open its parts are at the start, and the phrases.

    Attributes:
        begins: least and greatest fraction at the start.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene", "novel_state")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    begins: ClassVar[tuple[float, float]]

    @classmethod
    @abstractmethod
    def add(cls, spec: mujoco.MjSpec, *, novel: bool) -> None:
        """Adds the usual furniture to a scene, or that of the split "novel_object"."""

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The furniture and the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        cls.add(spec, novel=split == "novel_object")
        furniture.add_sensors(spec)
        video = spec.camera("video")
        video.mode, video.targetbody = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY, "furniture"
        video.pos = VIDEO_EYE
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Furniture somewhere before the arm, facing it; both parts as the task begins; a goal."""
        place = rng.uniform(NEAREST, FARTHEST)
        yaw = facing(place) + rng.uniform(-MAX_YAW, MAX_YAW)
        fractions = rng.uniform(*self.begins, len(SIDES))
        qpos = self.home(rng)
        qpos[self._joints[0]] = fractions * self._way
        text, (part, goal) = self.instruct(rng, instruction)
        one_hot = np.eye(len(SIDES))[int(part)]
        return Start(
            qpos=qpos,
            mocap_pos=np.array([[*place, 0.0]]),
            mocap_quat=scene.about_z(yaw)[None],
            goal=np.array([goal, *one_hot, *fractions, *np.repeat(one_hot, 3)]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Open as far as asked for, at rest, released, the other left alone; see the module."""
        opened = np.vecdot(state.qpos[:, self._joints[0]], goal[:, PART]) / self._way
        error = np.abs(opened - goal[:, GOAL])
        reach = np.sqrt(np.vecdot(state.sensordata[:, SEEN] ** 2, goal[:, PICKED]))
        progress = np.maximum(0.0, WORTH - TO_HANDLE * reach - TO_GOAL * error)
        near = error < TOLERANCE
        if not np.count_nonzero(near):  # the rest would take as long again
            return near, progress
        done = near & self._settled(state, goal)
        return done, np.where(done, 1.0, progress)

    def _settled(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Whether the named part is released and at rest, and the other where it was."""
        (q, v), part = self._joints, goal[:, PART]
        released = np.vecdot(state.sensordata[:, TOUCH], part) == 0
        at_rest = np.vecdot(np.abs(state.qvel[:, v]), part) < AT_REST * self._way
        moved = np.abs(state.qpos[:, q] / self._way - goal[:, STARTED])
        return released & at_rest & (np.vecdot(moved, 1.0 - part) < TOLERANCE)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """How far open and how fast, handles seen from the tool, furniture's pose, goal, part."""
        q, v = self._joints
        moving = (state.qpos[:, q] / self._way, state.qvel[:, v] / self._way)
        pose = (state.mocap_pos[:, 0], state.mocap_quat[:, 0])
        parts = (*moving, state.sensordata[:, SEEN], *pose, goal[:, ASKED])
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The named part as far open as asked for."""
        qpos = start.qpos.copy()
        opened = start.goal[GOAL] * self._way
        qpos[self._joints[0]] = np.where(start.goal[PART], opened, qpos[self._joints[0]])
        return replace(start, qpos=qpos)

    @cached_property
    def _joints(self) -> tuple[slice, slice]:
        """Where the two parts are in qpos and in qvel; they follow each other in both."""
        q, v = hinge(self.model, SIDES[0])
        return slice(q, q + len(SIDES)), slice(v, v + len(SIDES))

    @cached_property
    def _way(self) -> float:
        """How far a part opens, m or rad."""
        return float(self.model.joint(SIDES[0]).range[1])

    def fraction(self, part: int) -> float:
        """How far a part is open now."""
        return float(self.state.qpos[0, self._joints[0]][part]) / self._way

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        return OpeningExpert(self, rng).demonstrate()
