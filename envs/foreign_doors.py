"""Doors: tasks of other packages, told in plain numbers, for `robolearn.envs.foreign`.

A door says what its task is, starts it, steps it, and tells what robolearn's contract asks for. It
also opens in virtual environments without robolearn (`foreign_worker.py`), so doors import nothing
but each other, gymnasium, numpy and their package. Units are the package's own.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np

Told = dict[str, Any]
RATE: Final = 20  # Hz, of an environment that does not say its own


class Door:
    """A task of any gymnasium package, as far as nothing more is known of it.

    Its success is `info["is_success"]` or `info["success"]`, and it has one camera, `render`. Where
    the observation has no `agent_pos` of the action's length, that is the last action.

    Args:
        name: an id of gymnasium's; "module:id" imports the module that registers it.
        cameras: which to draw; None takes the door's own.
        size: height and width of the pictures, pixels.

    Raises:
        ValueError: actions that are no bounded vector, or a camera that is not there.
    """

    cameras: ClassVar[tuple[str, ...]] = ("view",)  # those drawn unless others are asked for
    actions: ClassVar[tuple[str, ...]] = ()  # names; () numbers them
    targets: ClassVar[tuple[int, ...]] = ()  # actions that are targets in the units of `agent_pos`

    def __init__(
        self, name: str, cameras: Sequence[str] | None = None, size: Sequence[int] = (48, 84)
    ) -> None:
        self.name, self.size = name, (int(size[0]), int(size[1]))
        self.env = self.open()
        self.active = tuple(self.cameras if cameras is None else cameras)
        for camera in self.active:
            if camera not in self.every_camera():
                known = ", ".join(self.every_camera())
                raise ValueError(f"{name} has no camera {camera!r}; choose among {known}")
        self.low, self.high = self.bounds()
        self.seen: Any = None  # the package's newest observation
        self.draw_every, self._steps = 1, 0
        self._drawn: dict[str, np.ndarray] = {}  # the newest pictures
        self.sent = np.clip(np.zeros_like(self.low), self.low, self.high)

    def open(self) -> gymnasium.Env:
        """The environment, without a time limit: `robolearn.envs.foreign` keeps that."""
        module, _, env_id = self.name.rpartition(":")
        if module:
            import_module(module)
        return self.make(env_id)

    def make(self, env_id: str, **options: Any) -> gymnasium.Env:  # noqa: ANN401
        """`gymnasium.make` as all doors want it."""
        plain: dict[str, Any] = {"max_episode_steps": -1, "disable_env_checker": True}
        return gymnasium.make(env_id, render_mode="rgb_array", **plain, **options)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest action, float32 (J,) each.

        Raises:
            ValueError: actions are no bounded vector.
        """
        space = self.env.action_space
        vector = isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1
        if not isinstance(space, gymnasium.spaces.Box) or not vector or not space.is_bounded():
            raise ValueError(f"{self.name} takes actions in {space}; policies give bounded vectors")
        return space.low.astype(np.float32), space.high.astype(np.float32)

    def every_camera(self) -> tuple[str, ...]:
        """The names of all cameras."""
        return self.cameras

    def describe(self) -> Told:
        """What does not change: the entries of an `ArmSpec`, and what can be seen."""
        told, count = self.reset(0, ""), len(self.low)
        return {
            "joints": list(self.actions) or [f"action_{index}" for index in range(count)],
            "low": self.low,
            "high": self.high,
            "home": np.clip(told["agent_pos"], self.low, self.high),
            "grippers": [index for index in range(count) if index not in self.targets],
            "control_hz": int(self.env.metadata.get("render_fps") or RATE),
            "cameras": list(self.active),
            "state_size": told["environment_state"].size,
        }

    def reset(self, seed: int, instruction: str) -> Told:
        """Starts the episode of a seed.

        Raises:
            ValueError: an instruction that it does not know; "" draws one.
        """
        self.sent = np.clip(np.zeros_like(self.low), self.low, self.high)
        task, self._steps = self.begin(seed, instruction), 0
        self.seen, info = self.env.reset(seed=seed)
        return {**self.tell(0.0, info), "task": task}

    def begin(self, seed: int, instruction: str) -> str:
        """The instruction of the episode; a door with several tasks turns to that one."""
        del seed
        return self.check(instruction, [self.task()])

    def check(self, instruction: str, known: Sequence[str]) -> str:
        """The instruction, or the first that is known if it is "".

        Raises:
            ValueError: it is not known.
        """
        if instruction and instruction not in known:
            raise ValueError(f"{self.name} has no task {instruction!r}, but: {', '.join(known)}")
        return instruction or known[0]

    def task(self) -> str:
        """What is to be done, as an instruction."""
        return self.name.rpartition(":")[2].rpartition("/")[2]

    def step(self, action: np.ndarray) -> Told:
        """Acts for one control period."""
        self.sent = action
        self._steps += 1
        kind: Any = self.env.action_space.dtype
        self.seen, reward, terminated, truncated, info = self.env.step(action.astype(kind))
        told = self.tell(float(reward), info)
        return {**told, "terminated": bool(terminated), "truncated": bool(truncated)}

    def tell(self, reward: float, info: Mapping[str, Any]) -> Told:
        """The observation, and how things are."""
        success, told = self.success(info), self.numbers(info)
        progress = 1.0 if success else float(np.clip(self.progress(reward, info), 0.0, 1.0))
        return {
            **{key: np.array(value, np.float32).ravel() for key, value in told.items()},
            "pixels": self.pictures(),
            "success": success,
            "progress": progress,
            "reward": reward,
            "terminated": False,
            "truncated": False,
            "fault": "",
        }

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """`agent_pos` and `agent_vel` (J,), and `environment_state` (S,)."""
        del info
        own: Any = self.seen.get("agent_pos", 0.0) if isinstance(self.seen, dict) else 0.0
        return {
            "agent_pos": own if np.shape(own) == self.low.shape else self.sent,
            "agent_vel": np.zeros_like(self.low),
            "environment_state": gymnasium.spaces.flatten(self.env.observation_space, self.seen),
        }

    def success(self, info: Mapping[str, Any]) -> bool:
        """Whether the task is done."""
        return bool(info.get("is_success", info.get("success", False)))

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """How far it has come; outside of 0..1 it is clipped."""
        del reward, info
        return 0.0

    def spare(self, draw_every: int) -> None:
        """Draws in every so many steps of an episode only; in between, the last pictures stay."""
        self.draw_every = draw_every

    def pictures(self) -> dict[str, np.ndarray]:
        """What the cameras show, or showed when they were drawn last, by camera."""
        if self._steps % self.draw_every == 0:
            self._drawn = {camera: self.picture(camera) for camera in self.active}
        return self._drawn

    def picture(self, camera: str) -> np.ndarray:
        """What a camera shows, uint8 (H, W, 3)."""
        import cv2

        del camera
        height, width = self.size
        return cv2.resize(self.film(), (width, height), interpolation=cv2.INTER_AREA)

    def film(self) -> np.ndarray:
        """A picture for videos, uint8 (h, w, 3)."""
        return np.array(self.env.render())

    def close(self) -> None:
        """Lets go of the environment."""
        self.env.close()


class Scripted(Door, ABC):
    """A door to a task for which there is a script of ours, begun anew in every episode."""

    @abstractmethod
    def script(self) -> Iterator[np.ndarray]:
        """The actions (J,) of the episode that has just begun, without end."""

    def begin(self, seed: int, instruction: str) -> str:
        """See `Door`."""
        self._script: Iterator[np.ndarray] | None = None
        return super().begin(seed, instruction)

    def expert(self) -> np.ndarray:
        """What the script does next, (J,)."""
        self._script = self._script or self.script()
        return next(self._script).astype(np.float32)


class MujocoDoor(Door):
    """A door whose cameras are drawn by us: MuJoCo's defaults cost 20 times as much on a CPU."""

    def __init__(
        self, name: str, cameras: Sequence[str] | None = None, size: Sequence[int] = (48, 84)
    ) -> None:
        # By model and size: one door may have several tasks.
        self._renderers: dict[tuple[int, tuple[int, int]], Any] = {}
        super().__init__(name, cameras, size)

    def model_and_data(self) -> tuple[Any, Any]:
        """MuJoCo's own objects."""
        task: Any = self.env.unwrapped
        return task.model, task.data

    def every_camera(self) -> tuple[str, ...]:
        """See `Door`."""
        model, _ = self.model_and_data()
        return tuple(model.camera(index).name for index in range(model.ncam))

    def picture(self, camera: str) -> np.ndarray:
        """See `Door`."""
        return self.draw(camera, self.size)

    def draw(self, camera: str, size: tuple[int, int]) -> np.ndarray:
        """What a camera shows in another size, uint8 (h, w, 3)."""
        model, data = self.model_and_data()
        drawn = self._renderers.get((id(model), size)) or self._renderer(model, size)
        drawn.update_scene(data, camera, self.look())
        return drawn.render()

    def look(self) -> Any:  # noqa: ANN401
        """What is drawn, an `mjvOption`; None is everything that MuJoCo draws by itself."""
        return None

    def _renderer(self, model: Any, size: tuple[int, int]) -> Any:  # noqa: ANN401
        import mujoco

        model.vis.quality.offsamples = 0  # acts only before there is a context
        drawn = mujoco.Renderer(model, *size)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            drawn.scene.flags[int(flag)] = 0
        self._renderers[id(model), size] = drawn
        return drawn

    def forget(self) -> None:
        """Lets go of what has drawn."""
        for drawn in self._renderers.values():
            drawn.close()
        self._renderers.clear()

    def close(self) -> None:
        """See `Door`."""
        self.forget()
        super().close()
