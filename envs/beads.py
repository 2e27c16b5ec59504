"""Beads, a granular stand-in for liquid, the vessels that hold them, and how to pour them.

A bead is a sphere that moves along x, y and z and does not turn: with little friction a heap of
them flows about like a liquid, and three joints cost half of a free body's six. A slight drag
brings them to rest. `Pouring` is what the tasks share that pour them, `Waiter` their experts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, across, watched
from robolearn.envs.lookup import free, hinge, length, sensor
from robolearn.envs.task import Start, State

COUNT: Final = 25  # beads: 4 percent each
RADIUS: Final = 0.0055  # m, in the middle
SIZES: Final = (0.9, 1.0, 1.1)  # times RADIUS, in turn: equal ones would lock as a crystal
BEAD_MASS: Final = 0.0006  # kg
DRAG: Final = 0.0015  # N s/m
SLIPPERY: Final = (0.1, 0.005, 0.0001)  # friction of beads and vessels
BEAD_COLOUR: Final = (0.15, 0.45, 0.95, 1.0)
SPACING: Final = 2.2 * RADIUS  # m between beads that are laid out: none touch
FLOOR: Final = 0.0015  # m, half thickness of a vessel's floor
SUNK: Final = 0.01  # m, that of a vessel that stays where it is
SETTLING: Final = 10.0  # s

CUP_MASS: Final = 0.015  # kg
WORK_CENTRE: Final = (0.28, 0.0)
WORK_AREA: Final = (0.20, 0.352)  # m: the smallest bead covers four pixels of the top camera
MAX_YAW: Final = 0.15  # rad, of a cup from facing the arm
TOLERANCE: Final = 0.1  # of all beads
SPILL: Final = 0.1  # of all beads: fewer than these
ROUNDING: Final = 1e-9
AT_REST: Final = 0.05  # m/s
UPRIGHT: Final = float(np.cos(np.radians(30.0)))  # of an axis, its vertical part at least
WORTH: Final = 0.9  # progress of all but a success
NEARING: Final = 4.0  # 1/m: what the distances tool to cup and cup to target take off it

LEVEL: Final = 1.3  # rad, pitch of the fingers around a cup
WIDER: Final = 0.13  # of the gripper's opening: a cup is so much wider than a cube
GAP: Final = 0.006  # m between the fixed jaw and the cup while the fingers come down
HIGH: Final = 0.15  # m, height of the tips on the way to the cup
ABOVE: Final = 0.09  # m, height of the tips before they come down
GRASP: Final = 0.026  # m, height of the tips around a cup that stands
PAST: Final = 0.006  # m, how far the tips reach beyond the cup's middle
CLOSING: Final = 0.5  # s
CARRY: Final = 0.09  # m, height of the tips with the cup
HELD: Final = 0.06  # m: a cup in the hand is nearer to the tips
OFF_TABLE: Final = 0.015  # m
SHORT: Final = 0.005  # m, how far before the middle of the target the lip is
TIPPING: Final = 10.0  # rad/m: how fast a cup tips for each speed of the style
FLOWING: Final = 1.2  # rad: nothing flows before
FINE: Final = 0.35  # of the speed of tipping from there on
MOST: Final = 2.3  # rad
AHEAD: Final = 0.12  # s: what will have left the cup by then counts as gone
WATCHED: Final = 5  # control steps over which the flow is judged
TRICKLE, FLOOD = 0.03, 0.13  # of the beads in that time: tip no further; tip back a little
EARLY: Final = 0.04  # of the beads: still on their way when the cup tips back
STOP: Final = (0.4, 0.05)  # rad, s: how a flow is stopped
TIP_BACK: Final = 0.6  # s
LOOK: Final = 0.5  # s, at what is left, before pouring again
ENOUGH: Final = 0.09  # of the beads: missing that much is still right
ATTEMPTS: Final = 5

_WORLD: Final[dict[str, Any]] = {
    "contype": 1,
    "conaffinity": 3,
    "condim": 3,
    "friction": SLIPPERY,
    "solref": [0.01, 1.0],  # as hard as the timestep allows, so that packed beads hardly overlap
}
_BOX, _CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER


@dataclass(frozen=True)
class Vessel:
    """An open vessel: a floor and flat walls around it, opposite ones parallel.

    Its origin is the middle of its base, and one of its walls looks along x.
    """

    inner: float  # m, half the distance between opposite walls, inside
    height: float  # m, rim over base
    sides: int = 4
    wall: float = 0.001  # m, half thickness
    rgba: tuple[float, float, float, float] = (0.95, 0.95, 0.95, 0.5)

    @property
    def outer(self) -> float:
        """Half the distance between opposite walls, outside, m."""
        return self.inner + 2 * self.wall

    @property
    def corner(self) -> float:
        """Distance of the inner corners from the axis, m."""
        return self.inner / float(np.cos(np.pi / self.sides))


CUP: Final = Vessel(inner=0.016, height=0.05)
NOVEL_CUP: Final = Vessel(inner=0.0165, height=0.058, sides=6, rgba=(0.95, 0.80, 0.10, 0.5))


def add_vessel(spec: mujoco.MjSpec, name: str, vessel: Vessel, mass: float | None = None) -> None:
    """A vessel with sensors of its place and its axis.

    Args:
        spec: of the scene.
        name: of its body, and of its free joint if it has one.
        vessel: its shape.
        mass: of one that can be moved, kg; None makes one that only a reset moves (a mocap body).
    """
    body = spec.worldbody.add_body(name=name, mocap=mass is None)
    if mass is not None:
        body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
    look = _WORLD | {"rgba": vessel.rgba}
    if mass is not None:
        look["mass"] = mass / (vessel.sides + 1)
    # A thin floor would let through what falls on it; where it can, it goes down into the table.
    thick = SUNK if mass is None else FLOOR
    square = vessel.sides == 4
    body.add_geom(
        type=_BOX if square else _CYLINDER,
        size=[vessel.outer, vessel.outer, thick] if square else [vessel.outer, thick, 0.0],
        pos=[0.0, 0.0, 2 * FLOOR - thick],
        **look,
    )
    _add_walls(body, vessel, look)
    kinds = {"place": mujoco.mjtSensor.mjSENS_FRAMEPOS, "axis": mujoco.mjtSensor.mjSENS_FRAMEZAXIS}
    for what, kind in kinds.items():
        object_type = mujoco.mjtObj.mjOBJ_XBODY
        spec.add_sensor(name=f"{name} {what}", type=kind, objtype=object_type, objname=name)


def _add_walls(body: mujoco.MjsBody, vessel: Vessel, look: dict[str, Any]) -> None:
    middle, half = vessel.inner + vessel.wall, vessel.height / 2
    width = vessel.outer * np.tan(np.pi / vessel.sides)
    for angle in np.arange(vessel.sides) * 2 * np.pi / vessel.sides:
        body.add_geom(
            type=_BOX,
            size=[vessel.wall, width, half],
            pos=[middle * np.cos(angle), middle * np.sin(angle), half],
            quat=scene.about_z(angle),
            **look,
        )


def add_beads(spec: mujoco.MjSpec) -> None:
    """Beads `bead 0`, `bead 1` and so on; their joint values are their places."""
    slide, sphere = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtGeom.mjGEOM_SPHERE
    for k in range(COUNT):
        body = spec.worldbody.add_body(name=f"bead {k}")
        for name, axis in zip("xyz", np.eye(3), strict=True):
            body.add_joint(name=f"bead {k} {name}", type=slide, axis=axis, damping=[DRAG, 0, 0])
        size = [RADIUS * SIZES[k % len(SIZES)], 0, 0]
        body.add_geom(type=sphere, size=size, mass=BEAD_MASS, rgba=BEAD_COLOUR, **_WORLD)


class Beads:
    """Where the beads are in the vectors of a compiled scene, for batches of simulations."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.qpos, self.qvel = (
            slice(first, first + 3 * COUNT) for first in hinge(model, "bead 0 x")
        )

    def places(self, qpos: np.ndarray) -> np.ndarray:
        """Places (..., COUNT, 3), m, of `qpos` (..., nq)."""
        return qpos[..., self.qpos].reshape(*qpos.shape[:-1], COUNT, 3)

    def velocities(self, qvel: np.ndarray) -> np.ndarray:
        """Velocities (..., COUNT, 3), m/s, of `qvel` (..., nv)."""
        return qvel[..., self.qvel].reshape(*qvel.shape[:-1], COUNT, 3)


class Vessels:
    """Vessels of a compiled scene, V of them, for batches of simulations.

    Args:
        model: the compiled scene.
        shapes: the vessels by their names, in the order in which they were added.
    """

    def __init__(self, model: mujoco.MjModel, shapes: Mapping[str, Vessel]) -> None:
        places = [sensor(model, f"{name} place") for name in shapes]
        self._sensors = slice(places[0].start, places[-1].stop + 3)
        self._corner = np.array([[shape.corner**2] for shape in shapes.values()])
        self._height = np.array([[shape.height] for shape in shapes.values()])

    def frames(self, state: State) -> np.ndarray:
        """The middles of their bases, m, and their axes (N, V, 2, 3)."""
        return state.sensordata[:, self._sensors].reshape(len(state.sensordata), -1, 2, 3)

    def hold(self, state: State, points: np.ndarray) -> np.ndarray:
        """Which of the points (N, P, 3) are between the walls of which, bool (N, V, P)."""
        frames = self.frames(state)
        offset = points[:, None] - frames[:, :, :1]
        along = np.vecdot(offset, frames[:, :, 1:])
        aside = np.vecdot(offset, offset) - along * along
        return (aside < self._corner) & (along > 0.0) & (along < self._height)


def layout(vessel: Vessel, count: int) -> np.ndarray:
    """Places (count, 3) of beads side by side in the middle of a vessel, in layers.

    They are measured from the vessel's origin, m, and no two beads touch.
    """
    room = (vessel.inner - RADIUS) / (1.0 if vessel.sides == 4 else np.sqrt(2.0))
    each = 1 + int(2 * room / SPACING)
    row = (np.arange(each) - (each - 1) / 2) * SPACING
    levels = np.arange(-(-count // each**2)) * SPACING + 2 * FLOOR + SIZES[-1] * RADIUS
    z, y, x = (part.ravel() for part in np.meshgrid(levels, row, row, indexing="ij"))
    order = np.lexsort((x**2 + y**2, z))[:count]
    return np.column_stack([x, y, z])[order]


@cache
def _settled(vessel: Vessel, timestep: float, impratio: float) -> np.ndarray:
    spec = mujoco.MjSpec()
    add_vessel(spec, "vessel", replace(vessel, height=1.0))  # none shall fall beside it
    add_beads(spec)
    spec.option.timestep, spec.option.impratio = timestep, impratio
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model = spec.compile()
    data = mujoco.MjData(model)
    # Dropped in loose layers, each bead a little off, so that they come to rest in disorder.
    off = np.random.default_rng(0).uniform(-0.1, 0.1, (COUNT, 3)) * RADIUS
    data.qpos[:] = (layout(vessel, COUNT) * [0.98, 0.98, 1.3] + off).ravel()
    mujoco.mj_step(model, data, nstep=round(SETTLING / timestep))
    return data.qpos.reshape(COUNT, 3).copy()


def settled(model: mujoco.MjModel, vessel: Vessel) -> np.ndarray:
    """Places (COUNT, 3) of beads that have come to rest in a vessel, from its origin, m.

    They are simulated once for each vessel, with the physics options of the scene.
    """
    return _settled(vessel, model.opt.timestep, model.opt.impratio)


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points (P, 3) after a turn about the vertical, rad."""
    c, s = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


class Pouring(ManipulationEnv):
    """A cup full of beads, and vessels to pour them into.

    The first entry of the goal vector is the share of the beads that is wanted, 0..1.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene", "novel_state")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    targets: ClassVar[tuple[str, ...]]  # names of the vessels to pour into
    target: ClassVar[Vessel]  # their shape

    @classmethod
    def cup(cls, split: str) -> Vessel:
        """The cup of a split."""
        return NOVEL_CUP if split == "novel_object" else CUP

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The arm, the cup, the beads and the targets."""
        spec = scene.table_scene(WORK_CENTRE, split)
        add_vessel(spec, "cup", cls.cup(split), CUP_MASS)
        for name in cls.targets:
            rgba = scene.COLOURS.get(name.split()[0], cls.target.rgba)
            add_vessel(spec, name, replace(cls.target, rgba=rgba))
        add_beads(spec)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        return spec

    @cached_property
    def beads(self) -> Beads:
        """Where the beads are in the simulator's vectors."""
        return Beads(self.model)

    @cached_property
    def vessels(self) -> Vessels:
        """The cup, then the targets."""
        targets = dict.fromkeys(self.targets, self.target)
        return Vessels(self.model, {"cup": self.cup(self.split), **targets})

    @cached_property
    def _cup(self) -> tuple[slice, slice]:
        return free(self.model, "cup")

    @cached_property
    def _tool(self) -> slice:
        return sensor(self.model, "tool position")

    def full(self, rng: np.random.Generator, place: np.ndarray, yaw: float) -> np.ndarray:
        """The arm at home and the cup, full of beads, at a place of the table (2,); (nq,)."""
        qpos = self.home(rng)
        qpos[self._cup[0]] = [*place, 0.0, *scene.about_z(yaw)]
        filling = turned(settled(self.model, self.cup(self.split)), yaw)
        self.beads.places(qpos)[:] = filling + [*place, 0.0]
        return qpos

    def poured(self, start: Start, share: float, target: int) -> Start:
        """The same start with this share of the beads in a target."""
        qpos = start.qpos.copy()
        places = self.beads.places(qpos)
        upper = np.argsort(places[:, 2])[COUNT - round(share * COUNT) :]
        places[upper] = layout(self.target, len(upper)) + start.mocap_pos[target]
        return replace(start, qpos=qpos)

    def shares(self, state: State) -> np.ndarray:
        """Shares of the beads (N, vessels): of those in the cup, then in each target."""
        inside = self.vessels.hold(state, self.beads.places(state.qpos))
        inside[:, 1:] &= ~inside[:, :1]  # a cup may stand in a target
        return np.add.reduce(inside, axis=2) / COUNT

    def upright(self, state: State) -> np.ndarray:
        """Whether the cup is, bool (N,)."""
        return self.vessels.frames(state)[:, 0, 1, 2] > UPRIGHT

    def staying(self) -> float:
        """Share of the beads that will still be in the cup in a moment, in the running episode."""
        velocity = self.beads.velocities(self.state.qvel) - self.state.qvel[:, self._cup[1]][:, :3]
        points = self.beads.places(self.state.qpos)
        now, soon = (self.vessels.hold(self.state, points + t * velocity) for t in (0.0, AHEAD))
        return float((now & soon)[0, 0].mean())

    def cup_place(self) -> np.ndarray:
        """The middle of the cup's base in the running episode, m (3,)."""
        return self.vessels.frames(self.state)[0, 0, 0]

    def held(self) -> bool:
        """Whether the cup is in the hand, in the running episode."""
        cup = self.cup_place()
        away = length(self.state.sensordata[0, self._tool] - cup)
        return bool(away < HELD and cup[2] > OFF_TABLE)

    def _still(self, state: State) -> np.ndarray:
        """Whether the cup and the beads are at rest, bool (N,)."""
        slow = length(self.beads.velocities(state.qvel)) < AT_REST
        return slow.all(1) & (length(state.qvel[:, self._cup[1]][:, :3]) < AT_REST)

    def judged(
        self,
        state: State,
        *,
        miss: np.ndarray,
        most: np.ndarray,
        spilt: np.ndarray,
        target: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether the goal test holds, bool (N,), and progress (N,).

        Args:
            state: N simulations.
            miss: by how much the share is off (N,).
            most: by how much it is off in the beginning (N,).
            spilt: share of the beads that are neither in the cup nor where they should be (N,).
            target: where to pour (N, 3), m.
        """
        cup = self.vessels.frames(state)[:, 0, 0]
        near = np.maximum(0.0, 1.0 - NEARING * length(state.sensordata[:, self._tool] - cup))
        over = np.maximum(0.0, 1.0 - NEARING * length((target - cup)[:, :2]))
        amount = np.maximum(0.0, 1.0 - miss / most)
        progress = WORTH * np.maximum(0.0, 0.2 * (near + over) + 0.6 * amount - spilt)
        done = (miss < TOLERANCE + ROUNDING) & (spilt < SPILL - ROUNDING)
        if not np.count_nonzero(done):  # as mostly
            return done, progress
        done &= self.upright(state) & self._still(state)
        return done, np.where(done, 1.0, progress)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Cup pose (7), beads and targets (3 each), and the goal."""
        parts = (
            state.qpos[:, self._cup[0]],
            state.qpos[:, self.beads.qpos],
            state.mocap_pos.reshape(len(goal), -1),
            goal,
        )
        return np.concatenate(parts, axis=1, dtype=np.float32)


class Waiter:
    """How an expert pours: grasps the cup from the side, tips it, watches, and tips it back.

    Args:
        task: just reset.
        rng: of the demonstration.
        target: where to pour, m (3,).
    """

    def __init__(self, task: Pouring, rng: np.random.Generator, target: np.ndarray) -> None:
        self._task, self._rng, self._target = task, rng, np.array(target)
        self._style = Style.draw(rng, task.demonstrator)
        self._hand = Hand(task, self._style)
        self._vessel = task.cup(task.split)
        self._side = 1 if target[1] > 0 else -1  # to which the cup tips: left 1, right -1
        self._angle = 0.0  # by which it is tipped, rad

    def serve(self, missing: Callable[[], float]) -> Iterator[np.ndarray]:
        """Pours, and pours again if it was too little; then keeps still for ever.

        Args:
            missing: the share of the beads that has still to leave the cup.
        """
        for _ in range(ATTEMPTS):
            if not self._task.held() and not (yield from self._pick()):
                continue
            if not (yield from watched(self._go(self._over(), 0.0), self._task.held)):
                continue
            yield from self._pour(missing)
            yield from self._go(self._over(), 0.0, seconds=LOOK)
            if missing() < ENOUGH:
                break
        yield from self._hand.rest()

    def _pick(self) -> Script:
        """Comes down around the cup with level fingers, first a little off; lifts it."""
        opened = self._style.opened + WIDER
        first = self._beside(GAP, ABOVE + self._style.lift)
        first[:2] += self._rng.normal(0.0, self._style.sloppiness, 2)
        way = self._hand.position[:2] + 0.2 * (first[:2] - self._hand.position[:2])
        yield from self._go([*way, HIGH], opened)  # so that the fingers swing out over the cup
        yield from self._go(first, opened)
        yield from self._go(self._beside(GAP, ABOVE), opened, speed=0.7)
        yield from self._go(self._beside(GAP, GRASP), opened, speed=0.6, straight=True)
        if not self._task.upright(self._task.state)[0]:
            return False
        yield from self._go(self._beside(0.0, GRASP), 0.0, seconds=CLOSING, straight=True)
        yield from self._go([*self._hand.position[:2], CARRY], 0.0, speed=0.8)
        return self._task.held()

    def _pour(self, missing: Callable[[], float]) -> Iterator[np.ndarray]:
        """Tips the cup, but no further while beads flow, until enough have left; tips it back."""
        step = 1.0 / self._task.arm.control_hz
        recent = [missing()] * WATCHED
        while self._angle < MOST and missing() > EARLY and self._task.held():
            recent = [*recent[1:], missing()]
            pace = TIPPING * self._style.speed * (FINE if self._angle > FLOWING else 1.0)
            flow = recent[0] - recent[-1]
            turn = pace if flow < TRICKLE else -2.0 * pace if flow > FLOOD else 0.0
            self._angle += step * turn
            yield from self._go(self._over(), 0.0, seconds=step)
        self._angle = max(0.0, self._angle - STOP[0])
        yield from self._go(self._over(), 0.0, seconds=STOP[1])
        self._angle = 0.0
        yield from self._go(self._over(), 0.0, seconds=TIP_BACK)

    def _go(
        self,
        position: Sequence[float] | np.ndarray,
        opening: float,
        *,
        speed: float = 1.0,
        seconds: float | None = None,
        straight: bool = False,
    ) -> Iterator[np.ndarray]:
        """Moves the hand, fingers level, the jaws so that the cup is tipped by the angle."""
        return self._hand.move(
            position,
            self._hand.facing(position) - self._side * (np.pi / 2 - self._angle),
            opening,
            pitch=LEVEL,
            speed=speed,
            seconds=seconds,
            straight=straight,
        )

    def _beside(self, gap: float, height: float) -> np.ndarray:
        """Where the tips belong so that the fixed jaw is so far beside the cup, m (3,)."""
        place = self._task.cup_place()[:2]
        ahead = self._hand.facing(place)
        forward = PAST * np.array([np.cos(ahead), np.sin(ahead)])
        aside = self._side * (self._vessel.outer + gap) * across(ahead)
        return np.array([*(place + forward + aside), height])

    def _over(self) -> np.ndarray:
        """Where the tips belong so that the lip of the tipped cup is over the target, m (3,)."""
        place = self._target[:2]
        lean = np.sin(self._angle) * (self._vessel.height - GRASP) + SHORT
        return np.array([*(place - self._side * lean * across(self._hand.facing(place))), CARRY])
