"""Plans of demonstrations for a filter of imagined subgoals: such as lead on, and such as do not.

A plan is what is seen now, a subgoal, which is the frame at the end of a chunk, and the goal:

| kind | |
|---|---|
| progress | three frames of one episode, in their order |
| reversed | what is seen now came after the subgoal |
| elsewhere | the subgoal is of another episode |
| other goal | the goal is of another episode |
| noised | the subgoal is partly noise, as if the world model had stopped on its way |
| patched | some cells of the subgoal are of another episode: things that come and vanish |

Light and colour of now and goal are changed each in its own way, as when the policy learned; the
world model imagines frames as they were recorded.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from robolearn.episodes import DatasetError
from robolearn.hindsight import Hindsight, relit
from robolearn.policies.act2goal import Act2GoalPolicy
from robolearn.policies.base import as_tensors
from robolearn.policies.flow import between

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset

PROGRESS: Final = "progress"
WRONG: Final = ("reversed", "elsewhere", "other goal", "noised", "patched")
HELD: Final = 10  # of so many episodes one is not learned from
PATCHED: Final = (0.2, 0.6)  # share of the cells
NOISED: Final = (0.2, 1.0)  # share of noise
TOLERATED: Final = (0.0, 0.1)  # of any other subgoal: what is imagined is never quite clean


class Examples:
    """Plans (B, 3, N, C) of a dataset; see the module's docstring.

    Args:
        policy: that looks at them; it does not learn.
        dataset: of at least two episodes.

    Raises:
        DatasetError: there are fewer, or hardly a frame in them.
    """

    def __init__(self, policy: Act2GoalPolicy, dataset: "EpisodeDataset") -> None:
        self._world, self._goals = policy.backbone.world, policy.config.hindsight
        cameras = tuple(policy.cameras)
        seen = self._world.features()
        self._pixels = dataset.windows(1, cameras)
        self._frames = dataset.windows(1, cameras, features=seen)
        self._pairs = Hindsight(self._pixels, self._goals)
        table = dataset.episodes
        # Of the episode of each frame: where it begins, how long it is, whether it is held out.
        self._start, self._length = (
            np.repeat(x, table.length) for x in (table.start, table.length)
        )
        self._held = np.repeat(np.arange(len(table)) % HELD == 0, table.length)
        if {*self._held[self._length > 1]} != {True, False}:
            raise DatasetError(f"{dataset.root} has fewer than two episodes; record more")

    def draw(self, kinds: np.ndarray, rng: np.random.Generator, *, held: bool = False) -> Tensor:
        """Random plans of these kinds, str (B,), of the episodes held out or of all others."""
        now, steps = self._pairs.pairs(rng, len(kinds), self._held == held)
        goal, subgoal = now + steps, now + np.minimum(steps, self._world.hashing.near)
        back = kinds == "reversed"
        now, subgoal = np.where(back, subgoal, now), np.where(back, now, subgoal)
        stranger = self._elsewhere(rng, now, np.flatnonzero(self._held == held))
        subgoal = np.where(kinds == "elsewhere", stranger, subgoal)
        goal = np.where(kinds == "other goal", stranger, goal)
        latents = self._spoilt(kinds, self._latents(subgoal), self._latents(stranger), rng)
        return torch.stack([self._seen(now, rng), latents, self._seen(goal, rng)], 1)

    def _spoilt(
        self, kinds: np.ndarray, latents: Tensor, others: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Latents (B, N, C), some with cells of others or with much noise, all with a little."""
        count, cells = latents.shape[:2]
        patches = np.maximum(1.0, cells * rng.uniform(*PATCHED, (count, 1)))
        order = rng.random((count, cells)).argsort(1)
        patched = (order < patches) & (kinds == "patched")[:, None]
        shares = np.where(
            kinds == "noised", rng.uniform(*NOISED, count), rng.uniform(*TOLERATED, count)
        )
        noise = rng.standard_normal(latents.shape, np.float32)
        taken, left, drawn = as_tensors(
            {"taken": patched[..., None], "left": (1.0 - shares)[:, None, None], "drawn": noise},
            latents.device,
        ).values()
        return between(drawn, torch.where(taken, others, latents), left.float())

    def _elsewhere(
        self, rng: np.random.Generator, frames: np.ndarray, among: np.ndarray
    ) -> np.ndarray:
        """Random frames of other episodes than these are of, int (B,).

        Args:
            rng: the source of all randomness.
            frames: int (B,).
            among: frames in their order, of whole episodes; one episode has no other beside it.
        """
        length = self._length[frames]
        if length.max() == len(among):
            among = np.arange(len(self._length))
        begin = np.searchsorted(among, self._start[frames])
        drawn = rng.integers(len(among) - length)
        return among[np.where(drawn < begin, drawn, drawn + length)]

    def _latents(self, frames: np.ndarray) -> Tensor:
        """Latents (B, N, C) of frames, as the world model imagines them."""
        views = self._frames.views(frames[:, None])["features"]
        return self._world.joined(as_tensors(views, self._world.start.device))[:, 0]

    @torch.no_grad()
    def _seen(self, frames: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Latents (B, N, C) of frames in changed light, as the policy sees them."""
        pixels = self._pixels.views(frames)["pixels"]
        lit = {name: relit(x, self._goals.jitter, rng) for name, x in pixels.items()}
        return self._world.see(as_tensors(lit, self._world.start.device)).float()
