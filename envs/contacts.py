"""What arms of a task press on, and their hands touch and hold, from the simulation's contacts."""

from typing import Any, Final

import mujoco
import numpy as np

CLOTH: Final = -1  # stands for the body of a cloth, which has none


def fingers(task: Any) -> list[tuple[int, int]]:  # noqa: ANN401 (a ManipulationEnv)
    """The bodies of the palm with its fixed finger, and of the moving jaw, of every hand."""
    model = task.model
    jaws = [model.jnt_bodyid[model.joint(task.arm.joints[k]).id] for k in task.arm.grippers]
    return [(int(model.body_parentid[jaw]), int(jaw)) for jaw in jaws]


class Arms:
    """The arms of a task, from base to fingertips.

    Args:
        task: the simulated task; it is looked at when asked.

    Attributes:
        roots: the bodies at their bases.
    """

    def __init__(self, task: Any) -> None:  # noqa: ANN401
        self._task, model = task, task.model
        joints = [model.joint(name).id for name in task.arm.joints]
        self.roots = {int(model.body_rootid[model.jnt_bodyid[joint]]) for joint in joints}
        arm, fixed = np.isin(model.body_rootid, list(self.roots)), model.body_weldid == 0
        hand = np.full(model.nbody, -1)
        for number, bodies in enumerate(fingers(task)):
            hand[list(bodies)] = number
        bodies_of = model.geom_bodyid
        self._moving, self._hard = (arm & ~fixed)[bodies_of], (arm | fixed)[bodies_of]
        self._hand = hand[bodies_of]

    def pressure(self) -> float:
        """How hard they press on what does not give way, or on each other, N in all.

        What the two fingers of a hand do to each other does not count.
        """
        data, force = self._task.data, np.zeros(6)
        pairs = data.contact.geom[data.contact.exclude == 0]
        one, other = self._hand[pairs].T
        counts = (pairs.min(-1) >= 0) & ((one < 0) | (one != other))  # no cloth, no hand alone
        hard = self._moving[pairs].any(-1) & self._hard[pairs].all(-1) & counts
        total = 0.0
        for contact in np.flatnonzero(data.contact.exclude == 0)[hard]:
            mujoco.mj_contactForce(self._task.model, data, int(contact), force)
            total += abs(force[0])  # the normal one
        return total


class Hands:
    """The hands of a task.

    Args:
        task: the simulated task; it is looked at when asked.

    Attributes:
        pads: the geoms that can touch things.
    """

    def __init__(self, task: Any) -> None:  # noqa: ANN401
        self._task = task
        self._hands = [_geoms(task.model, *hand) for hand in fingers(task)]
        self.pads = np.flatnonzero(np.any([a | b for a, b in self._hands], axis=0))

    def touched(self) -> set[int]:
        """The bodies that a finger touches."""
        return {body for palm, jaw in self._sides() for body in palm | jaw}

    def held(self) -> set[int]:
        """The bodies that both fingers of a hand touch."""
        return {body for palm, jaw in self._sides() for body in palm & jaw}

    def _sides(self) -> list[tuple[set[int], set[int]]]:
        """The bodies that the palm, and the jaw, of each hand touch."""
        data, model = self._task.data, self._task.model
        pairs = data.contact.geom[data.contact.exclude == 0]
        if not len(pairs):
            return [(set(), set()) for _ in self._hands]
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        pairs = pairs[pairs[:, 0] >= 0]
        bodies = np.where(pairs[:, 1] >= 0, model.geom_bodyid[pairs[:, 1]], CLOTH)
        return [
            (set(bodies[palm[pairs[:, 0]]].tolist()), set(bodies[jaw[pairs[:, 0]]].tolist()))
            for palm, jaw in self._hands
        ]


def _geoms(model: mujoco.MjModel, palm: int, jaw: int) -> tuple[np.ndarray, np.ndarray]:
    """Which geoms can touch things with the palm, and with the jaw, bool (ngeom,) each."""
    solid = (model.geom_contype | model.geom_conaffinity) > 0
    return solid & (model.geom_bodyid == palm), solid & (model.geom_bodyid == jaw)
