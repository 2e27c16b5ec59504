"""What is different from slot to slot of a batch: `robolearn.envs.randomize` for every slot."""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
from mujoco.batch import Batch

from robolearn.contract import limit_action
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.randomize import RANDOMIZERS, World, draw_delay, draw_world
from robolearn.envs.task import Start
from robolearn.envs.variation import DelayLine, check_level


class BatchWorlds:
    """Gives every slot the world that a single environment has with the same seed.

    Args:
        batch: the simulations.
        task: their task, whose model is the nominal one.
        variations: names and levels.
        late: control steps, a fraction, that all actions come late, beside what variations draw.

    Raises:
        ValueError: no such variation or level, or one that is not about an episode as a whole.
    """

    def __init__(
        self, batch: Batch, task: ManipulationEnv, variations: Mapping[str, int], late: float = 0.0
    ) -> None:
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
        self._delay, self._late = variations.get("delay", 0), late
        # The drawn delay, then the fixed one, as single environments wrap them.
        self._drawn, self._fixed = (
            DelayLine(batch.nsim, task.arm.size) if some else None for some in (self._delay, late)
        )

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
        if self._drawn:
            hz = self._task.arm.control_hz
            steps = np.array([draw_delay(self._delay, seed, hz) for seed in seeds])
            self._drawn.begin(slots, targets, steps)
        if self._fixed:
            self._fixed.begin(slots, targets, self._late)

    def arriving(self, targets: np.ndarray) -> np.ndarray:
        """The targets (N, J) that reach the servos now, when these are sent."""
        for line in (self._drawn, self._fixed):
            if line:
                targets = limit_action(self._task.arm, line.push(targets))
        return targets
