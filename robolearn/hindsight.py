"""Hindsight: later frames of an episode are the goals of its earlier ones.

Andrychowicz et al. 2017, "Hindsight experience replay": whatever was reached may be called the
goal. The distance K to it is drawn log-uniformly, so that goals at hand are as common as far ones;
some goals are the end of the episode, as people take pictures of what shall be achieved. Light and
colour are changed differently in observation and goal: drawn together, a policy would learn to
compare what never agrees when it acts (Hatch et al. 2024, "GHIL-Glue").
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from robolearn.episodes import DatasetError
from robolearn.policies.configs import HindsightConfig
from robolearn.policies.hashing import Hashing
from robolearn.windows import Windows


class Hindsight:
    """Windows with goals: they have further entries, and actions end at the goal.

    Args:
        windows: with pixels, of chunks of H steps.
        config: which goals.
        hashing: for what lies between, if that is wanted.
        latents: windows of the same frames with "features", which are what is wanted of them.
        waypoints: what else is wanted to be seen on the way, by name: steps ahead.

    Raises:
        DatasetError: no episode has two frames.
    """

    def __init__(
        self,
        windows: Windows,
        config: HindsightConfig,
        hashing: Hashing | None = None,
        latents: Windows | None = None,
        waypoints: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._windows, self._config, self._waypoints = windows, config, waypoints
        self._hashing, self._latents = hashing, latents
        self._starts = np.flatnonzero(windows.remaining(np.arange(len(windows))))
        if not len(self._starts):
            raise DatasetError(
                "no episode has a later frame that could be a goal; record longer ones"
            )

    def __len__(self) -> int:
        """The number of windows; the last frame of an episode has no goal but itself."""
        return len(self._windows)

    def draw(self, rng: np.random.Generator, count: int) -> dict[str, Any]:
        """As many random windows with random goals, see `get`, and in changed light."""
        indices, steps = self.pairs(rng, count)
        batch = self.get(indices, steps)
        pictures = [(batch, kind) for kind in ("pixels", "goal_pixels")]
        for seen, kind in [*pictures, *((batch[name], "pixels") for name in self._waypoints)]:
            seen[kind] = {c: relit(x, self._config.jitter, rng) for c, x in seen[kind].items()}
        return batch

    def pairs(
        self, rng: np.random.Generator, count: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Random frames with a later one, int (B,), and steps to a random goal K, int (B,).

        Args:
            rng: the source of both.
            count: B.
            among: bool (F,), the frames that may be drawn; all unless given.
        """
        starts = self._starts if among is None else self._starts[among[self._starts]]
        indices = starts[rng.integers(len(starts), size=count)]
        drawn = np.exp(rng.uniform(0.0, np.log(self._config.furthest + 1), count)).astype(np.int64)
        steps = np.where(rng.random(count) < self._config.finals, self._config.furthest, drawn)
        return indices, np.minimum(steps, self._furthest(indices))

    def get(self, indices: np.ndarray, steps: np.ndarray | None = None) -> dict[str, Any]:
        """The windows that start at these frames, with their goals.

        Args:
            indices: int (B,).
            steps: K, int (B,), from 1 to the end of the episode; without, as far as possible.

        Returns:
            What `Windows.get` returns, but "action" (B, H, J) stays what it was at the goal, and
            "mask" (B, H) is True; "goal_pixels" {camera: uint8 (B, h, w, 3)}; "steps" int (B,);
            with a hashing "far_action" (B, M, J), the actions that lead to the far points, and
            "far_valid" bool (B, M); with latents "future" {camera: (B, P / r + M, *shape)}; of
            each waypoint what was observed there, or at the goal if that comes first.
        """
        steps = self._furthest(indices) if steps is None else steps
        batch = self._windows.get(indices)
        goals = indices + np.minimum(steps, self._windows.remaining(indices))
        for name, ahead in self._waypoints.items():
            batch[name] = self._windows.observed(np.minimum(indices + ahead, goals))
        near = np.minimum(np.arange(self._windows.horizon), steps[:, None] - 1)
        batch |= {
            "action": self._windows.actions(indices[:, None] + near),
            "mask": np.ones(near.shape, bool),
            "goal_pixels": self._windows.views(goals)["pixels"],
            "steps": steps,
        }
        return batch | self._between(indices, steps)

    def far_actions(self, indices: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
        """Their "far_action" and "far_valid", see `get`."""
        assert self._hashing is not None
        far, valid = self._hashing.far_offsets(steps)
        # The action of the frame before a point is the one that leads to it.
        return {
            "far_action": self._windows.actions(indices[:, None] + far - 1),
            "far_valid": valid,
        }

    def _between(self, indices: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = self.far_actions(indices, steps) if self._hashing else {}
        if self._hashing and self._latents:
            frames = indices[:, None] + self._hashing.offsets(steps)
            last = indices + self._windows.remaining(indices)
            found["future"] = self._latents.views(np.minimum(frames, last[:, None]))["features"]
        return found

    def _furthest(self, indices: np.ndarray) -> np.ndarray:
        return np.clip(self._windows.remaining(indices), 1, self._config.furthest)


def relit(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Pictures uint8 (B, h, w, 3) in light of another brightness and colour, each in its own."""
    gain = 1.0 + strength * rng.uniform(-1.0, 1.0, (len(pixels), 1, 1, 3))
    bias = 64.0 * strength * rng.uniform(-1.0, 1.0, (len(pixels), 1, 1, 1))
    changed = pixels * gain.astype(np.float32) + bias.astype(np.float32)
    return np.clip(changed, 0.0, 255.0).astype(np.uint8)
