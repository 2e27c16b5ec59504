"""The doors of gymnasium-robotics: Fetch and Franka Kitchen."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np

from robolearn.envs.foreign_doors import MujocoDoor, Told


class Fetch(MujocoDoor):
    """Fetch of gymnasium-robotics. Actions are moves of the gripper, and how it opens."""

    cameras = ("external_camera_0",)  # those on the robot are in its body
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

    def picture(self, camera: str) -> np.ndarray:
        """With the goal, which the package moves only when it draws itself."""
        task: Any = self.env.unwrapped
        task._render_callback()
        return super().picture(camera)


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
