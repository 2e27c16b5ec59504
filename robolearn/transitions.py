"""Transitions: what was seen after each part of the chunks of a dataset."""

from typing import Any

import numpy as np

from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight
from robolearn.windows import Windows


class Transitions:
    """Windows whose chunks end inside of their episode, and what was seen on the way.

    Args:
        windows: with goals, of chunks of H steps, for who wants pictures.
        latents: of the same frames, one step each, with "features" in place of pictures.
        part: steps from one observation to the next; divides H.
        horizon: H.

    Raises:
        DatasetError: no episode is longer than a chunk.
    """

    def __init__(self, windows: Hindsight, latents: Windows, part: int, horizon: int) -> None:
        self._windows, self._latents = windows, latents
        self._steps, self._seen = np.arange(horizon), np.arange(0, horizon + 1, part)
        self._starts = np.flatnonzero(latents.remaining(np.arange(len(latents))) >= horizon)
        if not len(self._starts):
            raise DatasetError(
                f"no episode goes on for more than {horizon} steps; record longer ones"
            )

    def __len__(self) -> int:
        """The number of windows, also of those that reach beyond their episode."""
        return len(self._windows)

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Any]:
        """As many random windows, without pictures: "action" and "visited", see `get`."""
        indices = self._starts[rng.integers(len(self._starts), size=count)]
        actions = self._latents.actions(indices[:, None] + self._steps)
        return {"action": actions, **self._visited(indices)}

    def get(self, indices: np.ndarray) -> dict[str, Any]:
        """The windows that start at these frames, int (B,).

        Returns:
            What `Hindsight.get` returns, and "visited", what was seen before the first and after
            each of the T parts, the episode's last frame being repeated: {"agent_pos": float32
            (B, T + 1, J), "features": {camera: float16 (B, T + 1, *shape)}}.
        """
        return {**self._windows.get(indices), **self._visited(indices)}

    def _visited(self, indices: np.ndarray) -> dict[str, Any]:
        passed = np.minimum(self._seen, self._latents.remaining(indices)[:, None])
        frames = indices[:, None] + passed
        seen = self._latents.get(frames.ravel())
        visited = {
            "agent_pos": seen["agent_pos"].reshape(*frames.shape, -1),
            "features": self._latents.views(frames)["features"],
        }
        return {"visited": visited, "episode": seen["episode"][:: len(self._seen)]}
