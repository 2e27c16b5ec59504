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
from robolearn.policies.language import vocabulary_of
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
        held, known = np.flatnonzero(self._held), np.flatnonzero(~self._held)
        now, told = self._seen(self._first[held]), [self._told[k] for k in held]
        begun, ends = self._seen(self._first[known]), self._seen(self._last[known])
        noise = [stream(int(k), f"judged goals {seed}") for k in held]
        others = [
            self._telling([self._told[k] for k in known], begun, *row)
            for row in zip(told, now, strict=True)
        ]
        random = stream(seed, "random goals").integers(len(known), size=len(held))
        goals = {
            "generated": write(now, told, noise),
            "retrieved": ends[[k or 0 for k in others]],
            "random": ends[random],
            "now": now,
        }
        truth = self._seen(self._last[held])
        found = np.array([k is not None for k in others])
        compared = found if found.any() else ~found
        distance: dict[str, float | None] = {
            name: float((goal - truth).square().mean((1, 2)).cpu().numpy()[compared].mean())
            for name, goal in goals.items()
        }
        if not found.any():
            distance["retrieved"] = None
        return {"distance": distance, "held": len(held), "compared": int(compared.sum())}

    def _telling(self, known: Sequence[str], begun: Tensor, told: str, now: Tensor) -> int | None:
        apart = (begun - now).square().mean((1, 2)).cpu().numpy()
        return remembered(told, known, apart, self._phrases)

    @torch.no_grad()
    def _seen(self, frames: np.ndarray) -> Tensor:
        """Latents (B, N, C) of frames, int (B,)."""
        views = self._frames.views(frames[:, None])["features"]
        device = next(self._latents.parameters()).device
        return self._latents.joined(as_tensors(views, device))[:, 0]
