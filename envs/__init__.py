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
_register("OpenDrawer", "open_drawer:OpenDrawer", seconds=12.0)
_register("CloseDrawer", "close_drawer:CloseDrawer", seconds=12.0)
_register("OpenCabinet", "open_cabinet:OpenCabinet", seconds=12.0)
_register("CloseCabinet", "close_cabinet:CloseCabinet", seconds=12.0)
_register("Lift", "lift:Lift", seconds=8.0)
_register("Sort", "sort:Sort", seconds=30.0)
_register("Stack", "stack:Stack", seconds=18.0)
_register("Push", "push:Push", seconds=25.0)
_register("Reorient", "reorient:Reorient", seconds=10.0)
_register("Handover", "handover:Handover", seconds=20.0)
_register("Insert", "insert:Insert", seconds=15.0)
_register("Reach", "reach:Reach", seconds=5.0)
_register("Pour", "pour:Pour", seconds=22.0)
_register("Transfer", "transfer:Transfer", seconds=22.0)
_register("Fold", "fold:Fold", seconds=32.0)
_register("Peel", "peel:Peel", seconds=12.0)
_register("EdgeGrasp", "edge_grasp:EdgeGrasp", seconds=14.0)
_register("Write", "write:Write", seconds=25.0)
