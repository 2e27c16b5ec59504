"""`Phrases`: what a task can be told, in how many ways, and what it means.

A template has slots, `"lift the {object} to {height} cm"`. A slot is either a choice among words or
a number; a number is drawn from a list, and understood anywhere in its range. What is drawn may
differ between splits; what is understood does not.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from itertools import product
from typing import Any, Final

import numpy as np

PARAPHRASES: Final = ("train", "held_out", "all")
ANY_SPLIT: Final = ""  # the key of a number's values for the splits that are not named


@dataclass(frozen=True)
class Words:
    """A slot that takes one of some words; it means the word's index."""

    words: tuple[str, ...]
    # split, or `ANY_SPLIT`, and what is drawn; by default all words
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def drawn(self, split: str) -> tuple[str, ...]:
        """What may be drawn."""
        return self.values.get(split, self.values.get(ANY_SPLIT, self.words))

    def meaning(self, text: str) -> int:
        """The word's index."""
        return self.words.index(text)

    def encoded(self, meaning: int) -> list[float]:
        """A one-hot vector of the word."""
        return [float(k == meaning) for k in range(len(self.words))]

    @property
    def pattern(self) -> str:
        """A regular expression that matches all of them."""
        return "|".join(map(re.escape, self.words))


@dataclass(frozen=True)
class Number:
    """A slot that takes a number; it means the number times `unit`."""

    name: str  # for people: "the height"
    low: float  # the range that can be reached, as it is said
    high: float
    unit: float  # SI units of 1, for example 0.01 for centimetres
    values: Mapping[str, Sequence[float]]  # split, or `ANY_SPLIT`, and what is drawn

    def drawn(self, split: str) -> tuple[str, ...]:
        """What may be drawn, as it is said."""
        return tuple(f"{v:g}" for v in self.values.get(split, self.values[ANY_SPLIT]))

    def meaning(self, text: str) -> float:
        """The number in SI units.

        Raises:
            ValueError: outside the range; the message tells it.
        """
        value = float(text)
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name} is {value:g}; give {self.low:g} to {self.high:g}")
        return value * self.unit

    def encoded(self, meaning: float) -> list[float]:
        """Where in the range it lies, 0..1."""
        return [(meaning / self.unit - self.low) / (self.high - self.low)]

    @property
    def pattern(self) -> str:
        """A regular expression that matches any number."""
        return r"-?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Phrases:
    """The instructions of one task.

    Attributes:
        task: its name, for messages.
        templates: those of "train" and those of "held_out".
        slots: by name; the order is that of the meanings.
    """

    task: str
    templates: Mapping[str, Sequence[str]]
    slots: Mapping[str, Words | Number] = field(default_factory=dict)

    def all(self, which: str, split: str = ANY_SPLIT) -> dict[str, tuple[Any, ...]]:
        """Every instruction of "train", "held_out" or "all" that is drawn, and what it means."""
        return _all(self, which, split)

    def draw(self, rng: np.random.Generator, which: str, split: str = ANY_SPLIT) -> str:
        """One of `all`, each equally likely."""
        known = list(self.all(which, split))
        return known[rng.integers(len(known))]

    def parse(self, instruction: str) -> tuple[Any, ...]:
        """What an instruction means: a value for each slot, in their order.

        Raises:
            ValueError: an unknown wording, or a number outside its range.
        """
        for pattern in _patterns(self):
            if found := pattern.fullmatch(instruction):
                return tuple(slot.meaning(found[name]) for name, slot in self.slots.items())
        near = get_close_matches(instruction, self.all("all"), n=1, cutoff=0.0)[0]
        raise ValueError(f"{self.task} does not know {instruction!r}; try for example {near!r}")

    def encoded(self, instruction: str) -> list[float]:
        """What an instruction means, for policies that read no language: numbers in 0..1.

        Raises:
            ValueError: see `parse`.
        """
        meanings = self.parse(instruction)
        parts = [s.encoded(m) for s, m in zip(self.slots.values(), meanings, strict=True)]
        return [number for part in parts for number in part]

    def __hash__(self) -> int:
        """By identity: a task has one."""
        return id(self)

    def wordings(self, which: str) -> Iterator[str]:
        """The templates of "train", "held_out" or "all"."""
        for key, group in self.templates.items():
            if which in (key, "all"):
                yield from group


@cache
def _all(phrases: Phrases, which: str, split: str) -> dict[str, tuple[Any, ...]]:
    said = list(product(*(slot.drawn(split) for slot in phrases.slots.values())))
    meanings = [
        tuple(slot.meaning(text) for slot, text in zip(phrases.slots.values(), texts, strict=True))
        for texts in said
    ]
    return {
        wording.format(**dict(zip(phrases.slots, texts, strict=True))): meaning
        for wording in phrases.wordings(which)
        for texts, meaning in zip(said, meanings, strict=True)
    }


@cache
def _patterns(phrases: Phrases) -> list[re.Pattern]:
    """One for each template, in which every slot is a named group."""
    patterns = []
    for wording in phrases.wordings("all"):
        parts = re.split(r"\{(\w+)\}", wording)
        text = "".join(
            f"(?P<{part}>{phrases.slots[part].pattern})" if k % 2 else re.escape(part)
            for k, part in enumerate(parts)
        )
        patterns.append(re.compile(text))
    return patterns
