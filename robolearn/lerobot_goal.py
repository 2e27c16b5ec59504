"""What an instruction asks for, as numbers, for policies of LeRobot's that read no language.

ACT and Diffusion take no text, and most tasks cannot be solved without knowing the goal. A step of
their own preprocessor reads it: the numbers (see `Phrases.encoded`) are appended to
`observation.state`, in training as in evaluation. LeRobot saves and opens the step with the
policy, by the name of its class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from lerobot.processor import (
    EnvTransition,
    NormalizerProcessorStep,
    ProcessorStep,
    TransitionKey,
)
from lerobot.utils.constants import OBS_STATE

from robolearn.envs.language import Phrases
from robolearn.registry import make_env

Features = dict[PipelineFeatureType, dict[str, PolicyFeature]]


@dataclass
class GoalStep(ProcessorStep):
    """Appends the goal to the state.

    Attributes:
        env: the id of the simulated task whose instructions these are.
    """

    env: str

    @cached_property
    def phrases(self) -> Phrases | None:
        """What the task can be told; None of tasks that are always the same, as others' are."""
        env = make_env(self.env, obs_type="state")
        env.close()
        return getattr(env.unwrapped, "phrases", None)

    @property
    def size(self) -> int:
        """How many numbers a goal has, G."""
        if self.phrases is None:
            return 0
        return len(self.phrases.encoded(next(iter(self.phrases.all("train")))))

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """The state (B, J) or (B, past, J) becomes (B, J + G) or (B, past, J + G)."""
        observation: dict[str, Any] = dict(transition[TransitionKey.OBSERVATION] or {})
        texts = (transition[TransitionKey.COMPLEMENTARY_DATA] or {})["task"]
        state = observation[OBS_STATE]
        goal = torch.tensor([self._numbers(text) for text in texts]).to(state)
        if state.ndim == 3:
            goal = goal[:, None].expand(-1, state.shape[1], -1)
        observation[OBS_STATE] = torch.cat([state, goal], -1)
        return {**transition, TransitionKey.OBSERVATION: observation}

    def _numbers(self, text: str) -> Sequence[float]:
        """The goal of an instruction; zeros where nothing is asked for."""
        return self.phrases.encoded(text) if self.phrases and text else [0.0] * self.size

    def get_config(self) -> dict[str, Any]:
        """What LeRobot saves of it."""
        return {"env": self.env}

    def transform_features(self, features: Features) -> Features:
        """The policy's config says how large the state is."""
        return features


def processors_with_goal(config: Any, stats: dict[str, Any], step: GoalStep) -> tuple[Any, Any]:  # noqa: ANN401
    """LeRobot's own pre- and postprocessor of a policy, with the goal in the state.

    Args:
        config: of the policy, whose state has room for the goal.
        stats: of the dataset.
        step: tells the goal.
    """
    before, after = make_pre_post_processors(config, dataset_stats=_with_goal(stats, step.size))
    steps = list(before.steps)
    normalises = next(k for k, s in enumerate(steps) if isinstance(s, NormalizerProcessorStep))
    before.steps = [*steps[:normalises], step, *steps[normalises:]]
    return before, after


def _with_goal(stats: dict[str, Any], size: int) -> dict[str, Any]:
    """The statistics with those of the goal appended to the state's.

    They leave its numbers as they are under mean and deviation, and map them from 0..1 to -1..1
    under minimum and maximum.
    """
    goal = {"mean": 0.0, "std": 1.0, "min": 0.0, "max": 1.0}
    state = {
        key: np.concatenate([np.asarray(stats[OBS_STATE][key]), np.full(size, value)])
        for key, value in goal.items()
    }
    return {**stats, OBS_STATE: state}
