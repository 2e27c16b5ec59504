"""Windows of a dataset: what was observed at a frame, and the actions that followed."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

OBSERVATIONS = ("agent_pos", "agent_vel", "agent_effort", "environment_state")
PER_STEP = ("reward", "progress", "success", "terminated", "truncated", "intervention")


class Sampler(Protocol):
    """What training draws its batches from."""

    def __len__(self) -> int:
        """The number of windows."""

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Any]:
        """As many random windows."""

    def get(self, indices: np.ndarray) -> dict[str, Any]:
        """The windows that start at these frames."""


class Windows:
    """Observations and the action chunks that followed them, by integer frame index."""

    def __init__(
        self,
        horizon: int,
        lengths: np.ndarray,
        instructions: Sequence[str],
        columns: Mapping[str, np.ndarray],
        views: Mapping[str, Mapping[str, np.ndarray]],
        history: int = 1,
    ) -> None:
        """Made by `EpisodeDataset.windows`.

        Args:
            horizon: H, the steps of a chunk.
            lengths: int (E,), frames of each episode.
            instructions: of each episode.
            columns: name -> (F, ...) with F the sum of the lengths; "action" at least.
            views: "pixels" -> camera -> uint8 (F, height, width, 3), or "features" -> camera ->
                float16 (F, ...), what a model sees in them.
            history: T, observations up to the present one.
        """
        if min(horizon, history) < 1:
            raise ValueError(
                f"the horizon is {horizon} and the history {history}; a window needs at least one "
                "step of each"
            )
        self.horizon = horizon
        self._episode = np.repeat(np.arange(len(lengths)), lengths)
        ends = np.cumsum(lengths)
        # First and last frame of each frame's episode.
        self._first, self._last = (ends - lengths)[self._episode], ends[self._episode] - 1
        self._offsets = np.arange(horizon)
        self._back = np.arange(1 - history, 1) if history > 1 else None
        self._instructions = np.array(instructions, dtype=object)
        self._columns = columns
        self._views = views

    def __len__(self) -> int:
        """The number of windows: one starts at every frame."""
        return len(self._last)

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Any]:
        """As many random windows, see `get`."""
        return self.get(rng.integers(len(self), size=count))

    def remaining(self, indices: np.ndarray) -> np.ndarray:
        """How many frames of the episode come after each of these, int (B,)."""
        return self._last[indices] - indices

    def actions(self, frames: np.ndarray) -> np.ndarray:
        """The actions of these frames, int (...): float32 (..., J)."""
        return self._columns["action"][frames]

    def views(self, frames: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """What these frames, int (...), show, by kind and camera: (..., *shape) each."""
        return {
            kind: {name: np.take(rows, frames, axis=0) for name, rows in views.items()}
            for kind, views in self._views.items()
        }

    def observed(self, frames: np.ndarray) -> dict[str, Any]:
        """What was observed at these frames, int (...): (..., *shape) of each quantity."""
        columns = {name: self._columns[name] for name in OBSERVATIONS if name in self._columns}
        return {**{name: rows[frames] for name, rows in columns.items()}, **self.views(frames)}

    def get(self, indices: np.ndarray) -> dict[str, Any]:
        """The windows that start at these frames.

        Args:
            indices: int (B,), 0 <= index < len(self).

        Returns:
            What was observed at the frame: "agent_pos", "agent_vel", "agent_effort" float32 (B, J),
            "environment_state" float32 (B, S), "pixels" {camera: uint8 (B, height, width, 3)} or
            "features" {camera: float16 (B, ...)}; with a history (B, T, ...) of each, the oldest
            first, and an episode's first one repeated before its beginning; "instruction", a
            list of B strings; "episode", int64 (B,);
            "action" float32 (B, H, J), the chunk that begins there, with the episode's last action
            repeated beyond its end; "mask" bool (B, H), True inside the episode; what followed each
            action: "reward", "progress" float32 (B, H) and "success", "terminated", "truncated",
            "intervention" bool (B, H), zero outside the mask.
            Columns that the dataset does not have are left out.
        """
        last = self._last[indices][:, None]
        steps = np.asarray(indices)[:, None] + self._offsets
        mask = steps <= last
        steps = np.minimum(steps, last)
        episode = self._episode[indices]
        columns = self._columns
        return {
            **self.observed(self._seen(indices)),
            **{name: columns[name][steps] * mask for name in PER_STEP if name in columns},
            "action": columns["action"][steps],
            "mask": mask,
            "episode": episode,
            "instruction": self._instructions[episode].tolist(),
        }

    def _seen(self, indices: np.ndarray) -> np.ndarray:
        """The observed frames, (B,) or (B, T)."""
        if self._back is None:
            return indices
        return np.maximum(np.asarray(indices)[:, None] + self._back, self._first[indices][:, None])
