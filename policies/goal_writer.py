"""A writer of goals: it imagines the goal picture that an instruction asks for.

    now, noisy goal (B, N, C) ─ tokens ─ blocks, modulated by the words and the flow time ─ goal

It is a generator by flow matching (Lipman et al. 2023) in the latents of a policy that is shown its
goal, so that the policy can be told it, too: what is written is decoded, and shown. It is fitted to
the episodes of a recording that succeeded (`endings.py`): what they were told, and their last
pictures. The blocks say what the goal is; the velocity is the way there from what is noisy, as in
the world model.

N cells of all cameras, C channels of a latent, W features of a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.config import from_json
from robolearn.policies.base import Generators, Policy
from robolearn.policies.denoiser import draws_of
from robolearn.policies.endings import Endings
from robolearn.policies.fitted import Taught
from robolearn.policies.fitting import minimise
from robolearn.policies.flow import between
from robolearn.policies.heads import TimeEncoder
from robolearn.policies.language import LanguageEncoder, words
from robolearn.policies.latent_configs import GoalWriterConfig
from robolearn.policies.latents import latents_of
from robolearn.policies.world_model import PLACE, Block
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.options import WriterConfig


class GoalWriter(Taught):
    """See the module's docstring.

    Args:
        config: sizes, and how it learns.
        shape: N and C.
        vocabulary: the words that it knows.
        base: the fingerprint of the policy's checkpoint.
    """

    kind: ClassVar[str] = GoalWriterConfig.kind
    usage: ClassVar[str] = (
        "tell the policy its goals with:\n  robolearn eval --policy {base} --goal imagined {out}"
    )

    def __init__(
        self,
        config: GoalWriterConfig,
        shape: tuple[int, int],
        vocabulary: Sequence[str],
        base: str,
    ) -> None:
        super().__init__()
        (cells, channels), width = shape, config.width
        self.config, self.shape, self.base = config, shape, base
        self.language = LanguageEncoder(vocabulary, config.words, width)
        self.now, self.noisy = nn.Linear(channels, width), nn.Linear(channels, width)
        self.place = nn.Parameter(PLACE * torch.randn(2, cells, width))
        self.time = TimeEncoder(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.depth))
        self.norm, self.outward = nn.LayerNorm(width), nn.Linear(width, channels)

    def forward(self, now: Tensor, told: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The goal (B, N, C), as far as it can be made out.

        Args:
            now: latents of what is seen (B, N, C).
            told: the words' token (B, W).
            noisy: t of the goal's latents and 1 - t of noise, (B, N, C).
            t: flow time in 0..1, (B, 1).
        """
        c = functional.silu(torch.stack([told, told + self.time(t)], 1))[:, :, None]
        h = torch.stack([self.now(now), self.noisy(noisy)], 1) + self.place
        for block in self.blocks:
            h = block(h, c)
        return self.outward(self.norm(h[:, 1]))

    def loss(
        self, now: Tensor, told: Sequence[str], goal: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Mean squared error of the goal: that of the velocity, times the way that is left."""
        noise = draws_of(rng.standard_normal, goal.shape).to(goal.device)
        t = draws_of(rng.random, (len(goal), 1)).to(goal.device)
        noisy = between(noise, goal, t[..., None])
        return (self(now, self.language(told, rng), noisy, t) - goal).square().mean()

    @torch.no_grad()
    def write(self, now: Tensor, told: Sequence[str], noise: Generators) -> Tensor:
        """Latents of goals (B, N, C).

        Args:
            now: latents of what is seen (B, N, C).
            told: B instructions.
            noise: one generator for each of them.

        Raises:
            ValueError: an instruction of which it knows no word.
        """
        self._check_words(told)
        drawn = [rng.standard_normal(now.shape[1:], dtype=np.float32) for rng in noise]
        x, heard = torch.from_numpy(np.stack(drawn)).to(now.device), self.language(told)
        steps = self.config.sample_steps
        for k in range(steps):
            t = torch.full((len(x), 1), k / steps, device=x.device)
            # The way that is left is (steps - k) / steps, of which this step goes 1 / steps.
            x = x + (self(now, heard, x, t) - x) / (steps - k)
        return x

    def _check_words(self, told: Sequence[str]) -> None:
        known = {*self.language.vocabulary}
        for text in told:
            if not known & {*words(text)}:
                raise ValueError(
                    f"this {self.kind} knows no word of {text!r}, but {', '.join(sorted(known))}; "
                    "fit one to a recording that was told such things"
                )

    @classmethod
    def fitted_to(
        cls, policy: Policy, base: str, dataset: "EpisodeDataset", config: "WriterConfig"
    ) -> tuple[Self, dict[str, Any]]:
        """See `Taught`; the figures tell of episodes that it did not learn from."""
        latents = latents_of(policy, f"a {cls.kind}")
        examples = Endings(latents, dataset)
        torch.manual_seed(config.seed)  # the initial weights
        shape = (latents.count, latents.channels)
        found = cls(config.policy, shape, examples.vocabulary, base).to(policy.device).train()
        losses = found.learn(examples, config.seed)
        return found.eval(), {"losses": losses, **examples.judged(found.write, config.seed)}

    def learn(self, examples: Endings, seed: int) -> list[float]:
        """Learns of the examples; returns the losses, meant over tenths."""
        c = self.config

        def loss(step: int) -> Tensor:
            rng = stream(step, f"goals {seed}")
            return self.loss(*examples.draw(rng, c.batch_size), rng)

        return minimise(self, loss, steps=c.steps, learning_rate=c.learning_rate)

    def description(self) -> dict[str, Any]:
        """See `Beside`."""
        vocabulary = list(self.language.vocabulary)
        known = {"shape": list(self.shape), "vocabulary": vocabulary, "base": self.base}
        return {"config": asdict(self.config), **known}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Beside`."""
        cells, channels = description["shape"]
        config = from_json(GoalWriterConfig, description["config"])
        return cls(config, (cells, channels), description["vocabulary"], description["base"])
