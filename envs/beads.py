"""Beads, a granular stand-in for liquid, and the vessels that hold them.

A bead is a sphere that moves along x, y and z and does not turn: with little friction a heap of
them flows about like a liquid, and three joints cost half of a free body's six. A slight drag
brings them to rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.lookup import hinge, sensor
from robolearn.envs.task import State

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

_WORLD: Final[dict[str, Any]] = {
    **scene.SOLID,
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

    @property
    def normals(self) -> np.ndarray:
        """Where its walls look, one of each two that are opposite, unit vectors (sides / 2, 3)."""
        angles = np.arange(self.sides // 2) * 2 * np.pi / self.sides
        return np.column_stack([np.cos(angles), np.sin(angles), np.zeros(len(angles))])


def add_vessel(spec: mujoco.MjSpec, name: str, vessel: Vessel, mass: float | None = None) -> None:
    """A vessel with sensors of its place and its axis.

    Args:
        spec: of the scene.
        name: of its body, and of its free joint if it has one.
        vessel: its shape.
        mass: of one that can be moved, kg; None makes one that only a reset moves (a mocap body).
    """
    body = spec.worldbody.add_body(name=name, mocap=mass is None)
    look = _WORLD | {"rgba": vessel.rgba}
    if mass is not None:
        body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
        look["mass"] = mass / (vessel.sides + 1)
    # A thin floor would let through what falls on it; where it can, it goes down into the table.
    _add_floor(body, vessel, SUNK if mass is None else FLOOR, look)
    _add_walls(body, vessel, look)
    kinds = {"place": mujoco.mjtSensor.mjSENS_FRAMEPOS, "axis": mujoco.mjtSensor.mjSENS_FRAMEZAXIS}
    for what, kind in kinds.items():
        object_type = mujoco.mjtObj.mjOBJ_XBODY
        spec.add_sensor(name=f"{name} {what}", type=kind, objtype=object_type, objname=name)


def _add_floor(body: mujoco.MjsBody, vessel: Vessel, thick: float, look: dict[str, Any]) -> None:
    square, outer = vessel.sides == 4, vessel.outer
    body.add_geom(
        type=_BOX if square else _CYLINDER,
        size=[outer, outer, thick] if square else [outer, thick, 0.0],
        pos=[0.0, 0.0, 2 * FLOOR - thick],
        **look,
    )


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
        self._inner, self._corner, self._height = (
            np.array([[getattr(shape, size)] for shape in shapes.values()])
            for size in ("inner", "corner", "height")
        )
        most = max(shape.sides for shape in shapes.values()) // 2
        self._normals = np.zeros((len(shapes), 3, most))
        for normals, (name, shape) in zip(self._normals, shapes.items(), strict=True):
            if model.body(name).mocapid[0] >= 0:
                normals[:, : shape.sides // 2] = shape.normals.T

    def frames(self, state: State) -> np.ndarray:
        """The middles of their bases, m, and their axes (N, V, 2, 3)."""
        return state.sensordata[:, self._sensors].reshape(len(state.sensordata), -1, 2, 3)

    def hold(self, state: State, points: np.ndarray) -> np.ndarray:
        """Which of the points (N, P, 3) are between the walls of which, bool (N, V, P).

        One that can be moved passes for round, as far out as its corners: no bead that lies beside
        it is so near. The others are never turned, and some are so large that beads would be.
        """
        frames = self.frames(state)
        offset = points[:, None] - frames[:, :, :1]
        along = np.vecdot(offset, frames[:, :, 1:])
        aside = np.vecdot(offset, offset) - along * along
        between = np.abs(offset @ self._normals).max(-1) < self._inner
        return between & (aside < self._corner**2) & (along > 0.0) & (along < self._height)


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


def settled(model: mujoco.MjModel, vessel: Vessel) -> np.ndarray:
    """Places (COUNT, 3) of beads that have come to rest in a vessel, from its origin, m.

    They are simulated once for each vessel, with the physics options of the scene.
    """
    opt = model.opt
    return _settled(vessel, opt.timestep, opt.impratio, int(opt.integrator), int(opt.cone))


@cache
def _settled(
    vessel: Vessel, timestep: float, impratio: float, integrator: int, cone: int
) -> np.ndarray:
    spec = mujoco.MjSpec()
    add_vessel(spec, "vessel", replace(vessel, height=1.0))  # none shall fall beside it
    add_beads(spec)
    spec.option.timestep, spec.option.impratio = timestep, impratio
    spec.option.integrator, spec.option.cone = integrator, cone
    model = spec.compile()
    data = mujoco.MjData(model)
    # Dropped in loose layers, each bead a little off, so that they come to rest in disorder.
    off = np.random.default_rng(0).uniform(-0.1, 0.1, (COUNT, 3)) * RADIUS
    data.qpos[:] = (layout(vessel, COUNT) * [0.98, 0.98, 1.3] + off).ravel()
    mujoco.mj_step(model, data, nstep=round(SETTLING / timestep))
    return data.qpos.reshape(COUNT, 3).copy()
