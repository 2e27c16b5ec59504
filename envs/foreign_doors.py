"""Doors: tasks of other packages, told in plain numbers, for `robolearn.envs.foreign`.

A door says what its task is, starts it, steps it, and tells what robolearn's contract asks for. It
also opens in virtual environments without robolearn (`foreign_worker.py`), so this file needs only
gymnasium and numpy, and its package. Units are the package's own.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np

Told = dict[str, Any]
RATE: Final = 20  # Hz, of an environment that does not say its own
UNSTABLE: Final = "physics_unstable"  # the fault code of robolearn's own tasks
SIDES: Final = ("left", "right")
VIPER_X: Final = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


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
        self.sent = np.clip(np.zeros_like(self.low), self.low, self.high)

    def open(self) -> gymnasium.Env:
        """The environment, without a time limit: `robolearn.envs.foreign` keeps that."""
        module, _, env_id = self.name.rpartition(":")
        if module:
            import_module(module)
        return self.make(env_id)

    def make(self, env_id: str, **options: Any) -> gymnasium.Env:  # noqa: ANN401
        """`gymnasium.make` as all doors want it."""
        plain = {"render_mode": "rgb_array", "max_episode_steps": -1, "disable_env_checker": True}
        return gymnasium.make(env_id, **plain, **options)

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
        task = self.begin(seed, instruction)
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
            "pixels": {camera: self.picture(camera) for camera in self.active},
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
        own = self.seen.get("agent_pos") if isinstance(self.seen, dict) else None
        return {
            "agent_pos": self.sent if np.shape(own) != self.low.shape else own,
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


class PushT(Door):
    """gym-pusht. Actions are places of the pusher, in pixels of a field of 512 x 512."""

    actions, targets = ("x", "y"), (0, 1)

    def open(self) -> gymnasium.Env:
        """See `Door`."""
        import_module("gym_pusht")
        height, width = self.size
        return self.make(
            self.name,
            obs_type="environment_state_agent_pos",  # 8 keypoints of the T, and the pusher
            observation_height=height,
            observation_width=width,
        )

    def task(self) -> str:
        """See `Door`."""
        return "push the T onto its outline"

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """See `Door`."""
        return {**self.seen, "agent_vel": info["vel_agent"]}

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """The reward is the share of the outline that is covered, in shares of what suffices."""
        del info
        return reward

    def picture(self, camera: str) -> np.ndarray:
        """Without the mark of the last action, which `render` draws."""
        del camera
        task: Any = self.env.unwrapped
        return np.array(task._render())


class MujocoDoor(Door):
    """A door whose cameras are drawn by us: MuJoCo's defaults cost 20 times as much on a CPU."""

    def __init__(
        self, name: str, cameras: Sequence[str] | None = None, size: Sequence[int] = (48, 84)
    ) -> None:
        self._renderers: dict[int, Any] = {}  # by model: one door may have several tasks
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
        model, data = self.model_and_data()
        drawn = self._renderers.get(id(model)) or self._renderer(model)
        drawn.update_scene(data, camera)
        return drawn.render()

    def _renderer(self, model: Any) -> Any:  # noqa: ANN401
        import mujoco

        model.vis.quality.offsamples = 0  # acts only before there is a context
        drawn = mujoco.Renderer(model, *self.size)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            drawn.scene.flags[int(flag)] = 0
        self._renderers[id(model)] = drawn
        return drawn

    def close(self) -> None:
        """See `Door`."""
        for drawn in self._renderers.values():
            drawn.close()
        self._renderers.clear()
        super().close()


class Aloha(MujocoDoor):
    """gym-aloha. Actions are joint targets of two arms, rad; grippers from 0 closed to 1 open."""

    cameras = ("top",)
    actions = tuple(f"{side}_{joint}" for side in SIDES for joint in (*VIPER_X, "gripper"))
    targets = (*range(6), *range(7, 13))
    tasks: ClassVar = {
        "AlohaTransferCube": "take the cube with the right arm and hand it to the left one",
        "AlohaInsertion": "put the peg into the socket",
    }
    solved: Final = 4.0  # the reward of its last stage

    def open(self) -> gymnasium.Env:
        """It would draw three pictures of 480 x 640 in each step, whatever is asked for."""
        import_module("gym_aloha")
        env = self.make(self.name, obs_type="pixels_agent_pos")
        task: Any = env.unwrapped
        script = task._env.task
        script.get_observation = lambda physics: {
            "qpos": script.get_qpos(physics),
            "images": {"top": np.zeros(1)},
        }
        return env

    def model_and_data(self) -> tuple[Any, Any]:
        """See `MujocoDoor`."""
        physics = self._physics()
        return physics.model.ptr, physics.data.ptr

    def _physics(self) -> Any:  # noqa: ANN401
        task: Any = self.env.unwrapped
        return task._env.physics

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the joints; the package's action space, -1..1, is not what it takes."""
        model, _ = self.model_and_data()
        names = [f"vx300s_{side}/{joint}" for side in SIDES for joint in VIPER_X]
        ranges = np.array([model.joint(name).range for name in names])
        gripper = (6, 12)  # where the closed and open end goes in, before each arm's end
        low, high = (np.insert(ranges[:, k], gripper, float(k)) for k in (0, 1))
        return low.astype(np.float32), high.astype(np.float32)

    def task(self) -> str:
        """See `Door`."""
        return next(text for name, text in self.tasks.items() if name in self.name)

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """See `Door`; the state is that of what lies on the table."""
        del info
        task: Any = self.env.unwrapped
        script, physics = task._env.task, self._physics()
        return {
            "agent_pos": self.seen["agent_pos"],
            "agent_vel": script.get_qvel(physics),
            "environment_state": script.get_env_state(physics),
        }

    def step(self, action: np.ndarray) -> Told:
        """See `Door`; physics that diverge are a fault."""
        from dm_control.rl.control import PhysicsError

        try:
            return super().step(action)
        except PhysicsError:
            return {**self._told, "fault": UNSTABLE}

    def tell(self, reward: float, info: Mapping[str, Any]) -> Told:
        """See `Door`."""
        self._told = super().tell(reward, info)
        return self._told

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """Its stages."""
        del info
        return reward / self.solved


class Fetch(MujocoDoor):
    """Fetch of gymnasium-robotics. Actions are moves of the gripper, and how it opens."""

    cameras = ("external_camera_0", "gripper_camera_rgb")
    actions = ("dx", "dy", "dz", "gripper")
    tasks: ClassVar = {
        "Reach": "move the gripper to the red point",
        "PickAndPlace": "bring the block to the red point",
        "Push": "push the block to the red point",
        "Slide": "slide the puck to the red point",
    }
    opened: Final = 0.05  # m that a finger moves

    def open(self) -> gymnasium.Env:
        """See `Door`."""
        gymnasium.register_envs(import_module("gymnasium_robotics"))
        return self.make(self.name)

    def task(self) -> str:
        """See `Door`."""
        return next(text for name, text in self.tasks.items() if name in self.name)

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """See `Door`; the state is the package's observation and goal."""
        del info
        all_of_it, task = self.seen["observation"], self.env.unwrapped
        fingers = all_of_it[3:5] if len(all_of_it) == 10 else all_of_it[9:11]  # 10: no block
        rates = np.append(all_of_it[-5:-2], all_of_it[-2:].mean() / self.opened)
        period: Any = getattr(task, "dt", 1.0)  # it tells distances per step
        return {
            "agent_pos": np.append(all_of_it[:3], fingers.mean() / self.opened),
            "agent_vel": rates / period,
            "environment_state": np.append(all_of_it, self.seen["desired_goal"]),
        }

    def reset(self, seed: int, instruction: str) -> Told:
        """See `Door`."""
        self._first = 0.0
        return super().reset(seed, instruction)

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """The share of the distance to the goal that is done."""
        del reward, info
        distance = float(np.linalg.norm(self.seen["achieved_goal"] - self.seen["desired_goal"]))
        self._first = self._first or distance
        return 1.0 - distance / max(self._first, 1e-9)


class Kitchen(MujocoDoor):
    """Franka Kitchen of gymnasium-robotics. Actions are joint velocities, in shares of the most."""

    cameras = ("left_cap", "right_cap")
    actions = (*(f"joint_{index}" for index in range(1, 8)), "finger_1", "finger_2")
    # The four of "kitchen-complete" in D4RL (Fu et al. 2020).
    wanted: ClassVar = ("microwave", "kettle", "light switch", "slide cabinet")

    def open(self) -> gymnasium.Env:
        """See `Door`."""
        gymnasium.register_envs(import_module("gymnasium_robotics"))
        return self.make(self.name, tasks_to_complete=list(self.wanted))

    def task(self) -> str:
        """See `Door`."""
        return f"see to the {', the '.join(self.wanted[:-1])} and the {self.wanted[-1]}"

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """See `Door`; the state is that of the furniture."""
        del info
        all_of_it = self.seen["observation"]
        keys = ("agent_pos", "agent_vel", "environment_state")
        return dict(zip(keys, (all_of_it[:9], all_of_it[9:18], all_of_it[18:]), strict=True))

    def success(self, info: Mapping[str, Any]) -> bool:
        """All of them are done."""
        return len(info["episode_task_completions"]) == len(self.wanted)

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """How many are done."""
        del reward
        return len(info["episode_task_completions"]) / len(self.wanted)


class MetaWorld(MujocoDoor):
    """Meta-World. Actions are moves of the gripper, and how hard it closes.

    "metaworld/reach-v3" is one task (MT1); "metaworld/MT10" draws one of ten for each episode.
    """

    cameras = ("corner2", "gripperPOV")
    actions = ("dx", "dy", "dz", "gripper")
    best: Final = 10.0  # reward of success

    def open(self) -> gymnasium.Env:
        """Opens the first task; the others of several are opened when their turn comes."""
        from metaworld import env_dict

        name = self.name.partition("/")[2]
        sets = {kind: getattr(env_dict, f"{kind}_V3") for kind in ("MT10", "MT50")}
        names = list(sets.get(name, [name]))
        if names[0] not in (known := env_dict.ALL_V3_ENVIRONMENTS):
            raise ValueError(
                f"Meta-World has no task {name!r}, but: MT10, MT50, {', '.join(known)}"
            )
        self._names = {name.rpartition("-v")[0].replace("-", " "): name for name in names}
        self._opened: dict[str, gymnasium.Env] = {}
        return self._open_one(names[0])

    def _open_one(self, name: str) -> gymnasium.Env:
        """As its benchmark MT1 does, but without its 50 places: `reset` draws, from the seed."""
        from metaworld import env_dict

        if name not in self._opened:
            task: Any = env_dict.ALL_V3_ENVIRONMENTS[name](
                render_mode="rgb_array", camera_name=self.cameras[0], width=640, height=480
            )
            task._set_task_called, task._partially_observable = True, False
            task._freeze_rand_vec, task.seeded_rand_vec = False, True
            self._opened[name] = task
        return self._opened[name]

    def begin(self, seed: int, instruction: str) -> str:
        """See `Door`."""
        known = list(self._names)
        drawn = known[int(np.random.default_rng(seed).integers(len(known)))]
        task = self.check(instruction or drawn, known)
        self.env = self._open_one(self._names[task])
        self._task = self._names[task]
        env: Any = self.env
        env.seed(seed)  # `reset` does not look at its seed
        return task

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """See `Door`; the state is the package's observation, goal and last observation in it."""
        del info
        now, before = self.seen[:4], self.seen[18:22]
        rate = self.env.metadata["render_fps"]
        return {
            "agent_pos": now,
            "agent_vel": (now - before) * rate,
            "environment_state": self.seen,
        }

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """The package's shaped reward."""
        del info
        return reward / self.best

    def expert(self) -> np.ndarray:
        """What the package's own script does next, (4,)."""
        from metaworld.policies import ENV_POLICY_MAP

        if self._script_of != self._task:
            self._script, self._script_of = ENV_POLICY_MAP[self._task](), self._task
        return np.asarray(self._script.get_action(self.seen), np.float32)

    _script_of = ""

    def close(self) -> None:
        """See `Door`."""
        for env in self._opened.values():
            self.env = env
            super().close()
