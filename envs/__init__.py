"""Simulated MuJoCo tasks: one task, one file. Importing the package registers them."""

import gymnasium

from robolearn.contract import SO101


def _register(task: str, entry_point: str, seconds: float) -> None:
    gymnasium.register(
        id=f"robolearn/{task}-v0",
        entry_point=f"robolearn.envs.{entry_point}",
        vector_entry_point=f"robolearn.envs.batch:{task}",
        max_episode_steps=round(seconds * SO101.control_hz),
    )


_register("PickPlace", "pick_place:PickPlace", seconds=10.0)
