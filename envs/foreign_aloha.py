"""The door of gym-aloha, with scripts that solve its tasks."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np

from robolearn.envs.foreign_aloha_script import actions, hand_over, insert
from robolearn.envs.foreign_doors import MujocoDoor, Scripted, Told

UNSTABLE: Final = "physics_unstable"  # the fault code of robolearn's own tasks
SIDES: Final = ("left", "right")
VIPER_X: Final = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")


class Aloha(Scripted, MujocoDoor):
    """gym-aloha. Actions are joint targets of two arms, rad; grippers from 0 closed to 1 open."""

    cameras = ("top",)
    actions = tuple(f"{side}_{joint}" for side in SIDES for joint in (*VIPER_X, "gripper"))
    targets = (*range(6), *range(7, 13))
    tasks: ClassVar = {
        "AlohaTransferCube": "take the cube with the right arm and hand it to the left one",
        "AlohaInsertion": "put the peg into the socket",
    }
    scripts: ClassVar = {"AlohaTransferCube": hand_over, "AlohaInsertion": insert}
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
        return self._of_this(self.tasks)

    def _of_this(self, known: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """What belongs to this task."""
        return next(value for name, value in known.items() if name in self.name)

    def script(self) -> Iterator[np.ndarray]:
        """See `Scripted`."""
        model, data = self.model_and_data()
        things = self._told["environment_state"]
        return actions(model, data, self._of_this(self.scripts)(things))

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
            return {**self._told, "reward": 0.0, "fault": UNSTABLE}

    def tell(self, reward: float, info: Mapping[str, Any]) -> Told:
        """See `Door`."""
        self._told = super().tell(reward, info)
        return self._told

    def progress(self, reward: float, info: Mapping[str, Any]) -> float:
        """Its stages."""
        del info
        return reward / self.solved
