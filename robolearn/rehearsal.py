"""Rehearsal: batches of what is new with a share of what was learned before, so that it stays.

Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robolearn.windows import PER_STEP, Sampler


class Rehearsal:
    """Draws from two samplers; rewards and success of either are left out.

    Args:
        fresh: of what is new.
        before: of what was learned before; not needed for a share of 0.
        share: of each batch that is from before, 0..1.
    """

    def __init__(self, fresh: Sampler, before: Sampler | None, share: float) -> None:
        self._fresh, self._before, self._share = fresh, before, share

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Any]:
        """A batch of so many windows, those from before last; episodes keep apart."""
        old = round(self._share * count) if self._before else 0
        parts = [self._fresh.draw(rng, count - old)]
        parts += [self._before.draw(rng, old)] if self._before and old else []
        for number, part in enumerate(parts):
            part["episode"] = part["episode"] * len(parts) + number
        return joined([_without_rewards(part) for part in parts])


def _without_rewards(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values for name, values in batch.items() if name not in PER_STEP}


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batches one after the other: arrays, lists and dicts of them; only what all of them have."""
    first, *others = parts
    shared = [name for name in first if all(name in other for other in others)]
    return {name: _one([part[name] for part in parts]) for name in shared}


def _one(values: Sequence[Any]) -> Any:  # noqa: ANN401 (of the kind that they are)
    if isinstance(values[0], Mapping):
        return joined(values)
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [entry for value in values for entry in value]
