"""Plans: in which order, and mixed how, the actions of an episode's chunks are executed."""

from collections import deque
from typing import Protocol

import numpy as np


class Plan(Protocol):
    """The actions of one episode that are still to come."""

    def is_due(self) -> bool:
        """Whether a new chunk is needed before the next action."""

    def add(self, chunk: np.ndarray) -> None:
        """Takes a new chunk (H, J), made from what was just observed."""

    def next(self) -> np.ndarray:
        """The next action (J,)."""


class RecedingHorizon:
    """Executes a part of each chunk, then asks for the next one.

    Args:
        executed: steps of a chunk: those before are left out, those behind are forgotten.
    """

    def __init__(self, executed: slice) -> None:
        self._executed = executed
        self._queue: deque[np.ndarray] = deque()

    def is_due(self) -> bool:
        """See `Plan`."""
        return not self._queue

    def add(self, chunk: np.ndarray) -> None:
        """See `Plan`."""
        self._queue.extend(chunk[self._executed])

    def next(self) -> np.ndarray:
        """See `Plan`."""
        return self._queue.popleft()


class Ensemble:
    """Averages what all chunks so far say of a step: no jump where a new one begins.

    Temporal ensembling as in ACT (Zhao et al. 2023, algorithm 2): the oldest chunk has weight 1,
    and each younger one exp(-decay) of the one before it.

    Args:
        executed: as in `RecedingHorizon`; every so many steps a chunk is added.
        decay: 0 weighs all alike; the larger, the less new chunks count.
    """

    def __init__(self, executed: slice, decay: float) -> None:
        self._lead, self._every = executed.start, executed.stop - executed.start
        self._decay, self._step = decay, 0
        self._chunks: deque[tuple[int, np.ndarray]] = deque()  # first step, and actions from there
        self._due = True

    def is_due(self) -> bool:
        """See `Plan`."""
        return self._due

    def add(self, chunk: np.ndarray) -> None:
        """See `Plan`."""
        self._chunks.append((self._step, chunk[self._lead :]))
        self._due = False

    def next(self) -> np.ndarray:
        """See `Plan`."""
        while self._step - self._chunks[0][0] >= len(self._chunks[0][1]):
            self._chunks.popleft()
        said = np.stack([actions[self._step - begin] for begin, actions in self._chunks])
        weights = np.exp(-self._decay * np.arange(len(said)))
        self._step += 1
        self._due = self._step % self._every == 0
        return (weights / weights.sum()) @ said
