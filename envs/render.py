"""Offscreen rendering on machines without a screen, fast by default.

MuJoCo's own defaults (4096-pixel shadow maps, four samples a pixel) draw 10 to 20 frames/s on a
CPU at any size. `quality="fast"` draws without shadows, reflections and multisampling, which is
about a hundred times faster at 84x84; `quality="high"` is for videos.

All renderers of a process share one GL context, and renderers of models with the same visuals share
one set of GPU buffers: GL contexts are slow to make, few, and must not be carried across a fork.
"""

import atexit
import importlib
import os
import sys
import zlib
from copy import copy
from functools import cache
from typing import Any, Final, Literal

import mujoco
import numpy as np

Quality = Literal["fast", "high", "default"]
# name -> (samples a pixel, shadow map pixels, slices and stacks of a round shape, quads of a box)
PROFILES: Final[dict[str, tuple[int, int, int, int, int]]] = {
    "fast": (0, 0, 8, 4, 1),
    "high": (4, 2048, 32, 16, 4),
    "default": (4, 4096, 28, 16, 4),  # MuJoCo's own
}
# name -> the Debian packages that it takes; macOS brings its own OpenGL
BACKENDS: Final[dict[str, str]] = (
    {"cgl": ""}
    if sys.platform == "darwin"
    else {"egl": "libegl1 libgl1-mesa-dri libopengl0", "osmesa": "libosmesa6"}
)


class RenderError(OSError):
    """No usable OpenGL."""


def _open_backend(name: str) -> Any:  # noqa: ANN401 (mujoco's context classes share no type)
    """A current GL context of one backend; whatever goes wrong is raised."""
    if name != "cgl":  # which does without PyOpenGL
        os.environ["PYOPENGL_PLATFORM"] = name
    if name == "osmesa":  # libmujoco looks here for whom to ask for the OpenGL functions
        os.environ["MUJOCO_GL"] = name
    try:
        context = importlib.import_module(f"mujoco.{name}").GLContext(64, 64)
        context.make_current()
    except Exception:
        _forget_opengl(name)
        raise
    atexit.register(context.free)  # later, PyOpenGL is half gone and complains
    return context


def _forget_opengl(backend: str) -> None:
    """Lets the next backend import PyOpenGL anew, which binds to one platform at its import."""
    for module in list(sys.modules):
        if module.startswith(("OpenGL", f"mujoco.{backend}")):
            del sys.modules[module]


@cache
def _gl_context(process: int) -> Any:  # noqa: ANN401
    """The GL context of this process: MUJOCO_GL if it is set, else EGL, then OSMesa."""
    del process  # only the cache key: a context must not be carried across a fork
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    errors = []
    for name in [wanted] if wanted in BACKENDS else list(BACKENDS):
        try:
            return _open_backend(name)
        # Missing libraries surface as ImportError, OSError, AttributeError or GLError.
        except Exception as error:  # noqa: BLE001
            errors.append(f"{name}: {error}")
    packages = " ".join(BACKENDS.values())
    advice = f"; install it with: sudo apt-get install {packages}" if packages else ""
    raise RenderError(f"no OpenGL for offscreen rendering ({'; '.join(errors)}){advice}")


def gl_context() -> Any:  # noqa: ANN401
    """Makes the one GL context of this process current and returns it.

    Raises:
        RenderError: neither EGL nor OSMesa loads; the message names the packages.
    """
    context = _gl_context(os.getpid())
    context.make_current()
    return context


@cache
def gl_renderer() -> str:
    """What draws, for example "llvmpipe (LLVM 15.0.6, 256 bits)"; stored with every result."""
    gl_context()
    from OpenGL import GL  # noqa: PLC0415 (PyOpenGL binds to the backend that was opened)

    return GL.glGetString(GL.GL_RENDERER).decode()


class _Buffers:
    """GPU buffers and scene for models with the same visuals, at one size and quality."""

    def __init__(self, model: mujoco.MjModel, size: tuple[int, int], quality: Quality) -> None:
        self.size = size
        self.gl = gl_context()
        profiled = _profiled(model, size, PROFILES[quality])
        self.context = mujoco.MjrContext(profiled, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.context)
        self.scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 64)
        self.option = mujoco.MjvOption()
        self.option.geomgroup[3] = 0  # collision shapes
        self.option.sitegroup[:] = 0
        if quality == "fast":
            self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW.value] = 0
            self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION.value] = 0


def _profiled(
    model: mujoco.MjModel, size: tuple[int, int], profile: tuple[int, int, int, int, int]
) -> mujoco.MjModel:
    """A copy of the model with what MuJoCo reads once, when it makes the render context."""
    model = copy(model)
    view, quality = model.vis.global_, model.vis.quality
    view.offheight, view.offwidth = size
    quality.offsamples, quality.shadowsize = profile[:2]
    quality.numslices, quality.numstacks, quality.numquads = profile[2:]
    return model


_buffers: dict[tuple, _Buffers] = {}


def _shared_buffers(model: mujoco.MjModel, size: tuple[int, int], quality: Quality) -> _Buffers:
    # What the context holds: the shapes, which the signature stands for, and the textures.
    key = (os.getpid(), model.signature, zlib.crc32(model.tex_data), size, quality)
    if key not in _buffers:
        _buffers[key] = _Buffers(model, size, quality)
    return _buffers[key]


class Renderer:
    """Draws the fixed cameras of a model.

    Args:
        model: the compiled model.
        size: height and width, pixels.
        quality: "fast", "high", or "default" (MuJoCo's own settings, for comparison).
    """

    def __init__(
        self, model: mujoco.MjModel, size: tuple[int, int], quality: Quality = "fast"
    ) -> None:
        if quality not in PROFILES:
            raise ValueError(f"render_quality is {quality!r}; choose one of {', '.join(PROFILES)}")
        self._model = model
        self._buffers = _shared_buffers(model, size, quality)
        self._rect = mujoco.MjrRect(0, 0, size[1], size[0])

    def _draw(self, data: mujoco.MjData, camera: str) -> None:
        shared = self._buffers
        shared.gl.make_current()
        # The bound framebuffer belongs to the GL context, which other buffers share.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, shared.context)
        view = mujoco.MjvCamera()
        view.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
        view.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(
            self._model,
            data,
            shared.option,
            None,
            view,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            shared.scene,
        )
        mujoco.mjr_render(self._rect, shared.scene, shared.context)

    def rgb(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """The camera's picture, uint8 (H, W, 3)."""
        self._draw(data, camera)
        pixels = np.empty((*self._buffers.size, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rect, self._buffers.context)
        return pixels[::-1].copy()  # OpenGL's first row is the lowest

    def depth(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """Distance along the optical axis, float32 (H, W), metres."""
        self._draw(data, camera)
        buffer = np.empty(self._buffers.size, np.float32)
        mujoco.mjr_readPixels(None, buffer, self._rect, self._buffers.context)
        extent, clip = self._model.stat.extent, self._model.vis.map
        near, far = clip.znear * extent, clip.zfar * extent
        return (near / (1.0 - buffer[::-1] * (1.0 - near / far))).astype(np.float32)
