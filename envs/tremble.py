"""`Trembling`: what arrives is not quite what was asked for, and has to be corrected.

For recordings: whoever demonstrates is led astray and comes back, so that a policy sees how to, and
cannot tell where things are from how far the arm has come (DART, Laskey et al. 2017, section 3; its
noise is drawn anew in every step, and stops mattering where the arm is slow).
"""

from typing import Any, ClassVar, Final

import gymnasium
import numpy as np

from robolearn.contract import Info, limit_action
from robolearn.envs.foreign import Foreign
from robolearn.envs.task import Task
from robolearn.envs.variation import Variation, step_late, variation_stream

TREMBLE: Final = "tremble"
# The noise's deviation at full strength, share of an action's range: of targets in the units of
# `agent_pos`, and of what `ArmSpec.grippers` lists, grippers and moves.
TARGETS: Final = 0.02
OTHERS: Final = 0.1
LASTS: Final = 0.2  # s, its time constant


class Trembling(Variation):
    """Adds noise that changes slowly to every action.

    Args:
        env: a simulated task of ours or of another package, perhaps wrapped.
        level: see `Variation`.
    """

    kinds: ClassVar[tuple[type, ...]] = (Task, Foreign)

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, TREMBLE, level)
        arm = self.task.arm
        shares = np.full(arm.size, TARGETS)
        shares[list(arm.grippers)] = OTHERS
        self._spread = shares * self.strength * np.subtract(arm.high, arm.low)
        self._kept = np.exp(-1.0 / (LASTS * arm.control_hz))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the episode, without noise."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._rng = variation_stream(info[Info.SEED], self.name)
        self._noise = np.zeros_like(self._spread)
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Executes about what is asked; `info` tells what was asked."""
        return step_late(self.env, action, self._shaken) if self.level else self.env.step(action)

    def _shaken(self, sent: np.ndarray) -> np.ndarray:
        drawn = self._spread * self._rng.standard_normal(len(sent))
        self._noise = self._kept * self._noise + np.sqrt(1.0 - self._kept**2) * drawn
        return limit_action(self.task.arm, (sent + self._noise).astype(np.float32))
