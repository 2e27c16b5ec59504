"""The door of robosuite, whose Lift, Can, Square, ToolHang and Transport are robomimic's tasks."""

import logging
import random
from collections.abc import Mapping
from typing import Any, ClassVar, Final
from unittest.mock import patch

import gymnasium
import numpy as np

from robolearn.envs.foreign_doors import MujocoDoor, Told

DOWN: Final = np.diag([1.0, -1.0, -1.0])  # the frame of a gripper that looks down
SEEN: Final = ("object-state", "eef_pos", "eef_quat", "gripper_qpos")  # ends of observations' names
FILM: Final = (480, 640)  # pixels
MOVES: Final = ("dx", "dy", "dz", "droll", "dpitch", "dyaw")


class Robosuite(MujocoDoor):
    """robosuite with Panda arms. Actions are moves and turns of each gripper, and how it closes.

    `agent_pos` are place, m, turn away from looking down, rad (a vector along its axis), and how
    far the fingers are apart, m, of each gripper.
    """

    cameras = ("agentview", "robot0_eye_in_hand")
    tasks: ClassVar = {
        "Lift": "lift the cube",
        "Stack": "put the red cube on the green one",
        "PickPlaceCan": "put the can into its bin",
        "NutAssemblySquare": "put the square nut on the square peg",
        "ToolHang": "put the stand together and hang the tool on it",
        "Door": "open the door",
        "TwoArmLift": "lift the pot by both handles",
        "TwoArmTransport": "carry the hammer over to the other table's bin",
    }

    def open(self) -> gymnasium.Env:
        """See `Door`."""
        logging.disable(logging.WARNING)  # of parts that are not needed
        import robosuite
        from robosuite.wrappers import GymWrapper

        logging.disable(logging.NOTSET)
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it tells of every reset
        name = self.name.partition("/")[2]
        if name not in (known := robosuite.ALL_ENVIRONMENTS):
            raise ValueError(f"robosuite has no task {name!r}, but: {', '.join(sorted(known))}")
        self._arms = 2 if name.startswith("TwoArm") else 1
        task = robosuite.make(
            name,
            robots=["Panda"] * self._arms,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            ignore_done=True,  # `robolearn.envs.foreign` keeps the time
            reward_shaping=True,
        )
        seen = [key for key in task.observation_spec() if key.endswith(SEEN)]
        env: Any = GymWrapper(task, seen, flatten_obs=False)
        env.metadata = {"render_fps": int(task.control_freq)}
        return env

    def _task(self) -> Any:  # noqa: ANN401
        wrapped: Any = self.env
        return wrapped.env

    def describe(self) -> Told:
        """See `Door`."""
        each = (*MOVES, "gripper")[: len(self.low) // self._arms]
        sides = [""] if self._arms == 1 else ["right_", "left_"]
        self.actions = tuple(f"{side}{move}" for side in sides for move in each)  # type: ignore[misc]
        return super().describe()

    def reset(self, seed: int, instruction: str) -> Told:
        """See `Door`; the package builds its world anew, and draws from generators of its own.

        Some of those are kept from one episode to the next, and some are made where they are used,
        without a seed.
        """
        self.forget()  # what drew the old world
        generator = np.random.default_rng(seed)
        task = self._task()
        sampler = getattr(task, "placement_initializer", None)
        for part in (task, sampler, *getattr(sampler, "samplers", {}).values()):
            if hasattr(part, "rng"):
                part.rng = generator
        np.random.seed(seed)
        random.seed(seed)
        self._before: np.ndarray | None = None
        with patch.object(np.random, "default_rng", lambda *_, **__: generator):
            return super().reset(seed, instruction)

    def task(self) -> str:
        """See `Door`."""
        name = self.name.partition("/")[2]
        return self.tasks.get(name, name)

    def model_and_data(self) -> tuple[Any, Any]:
        """See `MujocoDoor`."""
        sim = self._task().sim
        return sim.model._model, sim.data._data

    def success(self, info: Mapping[str, Any]) -> bool:
        """The package's own."""
        del info
        return bool(self._task()._check_success())

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """The package's shaped reward; of ToolHang and TwoArmTransport it has none, and tells 0."""
        del info
        return reward

    def numbers(self, info: Mapping[str, Any]) -> Told:
        """See `Door`; the state is the package's of the objects."""
        del info
        now = np.concatenate([self._hand(f"robot{arm}_") for arm in range(self._arms)])
        before = now if self._before is None else self._before
        self._before = now
        return {
            "agent_pos": now,
            "agent_vel": (now - before) * self.env.metadata["render_fps"],
            "environment_state": self.seen.get("object-state", np.zeros(1)),
        }

    def _hand(self, arm: str) -> np.ndarray:
        """What `agent_pos` has of one arm."""
        from robosuite.utils.transform_utils import mat2quat, quat2axisangle, quat2mat

        place, turn = self.seen[f"{arm}eef_pos"], quat2mat(self.seen[f"{arm}eef_quat"]) @ DOWN
        hand = np.concatenate([place, quat2axisangle(mat2quat(turn))])
        fingers = self.seen.get(f"{arm}gripper_qpos")
        return hand if fingers is None else np.append(hand, np.ptp(fingers))

    def look(self) -> Any:  # noqa: ANN401
        """See `MujocoDoor`; shapes for collisions, the first group, would hide what is drawn."""
        import mujoco

        option = mujoco.MjvOption()
        option.geomgroup[0] = 0
        return option

    def film(self) -> np.ndarray:
        """See `Door`."""
        return self.draw("frontview", FILM)
