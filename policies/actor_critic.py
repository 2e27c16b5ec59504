"""What methods share that teach a critic of chunks and an actor at once.

In each step the critic learns what was done, by what the actor would do next,

    y = sum_{k<n} gamma^k r_k + gamma^n (1 - terminated) Q'(s', a')        a' of the actor now

and the actor learns from Q', a slow copy of the critic, which no loss of the actor's changes. The
entropy of an actor is left out of y, so that a value reads as mean episodes still to go.
"""

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.aloe import fresh_critic, measured, shares_of
from robolearn.policies.base import Chunks, Context, Generators
from robolearn.policies.critic import Critic
from robolearn.policies.denoiser import draws_of
from robolearn.policies.derived import DerivedPolicy
from robolearn.policies.fitting import minimise
from robolearn.policies.improver import Improved, held_out
from robolearn.policies.improver_configs import CriticConfig
from robolearn.seeding import stream

if TYPE_CHECKING:
    from robolearn.experience import Experience


class ActingPolicy(DerivedPolicy):
    """A policy whose chunks are those of an actor, a function of noise."""

    actor: nn.Module

    @abstractmethod
    def decide(self, context: Context, noise: Tensor) -> Chunks:
        """The chunk of each noise (B, n, H, J); gradients go through it to the actor."""

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """See `Policy`."""
        return self.decide(context, self.inner.first_noise(n, noise))


class ActorCritic(ABC):
    """A critic and an actor that learn at once; see the module's docstring.

    Args:
        policy: its actor learns in place.
        critic: learns in place.
        experience: what both learn from.
        parts: further modules that learn.
    """

    def __init__(
        self, policy: ActingPolicy, critic: Critic, experience: "Experience", **parts: nn.Module
    ) -> None:
        self.policy, self.critic, self.experience = policy, critic, experience
        learning = {"critic": critic, "actor": policy.actor, **parts}
        self.parts = nn.ModuleDict(learning).to(experience.device)
        replay = experience.replay
        self.shares = shares_of(replay.numbers, critic.config, experience.device)

    @abstractmethod
    def actor_loss(
        self, slow: nn.ModuleDict, context: Context, frames: np.ndarray, rng: np.random.Generator
    ) -> Tensor:
        """What everything but the critic minimises, a scalar.

        Args:
            slow: a copy of `parts` that comes after them.
            context: of B observations, as the policy keeps them.
            frames: int (B,), where they are.
            rng: of the draws.
        """

    def ahead(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """One value (B,) of those of all heads (M, B), for the target."""
        del rng
        return values.mean(0)

    def draw(self, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The frames of a step, among `starts` (N,)."""
        return rng.choice(starts, self.critic.config.batch_size)

    def teach(self, seed: int) -> list[float]:
        """Teaches both; the losses, meant over tenths."""
        replay, c = self.experience.replay, self.critic.config
        starts = replay.starts_of(~held_out(replay.numbers))
        slow = copy.deepcopy(self.parts).eval().requires_grad_(requires_grad=False)

        def loss(step: int) -> Tensor:
            rng = stream(seed, f"actor and critic {step}")
            frames = self.draw(starts, rng)
            context = self.context(frames)
            of_critic = self.critic_loss(slow["critic"], context, frames, rng)
            return of_critic + self.actor_loss(slow, context, frames, rng)

        self.parts.train()
        rate = c.learning_rate
        losses = minimise(
            self.parts, loss, steps=c.steps, learning_rate=rate, follower=slow, pace=c.polyak
        )
        self.parts.eval()
        return losses

    def critic_loss(
        self, slow: nn.Module, context: Context, frames: np.ndarray, rng: np.random.Generator
    ) -> Tensor:
        """The mean squared error of the critic at frames (B,)."""
        device, fragments = self.experience.device, self.experience.replay.fragments(frames)
        action, valid, total, discount = (
            torch.from_numpy(part).to(device)
            for part in (fragments.action, fragments.valid, fragments.total, fragments.discount)
        )
        with torch.no_grad():
            after = self.context(fragments.following)
            values = slow(after, self.executed(after, rng))[..., 0]
            target = total + discount * self.ahead(values, rng)
            # Beyond the end of a task it goes on as the actor would, as in aloe.py.
            done = torch.where(
                valid[:, None, :, None], action[:, None], self.executed(context, rng)
            )
        error = self.critic(context, done)[..., 0] - target.clamp(self.critic.lowest, 0.0)
        learns = self.shares[:, torch.from_numpy(self.experience.replay.episode[frames]).to(device)]
        return (error.square() * learns).sum() / learns.sum().clamp_min(1.0)

    def context(self, frames: np.ndarray) -> Context:
        """Frames (B,) as the policy keeps them."""
        seen = self.experience.context(frames)
        return Context(seen.tokens, seen.agent_pos, self.policy.kept(seen.tokens))

    def noise(self, context: Context, rng: np.random.Generator) -> Tensor:
        """Noise (B, 1, H, J) for one chunk of each observation."""
        shape = (len(context.tokens), 1, *self.policy.inner.chunk.mean.shape)
        return draws_of(rng.standard_normal, shape).to(context.tokens.device)

    def executed(self, context: Context, rng: np.random.Generator) -> Tensor:
        """The executed steps of the actor's chunks (B, 1, H, J)."""
        return self.rated(self.policy.decide(context, self.noise(context, rng)))

    def rated(self, chunks: Chunks) -> Tensor:
        """Those steps of chunks (B, n, H, J) that the critic rates."""
        return chunks.actions[:, :, : self.critic.executed]

    def improved(self, losses: list[float], seed: int) -> Improved:
        """What a round leaves."""
        samples = self.experience.samples(self.policy, 1, seed)
        held = held_out(self.experience.replay.numbers)
        figures = measured(self.critic, self.experience, samples, held)
        return Improved(self.policy.eval(), {"actor_loss": losses[-1], **figures}, self.critic)


def critic_for(
    config: CriticConfig,
    policy: DerivedPolicy,
    experience: "Experience",
    before: Critic | None,
    seed: int,
) -> Critic:
    """The critic of the round before, or a fresh one."""
    held = held_out(experience.replay.numbers)
    return before or fresh_critic(config, policy, experience, held, seed)


def as_one(values: Any) -> Tensor:  # noqa: ANN401
    """Values of any scale as a loss of mean size one: minus their mean over their mean size."""
    return -values.mean() / values.abs().mean().detach().clamp_min(1e-6)
