"""`ManipulationEnv`: makes a gymnasium environment of a `Task`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import gymnasium
import mujoco
import numpy as np

from robolearn.contract import (
    OBS_TYPES,
    SO101,
    Info,
    action_space,
    check_action,
    limit_action,
    observation_space,
    wish,
)
from robolearn.envs.expert import Demonstrator
from robolearn.envs.joints import JointMap
from robolearn.envs.language import PARAPHRASES
from robolearn.envs.render import PROFILES, Quality, Renderer
from robolearn.envs.scene import frame_top_camera
from robolearn.envs.servo_model import ServoModel, settle
from robolearn.envs.task import Start, State, Task
from robolearn.seeding import stream

UNSTABLE: Final = "physics_unstable"  # the fault code
# MuJoCo resets a simulation that diverges; these counters tell, so that it passes for no episode.
DIVERGED: Final = slice(
    mujoco.mjtWarning.mjWARN_BADQPOS.value, mujoco.mjtWarning.mjWARN_BADQACC.value + 1
)


class ManipulationEnv(Task, gymnasium.Env[dict[str, Any], np.ndarray]):
    """A simulated arm at a table; see `robolearn.contract` for spaces and info keys.

    Args:
        obs_type: "pixels_agent_pos", "state" (privileged, renders nothing) or "depth".
        cameras: the cameras to draw; by default all of the task's.
        image_size: height and width of the pictures, pixels.
        render_quality: "fast", "high" or "default", for observations.
        render_mode: None or "rgb_array".
        paraphrases: which instruction templates to draw from: "train", "held_out" or "all".
        servos: the file of `robolearn identify`, for the servos of a certain arm.
        split: which objects, scenes and goals episodes are drawn from; see the task's `splits`.
        goal_pixels: also observe pictures of the reached goal.
        style: how the expert shall move, see `robolearn.envs.expert.STYLES`.
        quality: how well, from 0 (crooked and hesitant) to 1.

    Raises:
        ValueError: an unknown option; the message names the choices.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": int(SO101.control_hz),
    }
    video_size: ClassVar[tuple[int, int]] = (480, 640)
    draw_every: int = 1  # steps; see `contract`

    def __init__(
        self,
        obs_type: str = "pixels_agent_pos",
        cameras: Sequence[str] | None = None,
        image_size: tuple[int, int] = (48, 84),
        render_quality: Quality = "fast",
        render_mode: str | None = None,
        paraphrases: str = "train",
        servos: Path | None = None,
        split: str = "train",
        style: str = "any",
        quality: float = 1.0,
        *,
        goal_pixels: bool = False,
    ) -> None:
        _choose("obs_type", obs_type, OBS_TYPES)
        _choose("paraphrases", paraphrases, PARAPHRASES)
        _choose("split", split, self.splits)
        _choose("render_quality", render_quality, tuple(PROFILES))
        if render_mode is not None:
            _choose("render_mode", render_mode, self.metadata["render_modes"])
        chosen = tuple(self.cameras if cameras is None else cameras)
        for camera in chosen:
            _choose("camera", camera, self.cameras)
        self.obs_type, self.render_mode, self.paraphrases = obs_type, render_mode, paraphrases
        self.split, self.demonstrator = split, Demonstrator(style, quality)
        self.active_cameras = () if obs_type == "state" else chosen
        self.image_size, self.render_quality = _check_size(image_size), render_quality
        self._build_simulation(ServoModel.load(Path(servos), self.arm) if servos else None)
        self.task_description = ""
        self.episode_seed = self._held = 0
        self._goal_pictures: dict[str, np.ndarray] = {}
        self._drawn: dict[str, Any] = {}  # the newest pictures
        self._steps = 0  # since the episode began
        self._goal_pixels = goal_pixels and bool(self.active_cameras)
        self._renderer: Renderer | None = None
        self._video: Renderer | None = None
        self.action_space = action_space(self.arm)
        self.observation_space = observation_space(
            self.arm,
            self.active_cameras,
            self.image_size,
            self._environment_state().size if obs_type == "state" else 0,
            depth=obs_type == "depth",
            goal_pixels=goal_pixels,
        )

    def _build_simulation(self, servos: ServoModel | None) -> None:
        self.model = self.compile(servos, self.split)
        frame_top_camera(self.model, self.work_area, self.image_size)
        self.data = mujoco.MjData(self.model)
        # Its arrays stay where they are, so views of them stay current.
        self.state = State(*(getattr(self.data, name)[None] for name in State._fields))
        self._diverged = self.data.warning.number[DIVERGED]
        self.joints = JointMap(self.model, self.arm)
        self._start = self.draw(0, None)
        self.goal = self._start.goal  # for its length, until the first reset

    @property
    def task(self) -> str:
        """The running episode's instruction, under the name that LeRobot's evaluation asks for."""
        return self.task_description

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
            ValueError: an instruction that the task does not know, or another option.
        """
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        start = self.draw(chosen, wish(options))
        self._place(self.data, start)
        self.episode_seed, self._held, self._steps = chosen, 0, 0
        self._start, self._goal_pictures = start, {}
        self.goal, self.task_description = start.goal, start.instruction
        self.remember(self.state, self.goal[None])
        _, (progress,) = self.evaluate(self.state, self.goal[None])
        action = self.joints.position(self.data.qpos)
        return self._observe(), self._info(action, action, progress=float(progress))

    def _place(self, data: mujoco.MjData, start: Start) -> None:
        """Puts a simulation into the start of an episode."""
        mujoco.mj_resetData(self.model, data)
        data.qpos[:] = start.qpos
        data.mocap_pos[:] = start.mocap_pos
        if start.mocap_quat is not None:
            data.mocap_quat[:] = start.mocap_quat
        data.ctrl[self.joints.ctrl] = start.qpos[self.joints.qpos]
        settle(self.model, data)
        mujoco.mj_forward(self.model, data)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Holds the joint targets for one control period.

        Raises:
            ActionError: wrong shape, NaN or infinity; nothing has moved and the episode goes on.
        """
        requested = check_action(self.arm, action)
        sent = limit_action(self.arm, requested)
        self.data.ctrl[self.joints.ctrl] = self.joints.to_ctrl(sent)
        self._steps += 1
        mujoco.mj_step(self.model, self.data, nstep=self.substeps)
        unstable = np.count_nonzero(self._diverged) > 0
        goal = self.goal[None]
        self.remember(self.state, goal)
        holds, progress = self.evaluate(self.state, goal)
        self._held = self._held + 1 if holds[0] and not unstable else 0
        success = self._held >= self.hold_steps
        info = self._info(
            requested,
            sent,
            success=success,
            progress=0.0 if unstable else float(progress[0]),
            fault=UNSTABLE if unstable else "",
        )
        return self._observe(), float(success), success, unstable, info

    def _observe(self) -> dict[str, Any]:
        d = self.data
        observation: dict[str, Any] = self.joints.observe(d.qpos, d.qvel, d.actuator_force)
        if self.obs_type == "state":
            observation["environment_state"] = self._environment_state()
        if self.active_cameras:
            if self._steps % self.draw_every == 0:
                self._drawn = self._pictures()
            observation |= {
                kind: {c: p.copy() for c, p in pictures.items()}
                for kind, pictures in self._drawn.items()
            }
        return observation

    def _pictures(self) -> dict[str, dict[str, np.ndarray]]:
        """What the cameras see now: by kind, and by camera."""
        d, drawn = self.data, self._observer()
        pictures = {"pixels": {c: drawn.rgb(d, c) for c in self.active_cameras}}
        if self.obs_type == "depth":
            pictures["depth"] = {c: drawn.depth(d, c) for c in self.active_cameras}
        if self._goal_pixels:
            self._goal_pictures = self._goal_pictures or self.draw_goal(drawn)
            pictures["goal_pixels"] = self._goal_pictures
        return pictures

    def _observer(self) -> Renderer:
        self._renderer = self._renderer or Renderer(
            self.model, self.image_size, self.render_quality
        )
        return self._renderer

    def draw_goal(
        self, renderer: Renderer | None = None, cameras: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Pictures of the running episode's goal when it is reached, uint8 (H, W, 3) each.

        Args:
            renderer: of this model; None draws as observations are drawn.
            cameras: which; none takes all that observations have.
        """
        reached = mujoco.MjData(self.model)
        self._place(reached, self.goal_scene(self._start))
        drawn = renderer or self._observer()
        return {c: drawn.rgb(reached, c) for c in cameras or self.active_cameras}

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
            Info.SEED: self.episode_seed,
            Info.IS_SUCCESS: success,
            Info.SUCCESS: success,
            Info.PROGRESS: progress,
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: requested.tolist() != sent.tolist(),  # sooner than arrays, for one arm
            Info.IS_INTERVENTION: False,
            Info.TELEOP_ACTION: sent,
            Info.FAULT: fault,
            **{Info.GRADE + k: float(grade[0]) for k, grade in self.grades(self.state).items()},
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
