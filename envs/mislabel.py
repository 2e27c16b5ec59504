"""Wrong labels: the instruction names another goal than the one that is pursued and judged.

Recordings of people have such episodes, and whoever is trained on them has a second mode: a good
demonstration of the wrong thing. Verifiers are for policies with such modes.
"""

from typing import Any, Final

import gymnasium
import numpy as np

from robolearn.contract import Info, wish
from robolearn.envs.task import Start
from robolearn.envs.variation import Variation, next_seed, variation_stream

ATTEMPTS: Final = 200  # to find another goal in the same scene


class Mislabelled(Variation):
    """Level 4 mislabels every episode, lower levels a share of them.

    The words and the goal in "environment_state" are those of a goal that is not pursued. A goal
    picture shows the pursued one, and so does what a task notes of the way so far: Peel's forces,
    Write's places.

    Args:
        env: a simulated task, perhaps wrapped.
        level: from 0, nothing, to `MAX_LEVEL`.
    """

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, "label", level)
        self._told: Start | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: of the episode.
            options: "instruction" is what is told; "pursued" is what is done instead where the
                label is wrong, by default any other goal that is in reach.

        Raises:
            ValueError: see the task; also a task with one goal only.
        """
        chosen = next_seed(self.task, seed)
        rng = variation_stream(chosen, self.name)
        self._told = None
        if rng.random() < self.strength:
            told = self.task.draw(chosen, wish(options))
            pursued = (options or {}).get("pursued") or self._another(chosen, told, rng)
            options = {**(options or {}), "instruction": pursued}
            self._told = told
        observation, info = self.env.reset(seed=seed, options=options)
        return self._as_told(observation), self._as_told_info(info)

    def _another(self, seed: int, told: Start, rng: np.random.Generator) -> str:
        """The instruction of another goal in the same scene.

        Raises:
            ValueError: there is none.
        """
        phrases = self.task.phrases
        for _ in range(ATTEMPTS):
            text = phrases.draw(rng, self.task.paraphrases, self.task.split)
            if phrases.parse(text) == phrases.parse(told.instruction):
                continue
            try:
                other = self.task.draw(seed, text)
            except ValueError:  # out of reach in this scene
                continue
            if np.array_equal(other.qpos, told.qpos):
                return text
        raise ValueError(f"label cannot act on {self.task.spec.id}: it has no other goal in reach")

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        observation, info = self._as_told(observation), self._as_told_info(info)
        return observation, float(reward), terminated, truncated, info

    def _as_told(self, observation: dict[str, Any]) -> dict[str, Any]:
        if self._told is None or "environment_state" not in observation:
            return observation
        state = self.task.environment_state(self.task.state, self._told.goal[None])[0]
        return observation | {"environment_state": state}

    def _as_told_info(self, info: dict[str, Any]) -> dict[str, Any]:
        return info if self._told is None else info | {Info.TASK: self._told.instruction}
