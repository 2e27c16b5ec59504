"""The dynamics of a simulated task: what writes them to its model, and fixed ones by name.

| name | what becomes of it |
|---|---|
| mass | factor of the mass and inertia of every body that moves |
| friction | factor of the friction of every body, the table among them, and of every cloth |
| damping | factor of the damping and the dry friction of every joint |
| servo | factor of the stiffness and the torque limit of every servo |
| delay | s from an action to the servos |

Random variations (`robolearn.envs.randomize`) draw a factor for every body, joint or servo of every
episode. `Dynamics` has one factor for all of them and for all episodes, so that it is a point of a
box, which can be searched (`robolearn.bench.worst_search`) and typed: `--dynamics mass 1.4
friction 0.6`.
"""

from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from math import isfinite
from typing import Any, Final, NamedTuple, cast

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from robolearn.contract import Info
from robolearn.envs.task import Task
from robolearn.envs.variation import DelayLine, Variation, step_late

# What happens at full strength.
MASS: Final = 2.0  # factor of a body's mass at most, and one part of it at least
FRICTION: Final = 2.5  # factor
DAMPING: Final = 2.0  # factor of a joint's damping and dry friction
SERVO: Final = 1.5  # factor of a servo's stiffness and torque limit
LATEST: Final = 0.10  # s from an action to the servos
DELAY: Final = "delay"

Factors = Callable[[int | tuple[int, ...]], np.ndarray]  # gives them for as many things


def mass(model: mujoco.MjModel, nominal: mujoco.MjModel, factors: Factors) -> None:
    """Another mass for every body that moves; its inertia follows."""
    scale = np.where(nominal.body_weldid > 0, factors(model.nbody), 1.0)
    model.body_mass[:] = nominal.body_mass * scale
    model.body_inertia[:] = nominal.body_inertia * scale[:, None]
    mujoco.mj_setConst(model, mujoco.MjData(model))


def friction(model: mujoco.MjModel, nominal: mujoco.MjModel, factors: Factors) -> None:
    """Another friction for every body, the table among them, and for every cloth."""
    scale = factors(model.nbody)[nominal.geom_bodyid]
    model.geom_friction[:] = nominal.geom_friction * scale[:, None]
    model.flex_friction[:] = nominal.flex_friction * factors(model.nflex)[:, None]


def damping(model: mujoco.MjModel, nominal: mujoco.MjModel, factors: Factors) -> None:
    """Another damping and dry friction for every joint."""
    scale = factors((2, model.nv))
    model.dof_damping[:] = nominal.dof_damping * scale[0]
    model.dof_frictionloss[:] = nominal.dof_frictionloss * scale[1]


def servo(model: mujoco.MjModel, nominal: mujoco.MjModel, factors: Factors) -> None:
    """Another stiffness and torque limit for every servo, as with another supply voltage."""
    scale = factors(model.nu)[:, None]
    model.actuator_gainprm[:, :1] = nominal.actuator_gainprm[:, :1] * scale
    model.actuator_biasprm[:, 1:2] = nominal.actuator_biasprm[:, 1:2] * scale
    model.actuator_forcerange[:] = nominal.actuator_forcerange * scale


class Scaled(NamedTuple):
    """A part of a model that factors can be given to."""

    write: Callable[[mujoco.MjModel, mujoco.MjModel, Factors], None]  # model, nominal, factors
    most: float  # factor at full strength; 1 / most at least


SCALED: Final[dict[str, Scaled]] = {
    "mass": Scaled(mass, MASS),
    "friction": Scaled(friction, FRICTION),
    "damping": Scaled(damping, DAMPING),
    "servo": Scaled(servo, SERVO),
}
NAMES: Final = (*SCALED, DELAY)
NOMINAL: Final = {**dict.fromkeys(SCALED, 1.0), DELAY: 0.0}


def check_dynamics(dynamics: Mapping[str, float]) -> None:
    """Whether all of these names and values exist.

    Args:
        dynamics: factors by name, and `delay`, s.

    Raises:
        ValueError: one does not.
    """
    for name, value in dynamics.items():
        if name not in NAMES:
            raise ValueError(f"no dynamics {name!r}; choose from {', '.join(NAMES)}")
        if name == DELAY and not (isfinite(value) and value >= 0.0):
            raise ValueError(f"a delay of {value} s is none; give seconds from 0 on")
        if name != DELAY and not (isfinite(value) and value > 0.0):
            raise ValueError(f"{name} has no factor {value}; give one above 0, where 1 is nominal")


def write_dynamics(model: mujoco.MjModel, dynamics: Mapping[str, float]) -> None:
    """Gives a model these factors; what they leave at 1 is not touched."""
    nominal = copy(model)
    for name, scaled in SCALED.items():
        factor = dynamics.get(name, 1.0)
        if factor != 1.0:
            scaled.write(model, nominal, partial(np.full, fill_value=factor))


class Dynamics(gymnasium.Wrapper, RecordConstructorArgs):
    """A simulated task with fixed dynamics; random variations go around it, and multiply.

    Args:
        env: a simulated task, perhaps wrapped.
        dynamics: factors by name, and `delay`, s; those that are missing are nominal, and the
            nominal ones change nothing.

    Attributes:
        late: control steps, a fraction, that actions come late.

    Raises:
        ValueError: no such name or value, no simulated task, or one that is already varied.
    """

    def __init__(self, env: gymnasium.Env, dynamics: Mapping[str, float]) -> None:
        RecordConstructorArgs.__init__(self, dynamics=dict(dynamics))
        super().__init__(env)
        check_dynamics(dynamics)
        _check_plain(env)
        task = cast(Any, env.unwrapped)  # a ManipulationEnv, whose type would be a circle
        self.late = dynamics.get(DELAY, 0.0) * task.arm.control_hz
        if self.late >= DelayLine.STEPS:
            longest = DelayLine.STEPS / task.arm.control_hz
            raise ValueError(f"a delay of {dynamics[DELAY]} s is too long; it is below {longest} s")
        write_dynamics(task.model, dynamics)
        self._line = DelayLine(1, task.arm.size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the episode; the arm's past is at rest."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._line.begin(0, info[Info.ACTION_SENT], self.late)
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Executes what was asked a while ago; `info` tells what was asked now."""
        if not self.late:
            return self.env.step(action)
        return step_late(self.env, action, lambda sent: self._line.push(sent[None])[0])


def _check_plain(env: gymnasium.Env) -> None:
    if not isinstance(env.unwrapped, Task):
        raise ValueError(f"dynamics are those of simulated tasks, and {env} is none")
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Variation):
            raise ValueError(f"{env.name} goes around fixed dynamics, not within: wrap in turn")
        env = env.env
