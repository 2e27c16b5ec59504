"""The body of the twin: a MuJoCo arm among a task's objects, its motors, their heat, and a hand.

Each motor is the model's (assets/so101.xml): a spring that saturates, and back-EMF as damping. Both
torques are proportional to the voltage, the spring also to the P gain; a motor that is off leaves
only the gear's friction. Angles in here are rad.
"""

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any, Final, NamedTuple

import mujoco
import numpy as np

from robolearn.contract import Info
from robolearn.envs import scene
from robolearn.envs.base import DIVERGED, ManipulationEnv
from robolearn.envs.servo_model import ServoModel
from robolearn.envs.task import TIMESTEP, Start, State
from robolearn.registry import make_env

VOLTAGE: Final = 7.4  # V, for which the model's stiffness and force ranges are
NOMINAL_GAIN: Final = 32  # the P gain for which the stiffness is
GRIPPER_SHARE: Final = 0.5  # of its torque is what the model's gripper has
FULL_DUTY: Final = 0.97  # with which a motor stalls
TORQUE_CONSTANT, RESISTANCE = 1.2116, 2.676  # N m/A, ohm
BACK_EMF: Final = TORQUE_CONSTANT**2 / RESISTANCE  # N m s/rad
GEAR_DAMPING: Final = 0.0591  # N m s/rad, without power
STUCK: Final = 1e4  # N m s/rad
SUPPLY: Final = 0.1  # ohm, of power supply and wires
# A motor that holds 1 N m, 1.8 W of heat, gets 15 degrees warmer in ten minutes.
AMBIENT, WARMING, SECONDS_TO_WARM = 25.0, 13.0, 600.0  # deg C, deg C/W, s
HAND_STIFFNESS, HAND_DAMPING = 50.0, 1.0  # N m/rad, N m s/rad
HAND_TORQUE, HAND_SPEED = 3.0, 2.0  # N m, rad/s
HAND: Final = ("gripper", "moving_jaw_so101_v1")
FOOT: Final = ("base", "shoulder", "upper_arm")
SELF_BIT: Final = 4  # a contact bit that envs/scene.py leaves free
PLACES: Final = ("stay", "home")


class EmptyTable(ManipulationEnv):
    """The arm at a table with nothing on it and nothing to do."""

    work_area = (0.24, 0.455)

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Only the arm and the table."""
        return scene.table_scene((0.21, 0.0), split)

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """The arm at home; any instruction will do."""
        del rng
        qpos = self.joints.to_ctrl(np.array(self.arm.home))
        return Start(qpos, np.empty((0, 3)), np.empty(0), instruction or "")

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Never a success."""
        del state
        return np.zeros(len(goal), bool), np.zeros(len(goal))

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Nothing."""
        del state
        return np.empty((len(goal), 0), np.float32)

    def goal_scene(self, start: Start) -> Start:
        """Nothing changes."""
        return start

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """There is nothing to do, so the arm stays at home."""
        del rng
        return repeat(np.array(self.arm.home, np.float32))


class Snapshot(NamedTuple):
    """What a picture is drawn from; copies, so that another thread may have it."""

    time: float  # s
    qpos: np.ndarray  # (nq,)
    mocap_pos: np.ndarray  # (nmocap, 3)
    mocap_quat: np.ndarray  # (nmocap, 4)


class ArmPhysics:
    """The simulated arm with its motors. Arrays have length J, in the order of `ArmSpec.joints`.

    Args:
        env: id of the task in whose scene the arm stands; None: an empty table.
        seed: of the first episode.
        position: where the joints start, contract units (J,).
        voltage: of the power supply, V.
        backlash: play of the gears, rad to each side.
        image_size: height and width of the pictures, which decide what the camera `top` shows.
        servos: the motors; None: the model's own.

    Attributes:
        task: the task; its `model`, `data`, `joints`, `task_description` and so on.
        supply: voltage of the power supply when nothing draws current, V; may be set.
        voltage: at the servos, V.
        torque, duty, current, temperature: of the motors: N m, -1..1, A, deg C.
        heated: temperatures that are forced, deg C; NaN where none is; may be set.
        stuck: joints that cannot move, bool; may be set.
        success: whether the task's goal test has held for long enough.
        progress: the task's own measure, 0..1.

    Raises:
        ValueError: no such simulated task.
    """

    def __init__(
        self,
        env: str | None = None,
        *,
        seed: int = 0,
        position: np.ndarray,
        voltage: float = VOLTAGE,
        backlash: float = 0.0,
        image_size: tuple[int, int] = (48, 84),
        servos: ServoModel | None = None,
    ) -> None:
        self.task = _task(env, image_size)
        self._take(servos or ServoModel.of(self.task.model, self.task.arm))
        self.supply = self.voltage = voltage
        self.backlash = backlash
        count = self.task.arm.size
        self.torque: np.ndarray = np.zeros(count)
        self.duty, self.current = np.zeros((2, count))
        self.temperature: np.ndarray = np.full(count, AMBIENT)
        self.heated = np.full(count, np.nan)
        self.stuck = np.zeros(count, bool)
        self.success, self.progress, self._held, self._steps = False, 0.0, 0, 0
        self.reset(seed)
        self._place(self.task.joints.to_ctrl(position), np.zeros(count))
        self.let_go()

    def _take(self, servos: ServoModel) -> None:
        """Gives the arm these motors."""
        servos = servos.at_gain(NOMINAL_GAIN)
        model, joints = self.task.model, self.task.joints
        self._stiffness, self._damping = servos.kp, servos.damping
        self._stall = servos.max_torque.copy()
        self._stall[list(self.task.arm.grippers)] /= GRIPPER_SHARE
        self._delay = np.round(servos.delay / TIMESTEP).astype(int)
        model.dof_frictionloss[joints.qvel] = servos.frictionloss
        model.actuator_ctrllimited[:] = 0  # a servo may pull at an end stop
        _let_links_meet(model)

    @property
    def time(self) -> float:
        """Simulated time since the start, s."""
        return self._steps * TIMESTEP

    @property
    def angle(self) -> np.ndarray:
        """Joint angles, rad."""
        return self.task.data.qpos[self.task.joints.qpos]

    @property
    def velocity(self) -> np.ndarray:
        """Joint velocities, rad/s."""
        return self.task.data.qvel[self.task.joints.qvel]

    @property
    def diverged(self) -> bool:
        """Whether the simulation has become unstable since the last reset."""
        return bool(self.task.data.warning.number[DIVERGED].any())

    def reset(self, seed: int, instruction: str | None = None, place: str = "stay") -> None:
        """Places the objects of the episode `seed`, and perhaps the arm.

        Args:
            seed: the episode's.
            instruction: asks for a certain goal; None draws one.
            place: "stay" leaves the arm alone, "home" puts it where the episode begins.

        Raises:
            ValueError: an unknown place, or an instruction that the task does not know; nothing
                has changed.
        """
        if place not in PLACES:
            raise ValueError(f"arm is {place!r}; choose one of {', '.join(PLACES)}")
        angle, velocity = self.angle.copy(), self.velocity.copy()
        _, info = self.task.reset(seed=seed, options={"instruction": instruction})
        self._held, self.success, self.progress = 0, False, info[Info.PROGRESS]
        if place == "stay":
            self._place(angle, velocity)
        else:
            self._place(self.angle.copy(), np.zeros_like(angle))

    def _place(self, angle: np.ndarray, velocity: np.ndarray) -> None:
        joints, data = self.task.joints, self.task.data
        data.qpos[joints.qpos], data.qvel[joints.qvel] = angle, velocity
        mujoco.mj_forward(self.task.model, data)
        self._geared, self._hand = angle.copy(), angle.copy()
        self._sent = np.tile(angle, (self._delay.max() + 1, 1))  # the last targets, newest first

    def push(self, positions: Mapping[str, float], torques: Mapping[str, float]) -> None:
        """A hand pulls joints softly towards positions and pushes others; it lets go of the rest.

        Args:
            positions: by joint, contract units.
            torques: by joint, N m.

        Raises:
            ValueError: no such joint.
        """
        arm = self.task.arm
        for joint in {*positions, *torques}.difference(arm.joints):
            raise ValueError(f"there is no joint {joint!r}; there are {', '.join(arm.joints)}")
        goal = [positions.get(joint, np.nan) for joint in arm.joints]
        self._hand_goal = self.task.joints.to_ctrl(np.array(goal))
        self._hand_torque = np.array([torques.get(joint, 0.0) for joint in arm.joints])

    def let_go(self) -> None:
        """The hand leaves the arm alone."""
        self.push({}, {})

    def step(self, target: np.ndarray, gain: np.ndarray, limit: np.ndarray) -> None:
        """Simulates `TIMESTEP` seconds.

        Args:
            target: where the servos want the joints, rad.
            gain: stiffness relative to `NOMINAL_GAIN`; 0 switches a motor off.
            limit: largest torque as a share of stall.
        """
        data, joints = self.task.data, self.task.joints
        on, share = gain > 0, self.voltage / VOLTAGE
        self._set_motors(gain * share, limit * share)
        data.ctrl[joints.ctrl] = self._geared = np.where(on, self._transmit(target), self.angle)
        data.qfrc_applied[joints.qvel] = self._hand_forces()
        mujoco.mj_step(self.task.model, data)
        self._steps += 1
        self._measure(on, share)
        if self._steps % self.task.substeps == 0:
            self._judge()

    def _set_motors(self, stiffness: np.ndarray, limit: np.ndarray) -> None:
        """Both as shares of what the servos have at `NOMINAL_GAIN` and `VOLTAGE`."""
        model, joints = self.task.model, self.task.joints
        kp, strongest = self._stiffness * stiffness, self._stall * limit
        model.actuator_gainprm[joints.ctrl, 0], model.actuator_biasprm[joints.ctrl, 1] = kp, -kp
        model.actuator_forcerange[joints.ctrl] = np.stack([-strongest, strongest], 1)
        damping = np.where(stiffness > 0, self._damping, GEAR_DAMPING)
        model.dof_damping[joints.qvel] = np.where(self.stuck, STUCK, damping)

    def _transmit(self, target: np.ndarray) -> np.ndarray:
        """What the joints feel of the servos' targets, rad, after delay and backlash."""
        self._sent = np.vstack([target, self._sent[:-1]])
        felt = self._sent[self._delay, np.arange(target.size)]
        return np.clip(self._geared, felt - self.backlash, felt + self.backlash)

    def _hand_forces(self) -> np.ndarray:
        """Torques of the hand, N m; its own goal moves at no more than HAND_SPEED."""
        angle, velocity = self.angle, self.velocity
        holds = ~np.isnan(self._hand_goal)
        reach = HAND_SPEED * TIMESTEP
        way = np.clip(np.where(holds, self._hand_goal - self._hand, 0.0), -reach, reach)
        self._hand = np.where(holds, self._hand + way, angle)
        pull = HAND_STIFFNESS * (self._hand - angle) - HAND_DAMPING * velocity
        return np.where(holds, np.clip(pull, -HAND_TORQUE, HAND_TORQUE), self._hand_torque)

    def _measure(self, on: np.ndarray, share: float) -> None:
        """Torque, duty, current, voltage and temperature after a step."""
        force = self.task.data.actuator_force[self.task.joints.ctrl]
        self.torque = force - np.where(on, BACK_EMF * self.velocity, 0.0)
        self.duty = FULL_DUTY * force / (self._stall * share)
        self.current = self.torque / TORQUE_CONSTANT
        # A bridge that chops draws the motor's current for the share of its duty.
        self.voltage = self.supply - SUPPLY * float(np.abs(self.duty * self.current).sum())
        heat = RESISTANCE * self.current**2
        change = (AMBIENT + WARMING * heat - self.temperature) * TIMESTEP / SECONDS_TO_WARM
        forced = ~np.isnan(self.heated)
        self.temperature = np.where(forced, self.heated, self.temperature + change)

    def _judge(self) -> None:
        """Asks the task's goal test, once a control period."""
        self.task.remember(self.task.state, self.task.goal[None])
        (holds,), (progress,) = self.task.evaluate(self.task.state, self.task.goal[None])
        self._held = self._held + 1 if holds else 0
        self.success, self.progress = self._held >= self.task.hold_steps, float(progress)

    def snapshot(self) -> Snapshot:
        """What there is to see now."""
        data = self.task.data
        return Snapshot(self.time, data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy())


def _let_links_meet(model: mujoco.MjModel) -> None:
    """The hand may lie on the foot: a limp arm rests on itself.

    A task's arm never gets there, and its model saves the time.
    """
    for names, types, bodies in (
        (HAND, model.geom_contype, model.body_contype),
        (FOOT, model.geom_conaffinity, model.body_conaffinity),
    ):
        for body in (model.body(name).id for name in names):
            bodies[body] |= SELF_BIT  # which MuJoCo looks at first
            types[(model.geom_bodyid == body) & (model.geom_contype != 0)] |= SELF_BIT


def _task(env: str | None, image_size: tuple[int, int]) -> ManipulationEnv:
    options: dict[str, Any] = {"obs_type": "state", "image_size": image_size}
    if env is None:
        return EmptyTable(**options)
    try:
        task = make_env(env, **options).unwrapped
    except TypeError:  # it does not know these options
        task = None
    if not isinstance(task, ManipulationEnv):
        raise ValueError(f"{env} is not simulated by robolearn; give one of its tasks, or none")
    return task
