"""Flow Q-learning (Park et al. 2025): an actor of one step, between the flow and its critic.

    flow    imitates everything that was recorded
    actor   alpha E |actor(s, x) - flow(s, x)|^2 - E Q(s, actor(s, x))        x ~ N(0, I)

The flow says what may be done, the critic of chunks (as in Q-chunking's QC-FQL) what is best of it,
and no gradient goes through the steps of the flow. Values are scaled to a mean size of one, so that
alpha means the same on every task. At run time a chunk costs one look of the actor.
"""

import copy
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.actor_critic import ActingPolicy, ActorCritic, as_one, critic_for
from robolearn.policies.advantage import imitate
from robolearn.policies.base import Batch, Chunks, Context, Info, TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.denoiser import DenoisingPolicy, draws_of
from robolearn.policies.heads import Head, Prefix
from robolearn.policies.improver import Improved
from robolearn.policies.improver_configs import FqlConfig

if TYPE_CHECKING:
    from robolearn.experience import Experience


class Fql:
    """See the module's docstring, and `Improver`."""

    def __init__(self, config: FqlConfig) -> None:
        self.config = config

    def improve(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Improved:
        """See `Improver`."""
        config, starts = self.config, experience.replay.starts
        ours = FqlPolicy.made_of(policy, config)
        alike = np.ones(len(starts))
        flow, _ = imitate(ours.inner, experience, starts, alike, config.actor, seed)
        ours.inner.load_state_dict(flow.state_dict())
        critic = critic_for(config.critic, ours, experience, before, seed)
        learner = Learner(ours, critic, experience)
        return learner.improved(learner.teach(seed), seed)


class FqlPolicy(ActingPolicy):
    """A flow, and an actor that makes the flow's chunks, or better ones, in one step."""

    kind: ClassVar[str] = FqlConfig.kind
    method_type = FqlConfig
    method: FqlConfig
    actor: Head

    def __init__(self, inner: DenoisingPolicy, method: FqlConfig) -> None:
        super().__init__(inner, method)
        self.actor = copy.deepcopy(inner.head)  # of a flow: one long step of it

    def kept(self, tokens: Tensor) -> Prefix:
        """See `DerivedPolicy`."""
        return self.actor.prefix(tokens)

    def decide(self, context: Context, noise: Tensor) -> Chunks:
        """See `ActingPolicy`."""
        return self.inner.finished(context, *self.one_step(noise, context.cache))

    def one_step(self, noise: Tensor, kept: Prefix) -> tuple[Tensor, Tensor]:
        """The actor's clean chunks, as `noise`, and its features."""
        change, features = self.actor(noise, torch.zeros(1, 1, 1, device=noise.device), kept)
        return noise + change, features

    @torch.no_grad()
    def flow(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """The flow's clean chunks of the same noise."""
        return self.inner.denoise(noise, 0, self.inner.head.prefix(tokens))[0]

    def distance(self, tokens: Tensor, noise: Tensor, clean: Tensor) -> Tensor:
        """How far the actor's clean chunks are from the flow's, squared."""
        return (clean - self.flow(tokens, noise)).square().mean()

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The flow imitates, and the actor follows the flow."""
        loss, info = self.inner.loss(batch, rng)
        tokens = self.inner.tokens_of(batch, batch["instruction"]).detach()
        shape = (len(tokens), 1, *self.inner.chunk.mean.shape)
        noise = draws_of(rng.standard_normal, shape).to(self.device)
        clean, _ = self.one_step(noise, self.kept(tokens))
        return loss + self.distance(tokens, noise, clean), info


class Learner(ActorCritic):
    """See `ActorCritic`."""

    policy: FqlPolicy

    def actor_loss(
        self, slow: nn.ModuleDict, context: Context, frames: np.ndarray, rng: np.random.Generator
    ) -> Tensor:
        """See `ActorCritic`."""
        del frames
        noise, policy = self.noise(context, rng), self.policy
        clean, features = policy.one_step(noise, context.cache)
        chunks = policy.inner.finished(context, clean, features)
        values = slow["critic"](context, self.rated(chunks)).mean(0)
        distance = policy.distance(context.tokens, noise, clean)
        return policy.method.alpha * distance + as_one(values)
