"""Chests and cabinets: two drawers or two doors side by side, whose handles two fingers can grasp.

A piece of furniture stands on the table and faces the arm. Each part, the left and the right one,
has a handle that is grasped from above, and friction keeps it where it is left. A joint's value is
0 where its part is closed and the design's `way` where it is fully open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import mujoco
import numpy as np

from robolearn.envs import scene

SIDES: Final = ("left", "right")  # as the arm sees them
BOARD: Final = 0.002  # m, half thickness
PANEL: Final = 0.003  # m, half thickness of a front
ABOVE_TABLE: Final = 0.004  # m: lower edge of the parts that move
TRAY_HEIGHT: Final = 0.04  # m
HANDLE_HALF: Final = 0.012  # m, half of a handle's height
FROM_EDGE: Final = 0.024  # m from the free edge of a door to its handle: room for a finger
STEM: Final = 0.004  # m, half the thickness of a round handle's stem
STANDOFF: Final = 0.021  # m from a front to where its handle is grasped: fingers are 2 cm wide
DENSITY: Final = 400.0  # kg/m^3, as thin wood
# Friction, damping and added inertia, as if things lay inside; light joints have soft stops.
DRAWER_JOINT: Final = (1.5, 4.0, 0.2)  # N; N s/m; kg
DOOR_JOINT: Final = (0.08, 0.03, 0.001)  # N m; N m s/rad; kg m^2
STOP: Final = (0.01, 1.0)  # s; damping ratio: as hard as the timestep allows

Colour = tuple[float, float, float, float]
_BOX, _CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER


@dataclass(frozen=True)
class Design:
    """Size and look of a piece of furniture; lengths in m."""

    width: float  # of one drawer or door
    depth: float
    height: float
    way: float  # how far a part opens, m or rad
    handle: float  # the handle's width
    colours: tuple[Colour, Colour, Colour]  # of the body, the fronts and the handles
    handle_shape: mujoco.mjtGeom = _BOX  # a block, or a cylinder on a stem


OLD_COLOURS: Final = ((0.45, 0.28, 0.16, 1.0), (0.83, 0.72, 0.55, 1.0), (0.10, 0.20, 0.60, 1.0))
NEW_COLOURS: Final = ((0.92, 0.92, 0.90, 1.0), (0.12, 0.48, 0.50, 1.0), (0.95, 0.45, 0.08, 1.0))
CHEST: Final = Design(0.085, 0.115, 0.070, 0.085, 0.020, OLD_COLOURS)
NEW_CHEST: Final = Design(0.078, 0.105, 0.064, 0.075, 0.022, NEW_COLOURS, _CYLINDER)
CABINET: Final = Design(0.088, 0.090, 0.072, np.pi / 2, 0.020, OLD_COLOURS)
NEW_CABINET: Final = Design(0.094, 0.080, 0.066, 1.4, 0.022, NEW_COLOURS, _CYLINDER)


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


def add_sensors(spec: mujoco.MjSpec) -> None:
    """Sensors of where the tool sees both handles, m, then of the gripper's contacts with both."""
    site = mujoco.mjtObj.mjOBJ_SITE
    for side in SIDES:
        spec.add_sensor(
            name=f"{side} handle",
            type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
            objtype=site,
            objname=f"{side} handle",
            reftype=site,
            refname="tool",
        )
    for side in SIDES:
        scene.add_touch(spec, f"{side} touch", side)


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
    """A block, or a post on a stem, which sticks out of the front; its site is where to grasp it.

    Its top is as high as that of the furniture, so that the camera sees it.
    """
    z, half, front = design.height - HANDLE_HALF, design.handle / 2, 2 * PANEL
    out = STANDOFF + half
    grasped = [-front - STANDOFF, y, z]
    place, size = [-front - out / 2, y, z], [out / 2, half, HANDLE_HALF]
    if design.handle_shape == _CYLINDER:
        _add_box(part, place, [out / 2, STEM, STEM], design.colours[2])
        place, size = grasped, [half, HANDLE_HALF, 0.0]
    _add_geom(part, design.handle_shape, place, size, design.colours[2])
    part.add_site(name=f"{part.name} handle", pos=grasped, size=[half] * 3, group=4)


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
    body.add_geom(type=kind, pos=centre, size=half, rgba=colour, density=DENSITY, **scene.SOLID)
