"""The door of gym-pusht, with a script that solves it."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np

from robolearn.envs.foreign_doors import Scripted, Told
from robolearn.envs.foreign_pusht_script import actions as pushes


class PushT(Scripted):
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

    def script(self) -> Iterator[np.ndarray]:
        """See `Scripted`."""
        return pushes(self.env.unwrapped)

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
