"""Lift: raise the named object by a height in centimetres and hold it there.

A cube, a can and a bar stand on the table; the instruction names one of them and how far its base
shall be above the table. Success: the object is between both jaws, within 1 cm of that height,
slower than 0.1 m/s, and the other objects are still about where they were; all of that for
`hold_seconds`. ARNOLD (arXiv 2304.04321) has the same test at the scale of a person, with 5 cm;
this arm is a fifth as large. The goal, the places and the turns vary, the objects with the split.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import close_and_lift, come_down, nearest_heading, reaching
from robolearn.envs.language import ANY_SPLIT, Number, Phrases, Words
from robolearn.envs.lookup import FreeBodies, length, yaw_of
from robolearn.envs.task import Start, State

KINDS: Final = ("cube", "can", "bar")
HEIGHT: Final = Number(
    "the height in cm",
    low=3.0,
    high=15.0,
    unit=0.01,
    values={ANY_SPLIT: (4, 6, 8, 10, 12, 14), "novel_state": (5, 7, 9, 11, 13)},
)
PHRASES: Final = Phrases(
    "Lift",
    {
        "train": (
            "lift the {object} to {height} cm",
            "raise the {object} by {height} cm",
            "pick up the {object} and hold it {height} cm above the table",
            "lift the {object} {height} cm off the table",
            "hold the {object} at a height of {height} cm",
            "bring the {object} up to {height} centimetres",
        ),
        "held_out": (
            "please take the {object} and keep it {height} cm up in the air",
            "I want the {object} {height} cm above the table",
        ),
    },
    {"object": Words(KINDS), "height": HEIGHT},
)


@dataclass(frozen=True)
class Thing:
    """An object that stands on the table; it is grasped along its x axis."""

    shape: mujoco.mjtGeom
    size: tuple[float, float, float]  # m, extent along its own x, y and z
    colour: str
    symmetry: float  # rad, between two equal headings of a grasp


BOX, CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
TRAIN: Final = (
    Thing(BOX, (0.025, 0.025, 0.025), "red", np.pi / 2),
    Thing(CYLINDER, (0.025, 0.025, 0.034), "green", np.pi / 2),
    Thing(BOX, (0.020, 0.050, 0.024), "blue", np.pi),
)
NOVEL: Final = (
    Thing(BOX, (0.021, 0.021, 0.021), "yellow", np.pi / 2),
    Thing(CYLINDER, (0.030, 0.030, 0.026), "red", np.pi / 2),
    Thing(BOX, (0.024, 0.038, 0.032), "white", np.pi),
)
MASS: Final = 0.015  # kg

WORK_CENTRE: Final = (0.165, 0.0)
WORK_AREA: Final = (0.24, 0.40)  # m: also shows what is lifted, which looks nearer to the base
AREA: Final = ((0.16, 0.26), (-0.11, 0.11))  # x and y of the objects, m
GAP: Final = 0.065  # m between centres: room for a finger beside an object
MAX_YAW: Final = 0.4  # rad, from facing the arm
TOLERANCE: Final = 0.01  # m
SLOW: Final = 0.1  # m/s
OTHERS_MAY_MOVE: Final = 0.04  # m
GRASP_HEIGHT: Final = 0.012  # m
OPENED: Final = 6.1  # 1/m: the opening of the jaws around a width, in goal pictures
ATTEMPTS: Final = 4
CORRECTIONS: Final = 3  # of the height, by eye
WORTH: Final = 0.9  # progress of an object that is at its height
TO_THING, TO_HEIGHT = 1.5, 2.5  # 1/m: what distance and missing height take off it

# The sensor data: positions of the tool and the objects, then the objects' counts of contacts with
# the whole gripper and with its moving jaw.
POINTS: Final = slice(0, 3 * (1 + len(KINDS)))
TOUCH: Final = slice(POINTS.stop, POINTS.stop + len(KINDS))
JAW: Final = slice(TOUCH.stop, TOUCH.stop + len(KINDS))
# The goal vector: the index of the object and its one-hot vector, the height asked for, the z its
# centre must reach, and where every object started (x, y).
NAMED, ASKED, CENTRE = 0, 1 + len(KINDS), 2 + len(KINDS)
SHOWN: Final = slice(1, CENTRE)
START: Final = slice(CENTRE + 1, CENTRE + 1 + 2 * len(KINDS))


class Lift(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene", "novel_state")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    hold_seconds: ClassVar[float] = 1.0  # so that nothing that only passes by counts

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Three objects, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for kind, thing in zip(KINDS, _things(split), strict=True):
            _add(spec, kind, thing)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        for kind in KINDS:
            scene.add_position(spec, kind, mujoco.mjtObj.mjOBJ_XBODY)
        for kind in KINDS:
            scene.add_touch(spec, f"{kind} touch", kind)
        for kind in KINDS:
            scene.add_touch(spec, f"{kind} jaw", kind, "moving_jaw_so101_v1")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, a random object, height and wording, unless the instruction is given."""
        places, qpos = _scatter(rng), self.home(rng)
        tall = np.array([thing.size[2] for thing in _things(self.split)])
        for pose, (x, y), z in zip(self._bodies.poses(qpos), places, tall, strict=True):
            yaw = facing((x, y)) + rng.uniform(-MAX_YAW, MAX_YAW)
            pose[:] = scene.upright((x, y), yaw, side=z)
        text, (named, height) = self.instruct(rng, instruction)
        centre = tall[named] / 2 + height
        return Start(
            qpos=qpos,
            mocap_pos=np.zeros((0, 3)),
            goal=np.array([named, *np.eye(len(KINDS))[named], height, centre, *places.ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At its height, held, slow, the others left alone; see the base class."""
        points = state.sensordata[:, POINTS].reshape(len(goal), -1, 3)
        thing = points[np.arange(len(goal)), goal[:, NAMED].astype(int) + 1]
        missing = np.abs(thing[:, 2] - goal[:, CENTRE])
        progress = WORTH - TO_THING * length(points[:, 0] - thing) - TO_HEIGHT * missing
        progress = np.maximum(0.0, progress)
        there = missing <= TOLERANCE
        if not np.count_nonzero(there):  # as nearly always on the way
            return there, progress
        done = there & self._held_still(state, goal)
        return done, np.where(done, 1.0, progress)

    def _held_still(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Whether the named object is in the hand and slow and the others are where they were."""
        rows, named = np.arange(len(goal)), goal[:, NAMED].astype(int)
        touch, jaw = (state.sensordata[:, part][rows, named] for part in (TOUCH, JAW))
        held = (jaw > 0) & (touch > jaw)  # by the moving jaw and by the fixed one
        slow = length(self._bodies.twists(state.qvel)[rows, named, :3]) < SLOW
        moved = self._bodies.moved(state.qpos, goal[:, START])
        moved[rows, named] = 0.0
        return held & slow & (moved < OTHERS_MAY_MOVE).all(1)

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """The named object; see the base class."""
        return (KINDS[int(goal[NAMED])],)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Object poses (7 each), the goal as a one-hot vector and a height, m."""
        poses = state.qpos[:, self._bodies.qpos]
        return np.concatenate([poses, goal[:, SHOWN]], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The named object at its height, in the hand."""
        qpos = start.qpos.copy()
        named = int(start.goal[NAMED])
        pose, width = self._bodies.poses(qpos)[named], _things(self.split)[named].size[0]
        heading = self._heading(named, pose)
        pose[2] = start.goal[CENTRE]
        beside = pose[:2] - np.array([np.cos(heading), np.sin(heading)]) * width / 2
        grasp = [*beside, GRASP_HEIGHT + start.goal[ASKED]]
        qpos[self.joints.qpos] = reaching(self, grasp, heading, width * OPENED)
        return replace(start, qpos=qpos)

    @cached_property
    def _bodies(self) -> FreeBodies:
        return FreeBodies(self.model, KINDS[0], len(KINDS))

    def _heading(self, named: int, pose: np.ndarray) -> float:
        """The closing direction for a grasp of an object that stands, rad."""
        symmetry = _things(self.split)[named].symmetry
        return nearest_heading(float(yaw_of(pose[3:])), facing(pose[:2]), symmetry)

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        for _ in range(ATTEMPTS):
            pose = self._pose().copy()
            heading = self._heading(int(self.goal[NAMED]), pose)
            if not (yield from self._pick(hand, style, rng, pose, heading)):
                continue
            if (yield from self._raise(hand, style, heading)):
                break
        yield from hand.rest()

    def _pick(
        self, hand: Hand, style: Style, rng: np.random.Generator, pose: np.ndarray, heading: float
    ) -> Script:
        """Approaches the object, first a little off as people do, and grasps it."""
        width = _things(self.split)[int(self.goal[NAMED])].size[0]
        grasp = [*pose[:2], GRASP_HEIGHT]
        at = partial(self._is_at, pose[:2])
        if not (yield from come_down(hand, style, rng, grasp, heading, width, at)):
            return False
        yield from close_and_lift(hand, style, grasp, heading, width, 2 * GRASP_HEIGHT)
        return self._is_held()

    def _raise(self, hand: Hand, style: Style, heading: float) -> Script:
        """Lifts it, and corrects the height by what is seen."""
        for _ in range(1 + CORRECTIONS):
            goal = hand.position + [0.0, 0.0, self.goal[CENTRE] - self._pose()[2]]
            lift = hand.move(goal, heading, style.closed, speed=0.8)
            if not (yield from watched(lift, self._is_held)):
                return False
        return True

    def _pose(self) -> np.ndarray:
        return self._bodies.poses(self.data.qpos)[int(self.goal[NAMED])]

    def _is_at(self, place: np.ndarray) -> bool:
        return bool(np.linalg.norm(self._pose()[:2] - place) < 0.01)

    def _is_held(self) -> bool:
        resting = self.goal[CENTRE] - self.goal[ASKED]
        return bool(self._pose()[2] > resting + 0.004)


def _things(split: str) -> tuple[Thing, ...]:
    return NOVEL if split == "novel_object" else TRAIN


def _add(spec: mujoco.MjSpec, name: str, thing: Thing) -> None:
    """A free object with a free joint of the same name."""
    x, y, z = np.array(thing.size) / 2
    body = spec.worldbody.add_body(name=name)
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
    body.add_geom(
        name=name,
        type=thing.shape,
        size=[x, y, z] if thing.shape == BOX else [x, z, 0.0],
        mass=MASS,
        rgba=scene.COLOURS[thing.colour],
        friction=[1.0, 0.01, 0.001],
        condim=4,
        **scene.SOLID,
    )


def _scatter(rng: np.random.Generator) -> np.ndarray:
    """Object centres (objects, 2), at least `GAP` apart."""
    (x0, x1), (y0, y1) = AREA
    while True:
        places = rng.uniform([x0, y0], [x1, y1], (len(KINDS), 2))
        if all(np.linalg.norm(a - b) >= GAP for a, b in combinations(places, 2)):
            return places
