"""Endings: what the episodes of a recording were told, how they began, and how they ended.

What a writer of goals learns from, and what tells how good it is: of every tenth episode that
succeeded, which is not learned from, the writer says how it ends. How near that comes in latents,
as the mean square of what differs, is compared with

| | |
|---|---|
| retrieved | the end that `--goal words` would show, of an episode that is learned from |
| random | the end of any of these episodes |
| now | its own beginning, as if nothing were to be done |
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from robolearn.episodes import DatasetError
from robolearn.policies.base import Generators, as_tensors
from robolearn.policies.language import vocabulary_of, words
from robolearn.policies.latents import Latents
from robolearn.recall import phrases_of, remembered, succeeded
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset

HELD: Final = 10  # of so many episodes one is not learned from
FIRST: Final = 0.5  # share of the examples that begin as episodes do, which is when goals are asked
Writer = Callable[[Tensor, Sequence[str], Generators], Tensor]


class Endings:
    """See the module's docstring.

    Args:
        latents: encode the pictures.
        dataset: of at least two episodes that succeeded.

    Raises:
        DatasetError: there are fewer, or they were told nothing.
    """

    def __init__(self, latents: Latents, dataset: "EpisodeDataset") -> None:
        self._latents = latents
        cameras = tuple(latents.cameras)
        self._frames = dataset.windows(1, cameras, features=latents.features())
        table = dataset.episodes
        found = np.flatnonzero(succeeded(dataset))
        if len(found) < 2:  # noqa: PLR2004
            raise DatasetError(
                f"{dataset.root} has fewer than two episodes that succeeded, of whose ends goals "
                "are learned; record more"
            )
        found = found[[bool(words(table.instruction[k])) for k in found]]
        self._first, self._told = table.start[found], [table.instruction[k] for k in found]
        self._last = self._first + table.length[found] - 1
        self._held = np.arange(len(found)) % HELD == 0
        self.vocabulary = vocabulary_of(self._told)
        if not self.vocabulary:
            raise DatasetError(f"the episodes of {dataset.root} were told nothing; record new ones")
        envs = {table.env_id[k] for k in found}
        self._phrases = phrases_of(envs.pop()) if len(envs) == 1 else None

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Tensor, list[str], Tensor]:
        """Latents (B, N, C) of random frames, what they were told, and those of how it ended."""
        known = np.flatnonzero(~self._held)
        some = known[rng.integers(len(known), size=count)]
        first, last = self._first[some], self._last[some]
        later = rng.integers(first, last + 1)
        frames = np.where(rng.random(count) < FIRST, first, later)
        return self._seen(frames), [self._told[k] for k in some], self._seen(last)

    def judged(self, write: Writer, seed: int) -> dict[str, Any]:
        """How near goals come to the ends of episodes held out; see the module's docstring.

        Args:
            write: makes latents of goals of latents, instructions and generators.
            seed: of the noise.

        Returns:
            "distance" of each kind, in the mean over those episodes for which there is a retrieved
            end, or over all, if there is for none; "held", how many were held out; "compared", over
            how many that mean is.
        """
        held = np.flatnonzero(self._held)
        now, told = self._seen(self._first[held]), [self._told[k] for k in held]
        shown = self._retrieved(now, told)
        known = self._last[~self._held]
        drawn = stream(seed, "random goals").integers(len(known), size=len(held))
        goals = {
            "generated": write(now, told, [stream(int(k), f"judged goals {seed}") for k in held]),
            "retrieved": self._seen(known[[k or 0 for k in shown]]),
            "random": self._seen(known[drawn]),
            "now": now,
        }
        found = torch.tensor([k is not None for k in shown])
        compared = found if found.any() else ~found
        apart = {name: goal - self._seen(self._last[held]) for name, goal in goals.items()}
        distance = {k: float(x[compared].square().mean()) for k, x in apart.items()}
        missing = {} if found.any() else {"retrieved": None}
        count = int(compared.sum())
        return {"distance": distance | missing, "held": len(held), "compared": count}

    def _retrieved(self, now: Tensor, told: Sequence[str]) -> list[int | None]:
        """Which of the episodes that are learned from `--goal words` would show, if any."""
        begun = self._seen(self._first[~self._held])
        known = [self._told[k] for k in np.flatnonzero(~self._held)]
        apart = torch.stack([(begun - x).square().mean((1, 2)) for x in now]).cpu().numpy()
        return [
            remembered(t, known, row, self._phrases) for t, row in zip(told, apart, strict=True)
        ]

    @torch.no_grad()
    def _seen(self, frames: np.ndarray) -> Tensor:
        """Latents (B, N, C) of frames, int (B,)."""
        views = self._frames.views(frames[:, None])["features"]
        device = next(self._latents.parameters()).device
        return self._latents.joined(as_tensors(views, device))[:, 0]
