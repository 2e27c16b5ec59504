"""The servos of an arm as the simulator models them, and the file that `robolearn identify` writes.

A servo pulls its joint to the target u like a spring that saturates, against damping and friction:

    torque = clip(kp (u(t - delay) - q), -max_torque, max_torque) - damping v - frictionloss sign(v)

In MuJoCo these are a position actuator with a `delay`, and the joint's `damping` (the gear's
viscous friction and the motor's back-EMF) and `frictionloss`; see assets/so101.xml.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import mujoco
import numpy as np

from robolearn.contract import ArmSpec
from robolearn.files import write_atomic

VERSION: Final = 1
DEFAULT_P_GAIN: Final = 32  # of the servos in assets/so101.xml


class Servo(NamedTuple):
    """The servo of one joint."""

    kp: float  # N m/rad
    damping: float  # N m s/rad
    frictionloss: float  # N m
    max_torque: float  # N m
    delay: float  # s, from sending a target until the servo acts on it


@dataclass(frozen=True)
class ServoModel:
    """The servos of an arm: the fields of `Servo` as float64 (J,), in the order of `joints`.

    `p_gain` is the register P_GAIN to which `kp` belongs; the two are proportional.
    """

    joints: tuple[str, ...]
    kp: np.ndarray
    damping: np.ndarray
    frictionloss: np.ndarray
    max_torque: np.ndarray
    delay: np.ndarray
    p_gain: int = DEFAULT_P_GAIN

    @classmethod
    def of(cls, model: mujoco.MjModel, arm: ArmSpec) -> Self:
        """The servos that a compiled model has."""
        actuators = [model.actuator(name).id for name in arm.joints]
        dofs = [int(model.joint(name).dofadr[0]) for name in arm.joints]
        return cls(
            arm.joints,
            kp=model.actuator_gainprm[actuators, 0],
            damping=model.dof_damping[dofs],
            frictionloss=model.dof_frictionloss[dofs],
            max_torque=model.actuator_forcerange[actuators, 1],
            delay=model.actuator_delay[actuators],
        )

    def __iter__(self) -> Iterator[Servo]:
        """Joint by joint."""
        columns = [getattr(self, name).tolist() for name in Servo._fields]
        return map(Servo._make, zip(*columns, strict=True))

    def at_gain(self, p_gain: int) -> Self:
        """The same servos with another P_GAIN."""
        return replace(self, kp=self.kp * p_gain / self.p_gain, p_gain=p_gain)

    def save(self, path: Path, evidence: Mapping[str, Any]) -> None:
        """Writes the file that `load` reads.

        Args:
            path: where to.
            evidence: JSON for people: what the numbers rest on.

        Raises:
            OSError: it cannot be written.
        """
        servos = {
            joint: {name: round(value, 6) for name, value in servo._asdict().items()}
            for joint, servo in zip(self.joints, self, strict=True)
        }
        content = {"version": VERSION, "p_gain": self.p_gain, "servos": servos}
        text = json.dumps({**content, "evidence": evidence}, indent=1)
        write_atomic(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: Path, arm: ArmSpec) -> Self:
        """Reads the file that `robolearn identify` wrote.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no such file, or of another arm.
        """
        try:
            content = json.loads(path.read_text())
            if content["version"] != VERSION:
                raise ValueError(f"it has version {content['version']}")
            rows = [content["servos"][joint] for joint in arm.joints]
            columns = {name: np.array([row[name] for row in rows], float) for name in Servo._fields}
            if not all((values >= 0).all() for values in columns.values()):
                raise ValueError("a number is negative")
            return cls(arm.joints, **columns, p_gain=int(content["p_gain"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not describe the servos of {arm.name} ({error!r}): make it with "
                "robolearn identify"
            ) from error


def apply(arm: mujoco.MjSpec | mujoco.MjModel, servos: ServoModel) -> None:
    """Gives a simulated arm these servos.

    A delay needs a buffer, which the compiler makes: a model that is already compiled takes delays
    only as long as it was compiled for. Call `settle` after every reset of a model with delays.

    Args:
        arm: alone or in a scene, with joints and actuators of the names in `servos`.
        servos: what it gets.

    Raises:
        ValueError: a compiled model without room for the delay.
    """
    put = _put_into_spec if isinstance(arm, mujoco.MjSpec) else _put_into_model
    for joint, servo in zip(servos.joints, servos, strict=True):
        put(arm, joint, servo)


def settle(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Makes `data.ctrl` the past of delayed actuators too.

    A reset fills their past with zeros, and the arm would jump there first.
    """
    for actuator in np.flatnonzero(model.actuator_history[:, 0]):
        past = np.full(model.actuator_history[actuator, 0], data.ctrl[actuator])
        mujoco.mj_initCtrlHistory(model, data, int(actuator), None, past)


def _put_into_spec(spec: mujoco.MjSpec, name: str, servo: Servo) -> None:
    joint, actuator = spec.joint(name), spec.actuator(name)
    joint.damping[0], joint.frictionloss = servo.damping, servo.frictionloss
    actuator.gainprm[0], actuator.biasprm[1] = servo.kp, -servo.kp
    actuator.forcerange = [-servo.max_torque, servo.max_torque]
    # One sample for each physics step; a step that is made longer later on needs fewer.
    actuator.delay, actuator.nsample = servo.delay, math.ceil(servo.delay / spec.option.timestep)


def _put_into_model(model: mujoco.MjModel, name: str, servo: Servo) -> None:
    actuator, dof = model.actuator(name).id, int(model.joint(name).dofadr[0])
    room = model.actuator_history[actuator, 0] * model.opt.timestep
    if servo.delay > room:
        raise ValueError(
            f"{name} needs a delay of {servo.delay:.3f} s and the model was compiled for "
            f"{room:.3f} s: apply the servos to its MjSpec and compile that"
        )
    model.dof_damping[dof], model.dof_frictionloss[dof] = servo.damping, servo.frictionloss
    model.actuator_gainprm[actuator, 0], model.actuator_biasprm[actuator, 1] = servo.kp, -servo.kp
    model.actuator_forcerange[actuator] = -servo.max_torque, servo.max_torque
    model.actuator_delay[actuator] = servo.delay
