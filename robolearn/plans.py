"""Plans: in which order, and mixed how, the actions of an episode's chunks are executed."""

from collections import deque
from typing import Protocol

import numpy as np

from robolearn.policies.base import Overlap


class Plan(Protocol):
    """The actions of one episode that are still to come."""

    def is_due(self) -> bool:
        """Whether it is time to decide on a new chunk, unless that is under way."""

    def is_empty(self) -> bool:
        """Whether there is no action until a new chunk comes."""

    def begin(self, delay: int) -> Overlap | None:
        """A decision begins now: what its chunk shall agree with; None if it is free.

        Args:
            delay: control steps until it will be here.
        """

    def add(self, chunk: np.ndarray) -> None:
        """Takes a new chunk (H, J), made from what was observed at `begin`."""

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

    def is_empty(self) -> bool:
        """See `Plan`."""
        return not self._queue

    def begin(self, delay: int) -> None:
        """See `Plan`; all chunks are free."""

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

    def is_empty(self) -> bool:
        """See `Plan`."""
        return self._due

    def begin(self, delay: int) -> None:
        """See `Plan`; all chunks are free."""

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


class RealTime:
    """Goes on with a chunk while the next one is made, and changes over without a jump.

    Real-time chunking (Black et al. 2025, "Real-time execution of action chunking flow policies"):
    the new chunk is told what will have been executed when it arrives, and what the running one had
    in mind after that. A chunk that comes too late leaves the arm where it was last sent.

    Args:
        executed: as in `RecedingHorizon`; after so many steps the next decision begins.
        guided: whether new chunks are told; without, they jump.
    """

    def __init__(self, executed: slice, *, guided: bool) -> None:
        self._lead, self._every = executed.start, executed.stop - executed.start
        self._guided = guided
        self._chunk = np.empty((0, 0))
        self._at = 0  # the next step of the chunk
        self._since = 0  # steps since the observation of the newest decision

    def is_due(self) -> bool:
        """See `Plan`."""
        return self.is_empty() or self._since >= self._every

    def is_empty(self) -> bool:
        """See `Plan`; a chunk that has run out is held at its last step."""
        return not len(self._chunk)

    def begin(self, delay: int) -> Overlap | None:
        """See `Plan`."""
        self._since = 0
        if self.is_empty() or not self._guided:
            return None
        horizon = len(self._chunk)
        steps = np.arange(self._at, max(horizon, self._at + delay))
        left = self._chunk[np.minimum(steps, horizon - 1)]  # a chunk that has run out is held
        return overlapping(left, horizon, self._lead, delay)

    def add(self, chunk: np.ndarray) -> None:
        """See `Plan`; what was to be done before it came is left out."""
        self._chunk, self._at = chunk, self._lead + self._since

    def next(self) -> np.ndarray:
        """See `Plan`."""
        action = self._chunk[min(self._at, len(self._chunk) - 1)]
        self._at, self._since = self._at + 1, self._since + 1
        return action


def overlapping(left: np.ndarray, horizon: int, lead: int, delay: int) -> Overlap:
    """What a new chunk shall agree with, and how much step by step (Black et al. 2025, eq. 5).

    Fully where it will come too late to change anything, then less and less, and not at all where
    the running chunk has nothing to say.

    Args:
        left: the steps of the running chunk that are still to come (K, J).
        horizon: H, steps of the new chunk.
        lead: steps of the new chunk that are for before now.
        delay: steps until it arrives.
    """
    actions = np.zeros((horizon, left.shape[1]), np.float32)
    known = min(len(left), horizon - lead)
    actions[lead : lead + known] = left[:known]
    ahead = np.arange(horizon) - lead
    share = np.clip((known - ahead) / (known - min(delay, known) + 1.0), 0.0, 1.0)
    weights = share * np.expm1(share) / np.expm1(1.0)
    weights[ahead < delay] = 1.0
    weights[(ahead < 0) | (ahead >= known)] = 0.0
    return Overlap(actions, weights.astype(np.float32))
