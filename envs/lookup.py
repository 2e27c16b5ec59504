"""Where things are in the simulator's vectors, and small geometry; all of it for whole batches."""

import mujoco
import numpy as np


def sensor(model: mujoco.MjModel, name: str) -> slice:
    """Where a sensor's values are in `sensordata`."""
    found = model.sensor(name)
    return slice(int(found.adr[0]), int(found.adr[0] + found.dim[0]))


def free(model: mujoco.MjModel, name: str, count: int = 1) -> tuple[slice, slice]:
    """Where the poses (7 each) and velocities (6 each) of free bodies are in `qpos` and `qvel`.

    Args:
        model: the compiled scene.
        name: of the first one's joint.
        count: how many there are, added to the scene one after the other.
    """
    joint = model.joint(name)
    q, v = int(joint.qposadr[0]), int(joint.dofadr[0])
    return slice(q, q + 7 * count), slice(v, v + 6 * count)


class FreeBodies:
    """K free bodies that were added to the scene one after the other.

    Args:
        model: the compiled scene.
        first: the name of the first one's joint.
        count: K.

    Attributes:
        qpos, qvel: where their poses (7 each) and velocities (6 each) are.
    """

    def __init__(self, model: mujoco.MjModel, first: str, count: int) -> None:
        self.qpos, self.qvel = free(model, first, count)

    def poses(self, qpos: np.ndarray) -> np.ndarray:
        """Positions and quaternions (..., K, 7), a view of qpos (..., nq)."""
        return qpos[..., self.qpos].reshape(*qpos.shape[:-1], -1, 7)

    def twists(self, qvel: np.ndarray) -> np.ndarray:
        """Linear and angular velocities (..., K, 6), a view of qvel (..., nv)."""
        return qvel[..., self.qvel].reshape(*qvel.shape[:-1], -1, 6)

    def moved(self, qpos: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How far each is along the table (N, K), m, from places (N, 2 K) in x and y."""
        return length(self.poses(qpos)[..., :2] - places.reshape(len(qpos), -1, 2))


def hinge(model: mujoco.MjModel, name: str) -> tuple[int, int]:
    """Where the value of a hinge or slide is in `qpos`, and its speed in `qvel`."""
    joint = model.joint(name)
    return int(joint.qposadr[0]), int(joint.dofadr[0])


def chosen(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Of each simulation's rows (N, K, D) the one with its index (N,); more for (..., N)."""
    if len(rows) == 1:  # a fourth of the time
        return rows[0].take(index, axis=0)
    return rows[np.arange(len(rows)), index]


def length(vectors: np.ndarray) -> np.ndarray:
    """Euclidean lengths (...) of (..., D)."""
    return np.sqrt(np.vecdot(vectors, vectors))


def yaw_of(quat: np.ndarray) -> np.ndarray:
    """Turn about the vertical, rad (...), of bodies that stand upright, quaternions (..., 4)."""
    return 2.0 * np.arctan2(quat[..., 3], quat[..., 0])


def tilt_of(quat: np.ndarray) -> np.ndarray:
    """Angle between a body's z axis and the vertical, rad (...), of quaternions (..., 4)."""
    up = 1.0 - 2.0 * (quat[..., 1] ** 2 + quat[..., 2] ** 2)
    return np.arccos(np.clip(up, -1.0, 1.0))


def wrapped(angle: np.ndarray | float, period: float = 2 * np.pi) -> np.ndarray:
    """The angle that differs by whole periods and is nearest to 0, rad."""
    return (np.asarray(angle) + period / 2) % period - period / 2
