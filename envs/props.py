"""The props: things and patterns that every scene has hidden, for `robolearn.envs.randomize`.

They are compiled into every task, so that a variation only changes numbers of a compiled model,
for single environments and for batches alike. Hidden, they are neither drawn nor touched.
"""

from typing import Final

import mujoco
import numpy as np

HIDDEN: Final = 3  # the geom group that pictures leave out
SHOWN: Final = 0
NAME: Final = "prop"
# Shapes and their half sizes, m; what stands on the table has its last half size upwards.
SHAPES: Final = (
    (mujoco.mjtGeom.mjGEOM_BOX, (0.016, 0.010, 0.012)),
    (mujoco.mjtGeom.mjGEOM_CYLINDER, (0.013, 0.015, 0.0)),
    (mujoco.mjtGeom.mjGEOM_SPHERE, (0.013, 0.0, 0.0)),
    (mujoco.mjtGeom.mjGEOM_ELLIPSOID, (0.018, 0.010, 0.008)),
    (mujoco.mjtGeom.mjGEOM_BOX, (0.022, 0.014, 0.002)),
    (mujoco.mjtGeom.mjGEOM_CYLINDER, (0.020, 0.004, 0.0)),
    (mujoco.mjtGeom.mjGEOM_BOX, (0.028, 0.006, 0.005)),
    (mujoco.mjtGeom.mjGEOM_ELLIPSOID, (0.010, 0.010, 0.018)),
)
# Colours that no instruction names, so that none of these is mistaken for what it means.
COLOURS: Final = (
    (0.95, 0.50, 0.10),
    (0.95, 0.55, 0.70),
    (0.55, 0.20, 0.65),
    (0.45, 0.28, 0.15),
    (0.10, 0.55, 0.55),
    (0.60, 0.60, 0.60),
)
PATTERNS: Final = ("checks", "stripes", "dots", "grain")
PIXELS: Final = 32  # side of a pattern


def add_props(spec: mujoco.MjSpec) -> None:
    """Adds the hidden things and the unused patterns to a scene."""
    for number, (shape, size) in enumerate(SHAPES):
        spec.worldbody.add_geom(
            name=f"{NAME} {number}",
            type=shape,
            size=size,
            # The compiler notes which geoms share the frame of their body; none of these may.
            pos=[0.0, 0.0, -0.02],
            quat=[0.8, 0.0, 0.0, 0.6],
            group=HIDDEN,
            contype=0,
            conaffinity=0,
        )
    for pattern in PATTERNS:
        name = f"{NAME} {pattern}"
        texture = spec.add_texture(
            name=name,
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=PIXELS,
            height=PIXELS,
            nchannel=3,
        )
        texture.data = _pixels(pattern).tobytes()
        material = spec.add_material(name=name, texuniform=False, specular=0.0, shininess=0.0)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def height_of(number: int) -> float:
    """How high the middle of a prop is when it stands on the table, m."""
    shape, size = SHAPES[number]
    if shape == mujoco.mjtGeom.mjGEOM_SPHERE:
        return size[0]
    return size[1] if shape == mujoco.mjtGeom.mjGEOM_CYLINDER else size[2]


def _pixels(pattern: str) -> np.ndarray:
    """Grey values, uint8 (PIXELS, PIXELS, 3), about as bright as white on average."""
    y, x = np.mgrid[:PIXELS, :PIXELS] / PIXELS
    dark = {
        "checks": (x < 0.5) ^ (y < 0.5),
        "stripes": (x % 0.5) < 0.2,
        "dots": (x % 0.5 - 0.25) ** 2 + (y % 0.5 - 0.25) ** 2 < 0.02,
        "grain": np.random.default_rng(0).random((PIXELS, PIXELS)) < 0.4,
    }[pattern]
    return np.repeat(np.where(dark, 170, 250).astype(np.uint8)[..., None], 3, axis=2)
