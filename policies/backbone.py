"""Backbones turn an observation and an instruction into tokens; this is what all of them share.

    words    ─ the backbone's language ──────────────────────────────────── token
    joints   (B, J) ─ MLP ───────────────────────────────────────────────── token
    state    (B, S) ─ MLP, for policies that may look into the simulator ── token
    picture  (B, h, w, 3) ─ the backbone's vision, modulated by the words ─ tokens

A policy that looks back has the tokens of every observation, with the same networks for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.configs import BackboneConfig
from robolearn.policies.frozen import Frozen, check_models
from robolearn.policies.language import Language
from robolearn.policies.normaliser import Normaliser
from robolearn.policies.readout import TOKENS

if TYPE_CHECKING:
    from robolearn.features import PictureFeatures

QUANTITIES = ("agent_pos", "pixels", "features", "environment_state")


@dataclass(frozen=True)
class Senses:
    """What a policy perceives.

    Attributes:
        cameras: name -> (height, width) of its pictures.
        joints: J.
        vocabulary: the words that training knows.
        state: S, the size of "environment_state"; 0 does without.
        history: observations that it looks back at.
    """

    cameras: Mapping[str, tuple[int, int]]
    joints: int
    vocabulary: Sequence[str]
    state: int = 0
    history: int = 1


class Backbone(nn.Module, ABC):
    """Turns an observation and an instruction into (B, T, D) tokens.

    Args:
        config: sizes.
        senses: what there is to perceive.
        language: makes the words' token.
        vision: camera name -> what makes tokens of its view.
    """

    def __init__(
        self,
        config: BackboneConfig,
        senses: Senses,
        language: Language,
        vision: Mapping[str, nn.Module],
    ) -> None:
        super().__init__()
        self.config, self.senses = config, senses
        self.agent_pos = Normaliser((senses.joints,))
        self.language = language
        self.vision = nn.ModuleDict(vision)
        self.joints = two_layers(senses.joints, config.width)
        if senses.state:
            self.environment_state = Normaliser((senses.state,))
            self.world = two_layers(senses.state, config.width)
        if senses.history > 1:  # which of the observations a token is of
            self.age = nn.Parameter(0.02 * torch.randn(senses.history, 1, config.width))

    @abstractmethod
    def views(
        self, observation: Mapping[str, Any], instructions: Sequence[str]
    ) -> Mapping[str, Tensor]:
        """What `vision` makes tokens of, by camera, for N single observations."""

    @property
    def models(self) -> Mapping[str, Frozen]:
        """Models that others have trained, and that are not in the checkpoint."""
        return {}

    def features(self) -> "PictureFeatures | None":
        """What the dataset may keep in place of pictures, if that never changes."""
        return None

    @property
    def token_count(self) -> int:
        """T: one for the words; of each observation two a camera, one for joints, one for state."""
        seen = TOKENS * len(self.senses.cameras) + 1 + bool(self.senses.state)
        return 1 + self.senses.history * seen

    def fit(self, columns: Mapping[str, np.ndarray]) -> None:
        """Takes the statistics of a dataset's columns."""
        self.agent_pos.fit(columns["agent_pos"])
        if self.senses.state:
            self.environment_state.fit(columns["environment_state"])

    def check_models(self, trained: Mapping[str, str]) -> None:
        """See `frozen.check_models`."""
        check_models(self.models, trained)

    def forward(
        self,
        observation: Mapping[str, Any],
        instructions: Sequence[str],
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """Tokens (B, T, D): of the words, then of each observation, the oldest first.

        Args:
            observation: "agent_pos" (B, J), "pixels" {camera: uint8 (B, h, w, 3)}, or in their
                place "features" of them, and "environment_state" (B, S) if it looks at that; with a
                history (B, history, ...).
            instructions: B strings.
            rng: in training, the source of the language augmentation.
        """
        words, history = self.language(instructions, rng), self.senses.history
        if history == 1:
            seen = self._see(observation, instructions, words)
        else:
            one_by_one = _folded({k: observation[k] for k in QUANTITIES if k in observation})
            texts = [text for text in instructions for _ in range(history)]
            seen = self._see(one_by_one, texts, words.repeat_interleave(history, 0))
            seen = (seen.unflatten(0, (-1, history)) + self.age).flatten(1, 2)
        return torch.cat([words[:, None], seen], dim=1)

    def _see(
        self, observation: Mapping[str, Any], instructions: Sequence[str], words: Tensor
    ) -> Tensor:
        """Tokens (N, T, D) of N single observations."""
        tokens = [self.joints(self.agent_pos(observation["agent_pos"]))]
        if self.senses.state:
            tokens.append(self.world(self.environment_state(observation["environment_state"])))
        views = self.views(observation, instructions)
        for camera, readout in self.vision.items():
            tokens.extend(readout(views[camera], words))
        return torch.stack(tokens, dim=1)


def two_layers(size: int, width: int) -> nn.Sequential:
    """Numbers (B, size) become a token (B, width)."""
    return nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))


def _folded(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Quantities (B, history, ...) as (B history, ...)."""
    return {
        name: _folded(value) if isinstance(value, Mapping) else value.flatten(0, 1)
        for name, value in observation.items()
    }
