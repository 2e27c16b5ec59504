"""Push: push a T onto the mark of the named colour.

A T-shaped block lies on the table, and two flat marks of its shape. The instruction names one of
them by colour. The T is too wide for the gripper, so the closed fingers push it. Success: the T
lies flat and at rest within 1.5 cm and 15 degrees of the named mark, and the gripper has let go of
it; all of that for `hold_seconds`. Places and headings of T and marks and the colour vary.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final, NamedTuple

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing
from robolearn.envs.grasp import nearest_heading
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import free, length, sensor, tilt_of, wrapped
from robolearn.envs.task import Start, State

MARKS: Final = ("green", "blue")
PHRASES: Final = Phrases(
    "Push",
    {
        "train": (
            "push the T onto the {mark} mark",
            "push the T-shaped block onto the {mark} shape",
            "slide the T to the {mark} mark",
            "move the T block so that it covers the {mark} mark",
            "cover the {mark} shape with the T",
            "by pushing, bring the T to the {mark} mark",
        ),
        "held_out": (
            "please line the T up with the {mark} shape",
            "the T should end up on the {mark} mark",
        ),
    },
    {"mark": Words(MARKS)},
)

WORK_CENTRE: Final = (0.21, 0.0)
WORK_AREA: Final = (0.25, 0.44)  # m: 84 pixels of the top camera show the T's stem at 4.2
UNIT: Final = 0.022  # m: the T is made of squares of this side, four in the bar, three below
HEIGHT: Final = 0.02  # m
BAR_Y, STEM_Y = 6 / 7 * UNIT, -8 / 7 * UNIT  # m, from the centre of mass
BAR_HALF: Final = (2.0 * UNIT, UNIT / 2)  # m
STEM_HALF: Final = (UNIT / 2, 1.5 * UNIT)  # m
MASS: Final = 0.05  # kg
MARK_HALF: Final = 0.0004  # m, half the thickness of what marks the goal
PLACES: Final = ((0.17, 0.24), (-0.11, 0.11))  # x and y of centres of mass, m
APART: Final = 0.11  # m between the marks' centres of mass
AWAY: Final = 0.05  # m between the T and each mark at the start
MAX_TURN: Final = 2.0  # rad between the T and the named mark at the start
NEAR: Final = 0.015  # m
ALIGNED: Final = np.radians(15.0)
FLAT: Final = np.radians(8.0)
AT_REST, NOT_TURNING = 0.02, 0.3  # m/s, rad/s
LEVER: Final = 0.05  # m: a turn by 1 rad counts as much as this way
WORTH: Final = 0.9  # progress of a T at its goal that is still touched or moving

# The goal vector: error at the start (m), then what is shown of the goal: x, y and yaw of the named
# mark, its colour as one-hot, x, y and yaw of all marks.
AT_START: Final = 0
TARGET: Final = slice(1, 4)
ONE_HOT: Final = slice(4, 4 + len(MARKS))
SHOWN: Final = slice(1, None)

# How the expert pushes.
STROKES: Final = 30
GOOD: Final = 0.006  # m: an error with which it is content
STROKE_COST: Final = 0.006  # m of error that a stroke must be worth
SPREAD: Final = 0.043  # m: radius at which friction about the vertical acts
FINGERS: Final = (0.010, 0.011)  # m: the closed fingers from their middle, ahead and sideways
STEP: Final = 0.005  # m: a push is foreseen in steps of this length
LONGEST: Final = 12  # of these steps
APPROACH: Final = 0.009  # m between fingers and T when the fingers come down
HOVER, TOUCH_HEIGHT = 0.055, 0.011  # m
REACH: Final = (0.065, 0.275)  # m from the shoulder's axis: where the fingers can be
# A push: along which way of the T (x and y of the side's inward normal), from where on its edge.
# Each row: the normal, the coordinate of the side along it, and the range of the other coordinate.
TOP, UNDER, TIP = 19 / 14 * UNIT, 5 / 14 * UNIT, -37 / 14 * UNIT
SIDES: Final = (
    ((0, -1), TOP, (-1.8 * UNIT, 1.8 * UNIT), 9),
    ((1, 0), -2 * UNIT, (UNIT * 0.55, UNIT * 1.15), 2),
    ((-1, 0), 2 * UNIT, (UNIT * 0.55, UNIT * 1.15), 2),
    ((0, 1), UNDER, (-1.9 * UNIT, -1.25 * UNIT), 3),
    ((0, 1), UNDER, (1.25 * UNIT, 1.9 * UNIT), 3),
    ((1, 0), -UNIT / 2, (-2.6 * UNIT, -0.45 * UNIT), 6),
    ((-1, 0), UNIT / 2, (-2.6 * UNIT, -0.45 * UNIT), 6),
    ((0, 1), TIP, (-0.4 * UNIT, 0.4 * UNIT), 3),
)


class Push(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    grasps: ClassVar[bool] = False

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The T, two marks, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for colour in MARKS:
            mark = spec.worldbody.add_body(name=f"{colour} mark", mocap=True)
            _add_tee(mark, MARK_HALF, scene.COLOURS[colour], **scene.SEEN)
        tee = spec.worldbody.add_body(name="T")
        tee.add_joint(name="T", type=mujoco.mjtJoint.mjJNT_FREE)
        solid = {**scene.SOLID, "mass": MASS / 2, "friction": [1.0, 0.005, 1e-4]}
        _add_tee(tee, HEIGHT / 2, scene.COLOURS["red"], **solid)
        scene.add_touch(spec, "touch", "T")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places and headings and a random colour, unless the instruction is given."""
        places = _scatter(rng)
        yaw = rng.uniform(-np.pi, np.pi)
        yaws = yaw + rng.uniform(-MAX_TURN, MAX_TURN, len(MARKS))
        qpos = self.home(rng)
        qpos[self._tee[0]] = [*places[-1], HEIGHT / 2, *scene.about_z(yaw)]
        text, (mark,) = self.instruct(rng, instruction)
        target = np.array([*places[mark], wrapped(yaws[mark])])
        error = error_of(np.array([*places[-1], yaw]) - target)
        marks = np.column_stack([places[:-1], wrapped(yaws)])
        return Start(
            qpos=qpos,
            mocap_pos=np.column_stack([places[:-1], np.full(len(MARKS), MARK_HALF)]),
            mocap_quat=np.array([scene.about_z(yaw) for yaw in yaws]),
            goal=np.array([error, *target, *np.eye(len(MARKS))[mark], *marks.ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At the named mark, flat, released, at rest; see the base class."""
        offset = self._offset(state, goal)
        squares = offset * offset  # spelled out: this runs at every step
        far = squares[:, 0] + squares[:, 1]
        error = np.sqrt(far + LEVER**2 * squares[:, 2])
        progress = WORTH * np.maximum(0.0, 1.0 - error / goal[:, AT_START])
        near = far < NEAR**2
        if not np.count_nonzero(near):  # as nearly always; the rest would take as long again
            return near, progress
        speed = state.qvel[:, self._tee[1]]
        at_rest = (length(speed[:, :3]) < AT_REST) & (length(speed[:, 3:]) < NOT_TURNING)
        flat = tilt_of(state.qpos[:, self._tee[0]][:, 3:]) < FLAT
        there = near & (squares[:, 2] < ALIGNED**2)
        done = there & at_rest & flat & (state.sensordata[:, self._touch] == 0).all(1)
        return done, np.where(done, 1.0, progress)

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """The T; see the base class."""
        del goal
        return ("T",)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """The T's pose (7), the marks' places and yaws, the named mark's again, its colour."""
        parts = [state.qpos[:, self._tee[0]], goal[:, SHOWN]]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The T on the named mark."""
        qpos = start.qpos.copy()
        x, y, yaw = start.goal[TARGET]
        qpos[self._tee[0]] = [x, y, HEIGHT / 2, *scene.about_z(yaw)]
        return replace(start, qpos=qpos)

    @cached_property
    def _tee(self) -> tuple[slice, slice]:
        return free(self.model, "T")

    @cached_property
    def _touch(self) -> slice:
        return sensor(self.model, "touch")

    def _offset(self, state: State, goal: np.ndarray) -> np.ndarray:
        """From the named mark to the T: x, y, yaw (N, 3)."""
        pose = state.qpos[:, self._tee[0]]
        offset = pose[:, :3] - goal[:, TARGET]  # the yaw follows
        turn = 2.0 * np.arctan2(pose[:, 6], pose[:, 3]) - goal[:, TARGET.stop - 1]
        offset[:, 2] = (turn + np.pi) % (2 * np.pi) - np.pi
        return offset

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Pushes in strokes; before each it looks, and foresees what two more would do.

        Yields:
            One action a control step.
        """
        style = Style.draw(rng, self.demonstrator)
        hand, side = Hand(self, style), style.side
        for _ in range(STROKES):
            offset = self._offset(self.state, self.goal[None])[0]
            if error_of(offset) < GOOD:
                break
            target = self.goal[TARGET]
            yield from self._stroke(hand, style, rng, plan(target + offset, target, side))
            side = 0  # the rest of the way needs pushes from everywhere
        yield from hand.move([*hand.position[:2], HOVER + 0.02], None, 0.0)
        yield from hand.rest()

    def _stroke(self, hand: Hand, style: Style, rng: np.random.Generator, push: "Stroke") -> Script:
        """Comes down beside the T, pushes, backs off and rises."""
        ahead = push.direction
        begin = push.place - ahead * (FINGERS[0] + APPROACH)
        end = push.place + ahead * (push.distance - FINGERS[0])
        # The fingers' flat backs push, so the jaws close across the way.
        angle = float(np.arctan2(ahead[1], ahead[0])) + np.pi / 2
        heading = nearest_heading(angle, facing(begin), np.pi)
        off = rng.normal(0.0, style.sloppiness / 4, 2)
        yield from hand.move([*hand.position[:2], HOVER], None, 0.0)
        yield from hand.move([*(begin + off), HOVER], heading, 0.0)
        yield from hand.move([*begin, TOUCH_HEIGHT], heading, 0.0, speed=0.8, straight=True)
        yield from hand.move([*end, TOUCH_HEIGHT], heading, 0.0, speed=0.5, straight=True)
        back = end - ahead * APPROACH
        yield from hand.move([*back, TOUCH_HEIGHT], heading, 0.0, straight=True)
        yield from hand.move([*back, HOVER], heading, 0.0, straight=True)
        return True


class Stroke(NamedTuple):
    """A straight push."""

    place: np.ndarray  # (2,), m: where the middle of the fingers' flat side meets the T
    direction: np.ndarray  # (2,), of length 1
    distance: float  # m


def error_of(offset: np.ndarray) -> np.ndarray:
    """How far (...) a T is off, m, from its offset in x, y and yaw (..., 3)."""
    return length(np.concatenate([offset[..., :2], LEVER * wrapped(offset[..., 2:])], axis=-1))


def plan(pose: np.ndarray, target: np.ndarray, side: int = 0) -> Stroke:
    """The first of the one or two strokes that leave the smallest error.

    Args:
        pose: of the T: x, y, yaw.
        target: where it should be.
        side: where to push from rather than from elsewhere: left 1, right -1, whichever 0.
    """
    places, ways, poses, allowed = foresee(pose[None])  # leading dimensions 1, pushes, (steps)
    first = poses[0].reshape(-1, 3)
    errors = error_of(first - target) + STROKE_COST * ~np.isclose(first, pose).all(1)
    _, _, second, possible = foresee(first)
    later = np.where(possible, error_of(second - target), np.inf).min((1, 2)) + 2 * STROKE_COST
    preference = 0.02 * (places[0, :, 1] * side < pose[1] * side)[:, None]
    total = np.minimum(errors, later).reshape(allowed[0].shape) + preference
    best = np.where(allowed[0], total, np.inf)
    push, step = np.unravel_index(int(best.argmin()), best.shape)
    return Stroke(places[0, push], ways[0, push], float((step + 1) * STEP))


def foresee(poses: np.ndarray) -> tuple[np.ndarray, ...]:
    """What each push would do to a T that slides slowly, its friction limit an ellipsoid.

    Motion of a slider pushed at a sticking contact: Lynch, Maekawa and Tanie 1992, eq. 6.

    Args:
        poses: of the T (N, 3).

    Returns:
        Places (N, P, 2) and ways (N, P, 2) of the pushes, the poses (N, P, S, 3) after each of
        their steps, and which of them (N, P, S) the fingers can reach.
    """
    normals, middles, levers = _pushes()
    x, y, yaw = (poses[:, None, k] + np.zeros(len(normals)) for k in range(3))
    places = poses[:, None, :2] + _turned(middles, yaw)
    ways = _turned(normals, yaw)
    after, reachable = [], _in_reach(places - (FINGERS[0] + APPROACH) * ways)
    allowed = []
    for k in range(1, LONGEST + 1):
        arm = _turned(levers, yaw)  # from the centre of mass to the contact
        px, py = arm[..., 0], arm[..., 1]
        c, way = SPREAD**2, STEP * ways
        scale = c + px**2 + py**2
        vx = ((c + px**2) * way[..., 0] + px * py * way[..., 1]) / scale
        vy = (px * py * way[..., 0] + (c + py**2) * way[..., 1]) / scale
        x, y, yaw = x + vx, y + vy, yaw + (px * vy - py * vx) / c
        after.append(np.stack([x, y, yaw], axis=-1))
        allowed.append(reachable & _in_reach(places + k * way))
    return places, ways, np.stack(after, axis=2), np.stack(allowed, axis=2)


def _pushes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inward normals, places and effective contacts (P, 2) of all pushes, in the T's frame.

    The fingers are flat: only beyond their half width does a push turn the T, about their edge.
    """
    rows = []
    for normal, depth, (low, high), count in SIDES:
        for along in np.linspace(low, high, count):
            lever = np.sign(along) * max(0.0, abs(along) - FINGERS[1])
            flat = normal[0] != 0
            middle = (depth, along) if flat else (along, depth)
            contact = (depth, lever) if flat else (lever, depth)
            rows.append((normal, middle, contact))
    normals, middles, contacts = np.array(rows, dtype=float).transpose(1, 0, 2)
    return normals, middles, contacts


def _turned(vectors: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Vectors (P, 2) turned by angles (N, P): (N, P, 2)."""
    c, s = np.cos(yaw), np.sin(yaw)
    x, y = vectors[:, 0], vectors[:, 1]
    return np.stack([c * x - s * y, s * x + c * y], axis=-1)


def _in_reach(places: np.ndarray) -> np.ndarray:
    """Whether the fingers can be there (...), of places (..., 2)."""
    away = length(places - [scene.PAN_AXIS, 0.0])
    return (away > REACH[0]) & (away < REACH[1]) & (places[..., 0] > 0.08)


def _scatter(rng: np.random.Generator) -> np.ndarray:
    """Centres of mass (marks + 1, 2) of the marks and the T, far enough from each other."""
    (x0, x1), (y0, y1) = PLACES
    while True:
        places = rng.uniform([x0, y0], [x1, y1], (len(MARKS) + 1, 2))
        if length(places[:-1] - places[-1]).min() >= AWAY and length(places[0] - places[1]) > APART:
            return places


def _add_tee(
    body: mujoco.MjsBody, half: float, rgba: tuple[float, float, float, float], **options: object
) -> None:
    """The two boxes of a T about its centre of mass."""
    for y, (dx, dy) in ((BAR_Y, BAR_HALF), (STEM_Y, STEM_HALF)):
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0, y, 0], size=[dx, dy, half], rgba=rgba, **options
        )
