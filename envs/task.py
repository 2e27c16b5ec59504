"""`Task`: what a simulated task defines. `ManipulationEnv` makes a gymnasium environment of it.

The methods that look at the state do so for a whole batch of simulations, leading dimension N, so
that the single environment (N = 1) and the batched one (`robolearn.envs.batch`) run the same code.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, NamedTuple

import mujoco
import numpy as np

from robolearn.contract import SO101, ArmSpec
from robolearn.envs.expert import Demonstrator
from robolearn.envs.joints import JointMap
from robolearn.envs.language import Phrases
from robolearn.envs.props import add_props
from robolearn.envs.servo_model import ServoModel, apply

TIMESTEP: Final = 0.005  # s; the grip of 2 cm cubes holds up to here


class State(NamedTuple):
    """The physical state of N simulations."""

    qpos: np.ndarray  # (N, nq)
    qvel: np.ndarray  # (N, nv)
    mocap_pos: np.ndarray  # (N, nmocap, 3)
    mocap_quat: np.ndarray  # (N, nmocap, 4)
    sensordata: np.ndarray  # (N, nsensordata)
    userdata: np.ndarray  # (N, nuserdata): what `Task.remember` has noted


@dataclass(frozen=True)
class Start:
    """How an episode begins."""

    qpos: np.ndarray  # (nq,)
    mocap_pos: np.ndarray  # (nmocap, 3)
    goal: np.ndarray  # (G,) float64: what success is measured against
    instruction: str
    mocap_quat: np.ndarray | None = None  # (nmocap, 4); None: as the model has them


class Task:
    """See the module's docstring.

    Attributes:
        model: the compiled scene.
        data: the running simulation.
        state: views of it, N = 1; always current.
        joints: between the simulator's vectors and the units of the contract.
        split: which objects, scenes and goals episodes are drawn from; one of `splits`.
        paraphrases: which instruction templates are drawn from.
        demonstrator: how the expert shall move.
        task_description: the running episode's instruction.
        goal: its goal vector (G,).
    """

    arm: ClassVar[ArmSpec] = SO101
    cameras: ClassVar[tuple[str, ...]] = ("top", "wrist")
    phrases: ClassVar[Phrases]
    splits: ClassVar[tuple[str, ...]] = ("train",)
    work_area: ClassVar[tuple[float, float]]  # m along x and y: what the camera `top` must show
    hold_seconds: ClassVar[float] = 0.25  # how long the goal test must hold
    timestep: ClassVar[float] = TIMESTEP  # s
    grasps: ClassVar[bool] = True  # whether it takes holding something, which may slip

    model: mujoco.MjModel
    data: mujoco.MjData
    state: State
    joints: JointMap
    split: str
    paraphrases: str
    demonstrator: Demonstrator
    task_description: str
    goal: np.ndarray

    @classmethod
    @abstractmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The scene of a split, arm included."""

    @abstractmethod
    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Draws the start of an episode.

        Args:
            rng: the episode's own generator.
            instruction: a wish of the caller; None draws one.

        Raises:
            ValueError: an instruction that the task does not know, or a goal out of reach.
        """

    def remember(self, state: State, goal: np.ndarray) -> None:
        """Notes in `state.userdata`, after each control step, what the goal test needs later.

        Args:
            state: N simulations.
            goal: (N, G), from `Start.goal`.
        """

    @abstractmethod
    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the goal test holds now, bool (N,), and progress 0..1, float (N,).

        Args:
            state: N simulations.
            goal: (N, G), from `Start.goal`.
        """

    def grades(self, state: State) -> dict[str, np.ndarray]:
        """How well the episode has gone so far, by name, (N,) each, for results; mostly nothing.

        A task has grades if more counts than whether it is done: what its progress is made of.
        """
        del state
        return {}

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """Free joints of what somebody may move in the middle of an episode, and it stays solvable.

        Those are the objects that the instruction names: goal tests want all others left alone.

        Args:
            goal: (G,), from `Start.goal`.
        """
        del goal
        return ()

    @abstractmethod
    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """The privileged state, float32 (N, S).

        Args:
            state: N simulations.
            goal: (N, G), from `Start.goal`.
        """

    @abstractmethod
    def goal_scene(self, start: Start) -> Start:
        """The same episode with its goal reached and the arm at its start, for goal pictures."""

    @abstractmethod
    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the running episode: yields one action for every control step, for ever."""

    @classmethod
    def compile(cls, servos: ServoModel | None = None, split: str = "train") -> mujoco.MjModel:
        """The compiled model with this project's physics options, and perhaps other servos."""
        spec = cls.build(split)
        add_props(spec)
        spec.option.timestep = cls.timestep
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10.0
        if servos is not None:
            apply(spec, servos)
        return spec.compile()

    @cached_property
    def substeps(self) -> int:
        """Physics steps in one control period."""
        return round(1.0 / (self.arm.control_hz * self.timestep))

    @cached_property
    def hold_steps(self) -> int:
        """Control steps in a row that the goal test must hold."""
        return round(self.hold_seconds * self.arm.control_hz)

    def instruct(
        self, rng: np.random.Generator, instruction: str | None
    ) -> tuple[str, tuple[Any, ...]]:
        """An episode's instruction, drawn even if it is wished for, and what it means.

        Raises:
            ValueError: see `Phrases.parse`.
        """
        drawn = self.phrases.draw(rng, self.paraphrases, self.split)
        text = drawn if instruction is None else instruction
        return text, self.phrases.parse(text)

    def home(self, rng: np.random.Generator) -> np.ndarray:
        """The model's rest state (nq,) with the arm about its home pose, within its range."""
        qpos = self.model.qpos0.copy()
        home = np.array(self.arm.home) + rng.normal(0.0, 0.03, self.arm.size)
        home = np.clip(home, self.arm.low, self.arm.high)  # a real arm could not get there
        qpos[self.joints.qpos] = self.joints.to_ctrl(home)
        return qpos
