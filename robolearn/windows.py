"""Windows of a dataset: what was observed at a frame, and the actions that followed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

OBSERVATIONS = ("agent_pos", "agent_vel", "agent_effort", "environment_state")
PER_STEP = ("reward", "progress", "success", "terminated", "truncated", "intervention")


class Windows:
    """Observations and the action chunks that followed them, by integer frame index."""

    def __init__(
        self,
        horizon: int,
        lengths: np.ndarray,
        instructions: Sequence[str],
        columns: Mapping[str, np.ndarray],
        pixels: Mapping[str, np.ndarray],
    ) -> None:
        """Made by `EpisodeDataset.windows`.

        Args:
            horizon: H, the steps of a chunk.
            lengths: int (E,), frames of each episode.
            instructions: of each episode.
            columns: name -> (F, ...) with F the sum of the lengths; "action" at least.
            pixels: camera -> uint8 (F, height, width, 3).
        """
        if horizon < 1:
            raise ValueError(f"the horizon is {horizon}; a window needs at least one step")
        self.horizon = horizon
        self._episode = np.repeat(np.arange(len(lengths)), lengths)
        self._last = np.cumsum(lengths)[self._episode] - 1  # last frame of each frame's episode
        self._offsets = np.arange(horizon)
        self._instructions = np.array(instructions, dtype=object)
        self._columns = columns
        self._pixels = pixels

    def __len__(self) -> int:
        """The number of windows: one starts at every frame."""
        return len(self._last)

    def get(self, indices: np.ndarray) -> dict[str, Any]:
        """The windows that start at these frames.

        Args:
            indices: int (B,), 0 <= index < len(self).

        Returns:
            What was observed at the frame: "agent_pos", "agent_vel", "agent_effort" float32 (B, J),
            "environment_state" float32 (B, S), "pixels" {camera: uint8 (B, height, width, 3)};
            "instruction", a list of B strings; "episode", int64 (B,);
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
            **{name: columns[name][indices] for name in OBSERVATIONS if name in columns},
            **{name: columns[name][steps] * mask for name in PER_STEP if name in columns},
            "pixels": {name: np.take(f, indices, axis=0) for name, f in self._pixels.items()},
            "action": columns["action"][steps],
            "mask": mask,
            "episode": episode,
            "instruction": self._instructions[episode].tolist(),
        }
