"""Ends a round of practice when what it learns no longer holds for rollouts that it does not see.

Some whole rollouts of the round are held out. The loss on a few batches of them, always the same
ones with the same noise, is looked at before the first update and then every so many; when it has
not been below its lowest for some looks, the round ends. The weights of the lowest look are kept,
those from before the round among them. How the learning rate falls does not depend on any of this.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.dataset import EpisodeDataset
from robolearn.policies.base import TrainablePolicy, as_tensors
from robolearn.policies.fitting import in_bf16
from robolearn.rehearsal import Rehearsal
from robolearn.seeding import stream
from robolearn.subset import Subset

EVERY: Final = 10  # updates between looks
PATIENCE: Final = 3  # looks without a lower loss, after which the round ends
BATCHES: Final = 4  # that each look is at


def apart(
    rollouts: EpisodeDataset, share: float, rng: np.random.Generator
) -> tuple[EpisodeDataset, EpisodeDataset | None]:
    """What is learned from, and what is held out: at least one episode, and none of fewer than two.

    Args:
        rollouts: of a round.
        share: of its episodes that is held out, 0 to below 1; 0 holds nothing out.
        rng: chooses.
    """
    count = len(rollouts.episodes)
    held = min(max(round(share * count), 1), count - 1) if share else 0
    if not held:
        return rollouts, None
    order = rng.permutation(count)
    return Subset(rollouts, np.sort(order[held:])), Subset(rollouts, np.sort(order[:held]))


class HeldOut:
    """Looks at a loss while a model learns, and keeps the weights of the best look.

    Args:
        model: learns; in eval mode while it is looked at.
        loss: of a held-out batch, by its number.
        updates: how many there will be at most, the last of which is looked at, too.
    """

    def __init__(self, model: nn.Module, loss: Callable[[int], Tensor], updates: int) -> None:
        self._model, self._loss, self._last = model, loss, updates
        self._best, self._kept, self._updates, self._risen = np.inf, 0, 0, 0
        self._weights: dict[str, Any] = {}
        self(0)

    def __call__(self, updates: int) -> bool:
        """Whether it is enough, after so many updates."""
        self._updates = updates
        if updates % EVERY and updates != self._last:
            return False
        loss, self._risen = self._look(), self._risen + 1
        if loss < self._best:
            self._best, self._kept, self._risen = loss, updates, 0
            self._weights = {k: value.clone() for k, value in self._model.state_dict().items()}
        return self._risen == PATIENCE

    @torch.no_grad()
    def _look(self) -> float:
        training = self._model.training
        self._model.eval()
        losses = [float(self._loss(number)) for number in range(BATCHES)]
        self._model.train(training)
        return float(np.mean(losses))

    def restore(self) -> dict[str, Any]:
        """Gives the model the weights of the best look; the figures of the round.

        Raises:
            ValueError: not even the first loss was a number.
        """
        if not self._weights:
            raise ValueError("the loss on held-out rollouts is no number; look at the rollouts")
        self._model.load_state_dict(self._weights)
        return {"updates": self._updates, "kept": self._kept, "held_out": self._best}


def watched(
    student: TrainablePolicy, held: EpisodeDataset, seed: int, updates: int, size: int
) -> HeldOut:
    """Looks at the loss of a policy on rollouts that are held out, with noise of their own.

    Args:
        student: learns.
        held: the rollouts; nobody looks at rewards in them.
        seed: of the batches and of the noise.
        updates: how many there will be at most.
        size: observations in a batch.
    """
    rollouts = Rehearsal(student.windows(held), None, 0.0)

    def noise(what: str, number: int) -> np.random.Generator:
        return stream(seed, f"held out {what} {number}")

    drawn = [rollouts.draw(noise("batch", number), size) for number in range(BATCHES)]

    def loss(number: int) -> Tensor:
        with in_bf16(student.device):
            batch = as_tensors(drawn[number], student.device)
            return student.loss(batch, noise("loss", number))[0]

    return HeldOut(student, loss, updates)
