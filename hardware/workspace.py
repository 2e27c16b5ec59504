"""`Workspace`: whether a commanded pose keeps the arm off the table, off itself and in a box.

The pose is looked at in MuJoCo, with the collision boxes of the arm: they may not come closer to
each other than a margin nor reach under the table, and the points that grasp stay in a box.
Neighbouring links, which touch by design, are left out.
"""

from itertools import combinations
from typing import Final

import mujoco
import numpy as np

from robolearn.contract import SO101, ArmSpec
from robolearn.envs.joints import JointMap
from robolearn.envs.scene import arm_spec

Corner = tuple[float, float, float]
# What an arm at the edge of a table reaches without turning to what stands beside and behind it.
BOX: Final[tuple[Corner, Corner]] = ((-0.15, -0.45, -0.01), (0.45, 0.45, 0.45))
COLLISION_GROUP: Final = 3  # of the geoms in so101.xml
# The middles of the finger tips in the frames of their bodies, m.
TIPS: Final = {"gripper": (-0.013, 0.0, -0.0997), "moving_jaw_so101_v1": (-0.0071, -0.078, 0.0189)}
SLACK: Final = 1e-9  # m by which rounding may deepen a violation


class Workspace:
    """What an SO-101 may be told to do.

    Args:
        arm: the arm; its joints must be those of the model in `robolearn.assets`.
        box: the lowest and the highest corner (x, y, z) for tool point and finger tips, m, in the
            frame of the arm's base: x forward, z up.
        floor: height under which no link may reach, m; the table is at 0.
        margin: distance that links keep from each other, m.

    Attributes:
        rules: a sentence for each rule, with a place for the millimetres by which it is broken.

    Raises:
        ValueError: an arm without a model, or a box whose corners are not lower and higher.
    """

    def __init__(
        self,
        arm: ArmSpec = SO101,
        box: tuple[Corner, Corner] = BOX,
        floor: float = 0.0,
        margin: float = 0.003,
    ) -> None:
        if arm.joints != SO101.joints:
            raise ValueError(f"there is no model of {arm.name}; drive it without a workspace")
        self._low, self._high = np.array(box)
        if not (self._low < self._high).all():
            raise ValueError(f"box is {box}; give its lowest and then its highest corner, in m")
        self._model = _collision_model(floor, margin)
        self._data = mujoco.MjData(self._model)
        self._joints = JointMap(self._model, arm)
        self._list_rules(margin)

    def _list_rules(self, margin: float) -> None:
        """Table against link, link against link, then points against the sides of the box."""
        model = self._model
        links = [model.body(i).name for i in range(1, model.nbody)]
        sites = [model.site(i).name for i in range(model.nsite)]
        table = [f"{link} would be {{:.1f}} mm under the table" for link in links]
        meet = [f"{a} would be {{:.1f}} mm too close to {b}" for a, b in combinations(links, 2)]
        box = [
            f"{site} would be {{:.1f}} mm outside the box along {axis}"
            for site in sites
            for axis in "xyz"
        ]
        self.rules = (*table, *meet, *box)
        # Body 0 is the world, which is the table: pairs of bodies in the order of the rules.
        one, other = np.triu_indices(model.nbody, 1)
        rule = np.zeros((model.nbody, model.nbody), int)
        rule[one, other] = rule[other, one] = np.arange(len(one))
        geom_body = model.geom_bodyid
        self._rule = rule[geom_body[:, None], geom_body]
        self._keep = np.where(np.arange(len(one)) < len(links), 0.0, margin)

    def depths(self, position: np.ndarray) -> np.ndarray:
        """How far a pose breaks each rule.

        Args:
            position: the pose in the units of `agent_pos`, (J,).

        Returns:
            m, (R,) in the order of `rules`; 0 for a rule that is kept.
        """
        data = self._data
        data.qpos[self._joints.qpos] = self._joints.to_ctrl(position)
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_collision(self._model, data)
        pairs = np.zeros(len(self._keep))
        if data.ncon:
            rule = self._rule[tuple(data.contact.geom.T)]
            np.maximum.at(pairs, rule, self._keep[rule] - data.contact.dist)
        outside = np.maximum(self._low - data.site_xpos, data.site_xpos - self._high)
        return np.concatenate([pairs, np.maximum(outside.ravel(), 0.0)])

    def objection(self, position: np.ndarray, since: np.ndarray | None = None) -> str:
        """Why the arm may not be sent to a pose; "" if it may.

        An arm that is found outside shall come back: a rule that was broken before may stay broken,
        but not by more.

        Args:
            position: the pose, (J,).
            since: `depths` of the pose that the arm comes from, (R,).
        """
        depths = self.depths(position)
        excess = depths if since is None else depths - since
        worst = int(excess.argmax())
        return self.rules[worst].format(1000 * depths[worst]) if excess[worst] > SLACK else ""


def _collision_model(floor: float, margin: float) -> mujoco.MjModel:
    """The arm's collision boxes, all of which may meet, a plane, and the points that grasp."""
    spec = arm_spec()
    for pair in list(spec.pairs):  # the jaws, which are meant to meet
        spec.delete(pair)
    for geom in list(spec.geoms):
        if geom.group != COLLISION_GROUP:
            spec.delete(geom)
            continue
        geom.contype = geom.conaffinity = 1
        geom.margin = margin
    plane = mujoco.mjtGeom.mjGEOM_PLANE
    spec.worldbody.add_geom(type=plane, size=[1, 1, 0.1], pos=[0, 0, floor])
    # MuJoCo leaves out neighbours, but not those of a body that cannot move.
    spec.add_exclude(bodyname1="base", bodyname2="shoulder")
    for body, tip in TIPS.items():
        spec.body(body).add_site(name=f"tip of {body}", pos=tip)
    return spec.compile()
