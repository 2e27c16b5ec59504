"""Reorient: turn the named thing about the vertical to an angle in degrees.

An arrow and a pen lie on the table; the instruction names one and where its tip shall point, seen
from the arm: 0 degrees straight ahead, positive to the left. Success: it points there within 20
degrees (as in ARNOLD, arXiv 2304.04321), lies flat on the table where it was, at rest, released,
and the other thing is still about where it was; all of that for `hold_seconds`. The goal, the
places and the first turns vary, the things with the split.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import GAP, close_and_lift, come_down
from robolearn.envs.language import ANY_SPLIT, Number, Phrases, Words
from robolearn.envs.lookup import FreeBodies, length, wrapped, yaw_of
from robolearn.envs.task import Start, State

KINDS: Final = ("arrow", "pen")
ANGLE: Final = Number(
    "the angle in degrees",
    low=-90.0,
    high=90.0,
    unit=np.pi / 180,
    values={
        ANY_SPLIT: (-90, -60, -30, 0, 30, 60, 90),
        "novel_state": (-75, -45, -15, 15, 45, 75),
    },
)
PHRASES: Final = Phrases(
    "Reorient",
    {
        "train": (
            "turn the {object} to {angle} degrees",
            "rotate the {object} until it points to {angle} degrees",
            "point the {object} at {angle} degrees",
            "the {object} should point to {angle} degrees",
            "set the direction of the {object} to {angle} degrees",
            "make the {object} face {angle} degrees",
        ),
        "held_out": (
            "please lay the {object} down so that its tip is at {angle} degrees",
            "I want the {object} turned to {angle} degrees",
        ),
    },
    {"object": Words(KINDS), "angle": ANGLE},
)


@dataclass(frozen=True)
class Thing:
    """A flat thing whose tip points along its x axis; it is grasped across its shaft."""

    shaft: tuple[float, float]  # m, length and width
    tip: tuple[float, float]  # m, length and width of what is at its front
    height: float  # m
    colours: tuple[str, str]  # of shaft and tip


TRAIN: Final = (
    Thing((0.046, 0.018), (0.018, 0.034), 0.020, ("yellow", "red")),
    Thing((0.056, 0.020), (0.020, 0.020), 0.018, ("blue", "white")),
)
NOVEL: Final = (
    Thing((0.040, 0.022), (0.020, 0.040), 0.024, ("green", "black")),
    Thing((0.066, 0.017), (0.018, 0.017), 0.021, ("red", "yellow")),
)
MASS: Final = 0.010  # kg each, shaft and tip

WORK_CENTRE: Final = (0.205, 0.0)
WORK_AREA: Final = (0.22, 0.385)  # m
PLACES: Final = ((0.21, 0.075), (0.21, -0.075))  # m, of the two, either way round
JITTER: Final = (0.02, 0.02)  # m
OTHER_YAW: Final = np.pi  # rad, of the thing that is not named: any
# Degrees between the first angle and the goal; one that is asked for may be further away.
TURN: Final = (40.0, 120.0)
AT_ONCE: Final = 2.2  # rad, most that is turned in one grasp
TOLERANCE: Final = np.radians(20.0)
FLAT: Final = 0.004  # m that its middle may be above where it is when it lies
UPRIGHT: Final = 0.99  # least cosine of its tilt
MAY_MOVE: Final = 0.05  # m, the named thing and the other one
AT_REST: Final = 0.02  # m/s
STILL: Final = 0.3  # rad/s
GRASP_HEIGHT: Final = 0.010  # m
CARRY: Final = 0.012  # m, how far it is lifted for the turn
DROP: Final = 0.002  # m
TURN_RADIUS: Final = 0.05  # m: a turn takes as long as this far from its axis at the usual speed
ATTEMPTS: Final = 5
WORTH: Final = 0.9  # progress of a thing that points right
REACH, FAR = 0.2, 0.20  # what the distance to the tool takes off it, and m at which it takes all
TO_ANGLE: Final = 0.7 / np.pi  # 1/rad: what the angle takes off

POINTS: Final = slice(0, 3 * (1 + len(KINDS)))  # sensor data: the tool and the things,
TOUCH: Final = slice(POINTS.stop, POINTS.stop + len(KINDS))  # then their contact counts
# The goal vector: the index of the thing and its one-hot vector, cosine and sine of the angle, the
# angle, and where both things started (x, y).
NAMED, ANGLE_AT = 0, 5
SHOWN: Final = slice(1, 5)
START: Final = slice(6, 6 + 2 * len(KINDS))


class Reorient(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene", "novel_state")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    hold_seconds: ClassVar[float] = 0.5

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """An arrow, a pen, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for kind, thing in zip(KINDS, _things(split), strict=True):
            _add(spec, kind, thing)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        for kind in KINDS:
            scene.add_position(spec, kind, mujoco.mjtObj.mjOBJ_XBODY)
        for kind in KINDS:
            scene.add_touch(spec, f"{kind} touch", kind)
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, turns, goal and wording; the first turn is far from the goal."""
        places = np.array(PLACES)[rng.permutation(len(KINDS))]
        places = places + rng.uniform(-1.0, 1.0, places.shape) * JITTER
        yaws, qpos = rng.uniform(-OTHER_YAW, OTHER_YAW, len(KINDS)), self.home(rng)
        text, (named, angle) = self.instruct(rng, None)
        turn = rng.choice([-1, 1]) * np.radians(rng.uniform(*TURN))
        yaws[named] = angle + turn
        if instruction is not None:  # the scene stays the drawn one, unless solved already
            text, (named, angle) = instruction, self.phrases.parse(instruction)
            if abs(wrapped(yaws[named] - angle)) < np.radians(TURN[0]):
                yaws[named] = angle + turn
        for k, pose in enumerate(self._bodies.poses(qpos)):
            pose[:] = scene.upright(places[k], yaws[k], _things(self.split)[k].height)
        shown = [*np.eye(len(KINDS))[named], np.cos(angle), np.sin(angle)]
        return Start(
            qpos=qpos,
            mocap_pos=np.zeros((0, 3)),
            goal=np.array([named, *shown, angle, *places.ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points right, lies flat, released, at rest, not moved away; see the base class."""
        rows, named = np.arange(len(goal)), goal[:, NAMED].astype(int)
        pose = self._bodies.poses(state.qpos)[rows, named]
        off = np.abs(wrapped(yaw_of(pose[:, 3:]) - goal[:, ANGLE_AT]))
        reach = np.minimum(length(state.sensordata[:, :3] - pose[:, :3]) / FAR, 1.0)
        right = off <= TOLERANCE
        progress = WORTH - TO_ANGLE * np.maximum(off - TOLERANCE, 0.0)
        progress -= REACH * reach * ~right  # once it points right, the hand may go
        if not np.count_nonzero(right):  # as nearly always on the way
            return right, progress
        done = right & self._laid_down(state, goal)
        return done, np.where(done, 1.0, progress)

    def _laid_down(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Whether the named thing lies flat, released and at rest, and both are about where."""
        rows, named = np.arange(len(goal)), goal[:, NAMED].astype(int)
        poses = self._bodies.poses(state.qpos)
        twist = self._bodies.twists(state.qvel)[rows, named]
        quat, z = poses[rows, named, 3:], poses[rows, named, 2]
        flat = 1.0 - 2.0 * (quat[:, 1] ** 2 + quat[:, 2] ** 2) > UPRIGHT
        flat &= z < self._lying[named] + FLAT
        still = (length(twist[:, :3]) < AT_REST) & (length(twist[:, 3:]) < STILL)
        released = state.sensordata[:, TOUCH][rows, named] == 0
        moved = self._bodies.moved(state.qpos, goal[:, START])
        return flat & still & released & (moved < MAY_MOVE).all(1)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Poses (7 each), the named thing as a one-hot vector, cosine and sine of the angle."""
        poses = state.qpos[:, self._bodies.qpos]
        return np.concatenate([poses, goal[:, SHOWN]], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The named thing at its angle, where it is."""
        qpos = start.qpos.copy()
        self._bodies.poses(qpos)[int(start.goal[NAMED]), 3:] = scene.about_z(start.goal[ANGLE_AT])
        return replace(start, qpos=qpos)

    @cached_property
    def _lying(self) -> np.ndarray:
        """How high the middles of the things are when they lie, m."""
        return np.array([thing.height / 2 for thing in _things(self.split)])

    @cached_property
    def _bodies(self) -> FreeBodies:
        return FreeBodies(self.model, KINDS[0], len(KINDS))

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        for _ in range(ATTEMPTS):
            turn = self._missing()
            if abs(turn) < 0.8 * TOLERANCE:
                break
            yield from self._turn(hand, style, rng, float(np.clip(turn, -AT_ONCE, AT_ONCE)))
        yield from hand.rest()

    def _turn(self, hand: Hand, style: Style, rng: np.random.Generator, turn: float) -> Script:
        """Grasps the thing across its shaft, lifts it a little, turns it and lays it down."""
        pose, thing = self._pose().copy(), _things(self.split)[int(self.goal[NAMED])]
        yaw = float(yaw_of(pose[3:]))
        # The wrist turns most if it begins on one side and ends on the other.
        ahead = facing(pose[:2])
        heading = ahead - turn / 2 + float(wrapped(yaw + np.pi / 2 - ahead + turn / 2, np.pi))
        grasp, width = [*pose[:2], GRASP_HEIGHT], thing.shaft[1]
        at = partial(self._is_at, pose[:2])
        if not (yield from come_down(hand, style, rng, grasp, heading, width, at)):
            return False
        high = GRASP_HEIGHT + CARRY
        yield from close_and_lift(hand, style, grasp, heading, width, high)
        if not self._is_held():
            return False
        end = heading + turn
        beside = pose[:2] - _along(end) * width / 2
        seconds = max(0.6, abs(turn) * TURN_RADIUS / style.speed)
        way = hand.move([*beside, high], end, style.closed, seconds=seconds)
        if not (yield from watched(way, self._is_held)):
            return False
        down = [*beside, GRASP_HEIGHT + DROP]
        yield from hand.move(down, end, style.closed, speed=0.5, straight=True)
        yield from hand.move(down, end, style.opened, seconds=0.4, straight=True)
        back = beside - GAP * _along(end)
        yield from hand.move([*back, down[2]], end, style.opened, seconds=0.25, straight=True)
        yield from hand.move([*back, 0.05 + style.lift], end, style.opened, straight=True)
        return True

    def _pose(self) -> np.ndarray:
        return self._bodies.poses(self.data.qpos)[int(self.goal[NAMED])]

    def _missing(self) -> float:
        """The turn to the goal, rad, the short way round."""
        return float(wrapped(self.goal[ANGLE_AT] - yaw_of(self._pose()[3:])))

    def _is_at(self, place: np.ndarray) -> bool:
        return bool(np.linalg.norm(self._pose()[:2] - place) < 0.012)

    def _is_held(self) -> bool:
        return bool(self._pose()[2] > self._lying[int(self.goal[NAMED])] + 0.3 * CARRY)


def _things(split: str) -> tuple[Thing, ...]:
    return NOVEL if split == "novel_object" else TRAIN


def _along(heading: float) -> np.ndarray:
    return np.array([np.cos(heading), np.sin(heading)])


def _add(spec: mujoco.MjSpec, name: str, thing: Thing) -> None:
    """A free body with a free joint of the same name; its origin is the middle of its shaft."""
    body = spec.worldbody.add_body(name=name)
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
    ahead = (thing.shaft[0] + thing.tip[0]) / 2
    parts = ((0.0, thing.shaft, thing.colours[0]), (ahead, thing.tip, thing.colours[1]))
    for x, (long, wide), colour in parts:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, 0.0, 0.0],
            size=[long / 2, wide / 2, thing.height / 2],
            mass=MASS,
            rgba=scene.COLOURS[colour],
            friction=[1.0, 0.01, 0.001],
            condim=4,
            **scene.SOLID,
        )
