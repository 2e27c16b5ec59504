"""The door of Meta-World, with its scripted experts."""

from collections.abc import Mapping
from typing import Any, Final

import gymnasium
import numpy as np

from robolearn.envs.foreign_doors import MujocoDoor, Told


class MetaWorld(MujocoDoor):
    """Meta-World. Actions are moves of the gripper, and how hard it closes.

    "metaworld/reach-v3" is one task (MT1); "metaworld/MT10" draws one of ten for each episode.
    """

    cameras = ("corner2", "gripperPOV")
    actions = ("dx", "dy", "dz", "gripper")
    best: Final = 10.0  # reward of success
    # Where corner2 stands, m: nearer than in the package, which shows more floor than table,
    # as for published policies that look at pictures (LeRobot 0.6.1, among others).
    near: Final = (0.75, 0.075, 0.7)

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
            # What `set_task` does, which takes pickled bytes; the goal is shown, as in MT1.
            task._set_task_called, task._partially_observable = True, False
            vars(task).pop("sawyer_observation_space", None)  # which depends on it
            task._set_task_inner()
            task._freeze_rand_vec, task.seeded_rand_vec = False, True
            task.model.camera(self.cameras[0]).pos[:] = self.near
            self._opened[name] = task
        return self._opened[name]

    def begin(self, seed: int, instruction: str) -> str:
        """See `Door`."""
        known = list(self._names)
        drawn = known[int(np.random.default_rng(seed).integers(len(known)))]
        task = self.check(instruction or drawn, known)
        env: Any = self._open_one(self._names[task])
        env.seed(seed)  # `reset` does not look at its seed
        self.env, self.running = env, task
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

        script = ENV_POLICY_MAP[self._names[self.running]]()  # they remember nothing
        return np.asarray(script.get_action(self.seen), np.float32)

    def picture(self, camera: str) -> np.ndarray:
        """See `Door`; the cameras around the table hang upside down."""
        drawn = super().picture(camera)
        return drawn[::-1, ::-1].copy() if camera.startswith("corner") else drawn

    def film(self) -> np.ndarray:
        """See `Door`."""
        return super().film()[::-1, ::-1].copy()

    def close(self) -> None:
        """See `Door`."""
        for env in self._opened.values():
            self.env = env
            super().close()
