"""RLPD: soft actor-critic with demonstrations in every batch (Ball et al. 2023), on chunks.

    y = sum_{k<n} gamma^k r_k + gamma^n (1 - terminated) min_{m of 2 heads} Q'_m(s', a')
    actor = E [temperature log pi(a|s) - mean_m Q'_m(s, a)] - cloning E log pi(recorded|s)

Half of each batch is demonstrated, half was done by the policy itself; the two heads of the target
are drawn anew in every step; layer norms keep values bounded far from the data. The actor is a
Gaussian of its own that begins from nothing, upon the tokens of the frozen encoder. Rewards are too
rare for chunks of this length to be found without the cloning (as in Li et al. 2025, QC-RLPD).
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.actor_critic import ActingPolicy, ActorCritic, critic_for
from robolearn.policies.base import Batch, Chunks, Context, Info, TrainablePolicy
from robolearn.policies.critic import Critic
from robolearn.policies.denoiser import DenoisingPolicy
from robolearn.policies.gaussian import SquashedGaussian, Temperature
from robolearn.policies.heads import Prefix
from robolearn.policies.improver import Improved
from robolearn.policies.improver_configs import RlpdConfig

if TYPE_CHECKING:
    from robolearn.experience import Experience


class Rlpd:
    """See the module's docstring, and `Improver`."""

    def __init__(self, config: RlpdConfig) -> None:
        self.config = config

    def improve(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Improved:
        """See `Improver`; of the policy only the encoder and the units of chunks are used."""
        torch.manual_seed(seed)  # the initial weights
        ours = RlpdPolicy.made_of(policy, self.config)
        critic = critic_for(self.config.critic, ours, experience, before, seed)
        learner = Learner(ours, critic, experience)
        return learner.improved(learner.teach(seed), seed)


class RlpdPolicy(ActingPolicy):
    """A Gaussian actor of chunks, upon the encoder of another policy."""

    kind: ClassVar[str] = RlpdConfig.kind
    method_type = RlpdConfig
    method: RlpdConfig
    actor: SquashedGaussian

    def __init__(self, inner: DenoisingPolicy, method: RlpdConfig) -> None:
        super().__init__(inner, method)
        shape = tuple(inner.chunk.mean.shape)
        self.actor = SquashedGaussian(self.tokens, shape, method.bound, method.hidden, method.depth)

    def kept(self, tokens: Tensor) -> Prefix:
        """See `DerivedPolicy`."""
        return (self.actor.features(tokens),)

    def decide(self, context: Context, noise: Tensor) -> Chunks:
        """See `ActingPolicy`."""
        return self._as_chunks(context, self.actor.draw(context.cache[0], noise)[0])

    def decide_with_density(self, context: Context, noise: Tensor) -> tuple[Chunks, Tensor]:
        """The same, and the log-density of each number of a chunk."""
        clean, density = self.actor.draw(context.cache[0], noise)
        return self._as_chunks(context, clean), density

    def _as_chunks(self, context: Context, clean: Tensor) -> Chunks:
        return self.inner.finished(context, clean, context.cache[0].expand(-1, clean.shape[1], -1))

    def cloning_loss(self, features: Tensor, batch: Batch) -> Tensor:
        """Minus the log-density of recorded chunks, a mean over their numbers."""
        density = self.actor.log_density(features, self.inner.clean_of(batch))
        inside = batch["mask"][:, None, :, None].expand_as(density)
        return -(density * inside).sum() / inside.sum()

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The actor imitates."""
        tokens = self.inner.tokens_of(batch, batch["instruction"], rng)
        loss = self.cloning_loss(self.actor.features(tokens), batch)
        return loss, {f"{self.kind}/loss": float(loss.detach())}


class Learner(ActorCritic):
    """See `ActorCritic`."""

    policy: RlpdPolicy

    def __init__(self, policy: RlpdPolicy, critic: Critic, experience: "Experience") -> None:
        super().__init__(policy, critic, experience, temperature=Temperature(policy.method.entropy))

    def ahead(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """The least value of a few heads, drawn anew; see `ActorCritic`."""
        few = rng.choice(len(values), self.policy.method.subset, replace=False)
        return values[few].amin(0)

    def draw(self, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Half demonstrations, half others, as far as there are both; see `ActorCritic`."""
        replay, size = self.experience.replay, self.critic.config.batch_size
        shown = replay.episode[starts] < self.experience.demonstrations
        parts = [part for part in (starts[shown], starts[~shown]) if len(part)]
        sizes = [len(part) for part in np.array_split(np.arange(size), len(parts))]
        return np.concatenate([rng.choice(p, n) for p, n in zip(parts, sizes, strict=True)])

    def actor_loss(
        self, slow: nn.ModuleDict, context: Context, frames: np.ndarray, rng: np.random.Generator
    ) -> Tensor:
        """See `ActorCritic`."""
        policy = self.policy
        chunks, density = policy.decide_with_density(context, self.noise(context, rng))
        values = slow["critic"](context, self.rated(chunks))
        batch = self.experience.batch(frames, policy.horizon)
        cloning = policy.cloning_loss(context.cache[0], batch)
        entropy = self.parts["temperature"].loss(density)  # type: ignore[operator]
        return entropy - values.mean() + policy.method.cloning * cloning
