"""`JointMap`: between the simulator's vectors and the units of the contract."""

import mujoco
import numpy as np

from robolearn.contract import ArmSpec


class JointMap:
    """Where the arm's joints live in the simulator's vectors, and the gripper's unit conversion."""

    def __init__(self, model: mujoco.MjModel, arm: ArmSpec) -> None:
        joints = [model.joint(name) for name in arm.joints]
        self.qpos = _span([int(j.qposadr[0]) for j in joints])
        self.qvel = _span([int(j.dofadr[0]) for j in joints])
        self.ctrl = _span([model.actuator(name).id for name in arm.joints])
        low, high = np.array([j.range for j in joints]).T
        grip = np.isin(np.arange(arm.size), arm.grippers)
        self._offset = np.where(grip, low, 0.0)
        self._scale = np.where(grip, high - low, 1.0)  # rad per unit of agent_pos

    def position(self, qpos: np.ndarray) -> np.ndarray:
        """`agent_pos`, float32 (..., J), from (..., nq)."""
        return ((qpos[..., self.qpos] - self._offset) / self._scale).astype(np.float32)

    def velocity(self, qvel: np.ndarray) -> np.ndarray:
        """`agent_vel`, float32 (..., J), from (..., nv)."""
        return (qvel[..., self.qvel] / self._scale).astype(np.float32)

    def effort(self, actuator_force: np.ndarray) -> np.ndarray:
        """`agent_effort`, float32 (..., J), N m, from (..., nu)."""
        return actuator_force[..., self.ctrl].astype(np.float32)

    def observe(
        self, qpos: np.ndarray, qvel: np.ndarray, actuator_force: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The part of the observation that every arm has."""
        return {
            "agent_pos": self.position(qpos),
            "agent_vel": self.velocity(qvel),
            "agent_effort": self.effort(actuator_force),
        }

    def to_ctrl(self, action: np.ndarray) -> np.ndarray:
        """Servo targets, rad (..., J), from `agent_pos` units."""
        return action * self._scale + self._offset

    def from_ctrl(self, targets: np.ndarray) -> np.ndarray:
        """The inverse of `to_ctrl`, float32 (..., J)."""
        return ((targets - self._offset) / self._scale).astype(np.float32)


def _span(indices: list[int]) -> slice | np.ndarray:
    """Indices to select with; a slice where it is one, since that copies nothing."""
    first, last = indices[0], indices[-1]
    return slice(first, last + 1) if indices == [*range(first, last + 1)] else np.array(indices)
