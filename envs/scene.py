"""The furniture of the tasks: table, lights, cameras, cubes, bins, and the sensors on them.

Contact bits: things of the world have contype 1 and conaffinity 3, the arm contype 2 and
conaffinity 1, so the arm touches the world but not itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Final

import mujoco
import numpy as np

from robolearn.contract import SIDES

PAN_AXIS: Final = 0.0388  # m, x of the shoulder pan axis: the arm reaches radially from here
PAIR_DISTANCE: Final = 0.36  # m between the bases of two arms
TOP_EYE: Final = (0.22, 0.55)  # m in front of and above what `top` looks at: the arm hides less
CUBE_SIDE: Final = 0.025  # m
CUBE_MASS: Final = 0.012  # kg
BIN_INNER: Final = 0.038  # m, half of the inner width
BIN_HEIGHT: Final = 0.022  # m
BIN_WALL: Final = 0.002  # m, half thickness
COLOURS: Final[dict[str, tuple[float, float, float, float]]] = {
    "red": (0.85, 0.10, 0.10, 1.0),
    "green": (0.10, 0.65, 0.20, 1.0),
    "blue": (0.10, 0.25, 0.90, 1.0),
    "yellow": (0.95, 0.80, 0.10, 1.0),
    "white": (0.95, 0.95, 0.95, 1.0),
    "black": (0.10, 0.10, 0.10, 1.0),
}

_BOX = mujoco.mjtGeom.mjGEOM_BOX
SOLID: Final = {"contype": 1, "conaffinity": 3}  # touches everything; arms have bits of their own
SEEN: Final = {"contype": 0, "conaffinity": 0}  # touches nothing


def arm_spec() -> mujoco.MjSpec:
    """The SO-101 alone, base at the origin, x forward, z up.

    Raises:
        ValueError: the model cannot be read; the message names the file and, where known, the line.
    """
    with as_file(files("robolearn.assets") / "so101.xml") as path:
        try:
            return mujoco.MjSpec.from_file(str(path))
        except ValueError as error:  # MuJoCo tells the line, but not of what
            raise ValueError(f"{path}: {error}") from error


def pair_spec() -> mujoco.MjSpec:
    """Two SO-101 side by side, both looking along x, which do touch each other."""
    spec = mujoco.MjSpec()
    for side, y, bit in zip(SIDES, (PAIR_DISTANCE / 2, -PAIR_DISTANCE / 2), (2, 4), strict=True):
        arm = arm_spec()
        for geom in arm.geoms:
            if geom.contype:
                geom.contype, geom.conaffinity = bit, 1 | (6 - bit)
        spec.attach(arm, prefix=f"{side}_", frame=spec.worldbody.add_frame(pos=[0.0, y, 0.0]))
    return spec


@dataclass(frozen=True)
class Look:
    """How table and light look."""

    table: tuple[float, float, float, float]
    sun: tuple[float, float, float]  # its direction
    brightness: float


LOOKS: Final = {
    "": Look((0.62, 0.55, 0.46, 1.0), (-0.3, -0.35, -1.0), 0.45),
    "novel_scene": Look((0.30, 0.36, 0.40, 1.0), (0.5, 0.2, -1.0), 0.60),
}


def table_scene(
    centre: tuple[float, float], split: str = "train", *, pair: bool = False
) -> mujoco.MjSpec:
    """The arm on a table, lit, seen by the cameras `top`, `wrist` and `video`.

    Args:
        centre: x and y of the middle of the work area, m.
        split: "novel_scene" has another table and another light.
        pair: two arms; their wrist cameras are `left_wrist` and `right_wrist`.
    """
    spec = pair_spec() if pair else arm_spec()
    _add_room(spec, LOOKS.get(split, LOOKS[""]))
    spec.worldbody.add_camera(
        name="top",
        pos=[centre[0] + TOP_EYE[0], centre[1], TOP_EYE[1]],
        xyaxes=_looking_at([TOP_EYE[0], 0.0, TOP_EYE[1]]),
    )
    eye = np.array([0.42, -0.42, 0.36])
    spec.worldbody.add_camera(
        name="video",
        pos=[centre[0] + eye[0], centre[1] + eye[1], eye[2]],
        xyaxes=_looking_at(eye - [-0.06, 0, 0.06]),
        fovy=42,
    )
    return spec


def frame_top_camera(
    model: mujoco.MjModel, area: tuple[float, float], image_size: tuple[int, int]
) -> None:
    """Sets the field of view of `top` so that the work area just fits pictures of this shape.

    Args:
        model: the compiled scene.
        area: extent of the work area along x and y, m.
        image_size: height and width of the pictures.
    """
    distance = float(np.hypot(*TOP_EYE))
    height = max(area[0], area[1] * image_size[0] / image_size[1])
    model.cam_fovy[model.camera("top").id] = np.degrees(2 * np.arctan(height / 2 / distance))


def _add_room(spec: mujoco.MjSpec, look: Look) -> None:
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.75, 0.82, 0.88],
        rgb2=[0.45, 0.52, 0.60],
        width=64,
        height=64,
    )
    world = spec.worldbody
    # What is touched is a plane, what is seen a slab: shadows on a plane come out speckled.
    plane, slab = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX
    world.add_geom(
        name="table",
        type=plane,
        size=[0.7, 0.7, 0.01],
        friction=[1.0, 0.005, 0.0001],
        group=3,
        **SOLID,
    )
    world.add_geom(
        type=slab,
        pos=[0, 0, -0.0201],
        size=[0.7, 0.7, 0.02],
        rgba=look.table,
        **SEEN,
    )
    sun, sky = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, [0.0, 0.0, 0.0]
    world.add_light(
        type=sun, pos=[0.5, 0.4, 1.2], dir=look.sun, diffuse=[look.brightness] * 3, specular=sky
    )
    world.add_light(
        type=sun,
        pos=[0.3, -0.6, 1.0],
        dir=[0.1, 0.5, -1.0],
        diffuse=[0.25] * 3,
        specular=sky,
        castshadow=False,
    )
    spec.visual.headlight.ambient[:] = 0.35
    spec.visual.headlight.diffuse[:] = 0.15
    spec.visual.headlight.specular[:] = 0.0


def _looking_at(offset: np.ndarray | list[float]) -> list[float]:
    """Camera axes (x, y) of an eye at `offset` from what it looks at, horizon level."""
    backwards = np.asarray(offset) / np.linalg.norm(offset)
    right = np.cross([0.0, 0.0, 1.0], backwards)
    right /= np.linalg.norm(right)
    return [*right, *np.cross(backwards, right)]


def add_cube(spec: mujoco.MjSpec, name: str, colour: str, side: float = CUBE_SIDE) -> None:
    """A free cube with a free joint of the same name."""
    body = spec.worldbody.add_body(name=name)
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
    body.add_geom(
        name=name,
        type=_BOX,
        size=[side / 2] * 3,
        mass=CUBE_MASS,
        rgba=COLOURS[colour],
        friction=[1.0, 0.01, 0.001],
        condim=4,
        **SOLID,
    )


def add_thing(
    spec: mujoco.MjSpec,
    name: str,
    colour: str,
    shape: mujoco.mjtGeom,
    size: Sequence[float],
    mass: float,
) -> None:
    """A free body of one geom, with a free joint of the same name.

    Args:
        spec: the scene.
        name: of body, joint and geom.
        colour: one of `COLOURS`.
        shape: of the geom.
        size: as MuJoCo has it for the shape: half extents, m (3,).
        mass: kg.
    """
    body = spec.worldbody.add_body(name=name)
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE)
    body.add_geom(
        name=name,
        type=shape,
        size=size,
        mass=mass,
        rgba=COLOURS[colour],
        friction=[1.0, 0.01, 0.001],
        condim=4,
        **SOLID,
    )


def add_bin(spec: mujoco.MjSpec, name: str, colour: str) -> None:
    """An open box that only a reset moves (a mocap body); its origin is the middle of its base."""
    body = spec.worldbody.add_body(name=name, mocap=True)
    inner, wall, half = BIN_INNER, BIN_WALL, BIN_HEIGHT / 2
    outer = inner + 2 * wall
    parts = [([0, 0, wall], [outer, outer, wall])]
    for sign in (-1, 1):
        parts.append(([sign * (inner + wall), 0, half], [wall, outer, half]))
        parts.append(([0, sign * (inner + wall), half], [outer, wall, half]))
    for pos, size in parts:
        body.add_geom(type=_BOX, pos=pos, size=size, rgba=COLOURS[colour], **SOLID)


def add_implement(
    spec: mujoco.MjSpec,
    name: str,
    reach: float,
    edge: tuple[float, float],
    thickness: float,
    rgba: Sequence[float],
) -> None:
    """A rod along the fixed jaw with an edge across its end; it weighs nothing.

    The edge sinks a millimetre into what it presses on, so that the force does not chatter.

    Args:
        spec: the scene, of a single arm.
        name: of the body, of the edge's geom, and of the site in its middle.
        reach: from the finger tips to the edge, m.
        edge: half its length and its radius, m.
        thickness: radius of the rod, m.
        rgba: its colour.
    """
    tool, (half, radius) = spec.site("tool"), edge
    body = tool.parent.add_body(name=name, pos=tool.pos, quat=tool.quat)
    capsule = {"type": mujoco.mjtGeom.mjGEOM_CAPSULE, "rgba": rgba, "mass": 0.0}
    body.add_geom(fromto=[-0.02, 0, 0, reach, 0, 0], size=[thickness, 0, 0], **capsule, **SEEN)
    body.add_geom(
        name=name,
        fromto=[reach, -half, 0.0, reach, half, 0.0],
        size=[radius, 0, 0],
        priority=2,
        friction=[0.15, 0.005, 0.0001],
        solref=[0.03, 1.0],
        solimp=[0.02, 0.9, 0.003, 0.5, 2.0],
        contype=2,
        conaffinity=1,
        **capsule,
    )
    body.add_site(name=name, pos=[reach, 0.0, 0.0])


def add_touch(spec: mujoco.MjSpec, name: str, body: str, gripper: str = "gripper") -> None:
    """A sensor that counts the contacts between a gripper and a body."""
    spec.add_sensor(
        name=name,
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_XBODY,
        objname=gripper,
        reftype=mujoco.mjtObj.mjOBJ_BODY,
        refname=body,
        intprm=[1 << mujoco.mjtConDataField.mjCONDATA_FOUND.value, 0, 1],
    )


def add_pressure(spec: mujoco.MjSpec, name: str, geom: str, body: str) -> None:
    """A sensor of the strongest contact of a geom with a body: whether any, force (3,), N.

    Args:
        spec: the scene.
        name: of the sensor.
        geom: what presses.
        body: what it presses on; along the contact's normal is the first part of the force.
    """
    found, force = mujoco.mjtConDataField.mjCONDATA_FOUND, mujoco.mjtConDataField.mjCONDATA_FORCE
    spec.add_sensor(
        name=name,
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_GEOM,
        objname=geom,
        reftype=mujoco.mjtObj.mjOBJ_XBODY,
        refname=body,
        intprm=[1 << found.value | 1 << force.value, 2, 1],
    )


def add_position(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtObj, within: str = "") -> None:
    """A sensor of where the site or body of this name is, m; in the frame of a body, if named."""
    frame = {"reftype": mujoco.mjtObj.mjOBJ_XBODY, "refname": within} if within else {}
    spec.add_sensor(
        name=f"{name} position {within}".strip(),
        type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
        objtype=kind,
        objname=name,
        **frame,
    )


def upright(
    place: Sequence[float] | np.ndarray, yaw: float, side: float = CUBE_SIDE, above: float = 0.0
) -> np.ndarray:
    """The pose (x, y, z, quaternion) of a cube that stands on the table, or so far above it, m."""
    return np.array([*place, above + side / 2, *about_z(yaw)])


def about_z(yaw: float) -> np.ndarray:
    """The quaternion (4,) of a turn about the vertical, rad."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def put(model: mujoco.MjModel, data: mujoco.MjData, joint: str, pose: np.ndarray) -> None:
    """Puts a free body somewhere else, at rest."""
    found = model.joint(joint)
    position, velocity = int(found.qposadr[0]), int(found.dofadr[0])
    data.qpos[position : position + 7] = pose
    data.qvel[velocity : velocity + 6] = 0.0
