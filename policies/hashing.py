"""Multi-scale temporal hashing: which steps between now and a goal are looked at, and predicted.

Zhou et al. 2025, "Act2Goal", known from notes on it: densely up to P steps ahead, which are
executed, and sparsely from there to the goal, which is K steps away:

    near  min(k r, K), k = 1..P/r        far  d_1 < d_2 < .. < d_M = K

The printed formula for the far ones makes gaps that shrink towards the goal, while the prose says
that they grow, so the spacing is a choice. All of it is arithmetic of whole numbers: a logarithm in
floating point misses the goal by one step now and then.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, get_args

import numpy as np

from robolearn.policies.latent_configs import Spacing


@dataclass(frozen=True)
class Hashing:
    """Offsets of the frames and actions between now and a goal, for every distance of it.

    Attributes:
        near: P, steps that are dense.
        stride: r, steps between near frames; divides P.
        far: M, points beyond, the last of them being the goal.
        furthest: the largest K.
        spacing: of the far points; "none" has none.
    """

    near: int
    stride: int
    far: int
    furthest: int
    spacing: Spacing = "geometric"

    def __post_init__(self) -> None:
        """Refuses what gives no whole numbers.

        Raises:
            ValueError: naming the setting.
        """
        for name in ("near", "stride", "far", "furthest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.near % self.stride:
            raise ValueError(f"stride is {self.stride}; it must divide the {self.near} near steps")
        if self.spacing not in get_args(Spacing):
            choices = ", ".join(get_args(Spacing))
            raise ValueError(f"spacing is {self.spacing!r}; choose one of {choices}")

    @property
    def near_frames(self) -> int:
        """How many near frames there are, P / r."""
        return self.near // self.stride

    @property
    def far_points(self) -> int:
        """How many far points there are, M or none."""
        return 0 if self.spacing == "none" else self.far

    @property
    def frames(self) -> int:
        """How many frames there are in all."""
        return self.near_frames + self.far_points

    def near_offsets(self, steps: np.ndarray) -> np.ndarray:
        """Offsets of the near frames, int (B, P / r), for goals that are K = `steps` (B,) away."""
        dense = np.arange(self.stride, self.near + 1, self.stride)
        return np.minimum(dense, self._distances(steps)[:, None])

    def far_offsets(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets of the far points, int (B, M), and bool (B, M): which of them there are."""
        rows, counts = self._table
        at = self._distances(steps)
        return rows[at], np.arange(self.far_points) < counts[at][:, None]

    def offsets(self, steps: np.ndarray) -> np.ndarray:
        """Offsets of all frames, int (B, P / r + M)."""
        return np.concatenate([self.near_offsets(steps), self.far_offsets(steps)[0]], axis=1)

    def _distances(self, steps: np.ndarray) -> np.ndarray:
        return np.clip(np.asarray(steps, np.int64), 1, self.furthest)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Far offsets of every K, the missing ones being K, and how many of them there are."""
        rows = np.zeros((self.furthest + 1, self.far_points), np.int64)
        counts = np.zeros(self.furthest + 1, np.int64)
        for goal in range(1, self.furthest + 1):
            points = far_points(goal, self.near, self.far, self.spacing)
            rows[goal], counts[goal] = goal, len(points)
            rows[goal, : len(points)] = points
        return rows, counts


def far_points(goal: int, near: int, count: int, spacing: Spacing) -> list[int]:
    """The far offsets of a goal: strictly increasing, beyond `near`, the last one the goal.

    Args:
        goal: K, steps to the goal.
        near: P; a goal within has no far points.
        count: M; fewer where there are not as many steps between.
        spacing: see `Hashing`.
    """
    if goal <= near or spacing == "none":
        return []
    count = min(count, goal - near)
    wanted = [_PLACES[spacing](goal, near, count, m) for m in range(1, count + 1)]
    points: list[int] = []
    for m, place in enumerate(wanted, start=1):
        least, most = near + m, goal - (count - m)  # leave room for those before and after
        points.append(min(max(place, least, points[-1] + 1 if points else 0), most))
    return points


def _geometric(goal: int, near: int, count: int, m: int) -> int:
    """round(P (K / P)^(m / M)): each gap is as many times as long as the one before."""
    return _root(near ** (count - m) * goal**m, count)


def _printed(goal: int, near: int, count: int, m: int) -> int:
    """P + floor((K - P) log(m + 1) / log(M + 1)), as it is printed: gaps shrink."""
    power = (m + 1) ** (goal - near)
    return near + _largest(lambda d: (count + 1) ** d <= power, goal - near)


def _exponential(goal: int, near: int, count: int, m: int) -> int:
    """P + round((K - P + 1)^(m / M)) - 1: gaps grow from the smallest on."""
    return near + _root((goal - near + 1) ** m, count) - 1


def _uniform(goal: int, near: int, count: int, m: int) -> int:
    """P + floor((K - P) m / M): equal gaps."""
    return near + (goal - near) * m // count


def _root(value: int, degree: int) -> int:
    """The root of a whole number, rounded to the nearest one."""
    high = 1 << (value.bit_length() // degree + 1)
    return _largest(lambda d: (2 * d - 1) ** degree <= value << degree, high)


def _largest(holds: Callable[[int], bool], high: int) -> int:
    """The largest of 1..high for which it holds, as it does up to somewhere; 0 if for none."""
    return bisect_right(range(1, high + 1), 0, key=lambda d: 0 if holds(d) else 1)


_PLACES: Final[dict[str, Callable[[int, int, int, int], int]]] = {
    "geometric": _geometric,
    "printed": _printed,
    "exponential": _exponential,
    "uniform": _uniform,
}
