"""DSRL: reinforcement learning over the noise that a frozen policy begins with.

Wagenmaker et al. 2025, "Steering your diffusion policy with latent space reinforcement learning",
the variant with noise aliasing. A policy without noise of its own is a function from noise w to
chunks. A small actor chooses w; the policy itself stays:

    Q(s, a)     learns what chunks are worth, from everything that was recorded
    Qw(s, w)    learns Q(s, policy(s, w)), of noise from the prior and from the actor
    actor       entropy-regularised: maximises Qw

All noise lies within a bound, where the policy knows it. It is chosen for each step of a chunk, or
the same for all steps (`shared`).
"""

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.actor_critic import ActingPolicy, ActorCritic, critic_for
from robolearn.policies.base import Chunks, Context, TrainablePolicy
from robolearn.policies.critic import Critic, side_by_side
from robolearn.policies.denoiser import DenoisingPolicy
from robolearn.policies.gaussian import SquashedGaussian, Temperature
from robolearn.policies.heads import Prefix
from robolearn.policies.improver import Improved
from robolearn.policies.improver_configs import DsrlConfig
from robolearn.policies.residual import residual_mlp

if TYPE_CHECKING:
    from robolearn.experience import Experience


class Dsrl:
    """See the module's docstring, and `Improver`."""

    def __init__(self, config: DsrlConfig) -> None:
        self.config = config

    def improve(
        self, policy: TrainablePolicy, experience: "Experience", before: Critic | None, seed: int
    ) -> Improved:
        """See `Improver`."""
        torch.manual_seed(seed)  # the initial weights
        ours = DsrlPolicy.made_of(policy, self.config)
        critic = critic_for(self.config.critic, ours, experience, before, seed)
        learner = Learner(ours, critic, experience)
        return learner.improved(learner.teach(seed), seed)


class DsrlPolicy(ActingPolicy):
    """A frozen policy, and the actor that chooses its noise."""

    kind: ClassVar[str] = DsrlConfig.kind
    method_type = DsrlConfig
    method: DsrlConfig
    actor: SquashedGaussian

    def __init__(self, inner: DenoisingPolicy, method: DsrlConfig) -> None:
        super().__init__(inner, method)
        horizon, joints = inner.chunk.mean.shape
        shape = (1 if method.shared else horizon, joints)
        self.actor = SquashedGaussian(self.tokens, shape, method.bound, method.hidden, method.depth)

    def kept(self, tokens: Tensor) -> Prefix:
        """See `DerivedPolicy`: what the frozen head keeps, then the actor's features."""
        return (*self.inner.head.prefix(tokens), self.actor.features(tokens))

    def choose(self, context: Context, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The actor's noise (B, n, H or 1, J), and the log-density of each number of it."""
        return self.actor.draw(context.cache[-1], noise[:, :, : self.actor.shape[0]])

    def decode(self, context: Context, chosen: Tensor) -> Chunks:
        """The chunks that the frozen policy makes of noise (B, n, H or 1, J)."""
        whole = chosen.expand(-1, -1, self.horizon, -1)
        return self.inner.finished(context, *self.inner.denoise(whole, 0, context.cache[:-1]))

    def decide(self, context: Context, noise: Tensor) -> Chunks:
        """See `ActingPolicy`."""
        return self.decode(context, self.choose(context, noise)[0])


class NoiseCritic(nn.Module):
    """Qw: what noise is worth.

    Args:
        config: sizes.
        tokens: T and D.
        noise: the shape of noise.
    """

    def __init__(self, config: DsrlConfig, tokens: tuple[int, int], noise: tuple[int, ...]) -> None:
        super().__init__()
        size = tokens[0] * tokens[1]
        self.norm = nn.LayerNorm(size)
        self.net = residual_mlp(size + int(np.prod(noise)), config.hidden, config.depth, 1)

    def forward(self, tokens: Tensor, noise: Tensor) -> Tensor:
        """Values (B, n) of noise (B, n, ...) upon tokens (B, T, D)."""
        return self.net(side_by_side(self.norm(tokens.flatten(1)), noise))[..., 0]


class Learner(ActorCritic):
    """See `ActorCritic`."""

    policy: DsrlPolicy

    def __init__(self, policy: DsrlPolicy, critic: Critic, experience: "Experience") -> None:
        noise = NoiseCritic(policy.method, policy.tokens, policy.actor.shape)
        worth = Temperature(policy.method.entropy)
        super().__init__(policy, critic, experience, noise=noise, temperature=worth)

    def actor_loss(
        self, slow: nn.ModuleDict, context: Context, frames: np.ndarray, rng: np.random.Generator
    ) -> Tensor:
        """See `ActorCritic`."""
        del frames
        chosen, density = self.policy.choose(context, self.noise(context, rng))
        values = slow["noise"](context.tokens, chosen)
        of_actor = self.parts["temperature"].loss(density) - values.mean()  # type: ignore[operator]
        return of_actor + self.noise_loss(slow, context, chosen.detach(), rng)

    def noise_loss(
        self, slow: nn.ModuleDict, context: Context, chosen: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """How far Qw is from Q of what the noise becomes, squared."""
        bound = self.policy.method.bound
        drawn = self.noise(context, rng)[:, :, : chosen.shape[2]].clamp(-bound, bound)
        tried = torch.cat([drawn, chosen], 1)
        with torch.no_grad():
            target = slow["critic"](context, self.rated(self.policy.decode(context, tried)))
        return (self.parts["noise"](context.tokens, tried) - target.mean(0)).square().mean()
