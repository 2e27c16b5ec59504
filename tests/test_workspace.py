"""hardware/workspace.py: poses that touch the table, the arm itself or the sides of the box."""

import re
from itertools import product

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.contract import SO101, ArmSpec
from robolearn.envs.joints import JointMap
from robolearn.envs.pick_place import PickPlace
from robolearn.envs.scene import arm_spec
from robolearn.hardware.workspace import BOX, COLLISION_GROUP, Workspace

MARGIN = 0.003
SMALL = ((0.1, -0.2, 0.0), (0.3, 0.1, 0.2))  # a box
HOME = np.array(SO101.home)
INTO_THE_TABLE = np.array([0.0, 0.5, 0.0, 1.0, 0.0, 0.0])
FOLDED = np.array([0.0, -1.2, 1.69, 0.0, 0.0, 0.0])
POSES = st.tuples(*(st.floats(*ends) for ends in zip(SO101.low, SO101.high, strict=True)))


@pytest.fixture(scope="module")
def small():
    return Workspace(box=SMALL)


@pytest.fixture(scope="module")
def workspace():
    return Workspace(margin=MARGIN)


class Geometry:
    """The same questions, asked of the arm's own model in other words."""

    def __init__(self):
        self.model = arm_spec().compile()
        self.data = mujoco.MjData(self.model)
        self.joints = JointMap(self.model, SO101)
        self.geoms = np.flatnonzero(self.model.geom_group == COLLISION_GROUP)

    def pose(self, position):
        self.data.qpos[self.joints.qpos] = self.joints.to_ctrl(position)
        mujoco.mj_kinematics(self.model, self.data)

    def of(self, body):
        return [g for g in self.geoms if self.model.geom_bodyid[g] == self.model.body(body).id]

    def lowest(self, body):
        """Height of the lowest corner of a body's collision boxes, m."""
        signs = np.array(list(product((-1, 1), repeat=3)))
        return min(
            (self.data.geom_xpos[g] + signs * self.model.geom_size[g] @ self.axes(g).T)[:, 2].min()
            for g in self.of(body)
        )

    def axes(self, geom):
        return self.data.geom_xmat[geom].reshape(3, 3)

    def distance(self, one, other):
        """Distance of two bodies' boxes, m; 1 if they are farther apart."""
        pairs = product(self.of(one), self.of(other))
        return min(mujoco.mj_geomDistance(self.model, self.data, *p, 1.0, None) for p in pairs)


@pytest.fixture(scope="module")
def geometry():
    return Geometry()


def depth(workspace, position, rule):
    """m by which the rule with these words is broken."""
    (index,) = [i for i, text in enumerate(workspace.rules) if re.search(rule, text)]
    return workspace.depths(np.array(position))[index]


@given(POSES)
def test_no_link_reaches_under_the_table(workspace, geometry, position):
    geometry.pose(position)
    for body in ("lower_arm", "wrist", "gripper", "moving_jaw_so101_v1"):
        under = max(0.0, -geometry.lowest(body))
        assert depth(workspace, position, f"^{body} .* table") == pytest.approx(under, abs=1e-6)


@given(POSES)
@settings(max_examples=60)
def test_links_keep_their_distance(workspace, geometry, position):
    geometry.pose(position)
    for pair in (("shoulder", "gripper"), ("shoulder", "lower_arm"), ("upper_arm", "wrist")):
        distance = geometry.distance(*pair)
        found = depth(workspace, position, f"^{pair[0]} .* {pair[1]}$")
        if distance > 1e-6:  # how deep two boxes are in each other can be measured in many ways
            assert found == pytest.approx(max(0.0, MARGIN - distance), abs=1e-4)
        else:
            assert found >= MARGIN - 1e-6


@given(POSES)
def test_tool_and_finger_tips_stay_in_the_box(small, geometry, position):
    low, high = SMALL
    geometry.pose(position)
    tool = geometry.data.site("tool").xpos
    outside = np.maximum(np.maximum(np.subtract(low, tool), tool - high), 0)
    for axis in range(3):
        found = depth(small, position, f"^tool .* {'xyz'[axis]}$")
        assert found == pytest.approx(outside[axis], abs=1e-9)


def test_finger_tips_are_where_the_fingers_end(workspace, geometry):
    """Closed, both are a little beyond the tool point, and near each other."""
    closed = np.array([*HOME[:5], 0.0])
    workspace.depths(closed)
    tool, fixed, moving = (workspace._data.site(i).xpos for i in range(3))
    assert np.linalg.norm(fixed - tool) < 0.012
    assert np.linalg.norm(moving - fixed) < 0.02
    geometry.pose(closed)
    assert geometry.lowest("gripper") == pytest.approx(fixed[2], abs=0.01)


def test_an_objection_says_what_and_by_how_much(workspace):
    assert workspace.objection(HOME) == ""
    assert workspace.objection(INTO_THE_TABLE) == "gripper would be 24.8 mm under the table"
    touching = workspace.objection(FOLDED)
    assert re.fullmatch(r"shoulder would be \d+\.\d mm too close to \w+", touching)
    reached = Workspace(box=((0.0, -0.1, 0.0), (0.15, 0.1, 0.4))).objection(HOME)
    assert re.fullmatch(r"(tool|tip of \w+) would be \d+\.\d mm outside the box along x", reached)


def test_a_lower_floor_lets_the_arm_down():
    assert Workspace(floor=-0.03, box=((-1, -1, -1), (1, 1, 1))).objection(INTO_THE_TABLE) == ""
    assert "under the table" in Workspace(floor=0.15).objection(HOME)


def test_from_outside_the_way_back_is_free_and_the_way_out_is_not(workspace):
    since = workspace.depths(INTO_THE_TABLE)
    assert workspace.objection(INTO_THE_TABLE, since) == ""
    up, down = INTO_THE_TABLE.copy(), INTO_THE_TABLE.copy()
    up[1] -= 0.01
    down[1] += 0.01
    assert workspace.objection(up) != ""
    assert workspace.objection(up, since) == ""
    assert "under the table" in workspace.objection(down, since)
    # Nor may another rule be broken on the way.
    assert "too close" in workspace.objection(FOLDED, since)


def test_the_task_is_inside(workspace):
    env = PickPlace(obs_type="state")
    for seed in range(20):
        env.reset(seed=seed)
        assert workspace.objection(env.joints.position(env.data.qpos)) == ""
        cube = env.data.body("red cube").xpos
        assert (np.array(BOX[0]) < cube).all()
        assert (cube < np.array(BOX[1])).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="lowest and then its highest corner"):
        Workspace(box=((0.0, 0.0, 0.0), (0.1, -0.1, 0.1)))
    other = ArmSpec("other", ("a",), (-1.0,), (1.0,), (0.0,), (), 20.0)
    with pytest.raises(ValueError, match="no model of other"):
        Workspace(other)
