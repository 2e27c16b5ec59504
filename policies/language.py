"""An instruction becomes one token: words that are learned with the policy.

A backbone with a language model of somebody else's pools its words in the same way.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Language(nn.Module, ABC):
    """Instructions become tokens (B, D) by attention over their words."""

    def _pool(self, features: int, width: int) -> None:
        """Makes the layers that pool."""
        self.attention = nn.Linear(features, 4)
        self.out = nn.Linear(4 * features, width)

    @abstractmethod
    def features(
        self, instructions: Sequence[str], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Features of B instructions' words (B, C, L), and bool (B, L): where no word is."""

    def forward(
        self, instructions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Tensor:
        """Tokens (B, D) of B instructions; in training `rng` is the source of augmentation."""
        x, empty = self.features(instructions, rng)
        score = self.attention(x.transpose(1, 2)).masked_fill(empty[..., None], -torch.inf)
        return self.out((x @ score.softmax(1)).flatten(1))  # (B, C, 4) -> (B, D)


class LanguageEncoder(Language):
    """Words are learned from the demonstrations' instructions.

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
        self._pool(width, width)

    def features(
        self, instructions: Sequence[str], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """See `Language`."""
        ids = self._ids(instructions, rng).to(self.embedding.weight.device)
        return functional.silu(self.neighbours(self.embedding(ids).transpose(1, 2))), ids == 0

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
