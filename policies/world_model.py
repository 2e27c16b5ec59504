"""A goal-conditioned world model: the frames between now and a goal, by flow matching in latents.

    now, goal  (B, N, C) ──────────── clean tokens, each with an embedding of its own ─┐
    noisy      (B, T, N, C) ─ the T frames of a cell are one token, with the flow time ─┴─ blocks
    velocity   (B, T, N, C), and the features (B, 3 N, D) of every block, which an expert acts on

The blocks say what the frames are, and the velocity is the way there from what is noisy: a token is
too narrow for the noise of T frames, which it would have to give back. Most cells of a frame look
as they do now or as they will at the goal, so the blocks choose between the two, and add what is
neither: without that a model of so few steps imagined nothing but blurred goals.

B batch, N cells of all cameras, C channels of a latent, T frames at the hashed steps. The target of
the velocity is data minus noise (Lipman et al. 2023, as in `flow.py`), so frames are imagined by
going from noise at t = 0 to t = 1. The tokens of now and goal are never noised. A token of the
future hears the time, and how far its frames and the goal are.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.hindsight import Hindsight
from robolearn.policies.configs import HindsightConfig
from robolearn.policies.flow import between
from robolearn.policies.hashing import Hashing
from robolearn.policies.heads import Modulated, SelfAttention, TimeEncoder, feed_forward
from robolearn.policies.latents import Latents

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.policies.latent_configs import Act2GoalConfig, SusieConfig

GROUPS: Final = 3  # of tokens: now, goal, future
PLACE: Final = 1.0  # spread of the places that tokens begin with, as their contents are
CERTAIN: Final = 0.03  # so sure a cell begins to be that it looks as now, or as at the goal
LEFT: Final = 0.05  # of the way, at least: a velocity does not become infinite at its end


@dataclass
class Imagined:
    """What a policy expects to see on its way.

    Attributes:
        frames: camera -> uint8 (B, T, h, w, 3).
        offsets: int (B, T), control steps from now to each of them.
    """

    frames: Mapping[str, Tensor]
    offsets: Tensor


class Imaginer(Latents, ABC):
    """What imagines frames between now and a goal, by flow matching; how it predicts is its own.

    Args:
        config: sizes.
        cameras: camera name -> (height, width) of its pictures.
        hashing: which frames.
        pretrained: see `Latents`.
    """

    start: Tensor  # (1, T, N, C): the noise that features for the expert begin with

    def __init__(
        self,
        config: "Act2GoalConfig | SusieConfig",
        cameras: Mapping[str, tuple[int, int]],
        hashing: Hashing,
        pretrained: str = "",
    ) -> None:
        super().__init__(cameras, config.latents, pretrained)
        self.hashing = hashing
        self.eye = self.autoencoder.eye()  # begins as the autoencoder's, and learns to act
        noise = torch.randn(
            (1, hashing.frames, self.count, self.channels),
            generator=torch.Generator().manual_seed(0),
        )
        self.register_buffer("start", noise, persistent=False)

    @abstractmethod
    def forward(
        self, now: Tensor, goal: Tensor, noisy: Tensor, t: Tensor, steps: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The velocity (B, T, N, C), and the features (B, 3 N, D) of `depth` blocks.

        Args:
            now: latents of the observation (B, N, C).
            goal: those of the goal, likewise.
            noisy: t of the frames' latents and 1 - t of noise, (B, T, N, C).
            t: flow time in 0..1, (B, 1).
            steps: K, steps to the goal (B,).
        """

    def fit(self, dataset: "EpisodeDataset", steps: int, seed: int) -> list[float]:
        """Trains the autoencoder; the eye begins as it is. See `Latents`."""
        losses = super().fit(dataset, steps, seed)
        return losses + self.autoencoder.teach(self.eye, self.frames(dataset), steps, seed)

    def see(self, pixels: Mapping[str, Tensor]) -> Tensor:
        """Clean latents (B, N, C) of uint8 pictures (B, h, w, 3), by camera."""
        return self.joined({name: self.eye(pixels[name])[:, None] for name in self.cameras})[:, 0]

    def hindsight(
        self, dataset: "EpisodeDataset", horizon: int, goals: HindsightConfig
    ) -> Hindsight:
        """Windows of chunks with goals, and latents of the frames at the hashed steps.

        Args:
            dataset: of them.
            horizon: steps of a chunk.
            goals: which ones.
        """
        cameras = tuple(self.cameras)
        seen = dataset.windows(horizon, cameras)
        latents = dataset.windows(1, cameras, features=self.features())
        return Hindsight(seen, goals, self.hashing, latents)

    def loss(
        self, ends: tuple[Tensor, Tensor], frames: Tensor, noise: Tensor, t: Tensor, steps: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The error of the velocity, and the features of each block.

        Velocities weigh by the square of the way that is left: as the frames would.

        Args:
            ends: latents of observation and goal (B, N, C).
            frames: those that shall be imagined (B, T, N, C).
            noise: likewise.
            t: flow time in 0..1, (B, 1).
            steps: K (B,).
        """
        noisy = between(noise, frames, t[..., None, None])
        velocity, features = self(*ends, noisy, t, steps)
        error = (velocity.float() - (frames - noise)) * (1.0 - t)[..., None, None]
        return error.square().mean(), features

    def imagine(self, now: Tensor, goal: Tensor, steps: Tensor, count: int) -> Tensor:
        """Latents of the frames at the hashed steps (B, T, N, C), in `count` steps from noise."""
        return self.plan(now, goal, steps, count, self.start.expand(len(now), -1, -1, -1))[0]

    @torch.no_grad()
    def plan(
        self, now: Tensor, goal: Tensor, steps: Tensor, count: int, noise: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """The same from this noise (B, T, N, C), and the features of the last step's blocks."""
        x, features = noise, []
        for k in range(count):
            t = torch.full((len(now), 1), k / count, device=x.device)
            velocity, features = self(now, goal, x, t, steps)
            x = x + velocity / count
        return x, features


class WorldModel(Imaginer):
    """See the module's docstring, and `Imaginer`."""

    def __init__(
        self,
        config: "Act2GoalConfig | SusieConfig",
        cameras: Mapping[str, tuple[int, int]],
        hashing: Hashing,
        pretrained: str = "",
    ) -> None:
        super().__init__(config, cameras, hashing, pretrained)
        width, frames = config.width, hashing.frames * self.channels
        self.inward = nn.Linear(self.channels, width)
        self.noisy = nn.Linear(frames, width)
        self.place = nn.Parameter(PLACE * torch.randn(GROUPS, self.count, width))
        self.clean = nn.Parameter(0.02 * torch.randn(2, 1, width))
        self.time = TimeEncoder(width)
        self.ahead = nn.Linear(2 * hashing.frames + 1, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.depth))
        self.norm, self.outward = nn.LayerNorm(width), nn.Linear(width, frames)
        self.choice = nn.Linear(width, hashing.frames)
        for weight in (*self.outward.parameters(), *self.choice.parameters()):
            nn.init.zeros_(weight)

    def forward(
        self, now: Tensor, goal: Tensor, noisy: Tensor, t: Tensor, steps: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Imaginer`."""
        future = self.noisy(noisy.transpose(1, 2).flatten(2))
        h = torch.stack([self.inward(now), self.inward(goal), future], 1) + self.place
        logarithms, shares = _distances(self.hashing, steps)
        c = self._conditions(t, torch.cat([logarithms, shares], 1))
        features = []
        for block in self.blocks:
            h = block(h, c)
            features.append(h.flatten(1, 2))
        frames = self._frames(self.norm(h[:, 2]), shares, now, goal)
        left = (1.0 - t).clamp(min=LEFT)[..., None, None]
        return (frames - noisy) / left, features

    def _frames(self, h: Tensor, shares: Tensor, now: Tensor, goal: Tensor) -> Tensor:
        """What the tokens of the future (B, N, D) say: now, goal, and what is neither.

        Before anything is learned, frames change from now to goal as the way goes.

        Args:
            h: the tokens.
            shares: of the way, where the frames are (B, T).
            now: latents of the observation (B, N, C).
            goal: those of the goal, likewise.

        Returns:
            Latents (B, T, N, C).
        """
        usual = shares.logit(CERTAIN)[:, None]
        chosen = (self.choice(h) + usual).sigmoid().transpose(1, 2)[..., None]
        new = self.outward(h).unflatten(-1, (shares.shape[1], -1)).transpose(1, 2)
        return now[:, None] + chosen * (goal - now)[:, None] + new

    def _conditions(self, t: Tensor, distances: Tensor) -> Tensor:
        """What modulates the tokens of each group, (B, 3, 1, D)."""
        ahead = self.ahead(distances)
        now = self.clean[0].expand(len(distances), -1)
        conditions = [now, self.clean[1] + ahead, self.time(t) + ahead]
        return nn.functional.silu(torch.stack(conditions, 1))[:, :, None]


class Block(nn.Module):
    """All tokens attend to all, and an MLP; groups (B, 3, N, D), conditions (B, 3, 1, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Modulated(AmongAll(width), width)
        self.mlp = Modulated(feed_forward(width), width)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """See the class."""
        return self.mlp(self.attention(h, c), c)


class AmongAll(SelfAttention):
    """Self-attention across the groups."""

    def forward(self, h: Tensor) -> Tensor:
        """(B, G, N, D) to the same shape."""
        return super().forward(h.flatten(1, 2)[:, None]).view(h.shape)


def _distances(hashing: Hashing, steps: Tensor) -> tuple[Tensor, Tensor]:
    """How far frames and goal are in logarithms (B, T + 1), frames as shares of the way (B, T)."""
    goal = steps.detach().cpu().numpy()
    offsets = torch.from_numpy(hashing.offsets(goal)).to(steps.device).float()
    whole = steps.float()[:, None]
    logarithms = torch.cat([offsets, whole], 1).log() / np.log(hashing.furthest + 1)
    return logarithms, offsets / whole
