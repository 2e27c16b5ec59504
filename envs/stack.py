"""Stack: build a tower of three cubes in the order that is named.

A red, a green and a blue cube lie at random places; the instruction says which is to be at the
bottom, in the middle and on top. Success: each of the upper two lies flat on the one below it,
their middles at most half a side apart along x and along y, the gripper touches none and all are at
rest; all of that for `hold_seconds`. The order, the places and the turns vary, the size of the
cubes with the split.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, cached_property, partial
from itertools import combinations
from typing import Any, ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import GAP, close_and_lift, come_down, nearest_heading
from robolearn.envs.language import ANY_SPLIT, Phrases, Words
from robolearn.envs.lookup import FreeBodies, length
from robolearn.envs.task import Start, State

CUBES: Final = ("red", "green", "blue")


class Orders(Phrases):
    """Phrases whose slots name each cube once."""

    def all(self, which: str, split: str = ANY_SPLIT) -> dict[str, tuple[Any, ...]]:
        """Every instruction that names three cubes."""
        return _orders(self, which, split)

    def parse(self, instruction: str) -> tuple[Any, ...]:
        """The cubes from the bottom to the top.

        Raises:
            ValueError: an unknown wording, or a cube that is named twice.
        """
        order = super().parse(instruction)
        if len(set(order)) < len(order):
            near = next(iter(self.all("train")))
            raise ValueError(f"{instruction!r} names a cube twice; try for example {near!r}")
        return order


@cache
def _orders(phrases: Orders, which: str, split: str) -> dict[str, tuple[Any, ...]]:
    every = Phrases.all(phrases, which, split)
    return {text: order for text, order in every.items() if len(set(order)) == len(order)}


PHRASES: Final = Orders(
    "Stack",
    {
        "train": (
            "put the {middle} cube on the {bottom} cube, then the {top} one on top",
            "stack the {middle} cube on the {bottom} one and the {top} cube on both",
            "build a tower: {bottom} at the bottom, {middle} in the middle, {top} on top",
            "stack the cubes, from the bottom up: {bottom}, {middle}, {top}",
            "make a tower with {top} on {middle} on {bottom}",
            "the {top} cube goes on the {middle} one, and that on the {bottom} one",
        ),
        "held_out": (
            "please pile up the cubes: first {bottom}, then {middle}, last {top}",
            "I want a tower with {bottom} below, {middle} above it and {top} at the top",
        ),
    },
    {"bottom": Words(CUBES), "middle": Words(CUBES), "top": Words(CUBES)},
)

SIDE: Final = {"": scene.CUBE_SIDE, "novel_object": 0.022}  # m, split or any other
WORK_CENTRE: Final = (0.21, 0.0)
WORK_AREA: Final = (0.24, 0.32)  # m
AREA: Final = ((0.165, 0.255), (-0.09, 0.09))  # x and y of cube centres, m
APART: Final = 0.062  # m between centres: room for a finger beside a cube
MAX_YAW: Final = 0.3  # rad, from facing the arm
FLAT: Final = 0.003  # m that the height of a cube over the next may be off
AT_REST: Final = 0.02  # m/s
ATTEMPTS: Final = 6  # at moving a cube; two are enough if all goes well
CLEARANCE: Final = 0.022  # m, of a carried cube over what it passes
DROP: Final = 0.003  # m over its place at which a cube is let go
STAGE: Final = 0.45  # progress of each cube that is on another
REACH, CARRY = 1.5, 1.9  # 1/m: what distances tool to cube and cube to place take off it,
HALF: Final = STAGE / 2  # each of them at most

FIRST: Final = 1  # of the cubes among the points
POINTS: Final = slice(0, 3 * (FIRST + len(CUBES)))  # sensor data: the tool and the cubes,
TOUCH: Final = slice(POINTS.stop, POINTS.stop + len(CUBES))  # then the cubes' contact counts
ORDER: Final = slice(0, 3)  # goal vector: which points the cubes are, from the bottom up,
ONE_HOT: Final = slice(3, 3 + 9)  # and their one-hot vectors


class Stack(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Three cubes, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for colour in CUBES:
            scene.add_cube(spec, colour, colour, _side(split))
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        for colour in CUBES:
            scene.add_position(spec, colour, mujoco.mjtObj.mjOBJ_XBODY)
        for colour in CUBES:
            scene.add_touch(spec, f"{colour} touch", colour)
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, a random order and a random wording, unless the instruction is given."""
        places, qpos = _scatter(rng), self.home(rng)
        for pose, (x, y) in zip(self._cubes.poses(qpos), places, strict=True):
            yaw = facing((x, y)) + rng.uniform(-MAX_YAW, MAX_YAW)
            pose[:] = scene.upright((x, y), yaw, self._side)
        text, order = self.instruct(rng, instruction)
        return Start(
            qpos=qpos,
            mocap_pos=np.zeros((0, 3)),
            goal=np.concatenate([FIRST + np.array(order), np.eye(len(CUBES))[list(order)].ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each on the one below, released, at rest; see the base class."""
        rows, order = np.arange(len(goal)), goal[:, ORDER].astype(int).T
        points = state.sensordata[:, POINTS].reshape(len(goal), -1, 3)
        tower = points[rows, order]  # (cubes, N, 3), from the bottom up
        off = tower[1:] - tower[:-1] - self._up  # (2, N, 3)
        begun, crowned = (np.abs(off) < self._limits).all(2)
        if not np.count_nonzero(begun):  # as nearly always; the rest would take as long again
            return begun, _progress(points[:, 0], tower[1], off[0])
        turn = begun.astype(int)  # which of the upper two cubes is to be moved
        progress = _progress(points[:, 0], tower[1 + turn, rows], off[turn, rows]) + STAGE * turn
        built = begun & crowned
        still = (length(self._cubes.twists(state.qvel)[..., :3]) < AT_REST).all(1)
        done = built & still & (state.sensordata[:, TOUCH] == 0).all(1)
        return done, np.where(done, 1.0, progress)

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """All cubes; see the base class."""
        del goal
        return CUBES

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Cube poses (7 each) and the order as three one-hot vectors."""
        poses = state.qpos[:, self._cubes.qpos]
        return np.concatenate([poses, goal[:, ONE_HOT]], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The tower, where its lowest cube is."""
        qpos = start.qpos.copy()
        poses = self._cubes.poses(qpos)
        low, *upper = start.goal[ORDER].astype(int) - FIRST
        for storey, cube in enumerate(upper, start=1):
            poses[cube] = poses[low]
            poses[cube, :3] += storey * self._up
        return replace(start, qpos=qpos)

    @cached_property
    def _side(self) -> float:
        return _side(self.split)

    @cached_property
    def _up(self) -> np.ndarray:
        return np.array([0.0, 0.0, self._side])

    @cached_property
    def _limits(self) -> np.ndarray:
        """How far a cube that lies on another may be off along x, y and z, m."""
        return np.array([self._side / 2, self._side / 2, FLAT])

    @cached_property
    def _cubes(self) -> FreeBodies:
        return FreeBodies(self.model, CUBES[0], len(CUBES))

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        low, middle, high = self.goal[ORDER].astype(int) - FIRST
        for _ in range(ATTEMPTS):
            if not self._lies_on(middle, low):
                yield from self._move(hand, style, rng, middle, low)
            elif not self._lies_on(high, middle):
                yield from self._move(hand, style, rng, high, middle)
        yield from hand.rest()

    def _move(
        self, hand: Hand, style: Style, rng: np.random.Generator, cube: int, base: int
    ) -> Script:
        """Picks a cube up and puts it on another."""
        pose = self._pose(cube).copy()
        heading, grasp = self._heading(pose), pose[:3] - [0.0, 0.0, 0.0005]
        at = partial(self._is_at, cube, pose[:3])
        if not (yield from come_down(hand, style, rng, grasp, heading, self._side, at)):
            return False
        high = self._pose(base)[2] + self._side + CLEARANCE
        yield from close_and_lift(hand, style, grasp, heading, self._side, high)
        if not self._is_over(cube, pose[2] + 0.5 * CLEARANCE):
            return False
        if not (yield from self._carry(hand, style, cube, base, heading)):
            return False
        yield from self._let_go(hand, style, self._heading(self._pose(base)))
        return True

    def _carry(self, hand: Hand, style: Style, cube: int, base: int, heading: float) -> Script:
        """Brings a cube that is held over another, then down on it, guided by where they are."""
        there = self._heading(self._pose(base))
        over = self._up + [0.0, 0.0, CLEARANCE]
        held = partial(self._is_over, cube, self._pose(base)[2])
        for height, turn, speed in ((over, there - heading, 1.0), (over, 0.0, 0.5)):
            place = self._pose(base)[:3] + height
            goal = place - _turned(self._pose(cube)[:3] - hand.position, turn)
            way = hand.move(goal, there, style.closed, speed=speed)
            if not (yield from watched(way, held)):
                return False
        goal = self._pose(base)[:3] + self._up + [0.0, 0.0, DROP]
        goal = goal - (self._pose(cube)[:3] - hand.position)
        yield from hand.move(goal, there, style.closed, speed=0.5, straight=True)
        return True

    def _let_go(self, hand: Hand, style: Style, heading: float) -> Iterator[np.ndarray]:
        """Opens the jaws, takes the fixed one off the cube as well, and leaves upwards."""
        back = hand.position - GAP * np.array([np.cos(heading), np.sin(heading), 0.0])
        yield from hand.move(hand.position, heading, style.opened, seconds=0.4, straight=True)
        yield from hand.move(back, heading, style.opened, seconds=0.25, straight=True)
        up = back + [0.0, 0.0, self._side + CLEARANCE]
        yield from hand.move(up, heading, style.opened, straight=True)

    def _pose(self, cube: int) -> np.ndarray:
        return self._cubes.poses(self.data.qpos)[cube]

    def _heading(self, pose: np.ndarray) -> float:
        """Of a cube's four equal headings the one that faces the arm best, rad.

        A cube that has fallen may lie on any side, so its most level axis is taken.
        """
        axes = np.empty(9)
        mujoco.mju_quat2Mat(axes, pose[3:])
        x, y, _ = axes.reshape(3, 3)[:, np.abs(axes[6:]).argmin()]
        return nearest_heading(float(np.arctan2(y, x)), facing(pose[:2]))

    def _lies_on(self, cube: int, base: int) -> bool:
        off = self._pose(cube)[:3] - self._pose(base)[:3] - self._up
        return bool((np.abs(off) < self._limits).all())

    def _is_at(self, cube: int, place: np.ndarray) -> bool:
        return bool(np.linalg.norm(self._pose(cube)[:3] - place) < 0.01)

    def _is_over(self, cube: int, height: float) -> bool:
        return bool(self._pose(cube)[2] > height)


def _side(split: str) -> float:
    return SIDE.get(split, SIDE[""])


def _progress(tool: np.ndarray, cube: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Of a stage (N,), from the places of tool and cube and how far off that is, (N, 3) each."""
    lost = np.minimum(REACH * length(tool - cube), HALF) + np.minimum(CARRY * length(off), HALF)
    return STAGE - lost


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    """A vector (3,) turned about the vertical."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1], vector[2]])


def _scatter(rng: np.random.Generator) -> np.ndarray:
    """Cube centres (cubes, 2), at least `APART` from each other."""
    (x0, x1), (y0, y1) = AREA
    while True:
        places = rng.uniform([x0, y0], [x1, y1], (len(CUBES), 2))
        if all(np.linalg.norm(a - b) >= APART for a, b in combinations(places, 2)):
            return places
