"""Sort: two arms sort four things into two bins.

Two cubes and two cylinders, one red and one blue of each, lie in the middle between two arms. The
instruction says what belongs in the left bin and what in the right one, by shape or by colour. The
things lie where both arms reach them: the left arm fills the left bin and the right arm the right
one, and each reaches over to the other's side where it must. Success: every thing lies at rest in
the bin of its kind and no gripper touches any of them, for `hold_seconds`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.contract import SIDES, SO101_PAIR, ArmSpec
from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, together, watched
from robolearn.envs.grasp import close_and_lift, come_down, nearest_heading
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import FreeBodies, length, yaw_of
from robolearn.envs.task import Start, State

SHAPES: Final = ("cube", "cylinder")
COLOURS: Final = ("red", "blue")
THINGS: Final = tuple((colour, shape) for shape in SHAPES for colour in COLOURS)
NAMES: Final = tuple(f"{colour} {shape}" for colour, shape in THINGS)
# What a kind is called, and which of the things are of it.
KINDS: Final = {
    **{f"{shape}s": tuple(shape == s for _, s in THINGS) for shape in SHAPES},
    **{f"{colour} things": tuple(colour == c for c, _ in THINGS) for colour in COLOURS},
}
OPPOSITES: Final = (("cubes", "cylinders"), ("red things", "blue things"))
# How the goal is said, and which of the things belong in the left bin.
PLANS: Final = {
    f"{one} to the {side} bin and the {other} to the {rest} bin": KINDS[left]
    for pair in OPPOSITES
    for one, other in (pair, pair[::-1])
    for side, rest, left in ((*SIDES, one), (*SIDES[::-1], other))
}
PHRASES: Final = Phrases(
    "Sort",
    {
        "train": (
            "bring the {plan}",
            "move the {plan}",
            "sort the {plan}",
            "carry the {plan}",
            "tidy up: the {plan}",
            "take the {plan}",
        ),
        "held_out": ("clear the table: the {plan}", "I want you to sort the {plan}"),
    },
    {"plan": Words(tuple(PLANS))},
)

WORK_CENTRE: Final = (0.20, 0.0)
WORK_AREA: Final = (0.22, 0.48)  # m: 84 pixels of the top camera show a cube at 4.4
CYLINDER: Final = mujoco.mjtGeom.mjGEOM_CYLINDER
# split -> side of the cubes and diameter of the cylinders, height of the cylinders, m
SIZES: Final = {"": (0.025, 0.042), "novel_object": (0.029, 0.034)}
AREA: Final = ((0.13, 0.25), (-0.07, 0.07))  # x and y of where the things lie, m
REACH: Final = 0.295  # m from the shoulder pan axis of either arm
GAP: Final = 0.058  # m between centres: room for a finger beside a thing
TRIES: Final = 40  # places drawn at a time
BIN_PLACES: Final = ((0.20, 0.168), (0.20, -0.168))  # the left one and the right one
BIN_JITTER: Final = 0.012  # m
SLOT: Final = 0.018  # m from the middle of a bin, to the left and to the right: room for two things
AT_REST: Final = 0.02  # m/s
INSIDE: Final = np.array([scene.BIN_INNER, scene.BIN_INNER, 2 * scene.BIN_HEIGHT])
WORTH: Final = 0.95  # progress once all are in their bins
FAR: Final = 0.4  # m from its bin: what lies as far counts nothing
CARRY_HEIGHT: Final = 0.075  # m
GRASP_HEIGHT: Final = 0.012  # m
LIFTED: Final = 0.03  # m: a thing's centre is higher than this only in the air
CLEAR: Final = 0.095  # m to its own side: an arm whose tips are there leaves the middle free
ATTEMPTS: Final = 6  # of each arm

# The sensor data: positions of the things and the bins, then contact counts of the things with
# the left gripper and with the right one.
POINTS: Final = slice(0, 3 * (len(THINGS) + len(SIDES)))
TOUCH: Final = slice(POINTS.stop, POINTS.stop + len(THINGS) * len(SIDES))


@dataclass
class Middle:
    """The space between the arms; only one at a time is in it."""

    taken: str = ""  # the side of the arm that is there


class Sort(ManipulationEnv):
    """See the module's docstring."""

    arm: ClassVar[ArmSpec] = SO101_PAIR
    cameras: ClassVar[tuple[str, ...]] = ("top", "left_wrist", "right_wrist")
    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Four things, two bins, two arms."""
        spec = scene.table_scene(WORK_CENTRE, split, pair=True)
        width, tall = _size(split)
        for name, (colour, shape) in zip(NAMES, THINGS, strict=True):
            if shape == "cube":
                scene.add_cube(spec, name, colour, width)
            else:
                size = (width / 2, tall / 2, 0.0)
                scene.add_thing(spec, name, colour, CYLINDER, size, scene.CUBE_MASS)
        bins = [f"{side} bin" for side in SIDES]
        for name in bins:
            scene.add_bin(spec, name, "white")
        for name in [*NAMES, *bins]:
            scene.add_position(spec, name, mujoco.mjtObj.mjOBJ_XBODY)
        for side in SIDES:
            for name in NAMES:
                scene.add_touch(spec, f"{side} {name} touch", name, f"{side}_gripper")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, a random plan and wording, unless the instruction is given."""
        bins = np.array(BIN_PLACES)
        bins = bins + rng.uniform(-BIN_JITTER, BIN_JITTER, bins.shape)
        qpos = self.home(rng)
        places, yaws = _scatter(rng), rng.uniform(-np.pi, np.pi, len(THINGS))
        poses = self._things.poses(qpos)
        for pose, place, yaw, height in zip(poses, places, yaws, self._heights, strict=True):
            pose[:] = scene.upright(place, yaw, height)
        text, (plan,) = self.instruct(rng, instruction)
        return Start(
            qpos=qpos,
            mocap_pos=np.column_stack([bins, np.zeros(len(bins))]),
            goal=np.array(list(PLANS.values())[plan], float),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All in the bins of their kinds, released, at rest; see the base class."""
        points = state.sensordata[:, POINTS].reshape(len(goal), -1, 3)
        left, right = points[:, len(THINGS), None], points[:, len(THINGS) + 1, None]
        offset = points[:, : len(THINGS)] - right - goal[..., None] * (left - right)
        inside = (np.abs(offset) < INSIDE).all(2)
        near = np.maximum(0.0, 1.0 - length(offset) / FAR)
        progress = WORTH * np.where(inside, 1.0, WORTH * near).mean(1)
        done = inside.all(1)
        if np.count_nonzero(done):
            done &= (state.sensordata[:, TOUCH] == 0).all(1)
            done &= (length(self._things.twists(state.qvel)[..., :3]) < AT_REST).all(1)
            progress = np.where(done, 1.0, progress)
        return done, progress

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """All things; see the base class."""
        del goal
        return NAMES

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Poses of the things (7 each), positions of the bins (3 each), which go to the left."""
        poses, bins = state.qpos[:, self._things.qpos], state.mocap_pos.reshape(len(goal), -1)
        return np.concatenate([poses, bins, goal], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """Every thing in its bin, side by side."""
        qpos = start.qpos.copy()
        poses = self._things.poses(qpos)
        for place, belongs in zip(start.mocap_pos, (start.goal > 0, start.goal == 0), strict=True):
            for thing, slot in zip(np.flatnonzero(belongs), _slots(place), strict=True):
                above = 2 * scene.BIN_WALL
                poses[thing] = scene.upright(slot, 0.0, self._heights[thing], above)
        return replace(start, qpos=qpos)

    @cached_property
    def _things(self) -> FreeBodies:
        return FreeBodies(self.model, NAMES[0], len(THINGS))

    @cached_property
    def _heights(self) -> list[float]:
        side, tall = _size(self.split)
        return [side if shape == "cube" else tall for _, shape in THINGS]

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Both arms sort, each into its own bin; one waits while the other is in the middle."""
        style = Style.draw(rng, self.demonstrator)
        first = style.side or rng.choice([1, -1])
        middle = Middle(SIDES[0] if first > 0 else SIDES[1])
        arms = [
            self._sorter(side, style, own, middle)
            for side, own in zip(SIDES, rng.spawn(2), strict=True)
        ]
        yield from together(*arms)

    def _sorter(
        self, side: str, style: Style, rng: np.random.Generator, middle: Middle
    ) -> Iterator[np.ndarray]:
        """What one arm does: it takes what belongs in its bin, the nearest first."""
        hand = Hand(self, style, side)
        rest = hand.rest()
        for _ in range(ATTEMPTS):
            while middle.taken not in ("", side):
                yield next(rest)
            middle.taken = side
            thing = self._next(hand, side)
            if thing is None:
                break
            if (yield from self._pick(hand, thing, style, rng)):
                yield from self._drop(hand, thing, side, style, rng, middle)
        yield from self._leave(hand, side, style, middle)
        yield from rest

    def _next(self, hand: Hand, side: str) -> int | None:
        """Of what belongs in the bin of this side and is not there yet, the nearest."""
        things = self._things.poses(self.data.qpos)[:, :3]
        off = np.abs(things - self._bin(side)) >= INSIDE
        missing = off.any(1) & (self.goal == (side == SIDES[0]))
        distance = length(things[:, :2] - hand.base[:2])
        return int(np.where(missing, distance, np.inf).argmin()) if missing.any() else None

    def _pick(self, hand: Hand, thing: int, style: Style, rng: np.random.Generator) -> Script:
        """Approaches the thing, first a little off as people do, grasps and lifts it."""
        pose = self._things.poses(self.data.qpos)[thing]
        place, ahead = pose[:2].copy(), hand.facing(pose)
        cube = THINGS[thing][1] == "cube"
        heading = nearest_heading(float(yaw_of(pose[3:])), ahead) if cube else ahead
        grasp, width = [*place, GRASP_HEIGHT], _size(self.split)[0]
        at = partial(self._is_at, thing, place)
        if not (yield from come_down(hand, style, rng, grasp, heading, width, at)):
            return False
        yield from close_and_lift(hand, style, grasp, heading, width, CARRY_HEIGHT)
        return self._is_held(thing)

    def _drop(
        self,
        hand: Hand,
        thing: int,
        side: str,
        style: Style,
        rng: np.random.Generator,
        middle: Middle,
    ) -> Script:
        """Brings the thing over the emptier half of the bin, lowers it and lets go."""
        others = np.delete(self._things.poses(self.data.qpos)[:, :2], thing, axis=0)
        slots = _slots(self._bin(side))
        slot = slots[length(slots[:, None] - others).min(1).argmax()]
        place = slot + rng.normal(0.0, 0.003, 2)
        held = partial(self._is_held, thing)
        carry = self._going(
            hand, side, middle, hand.move([*place, CARRY_HEIGHT], None, style.closed)
        )
        if not (yield from watched(carry, held)):
            return False
        yield from hand.move([*place, 0.034], None, style.closed, speed=0.8)
        yield from hand.move([*place, 0.044], None, style.opened, seconds=0.35)
        yield from hand.move([*place, CARRY_HEIGHT + 0.02], None, style.opened)
        return True

    def _leave(self, hand: Hand, side: str, style: Style, middle: Middle) -> Iterator[np.ndarray]:
        """Makes room."""
        over = [*self._bin(side)[:2], CARRY_HEIGHT + 0.02]
        yield from self._going(hand, side, middle, hand.move(over, None, style.opened))

    def _going(
        self, hand: Hand, side: str, middle: Middle, actions: Iterator[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """Passes actions on and frees the middle once the hand is on its own side."""
        outwards = np.sign(hand.base[1])
        for action in actions:
            if outwards * hand.position[1] > CLEAR and middle.taken == side:
                middle.taken = ""
            yield action

    def _bin(self, side: str) -> np.ndarray:
        return self.data.mocap_pos[SIDES.index(side)]

    def _is_at(self, thing: int, place: np.ndarray) -> bool:
        return bool(length(self._things.poses(self.data.qpos)[thing, :2] - place) < 0.01)

    def _is_held(self, thing: int) -> bool:
        return bool(self._things.poses(self.data.qpos)[thing, 2] > LIFTED)


def _size(split: str) -> tuple[float, float]:
    return SIZES.get(split, SIZES[""])


def _slots(place: np.ndarray) -> np.ndarray:
    """Where two things lie in a bin, m (2, 2)."""
    return place[:2] + np.array([[0.0, SLOT], [0.0, -SLOT]])


def _scatter(rng: np.random.Generator) -> np.ndarray:
    """Places (things, 2) within reach of both arms, at least `GAP` apart."""
    (x0, x1), (y0, y1) = AREA
    axes = np.array([[scene.PAN_AXIS, s * scene.PAIR_DISTANCE / 2] for s in (1, -1)])
    while True:
        places = rng.uniform([x0, y0], [x1, y1], (TRIES, 2))
        places = places[length(places[:, None] - axes).max(1) < REACH]
        apart = length(places[:, None] - places) >= GAP
        chosen: list[int] = []
        for k in range(len(places)):
            if apart[k, chosen].all():
                chosen.append(k)
            if len(chosen) == len(THINGS):
                return places[chosen]
