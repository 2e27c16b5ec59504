"""Chests and cabinets, and what the tasks that open or close them share.

A piece of furniture stands on the table and faces the arm. It has a left and a right part, two
drawers or two doors, and each of them has a handle that two fingers can grasp from above. Friction
keeps a part where it is left. How far it is open is a fraction of its way: 0 closed, 1 fully open.

Success: the named part is open as far as the instruction says, give or take `TOLERANCE`, it hardly
moves any more, the gripper has let go of it, and the other part is about where it was; all of that
for `hold_seconds`. Tolerances as in ARNOLD (arXiv 2304.04321).
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import MIN_SECONDS, Hand, Script, Style, facing, minimum_jerk
from robolearn.envs.grasp import CLOSING, GAP, come_down
from robolearn.envs.language import ANY_SPLIT, Number, Words
from robolearn.envs.lookup import hinge
from robolearn.envs.task import Start, State

SIDES: Final = ("left", "right")  # as the arm sees them
SPLITS: Final = ("train", "novel_object", "novel_scene", "novel_state")
TOLERANCE: Final = 0.1  # of the way
AT_REST: Final = 0.05  # of the way per second
WORK_CENTRE: Final = (0.25, 0.0)
WORK_AREA: Final = (0.23, 0.4)  # m: 84 pixels of the top camera show a handle's width at 4
NEAREST, FARTHEST = (0.285, -0.03), (0.31, 0.03)  # x and y of the middle of the front, m
MAX_YAW: Final = 0.2  # rad, from facing the arm's base
BOARD: Final = 0.002  # m, half thickness
PANEL: Final = 0.003  # m, half thickness of a front
ABOVE_TABLE: Final = 0.004  # m: lower edge of the parts that move
TRAY_HEIGHT: Final = 0.04  # m
HANDLE_HALF: Final = 0.012  # m, half of a handle's height
FROM_EDGE: Final = 0.024  # m from the free edge of a door to its handle: room for a finger
DENSITY: Final = 400.0  # kg/m^3, as thin wood
# Friction, damping and added inertia, as if things lay inside; light joints have soft stops.
DRAWER_JOINT: Final = (1.5, 4.0, 0.2)  # N; N s/m; kg
DOOR_JOINT: Final = (0.08, 0.03, 0.001)  # N m; N m s/rad; kg m^2
STOP: Final = (0.01, 1.0)  # s; damping ratio: as hard as the timestep allows
STEM: Final = 0.004  # m, half the thickness of a round handle's stem
GRIP: Final = 0.021  # m from a front to where its handle is grasped: fingers are 2 cm wide
TIPS_BELOW: Final = 0.006  # m from the middle of a handle to the tips that grasp it
RELEASED: Final = 0.1  # m above the table: finger tips after a release
VIDEO_EYE: Final = (-0.02, -0.40, 0.36)  # m: `video` looks at the fronts
ATTEMPTS: Final = 5
CORRECTIONS: Final = 2  # how often the expert corrects before it lets go
GOOD_ENOUGH: Final = 0.04  # of the way: an error that the expert lets pass
MISJUDGED: Final = 0.25  # how often it first misjudges the goal
MISJUDGEMENT: Final = (0.12, 0.25)  # of the way
LETTING_GO: Final = 0.4  # s
PULLING: Final = 0.7  # of the style's speed: a part that is held moves slower than a free hand
WORTH: Final = 0.9  # progress of a part that is at its goal
TO_HANDLE, TO_GOAL = 0.8, 0.7  # what a metre to the handle and the whole way take off it

# The sensor data: where the tool sees both handles, then contact counts of the parts.
SEEN: Final = slice(0, 6)
TOUCH: Final = slice(6, 8)
# The goal vector: how far open, the part as a one-hot vector, where both parts started, and the
# one-hot vector again with each number three times, which picks a handle out of `SEEN`.
GOAL, PART, STARTED, PICKED = 0, slice(1, 3), slice(3, 5), slice(5, 11)
ASKED: Final = slice(0, 3)

Colour = tuple[float, float, float, float]
_BOX, _CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
_WORLD = {"contype": 1, "conaffinity": 3}


@dataclass(frozen=True)
class Design:
    """Size and look of a piece of furniture; lengths in m."""

    width: float  # of one drawer or door
    depth: float
    height: float
    way: float  # how far a part opens, m or rad
    handle: float  # the handle's width
    colours: tuple[Colour, Colour, Colour]  # of the body, the fronts and the handles
    grip: mujoco.mjtGeom = mujoco.mjtGeom.mjGEOM_BOX  # a block, or a cylinder on a stem


OLD_COLOURS: Final = ((0.45, 0.28, 0.16, 1.0), (0.83, 0.72, 0.55, 1.0), (0.10, 0.20, 0.60, 1.0))
NEW_COLOURS: Final = ((0.92, 0.92, 0.90, 1.0), (0.12, 0.48, 0.50, 1.0), (0.95, 0.45, 0.08, 1.0))
CHEST: Final = Design(0.085, 0.115, 0.070, 0.085, 0.020, OLD_COLOURS)
NEW_CHEST: Final = Design(0.078, 0.105, 0.064, 0.075, 0.022, NEW_COLOURS, _CYLINDER)
CABINET: Final = Design(0.088, 0.090, 0.072, np.pi / 2, 0.020, OLD_COLOURS)
NEW_CABINET: Final = Design(0.094, 0.080, 0.066, 1.4, 0.022, NEW_COLOURS, _CYLINDER)


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


def add_chest(spec: mujoco.MjSpec, design: Design) -> None:
    """A chest with two drawers side by side, which slide towards the arm."""
    chest = _add_shell(spec, design)
    _add_board(chest, design, (design.depth / 2, 0.0), (design.depth / 2, BOARD))
    for side, sign in zip(SIDES, (1, -1), strict=True):
        drawer = chest.add_body(name=side, pos=[0.0, sign * (design.width / 2 + BOARD), 0.0])
        slide = mujoco.mjtJoint.mjJNT_SLIDE
        _add_joint(drawer, slide, [-1.0, 0.0, 0.0], design, DRAWER_JOINT)
        _add_front(drawer, design, 0.0)
        _add_tray(drawer, design)
        _add_handle(drawer, design, 0.0)


def add_cabinet(spec: mujoco.MjSpec, design: Design) -> None:
    """A cabinet with two doors, hinged at its outer edges."""
    cabinet = _add_shell(spec, design)
    for side, sign in zip(SIDES, (1, -1), strict=True):
        door = cabinet.add_body(name=side, pos=[0.0, sign * (design.width + BOARD), 0.0])
        turn = mujoco.mjtJoint.mjJNT_HINGE
        _add_joint(door, turn, [0.0, 0.0, -sign], design, DOOR_JOINT)
        _add_front(door, design, -sign * design.width / 2)
        _add_handle(door, design, -sign * (design.width - FROM_EDGE))


def _add_shell(spec: mujoco.MjSpec, design: Design) -> mujoco.MjsBody:
    """Bottom, top, back and sides, a mocap body; its origin is below the middle of the front."""
    shell = spec.worldbody.add_body(name="furniture", mocap=True)
    half, middle = design.width + 2 * BOARD, design.depth / 2
    for z in (BOARD, design.height - BOARD):
        _add_box(shell, [middle, 0.0, z], [middle, half, BOARD], design.colours[0])
    _add_board(shell, design, (design.depth - BOARD, 0.0), (BOARD, half))
    for y in (half - BOARD, BOARD - half):
        _add_board(shell, design, (middle, y), (middle, BOARD))
    spec.add_exclude(bodyname1=SIDES[0], bodyname2=SIDES[1])
    return shell


def _add_board(
    body: mujoco.MjsBody, design: Design, place: Sequence[float], half: Sequence[float]
) -> None:
    """An upright board as high as the furniture."""
    _add_box(body, [*place, design.height / 2], [*half, design.height / 2], design.colours[0])


def _add_joint(
    part: mujoco.MjsBody,
    kind: mujoco.mjtJoint,
    axis: Sequence[float],
    design: Design,
    resistance: tuple[float, float, float],
) -> None:
    """What a part moves along or about, with friction that keeps it where it is left."""
    friction, damping, inertia = resistance
    part.add_joint(
        name=part.name,
        type=kind,
        axis=axis,
        range=[0.0, design.way],
        limited=True,
        frictionloss=friction,
        damping=damping,
        armature=inertia,
        solref_limit=STOP,
    )


def _add_front(part: mujoco.MjsBody, design: Design, y: float) -> None:
    """The board in front of everything else, around y."""
    half = (design.height - ABOVE_TABLE) / 2
    centre, size = [-PANEL, y, ABOVE_TABLE + half], [PANEL, design.width / 2 - BOARD / 2, half]
    _add_box(part, centre, size, design.colours[1])


def _add_tray(drawer: mujoco.MjsBody, design: Design) -> None:
    """Bottom, sides and back of a drawer."""
    deep, wide, high = design.depth / 2 - 3 * BOARD, design.width / 2 - 2 * BOARD, TRAY_HEIGHT / 2
    low = ABOVE_TABLE + 2 * BOARD
    _add_box(drawer, [deep, 0.0, low], [deep, wide, BOARD], design.colours[1])
    for y in (wide - BOARD, BOARD - wide):
        _add_box(drawer, [deep, y, low + high], [deep, BOARD, high], design.colours[1])
    _add_box(drawer, [2 * deep - BOARD, 0.0, low + high], [BOARD, wide, high], design.colours[1])


def _add_handle(part: mujoco.MjsBody, design: Design, y: float) -> None:
    """A block, or a post on a stem, which sticks out of the front; `GRIP` is its site."""
    z, half, front = _handle_height(design), design.handle / 2, 2 * PANEL
    out = GRIP + half
    place, size = [-front - out / 2, y, z], [out / 2, half, HANDLE_HALF]
    if design.grip == _CYLINDER:
        _add_box(part, place, [out / 2, STEM, STEM], design.colours[2])
        place, size = [-front - GRIP, y, z], [half, HANDLE_HALF, 0.0]
    _add_geom(part, design.grip, place, size, design.colours[2])
    part.add_site(name=f"{part.name} handle", pos=[-front - GRIP, y, z], size=[half] * 3, group=4)


def _handle_height(design: Design) -> float:
    """Of its middle; its top is as high as that of the furniture, for the camera, m."""
    return design.height - HANDLE_HALF


def _add_box(
    body: mujoco.MjsBody, centre: Sequence[float], half: Sequence[float], colour: Colour
) -> None:
    _add_geom(body, _BOX, centre, half, colour)


def _add_geom(
    body: mujoco.MjsBody,
    kind: mujoco.mjtGeom,
    centre: Sequence[float],
    half: Sequence[float],
    colour: Colour,
) -> None:
    body.add_geom(type=kind, pos=centre, size=half, rgba=colour, density=DENSITY, **_WORLD)


def _add_sight(spec: mujoco.MjSpec, handle: str) -> None:
    """A sensor of where a handle is in the frame of the tool, m."""
    site = mujoco.mjtObj.mjOBJ_SITE
    spec.add_sensor(
        name=handle,
        type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
        objtype=site,
        objname=handle,
        reftype=site,
        refname="tool",
    )


class FurnitureTask(ManipulationEnv):
    """Brings the named drawer or door to the opening that the instruction asks for.

    A task says which furniture it is, how far open its parts are at the start, and the phrases.

    Attributes:
        begins: least and greatest fraction at the start.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
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
        video = spec.camera("video")
        video.mode, video.targetbody = mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY, "furniture"
        video.pos = VIDEO_EYE
        for side in SIDES:
            _add_sight(spec, f"{side} handle")
        for side in SIDES:
            scene.add_touch(spec, f"{side} touch", side)
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Furniture somewhere in front of the arm, both parts about where they should not be."""
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
        """Grasps the handle, brings the part to its goal and lets go; until it is right.

        In some demonstrations the goal is misjudged and then corrected with a second grasp:
        otherwise a policy would never learn what to do after its own mistakes.
        """
        style = Style.draw(rng, self.demonstrator)
        part, goal = self.phrases.parse(self.task_description)
        aim, turned = _misjudged(goal, rng), style.side or int(rng.choice((-1, 1)))
        hand = Hand(self, style)
        for _ in range(ATTEMPTS):
            yield from self._operate(hand, Grip(self, part, turned), aim, style, rng)
            if abs(self.fraction(part) - goal) < GOOD_ENOUGH:
                break
            aim = goal
        yield from hand.rest()

    def _operate(
        self, hand: Hand, grip: "Grip", aim: float, style: Style, rng: np.random.Generator
    ) -> Script:
        """One grasp: down to the handle, along the part's way, and up again."""
        begin = self.fraction(grip.part)
        centre, heading = grip.at(begin)
        arrived = yield from come_down(
            hand, style, rng, centre, heading, grip.width, partial(grip.is_at, begin)
        )
        if arrived:
            closed = hand.move(*grip.tips(begin), style.closed, seconds=CLOSING, straight=True)
            yield from closed
            yield from self._bring(hand, grip, aim, style)
        tips, heading = grip.tips(self.fraction(grip.part), GAP)
        yield from hand.move(tips, heading, style.opened, seconds=LETTING_GO, straight=True)
        yield from hand.move([*tips[:2], RELEASED], heading, style.opened)
        return arrived

    def _bring(self, hand: Hand, grip: "Grip", aim: float, style: Style) -> Iterator[np.ndarray]:
        """Moves the part that is held to a fraction, looks, and corrects as people do."""
        now = target = self.fraction(grip.part)
        for _ in range(1 + CORRECTIONS):
            before, target = target, float(np.clip(target + aim - now, 0.0, 1.0))
            yield from self._along(hand, grip, before, target, style)
            now = self.fraction(grip.part)
            if abs(now - aim) < GOOD_ENOUGH:
                return

    def _along(
        self, hand: Hand, grip: "Grip", begin: float, end: float, style: Style
    ) -> Iterator[np.ndarray]:
        """Follows the way of the handle, which may be an arc."""
        seconds = max(MIN_SECONDS, abs(end - begin) * grip.way / (PULLING * style.speed))
        for phase in style.phases(seconds, self.arm.control_hz):
            tips = grip.tips(begin + minimum_jerk(phase) * (end - begin))
            yield from hand.move(*tips, style.closed, seconds=1 / self.arm.control_hz)


class Grip:
    """How the fingers hold the handle of a part, wherever on its way that is.

    Args:
        task: just looked at; the furniture stays where it is.
        part: which.
        turned: for a drawer, to which side the jaws close: left 1, right -1. A door's jaws close
            towards its hinge, since the moving one needs the room.

    Attributes:
        way: how far the handle moves from closed to open, m.
        width: of the handle, m.
    """

    def __init__(self, task: FurnitureTask, part: int, turned: int) -> None:
        model, data, name = task.model, task.data, SIDES[part]
        joint, self.part = model.joint(name), part
        self._hinged = int(joint.type[0]) == int(mujoco.mjtJoint.mjJNT_HINGE)
        self._turned = (1, -1)[part] if self._hinged else turned
        self._axis, self._anchor = data.xaxis[joint.id].copy(), data.xanchor[joint.id].copy()
        self._site = data.site(f"{name} handle")
        self._now, self._place = task.fraction(part), self._site.xpos.copy()
        self._across = self._site.xmat.reshape(3, 3)[:2, 1] * self._turned
        radius = float(np.linalg.norm((self._place - self._anchor)[:2])) if self._hinged else 1.0
        self._range, self.way = float(joint.range[1]), float(joint.range[1]) * radius
        self.width = 2 * float(model.site(f"{name} handle").size[0])

    def at(self, fraction: float) -> tuple[np.ndarray, float]:
        """Where the tips hold it, m (3,), and to where the jaws close, rad."""
        travel = (fraction - self._now) * self._range
        heading = float(np.arctan2(self._across[1], self._across[0]))
        below = np.array([0.0, 0.0, TIPS_BELOW])
        if not self._hinged:
            return self._place + travel * self._axis - below, heading
        turn = travel * float(self._axis[2])
        arm = self._place - self._anchor
        c, s = np.cos(turn), np.sin(turn)
        turned = np.array([c * arm[0] - s * arm[1], s * arm[0] + c * arm[1], arm[2]])
        return self._anchor + turned - below, heading + turn

    def tips(self, fraction: float, gap: float = 0.0) -> tuple[np.ndarray, float]:
        """Place of the fixed jaw beside the handle, m (3,), and heading of the jaws, rad."""
        centre, heading = self.at(fraction)
        closing = np.array([np.cos(heading), np.sin(heading), 0.0])
        return centre - closing * (self.width / 2 + gap), heading

    def is_at(self, fraction: float) -> bool:
        """Whether the handle is about where it is at that fraction."""
        place = self.at(fraction)[0]
        return bool(np.linalg.norm((self._site.xpos - place)[:2]) < 0.01)


def _misjudged(goal: float, rng: np.random.Generator) -> float:
    """The goal, or sometimes one that is clearly too near or too far."""
    off = float(rng.uniform(*MISJUDGEMENT) * rng.choice((-1, 1)))
    return float(np.clip(goal + off, 0.0, 1.0)) if rng.uniform() < MISJUDGED else goal
