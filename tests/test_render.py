"""envs/render.py: which OpenGL draws, and that renderers do not disturb each other."""

import os
import subprocess
import sys
from functools import cache

import mujoco
import numpy as np
import pytest

from robolearn.envs import render
from robolearn.envs.render import BACKENDS, PROFILES, Renderer, RenderError, gl_context

PICTURE = """
from robolearn.envs.pick_place import PickPlace
from robolearn.envs.render import gl_context
picture = PickPlace(cameras=["top"]).reset(seed=0)[0]["pixels"]["top"]
print(type(gl_context()).__module__, picture.shape == (48, 84, 3), picture.std() > 10)
"""


def scene(sky=(0.2, 0.4, 0.8), distance=0.5):
    """A camera that looks straight down at a red ball beside a lamp's shadow."""
    return mujoco.MjModel.from_xml_string(f"""
        <mujoco>
          <asset>
            <texture type="skybox" builtin="flat" width="16" height="16"
                     rgb1="{" ".join(map(str, sky))}"/>
          </asset>
          <worldbody>
            <light pos="1 1 2" dir="-1 -1 -2" castshadow="true"/>
            <camera name="down" pos="0 0 {distance}"/>
            <camera name="up" pos="0 0 1" xyaxes="1 0 0 0 -1 0"/>
            <geom type="plane" size="1 1 0.1" rgba="0.7 0.7 0.7 1"/>
            <geom type="sphere" size="0.03" pos="0.1 0.1 0.05" rgba="0.9 0.1 0.1 1"/>
          </worldbody>
        </mujoco>
    """)


def posed(model):
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return data


@pytest.fixture(scope="module")
def model():
    return scene()


@pytest.fixture(scope="module")
def data(model):
    return posed(model)


@pytest.fixture
def fresh(monkeypatch):
    """No buffers from before."""
    monkeypatch.setattr(render, "_buffers", {})


def child(code, **variables):
    """Runs code where no backend has been chosen yet."""
    env = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-c", code], env=env | variables, capture_output=True, text=True
    )


@cache
def loads(backend):
    """Whether the machine has a backend, found without this project's code."""
    code = f"from mujoco.{backend} import GLContext; GLContext(8, 8).make_current()"
    return child(code, PYOPENGL_PLATFORM=backend).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has one backend")
@pytest.mark.parametrize(
    ("hide", "variables"),
    [
        ("import sys; sys.modules['mujoco.egl'] = None", {}),  # not installed
        ("", {"MUJOCO_EGL_DEVICE_ID": "99"}),  # PyOpenGL has loaded it when it fails
        ("", {"MUJOCO_GL": "osmesa"}),  # the user's wish
    ],
    ids=["no EGL", "broken EGL", "MUJOCO_GL"],
)
def test_osmesa_draws_where_egl_does_not(hide, variables):
    if not loads("osmesa"):
        pytest.skip(f"OSMesa is not installed ({BACKENDS['osmesa']})")
    done = child(hide + PICTURE, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["mujoco.osmesa", "True", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has one backend")
def test_without_opengl_the_error_names_the_packages(monkeypatch):
    tried = []

    def fail(name):
        tried.append(name)
        raise OSError(f"lib{name} is missing")

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(render, "_open_backend", fail)
    with pytest.raises(RenderError, match="libegl is missing.*libosmesa is missing") as caught:
        render._gl_context.__wrapped__(0)
    assert tried == ["egl", "osmesa"]
    assert "sudo apt-get install libegl1 libgl1-mesa-dri libopengl0 libosmesa6" in str(caught.value)


def test_one_context_for_all_renderers(model, data, fresh, monkeypatch):
    context = gl_context()
    monkeypatch.setattr(render, "_open_backend", lambda name: pytest.fail("a second context"))
    for size in [(8, 8), (9, 12), (20, 10)]:
        assert Renderer(model, size).rgb(data, "down").shape == (*size, 3)
    assert gl_context() is context


def test_renderers_do_not_disturb_each_other(model, data, fresh):
    small = Renderer(model, (24, 32))
    alone = small.rgb(data, "down")
    large = Renderer(model, (96, 128), "high")
    first = large.rgb(data, "down")
    np.testing.assert_array_equal(small.rgb(data, "down"), alone)
    np.testing.assert_array_equal(large.rgb(data, "down"), first)
    small.depth(data, "up")
    np.testing.assert_array_equal(large.rgb(data, "down"), first)
    assert alone.shape == (24, 32, 3)
    assert first.shape == (96, 128, 3)


def test_a_quality_looks_the_same_whichever_was_used_before(model, data, monkeypatch):
    before = visuals(model)
    pictures = []
    for order in (["fast", "high", "default"], ["default", "high", "fast"]):
        monkeypatch.setattr(render, "_buffers", {})
        drawn = {quality: Renderer(model, (60, 80), quality).rgb(data, "down") for quality in order}
        pictures.append(drawn)
    for quality in PROFILES:
        np.testing.assert_array_equal(pictures[0][quality], pictures[1][quality], err_msg=quality)
    darker = pictures[0]["fast"].astype(int) - pictures[0]["high"]
    assert (darker.min(-1) > 20).sum() > 20  # the ball's shadow
    assert visuals(model) == before


def visuals(model):
    """What the model itself says about picture quality."""
    quality, view = model.vis.quality, model.vis.global_
    return (quality.offsamples, quality.shadowsize, quality.numslices, view.offwidth)


def test_models_share_buffers_only_if_they_look_alike(model, data, fresh):
    one = Renderer(model, (16, 16))
    same = Renderer(scene(), (16, 16))
    other = scene(sky=(0.9, 0.1, 0.1))
    red = Renderer(other, (16, 16))
    assert other.signature == model.signature
    assert len(render._buffers) == 2
    np.testing.assert_array_equal(one.rgb(data, "up"), same.rgb(data, "up"))
    assert one.rgb(data, "up").mean((0, 1)).argmax() == 2
    assert red.rgb(posed(other), "up").mean((0, 1)).argmax() == 0


@pytest.mark.parametrize("distance", [0.3, 0.8])
def test_depth_is_metres_along_the_axis(distance):
    model = scene(distance=distance)
    metres = Renderer(model, (20, 20)).depth(posed(model), "down")
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres[15:, :5], distance, rtol=0.01)  # the ball is top right


def test_pictures_are_upright_and_not_mirrored(model, data):
    red = Renderer(model, (60, 60)).rgb(data, "down").astype(int)
    rows, columns = np.nonzero(red[..., 0] > red[..., 1] + 60)
    assert rows.max() < 30  # +y is up
    assert columns.min() > 30  # +x is right


def test_unknown_quality_names_the_choices(model):
    with pytest.raises(ValueError, match="render_quality is 'ultra'; choose one of fast, high"):
        Renderer(model, (8, 8), "ultra")
