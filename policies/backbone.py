"""The small backbone, trained from scratch: pictures, words and joints become tokens.

    picture  (B, h, w, 3) ─ CNN, modulated by the words ─┬─ keypoints, soft-argmax ─ token
                                                         └─ coarse feature map ───── token
    words    (B, L) ─ embedding, convolution over neighbours, attention pooling ──── token
    joints   (B, J) ─ MLP ────────────────────────────────────────────────────────── token
    state    (B, S) ─ MLP, for policies that may look into the simulator ─────────── token

Soft-argmax keypoints (Levine et al. 2016, section 5) say where the thing is that the task needs,
finer than the feature map's grid; feature-wise modulation (FiLM, Perez et al. 2018, eq. 1) lets the
instruction decide which thing that is, before its position is read off.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.base import Normaliser
from robolearn.policies.configs import BackboneConfig


class Backbone(nn.Module):
    """Turns an observation and an instruction into (B, T, D) tokens.

    Args:
        config: sizes.
        cameras: camera name -> (height, width).
        joints: J.
        vocabulary: the words that training knows.
        state: S, the size of "environment_state"; 0 does without.
        history: observations that it looks back at.
    """

    def __init__(
        self,
        config: BackboneConfig,
        cameras: Mapping[str, tuple[int, int]],
        joints: int,
        vocabulary: Sequence[str],
        state: int = 0,
        history: int = 1,
    ) -> None:
        super().__init__()
        self.config, self.cameras, self.state = config, dict(cameras), state
        self.history = history
        self.agent_pos = Normaliser((joints,))
        self.language = LanguageEncoder(vocabulary, config.words, config.width)
        self.vision = nn.ModuleDict({c: ImageEncoder(config) for c in cameras})
        self.joints = _two_layers(joints, config.width)
        if state:
            self.environment_state = Normaliser((state,))
            self.world = _two_layers(state, config.width)
        if history > 1:  # which of the observations a token is of
            self.age = nn.Parameter(0.02 * torch.randn(history, 1, config.width))

    @property
    def token_count(self) -> int:
        """T: one for the words; of each observation two a camera, one for joints, one for state."""
        return 1 + self.history * (2 * len(self.cameras) + 1 + bool(self.state))

    def fit(self, columns: Mapping[str, np.ndarray]) -> None:
        """Takes the statistics of a dataset's columns."""
        self.agent_pos.fit(columns["agent_pos"])
        if self.state:
            self.environment_state.fit(columns["environment_state"])

    def forward(
        self,
        observation: Mapping[str, Any],
        instructions: Sequence[str],
        rng: np.random.Generator | None = None,
    ) -> Tensor:
        """Tokens (B, T, D): of the words, then of each observation, the oldest first.

        Args:
            observation: "agent_pos" (B, J), "pixels" {camera: uint8 (B, h, w, 3)}, and
                "environment_state" (B, S) if it looks at that; with a history (B, history, ...).
            instructions: B strings.
            rng: in training, the source of the language augmentation.
        """
        words = self.language(instructions, rng)
        if self.history == 1:
            seen = self._see(observation, words)
        else:
            one_by_one = _folded({name: observation[name] for name in self._quantities})
            seen = self._see(one_by_one, words.repeat_interleave(self.history, 0))
            seen = (seen.unflatten(0, (-1, self.history)) + self.age).flatten(1, 2)
        return torch.cat([words[:, None], seen], dim=1)

    def _see(self, observation: Mapping[str, Any], words: Tensor) -> Tensor:
        """Tokens (N, T, D) of N single observations."""
        tokens = [self.joints(self.agent_pos(observation["agent_pos"]))]
        if self.state:
            tokens.append(self.world(self.environment_state(observation["environment_state"])))
        for camera, encoder in self.vision.items():
            tokens.extend(encoder(observation["pixels"][camera], words))
        return torch.stack(tokens, dim=1)

    @property
    def _quantities(self) -> list[str]:
        pictures = ["pixels"] if self.cameras else []
        return ["agent_pos", *pictures, *(["environment_state"] if self.state else [])]


def _folded(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Quantities (B, history, ...) as (B history, ...)."""
    return {
        name: _folded(value) if isinstance(value, Mapping) else value.flatten(0, 1)
        for name, value in observation.items()
    }


def _two_layers(size: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width))


class ImageEncoder(nn.Module):
    """One camera's picture becomes a keypoint token and a map token, both (B, D)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        c = config.channels
        # Two pixels square at a time, and only then a stride: at full resolution CPUs drown in
        # memory traffic.
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, c, 3, stride=2, padding=1))
        self.blocks = nn.ModuleList(FilmBlock(c, config.width) for _ in range(config.blocks))
        self.heat = nn.Conv2d(c, config.keypoints, 1)
        self.temperature = nn.Parameter(torch.zeros(()))
        self.points = nn.Linear(2 * config.keypoints, config.width)
        self.coarse = nn.Sequential(
            nn.Conv2d(c, c, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d((3, 5)),
            nn.Flatten(),
            nn.Linear(15 * c, config.width),
        )

    def forward(self, pixels: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens from uint8 (B, h, w, 3), modulated by the words' token (B, D)."""
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1.0  # a channels-last view, as CPUs like
        # The stem takes pixels in squares of two, so an odd side gets one more row or column.
        x = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, words)
        return self.points(self._keypoints(x)), self.coarse(x)

    def _keypoints(self, x: Tensor) -> Tensor:
        """Expected positions (B, 2 K) in -1..1 under a softmax over each heat map."""
        heat = self.heat(x).float() * self.temperature.exp()
        rows = torch.linspace(-1.0, 1.0, heat.shape[2], device=heat.device)
        columns = torch.linspace(-1.0, 1.0, heat.shape[3], device=heat.device)
        weight = heat.flatten(2).softmax(-1).view_as(heat)
        y = (weight.sum(3) * rows).sum(2)
        x_ = (weight.sum(2) * columns).sum(2)
        return torch.cat([x_, y], dim=1)


class FilmBlock(nn.Module):
    """A residual block whose features are scaled and shifted by the instruction.

    It has no normalisation layer: on a CPU group norm cost a quarter of a training step, and a
    shallow residual network that starts as the identity trains without it.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.film = nn.Linear(condition, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # starts as the identity

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, h, w) and (B, condition) to (B, C, h, w)."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        y = functional.silu(x * (1.0 + scale) + shift)
        return x + self.second(functional.silu(self.first(y)))


class LanguageEncoder(nn.Module):
    """An instruction becomes one token (B, D).

    A word is seen with its neighbours, so "blue" in "blue bin" is another thing than in "blue
    cube". Words that training never saw are `<unknown>`; in training, unknown words are put in at
    random, so that the encoder learns to look past them.
    """

    def __init__(self, vocabulary: Sequence[str], features: int, width: int) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self._index = {word: i + 2 for i, word in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary) + 2, features, padding_idx=0)
        self.neighbours = nn.Conv1d(features, width, 3, padding=1)
        self.attention = nn.Linear(width, 4)
        self.out = nn.Linear(4 * width, width)

    def forward(
        self, instructions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Tensor:
        """Tokens (B, D) of B instructions."""
        ids = self._ids(instructions, rng).to(self.embedding.weight.device)
        x = functional.silu(self.neighbours(self.embedding(ids).transpose(1, 2)))  # (B, D, L)
        score = self.attention(x.transpose(1, 2)).masked_fill((ids == 0)[..., None], -torch.inf)
        return self.out((x @ score.softmax(1)).flatten(1))  # (B, D, 4) -> (B, D)

    def _ids(self, instructions: Sequence[str], rng: np.random.Generator | None) -> Tensor:
        rows = [[self._index.get(w, 1) for w in words(text)] or [1] for text in instructions]
        for row in rows if rng is not None else ():
            for place in rng.integers(len(row) + 1, size=rng.integers(4)):  # type: ignore[union-attr]
                row.insert(int(place), 1)
        length = max(map(len, rows))
        return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def words(text: str) -> list[str]:
    """The lower-case words of an instruction."""
    return re.findall(r"[a-z0-9']+", text.lower())


def vocabulary_of(instructions: Iterable[str]) -> tuple[str, ...]:
    """All words of these instructions, sorted."""
    return tuple(sorted({word for text in instructions for word in words(text)}))
