"""What is different from slot to slot of a batch: `robolearn.envs.randomize` for every slot."""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
from mujoco.batch import Batch

from robolearn.contract import limit_action
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.randomize import RANDOMIZERS, DelayLine, World, draw_delay, draw_world
from robolearn.envs.task import Start
from robolearn.envs.variation import check_level


class BatchWorlds:
    """Gives every slot the world that a single environment has with the same seed.

    Args:
        batch: the simulations.
        task: their task, whose model is the nominal one.
        variations: names and levels.

    Raises:
        ValueError: no such variation or level, or one that is not about an episode as a whole.
    """

    def __init__(self, batch: Batch, task: ManipulationEnv, variations: Mapping[str, int]) -> None:
        for name, level in variations.items():
            if name not in (*RANDOMIZERS, "delay"):
                raise ValueError(
                    f"batches have no variation {name!r}; choose from "
                    f"{', '.join([*RANDOMIZERS, 'delay'])}"
                )
            check_level(name, level)
        self._batch, self._task = batch, task
        self._levels = {n: variations[n] for n in reversed(RANDOMIZERS) if variations.get(n)}
        # Every slot's own model, or the one that all share.
        self.models = [task.model] * batch.nsim
        if self._levels:
            self.models = [copy(task.model) for _ in self.models]
            batch.set_models(self.models)
        self._delay = variations.get("delay", 0)
        self._line = DelayLine(batch.nsim, task.arm.size) if self._delay else None

    def begin(self, slots: np.ndarray, seeds: Sequence[int], starts: Sequence[Start]) -> None:
        """Draws the worlds of the episodes that begin in some slots; call it before their reset."""
        if not self._levels:
            return
        for slot, seed, start in zip(slots, seeds, starts, strict=True):
            world = World(self._task, self.models[slot], self._task.model, start)
            for name, level in self._levels.items():
                draw_world(name, level, seed, world)
        self._batch.set_models(self.models)

    def rest(self, slots: np.ndarray, seeds: Sequence[int], targets: np.ndarray) -> None:
        """The arms of these slots are at rest at their targets (len(slots), J)."""
        if self._line:
            hz = self._task.arm.control_hz
            steps = np.array([draw_delay(self._delay, seed, hz) for seed in seeds])
            self._line.begin(slots, targets, steps)

    def arriving(self, targets: np.ndarray) -> np.ndarray:
        """The targets (N, J) that reach the servos now, when these are sent."""
        return limit_action(self._task.arm, self._line.push(targets)) if self._line else targets
