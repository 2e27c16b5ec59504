"""`ManipulationEnv`: what every simulated task shares.

A task file gives four things: the scene (`build`), the start of an episode (`start`), the goal test
(`evaluate`) and an expert. The methods that look at the state do so for a whole batch of
simulations, leading dimension N, so that the single environment (N = 1) and the batched one
(`robolearn.envs.batch`) run the same code.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import gymnasium
import mujoco
import numpy as np

from robolearn.contract import (
    OBS_TYPES,
    SO101,
    ArmSpec,
    Info,
    action_space,
    check_action,
    limit_action,
    observation_space,
)
from robolearn.envs.joints import JointMap
from robolearn.envs.render import PROFILES, Quality, Renderer
from robolearn.envs.scene import frame_top_camera
from robolearn.envs.servo_model import ServoModel, apply, settle
from robolearn.seeding import stream

TIMESTEP = 0.005  # s; the grip of 2 cm cubes holds up to here
PARAPHRASES = ("train", "held_out", "all")
UNSTABLE: Final = "physics_unstable"  # the fault code
# MuJoCo resets a simulation that diverges; these counters tell, so that it passes for no episode.
DIVERGED: Final = slice(
    mujoco.mjtWarning.mjWARN_BADQPOS.value, mujoco.mjtWarning.mjWARN_BADQACC.value + 1
)


class State(NamedTuple):
    """The physical state of N simulations."""

    qpos: np.ndarray  # (N, nq)
    qvel: np.ndarray  # (N, nv)
    mocap_pos: np.ndarray  # (N, nmocap, 3)
    sensordata: np.ndarray  # (N, nsensordata)


@dataclass(frozen=True)
class Start:
    """How an episode begins."""

    qpos: np.ndarray  # (nq,)
    mocap_pos: np.ndarray  # (nmocap, 3)
    goal: np.ndarray  # (G,) float64: what success is measured against
    instruction: str


class ManipulationEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One simulated arm at a table; see `robolearn.contract` for spaces and info keys.

    Args:
        obs_type: "pixels_agent_pos", "state" (privileged, renders nothing) or "depth".
        cameras: the cameras to draw; by default all of the task's.
        image_size: height and width of the pictures, pixels.
        render_quality: "fast", "high" or "default", for observations.
        render_mode: None or "rgb_array".
        paraphrases: which instruction templates to draw from: "train", "held_out" or "all".
        servos: the file of `robolearn identify`, for the servos of a certain arm.

    Attributes:
        model: the compiled scene.
        data: the simulation.
        state: views of the simulation's state, N = 1; always current.
        goal: the running episode's goal vector (G,).
        task_description: the running episode's instruction.
        joints: between the simulator's vectors and the units of the contract.

    Raises:
        ValueError: an unknown option; the message names the choices.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": int(SO101.control_hz),
    }
    arm: ClassVar[ArmSpec] = SO101
    cameras: ClassVar[tuple[str, ...]] = ("top", "wrist")
    work_area: ClassVar[tuple[float, float]]  # m along x and y: what the camera `top` must show
    hold_seconds: ClassVar[float] = 0.25  # how long the goal test must hold
    video_size: ClassVar[tuple[int, int]] = (480, 640)

    def __init__(
        self,
        obs_type: str = "pixels_agent_pos",
        cameras: Sequence[str] | None = None,
        image_size: tuple[int, int] = (48, 84),
        render_quality: Quality = "fast",
        render_mode: str | None = None,
        paraphrases: str = "train",
        servos: Path | None = None,
    ) -> None:
        _choose("obs_type", obs_type, OBS_TYPES)
        _choose("paraphrases", paraphrases, PARAPHRASES)
        _choose("render_quality", render_quality, tuple(PROFILES))
        if render_mode is not None:
            _choose("render_mode", render_mode, self.metadata["render_modes"])
        chosen = tuple(self.cameras if cameras is None else cameras)
        for camera in chosen:
            _choose("camera", camera, self.cameras)
        self.obs_type, self.render_mode, self.paraphrases = obs_type, render_mode, paraphrases
        self.active_cameras = () if obs_type == "state" else chosen
        self.image_size, self.render_quality = _check_size(image_size), render_quality
        self._build_simulation(ServoModel.load(Path(servos), self.arm) if servos else None)
        self.task_description = ""
        self._seed = self._held = 0
        self._renderer: Renderer | None = None
        self._video: Renderer | None = None
        self.action_space = action_space(self.arm)
        self.observation_space = observation_space(
            self.arm,
            self.active_cameras,
            self.image_size,
            self._environment_state().size if obs_type == "state" else 0,
            depth=obs_type == "depth",
        )

    def _build_simulation(self, servos: ServoModel | None) -> None:
        self.model = self.compile(servos)
        frame_top_camera(self.model, self.work_area, self.image_size)
        self.data = mujoco.MjData(self.model)
        d = self.data  # its arrays stay where they are, so views of them stay current
        self.state = State(d.qpos[None], d.qvel[None], d.mocap_pos[None], d.sensordata[None])
        self._diverged = d.warning.number[DIVERGED]
        self.joints = JointMap(self.model, self.arm)
        self.goal = self.draw(0, None).goal  # for its length, until the first reset

    # What a task defines.

    @classmethod
    @abstractmethod
    def build(cls) -> mujoco.MjSpec:
        """The scene, arm included."""

    @abstractmethod
    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Draws the start of an episode.

        Args:
            rng: the episode's own generator.
            instruction: a wish of the caller; None draws one.

        Raises:
            ValueError: an instruction that the task does not know.
        """

    @abstractmethod
    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the goal test holds now, bool (N,), and progress 0..1, float (N,).

        Args:
            state: N simulations.
            goal: (N, G), from `Start.goal`.
        """

    @abstractmethod
    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """The privileged state, float32 (N, S).

        Args:
            state: N simulations.
            goal: (N, G), from `Start.goal`.
        """

    @abstractmethod
    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the running episode: yields one action for every control step, for ever."""

    # What all tasks share.

    @classmethod
    def compile(cls, servos: ServoModel | None = None) -> mujoco.MjModel:
        """The compiled model with this project's physics options, and perhaps other servos."""
        spec = cls.build()
        spec.option.timestep = TIMESTEP
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        spec.option.impratio = 10.0
        if servos is not None:
            apply(spec, servos)
        return spec.compile()

    @cached_property
    def substeps(self) -> int:
        """Physics steps in one control period."""
        return round(1.0 / (self.arm.control_hz * TIMESTEP))

    @cached_property
    def hold_steps(self) -> int:
        """Control steps in a row that the goal test must hold."""
        return round(self.hold_seconds * self.arm.control_hz)

    def draw(self, seed: int, instruction: str | None) -> Start:
        """The start of the episode that belongs to `seed`; see `start`."""
        return self.start(stream(seed, "env"), instruction)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts the episode that belongs to `seed`.

        Args:
            seed: the episode's seed; None draws the next one from the environment's generator.
            options: {"instruction": text} asks for a certain goal.

        Raises:
            ValueError: an instruction that the task does not know.
        """
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        start = self.draw(chosen, (options or {}).get("instruction"))
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = start.qpos
        self.data.mocap_pos[:] = start.mocap_pos
        self.data.ctrl[self.joints.ctrl] = start.qpos[self.joints.qpos]
        settle(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        self._seed, self._held = chosen, 0
        self.goal, self.task_description = start.goal, start.instruction
        _, (progress,) = self.evaluate(self.state, self.goal[None])
        action = self.joints.position(self.data.qpos)
        return self._observe(), self._info(action, action, progress=float(progress))

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Holds the joint targets for one control period.

        Raises:
            ActionError: wrong shape, NaN or infinity; nothing has moved and the episode goes on.
        """
        requested = check_action(self.arm, action)
        sent = limit_action(self.arm, requested)
        self.data.ctrl[self.joints.ctrl] = self.joints.to_ctrl(sent)
        mujoco.mj_step(self.model, self.data, nstep=self.substeps)
        unstable = np.count_nonzero(self._diverged) > 0
        (holds,), (progress,) = self.evaluate(self.state, self.goal[None])
        self._held = self._held + 1 if holds and not unstable else 0
        success = self._held >= self.hold_steps
        info = self._info(
            requested,
            sent,
            success=success,
            progress=0.0 if unstable else float(progress),
            fault=UNSTABLE if unstable else "",
        )
        return self._observe(), float(success), success, unstable, info

    def _observe(self) -> dict[str, Any]:
        d = self.data
        observation: dict[str, Any] = self.joints.observe(d.qpos, d.qvel, d.actuator_force)
        if self.obs_type == "state":
            observation["environment_state"] = self._environment_state()
        if self.active_cameras:
            drawn = self._renderer or Renderer(self.model, self.image_size, self.render_quality)
            self._renderer = drawn
            observation["pixels"] = {c: drawn.rgb(d, c) for c in self.active_cameras}
            if self.obs_type == "depth":
                observation["depth"] = {c: drawn.depth(d, c) for c in self.active_cameras}
        return observation

    def _environment_state(self) -> np.ndarray:
        return self.environment_state(self.state, self.goal[None])[0]

    def _info(
        self,
        requested: np.ndarray,
        sent: np.ndarray,
        *,
        progress: float,
        success: bool = False,
        fault: str = "",
    ) -> dict[str, Any]:
        return {
            Info.TASK: self.task_description,
            Info.SEED: self._seed,
            Info.IS_SUCCESS: success,
            Info.SUCCESS: success,
            Info.PROGRESS: progress,
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: np.count_nonzero(requested != sent) > 0,
            Info.IS_INTERVENTION: False,
            Info.TELEOP_ACTION: sent,
            Info.FAULT: fault,
        }

    def render(self) -> np.ndarray | None:
        """A picture for videos, uint8 (480, 640, 3), or None without `render_mode="rgb_array"`."""
        if self.render_mode is None:
            return None
        self._video = self._video or Renderer(self.model, self.video_size, "high")
        return self._video.rgb(self.data, "video")

    def close(self) -> None:
        """Lets go of the renderers; the process's GL context stays for the next environment."""
        self._renderer = self._video = None


def _choose(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{what} is {value!r}; choose one of {', '.join(choices)}")


def _check_size(image_size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = map(int, image_size)
        if min(height, width) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"image_size is {image_size!r}; give height and width in pixels, such as (48, 84)"
        ) from None
    return height, width
