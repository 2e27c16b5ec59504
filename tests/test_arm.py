"""assets/so101.xml: kinematics, inertias, shape, servos and grip of the SO-101."""

import json
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest

# MuJoCo warns that a model attached without a prefix may not be saved; nothing here saves one.
pytestmark = pytest.mark.filterwarnings("ignore:Attaching a spec with an empty prefix")

BODIES = ["base", "shoulder", "upper_arm", "lower_arm", "wrist", "gripper", "moving_jaw_so101_v1"]
JOINTS = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
STIFFNESS, DAMPING, COULOMB = 17.8, 0.5486 + 0.0591, 0.0524  # N m/rad, N m s/rad, N m
STALL = np.array([3.25, 3.25, 3.25, 3.25, 3.25, 1.6])  # N m

ABOVE = np.array([-0.0025, -0.2032, 0.1176, 1.6565, 0.0487, 0.6])  # tool at (0.2, 0, 0.09), down
AROUND = np.array([-0.0025, -0.0903, 0.5894, 1.0716, 0.0487, 0.6])  # tool at (0.2, 0, 0.012), down

TOOL_AT = {  # computed from the published frames, independently of the model
    (0.0, 0.0, 0.0, 0.0, 0.0): (0.39136, -0.00001, 0.22647),
    (0.0, -0.2, 0.12, 1.65, 0.05): (0.20059, -0.00041, 0.08922),
    (1.0, -1.0, 1.0, 0.5, -1.0): (0.16509, -0.18449, 0.12622),
    (-1.5, 0.8, -0.9, 1.2, 2.0): (0.07026, 0.33801, 0.05310),
    (0.4, 1.5, -1.5, -1.5, -2.5): (0.30252, -0.10669, 0.26112),
}


def attached(timestep=0.005, cube=None, mass=0.015, at=(0.0, 0.4)):
    """The arm on a table, attached as the tasks do it, with an optional free cube."""
    scene = mujoco.MjSpec()
    scene.option.timestep = timestep
    scene.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    scene.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    scene.option.impratio = 10
    bits = {"contype": 1, "conaffinity": 3}
    scene.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], **bits)
    arm = mujoco.MjSpec.from_file(str(files("robolearn.assets") / "so101.xml"))
    scene.worldbody.add_frame().attach_body(arm.body("base"), "", "")
    if cube:
        body = scene.worldbody.add_body(name="cube", pos=[*at, cube / 2])
        body.add_freejoint(name="cube")
        box = mujoco.mjtGeom.mjGEOM_BOX
        body.add_geom(name="cube", type=box, size=[cube / 2] * 3, mass=mass, **bits)
    return scene.compile()


def posed(model, q):
    data = mujoco.MjData(model)
    data.qpos[: len(q)] = q
    mujoco.mj_forward(model, data)
    return data


def rotation(quat):
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quat, float) / np.linalg.norm(quat))
    return matrix.reshape(3, 3)


def placed(model, data):
    """Position and rotation of the cube in the tool frame."""
    mujoco.mj_forward(model, data)
    tool, cube = data.site("tool"), data.body("cube")
    axes = tool.xmat.reshape(3, 3).T
    return axes @ (cube.xpos - tool.xpos), axes @ cube.xmat.reshape(3, 3)


def angle(a, b):
    return np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))


@pytest.fixture(scope="module")
def model():
    return attached()


@pytest.fixture(scope="module")
def facts():
    path = Path(__file__).resolve().parents[1] / "../shared/data/so101_facts.json"
    if not path.is_file():
        pytest.skip("the published SO-101 frames (../shared/data/so101_facts.json) are not here")
    return json.loads(path.read_text())


def test_what_a_scene_gets(model):
    assert [model.joint(i).name for i in range(model.njnt)] == JOINTS
    assert [model.actuator(i).name for i in range(model.nu)] == JOINTS
    assert [model.body(i).name for i in range(1, model.nbody)] == BODIES
    np.testing.assert_allclose(model.actuator_ctrlrange, model.jnt_range)
    assert model.opt.timestep == 0.005
    assert model.opt.impratio == 10
    assert [model.nlight, model.nkey, model.nmesh, model.ntex] == [0, 0, 0, 0]
    visual = (model.geom_group == 2) & (model.geom_bodyid > 0)
    assert 40 < visual.sum() <= 80
    assert not model.geom_contype[visual].any()
    assert not model.geom_conaffinity[visual].any()


@pytest.mark.parametrize(("q", "expected"), TOOL_AT.items())
def test_tool_positions(model, q, expected):
    data = posed(model, q)
    np.testing.assert_allclose(data.site("tool").xpos, expected, atol=2e-5)


def test_tool_points_down_at_the_home_pose(model):
    tool = posed(model, ABOVE).site("tool")
    np.testing.assert_allclose(tool.xmat.reshape(3, 3)[:, 0], [0, 0, -1], atol=1e-3)
    np.testing.assert_allclose(tool.xpos, [0.2, 0, 0.09], atol=1e-3)


def test_kinematics_match_the_published_frames(model, facts):
    ranges = [body["joint"]["range"] for body in facts["bodies"] if "joint" in body]
    np.testing.assert_allclose(model.jnt_range, ranges, atol=1e-9)
    for q in np.random.default_rng(0).uniform(*np.transpose(ranges), size=(200, 6)):
        data = posed(model, q)
        origin, axes, angles = np.zeros(3), np.eye(3), iter(q)
        for body in facts["bodies"]:
            origin, axes = origin + axes @ body["pos"], axes @ rotation(body["quat"])
            if "joint" in body:
                assert body["joint"]["axis"] == [0, 0, 1]
                c, s = np.cos(turn := next(angles)), np.sin(turn)
                axes = axes @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
            np.testing.assert_allclose(data.body(body["name"]).xpos, origin, atol=1e-4)
            np.testing.assert_allclose(data.body(body["name"]).xmat.reshape(3, 3), axes, atol=1e-4)
            if body["name"] == facts["tool_frame"]["body"]:
                tool = origin + axes @ facts["tool_frame"]["pos"]
                frame = axes @ rotation(facts["tool_frame"]["quat"])
        np.testing.assert_allclose(data.site("tool").xpos, tool, atol=1e-4)
        np.testing.assert_allclose(data.site("tool").xmat.reshape(3, 3), frame, atol=1e-4)


def test_total_mass(model):
    assert model.body_mass.sum() == pytest.approx(0.632006, abs=1e-9)


def test_masses_and_inertias_match_the_published_ones(model, facts):
    for body in facts["bodies"]:
        ours = model.body(body["name"])
        assert ours.mass.item() == pytest.approx(body["mass"], abs=1e-9)
        np.testing.assert_allclose(ours.ipos, body["com"], atol=1e-9)
        tensors = [
            axes @ np.diag(principal) @ axes.T
            for axes, principal in (
                (rotation(ours.iquat), ours.inertia),
                (rotation(body["inertia_quat"]), body["diag_inertia"]),
            )
        ]
        np.testing.assert_allclose(*tensors, atol=1e-10)


def test_collision_boxes_span_the_published_parts(model, facts):
    """Within 0.2 mm on every side; 1.5 mm for the moving jaw, whose rubber pad stands proud."""
    for body in facts["bodies"]:
        mine = (model.geom_bodyid == model.body(body["name"]).id) & (model.geom_group == 3)
        assert (model.geom_type[mine] == mujoco.mjtGeom.mjGEOM_BOX).all()
        pos, size = model.geom_pos[mine], model.geom_size[mine]
        half = np.stack(
            [abs(rotation(q)) @ s for q, s in zip(model.geom_quat[mine], size, strict=True)]
        )
        parts = body["parts_bounding_boxes_in_body_frame"]
        tolerance = 1.5e-3 if body["name"] == BODIES[-1] else 2e-4
        low = np.min([part["aabb_min"] for part in parts], axis=0)
        high = np.max([part["aabb_max"] for part in parts], axis=0)
        np.testing.assert_allclose((pos - half).min(axis=0), low, atol=tolerance)
        np.testing.assert_allclose((pos + half).max(axis=0), high, atol=tolerance)


def test_servo_is_a_spring(model):
    data = posed(model, ABOVE)
    data.ctrl[:] = ABOVE + 0.08
    mujoco.mj_forward(model, data)
    expected = STIFFNESS * (np.minimum(data.ctrl, model.jnt_range[:, 1]) - ABOVE)
    np.testing.assert_allclose(data.actuator_force, expected, rtol=1e-6)


def test_servo_droops_by_gravity_over_stiffness(model):
    data = posed(model, (0, 0.9, -0.9, 0, 0, 0))
    data.ctrl[:] = data.qpos
    for _ in range(1000):
        mujoco.mj_step(model, data)
    error = data.ctrl - data.qpos
    assert abs(data.qvel).max() < 1e-3
    # Dry friction holds a servo anywhere within its own torque of the balance.
    assert (abs(STIFFNESS * error - data.qfrc_bias) <= COULOMB + 2e-3).all()
    lift, elbow = np.degrees(error[1:3])
    assert -4 < lift < -1.5
    assert lift < elbow < -0.5


@pytest.mark.parametrize("joint", ["shoulder_pan", "wrist_roll", "gripper"])
def test_servo_torque_limit_and_no_load_speed(joint):
    model = attached()
    model.opt.gravity[2] = 0
    i = JOINTS.index(joint)
    low, high = model.jnt_range[i]
    data = posed(model, np.where(np.arange(6) == i, low, ABOVE * (np.arange(6) < 5)))
    data.ctrl[:] = data.qpos
    data.ctrl[i] = high
    speed, force = [], []
    for _ in range(160):
        mujoco.mj_step(model, data)
        speed.append(data.qvel[i])
        force.append(data.actuator_force[i])
    assert max(force) == pytest.approx(STALL[i])
    # The back-EMF brakes outside the clamp: full torque still, but no more acceleration.
    assert max(speed) == pytest.approx((STALL[i] - COULOMB) / DAMPING, rel=0.03)
    assert force[int(np.argmax(speed))] == pytest.approx(STALL[i])


def test_jaws_stop_each_other(model):
    """Even pushed beyond the joint's range, with the limit and the command's clamp taken away."""
    free = attached()
    free.jnt_limited[5] = free.actuator_ctrllimited[5] = 0
    data = posed(free, np.r_[ABOVE[:5], 1.0])
    data.ctrl[:] = np.r_[ABOVE[:5], -1.0]
    for _ in range(400):
        mujoco.mj_step(free, data)
    assert {data.geom(int(g)).name for g in data.contact.geom[0]} == {"fixed_pad", "moving_pad"}
    assert -0.19 < data.qpos[5] < -0.15
    assert data.contact.dist.min() > -1.5e-3


def test_jaws_meet_at_the_end_of_the_range_and_not_before(model):
    assert posed(model, np.r_[ABOVE[:5], -0.174]).ncon > 0
    assert posed(model, np.r_[ABOVE[:5], -0.150]).ncon == 0


def grasp(model, edge, yaw):
    """Settle around the cube, close in 0.8 s, lift: the state while it is held."""
    data = mujoco.MjData(model)
    data.qpos[:6] = AROUND
    mujoco.mj_forward(model, data)
    data.ctrl[:] = AROUND + data.qfrc_bias[:6] / STIFFNESS
    run(model, data, 0.8, lambda t: data.ctrl)
    tool = data.site("tool")
    centre = tool.xpos + tool.xmat.reshape(3, 3)[:, 2] * (edge / 2 + 0.003)
    data.qpos[6:] = [*centre[:2], edge / 2, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    start = data.ctrl.copy()
    closed, up = np.zeros(6), np.array([0, -0.7, 0, 0, 0, 0])
    closed[5] = model.jnt_range[5, 0] - start[5]
    run(model, data, 1.2, lambda t: start + closed * min(1, t / 0.8))
    run(model, data, 1.0, lambda t: start + closed + up * min(1, t / 0.6))
    return data


def run(model, data, seconds, command):
    """Step with `command(t)` as the targets; the largest speed of each joint on the way."""
    fastest = np.zeros(6)
    for k in range(round(seconds / model.opt.timestep)):
        data.ctrl[:] = command(k * model.opt.timestep)
        mujoco.mj_step(model, data)
        fastest = np.maximum(fastest, abs(data.qvel[:6]))
    return fastest


@pytest.mark.parametrize("timestep", [0.005, 0.002])
@pytest.mark.parametrize(
    ("edge", "mass", "yaw"),
    [
        (0.02, 0.01, 0.0),
        (0.02, 0.02, 0.0),
        (0.02, 0.015, 0.3),
        (0.03, 0.01, 0.0),
        (0.03, 0.02, 0.0),
    ],
)
def test_grip_holds_a_cube_while_shaken(timestep, edge, mass, yaw):
    model = attached(timestep, edge, mass)
    data = grasp(model, edge, yaw)
    where, how = placed(model, data)
    assert data.body("cube").xpos[2] > 0.1
    # Squarely: a face lies against the fixed pad, whatever the cube's yaw was before.
    assert np.degrees(np.arccos(abs(how[2]).max())) < 3
    assert where[2] == pytest.approx(edge / 2, abs=2e-3)

    centre, amplitude = data.ctrl.copy(), np.array([0.5, 0.3, 0, 0, 0.8, 0])
    hertz = np.array([1.0, 0.8, 0, 0, 1.3, 0])
    speed = run(model, data, 3.0, lambda t: centre + amplitude * np.sin(2 * np.pi * hertz * t))
    assert (speed[[0, 1, 4]] > [3, 1.5, 5]).all()
    where_now, how_now = placed(model, data)
    # MuJoCo's contacts creep outwards on a fast arc, in proportion to the timestep.
    assert np.linalg.norm(where_now - where) < 8e-3
    assert np.degrees(angle(how, how_now)) < 5
    assert data.actuator_force[5] == pytest.approx(-STALL[5])


def test_an_empty_grip_does_not_push(model):
    """So that agent_effort tells a grasp from a miss."""
    data = posed(model, ABOVE)
    run(model, data, 1.0, lambda t: np.r_[ABOVE[:5], model.jnt_range[5, 0]])
    assert abs(data.actuator_force[5]) < 0.2


def test_wrist_camera_sees_tips_and_cube():
    """Nothing of the arm stands between the lens and a cube below or between the open jaws."""
    model = attached(cube=0.02, at=(0.215, 0.0))
    half_view = np.tan(np.radians(model.camera("wrist").fovy.item() / 2))
    for pose in (ABOVE, AROUND):
        data = mujoco.MjData(model)
        data.qpos[:6] = pose
        mujoco.mj_forward(model, data)
        camera, cube = data.camera("wrist"), data.body("cube")
        tips = [
            data.body("gripper").xpos + data.body("gripper").xmat.reshape(3, 3) @ tip
            for tip in ([-0.0072, 0, -0.104], [0.056, 0, -0.095])
        ]
        for point in (cube.xpos, *tips):
            x, y, z = camera.xmat.reshape(3, 3).T @ (point - camera.xpos)
            assert max(abs(x), abs(y)) < 0.95 * -z * half_view
        top = [cube.xpos + [dx, dy, 0.009] for dx in (-0.009, 0.009) for dy in (-0.009, 0.009)]
        hit = np.zeros(1, np.int32)
        for point in top:
            ray = point - camera.xpos
            mujoco.mj_ray(model, data, camera.xpos, ray, [1, 1, 1, 0, 0, 0], 1, -1, hit)
            assert model.geom(hit[0]).name == "cube"
