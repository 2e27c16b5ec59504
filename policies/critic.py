"""Q(observation, instruction, chunk): what executing the beginning of a chunk is worth.

    tokens of the policy (B, T, D) ─┐
    chunk (B, n, H, J) ─────────────┴─ trunk ─ M heads ─ M values (M, B, n)

The critic looks at the policy's own tokens, which stay frozen: it costs no second look at the
pictures. It rates what will be executed of a chunk before the next decision, not what the policy
had in mind beyond.

The M heads shall disagree where there are no data, so that the least of them is cautious. Sharing
a trunk they hardly would. Each learns from episodes of its own, and adds a frozen random network of
its own (randomised priors, Osband et al. 2018).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.checkpoint import CheckpointError, digest
from robolearn.config import from_json
from robolearn.policies.base import Chunks, Context, Generators, Policy
from robolearn.policies.fitted import Fitted
from robolearn.policies.heads import CrossAttention, TransformerLayer, feed_forward
from robolearn.policies.improver_configs import CriticConfig
from robolearn.policies.normaliser import Normaliser
from robolearn.policies.residual import residual_mlp

if TYPE_CHECKING:
    from robolearn.sources import Source


class Critic(Fitted):
    """See the module's docstring.

    Args:
        config: sizes.
        tokens: T and D of the policy's contexts.
        relative: (J,), 1 for joints whose targets are seen relative to where they are.
        executed: H, the steps of a chunk that are rated.
        lowest: no value can be lower; the highest is 0.
        base: digest of what makes the tokens.
        replan_every: steps that were executed before looking again, where it learned; 0: unknown.
    """

    kind: ClassVar[str] = CriticConfig.kind
    relative: Tensor

    def __init__(
        self,
        config: CriticConfig,
        tokens: tuple[int, int],
        relative: Sequence[float],
        executed: int,
        lowest: float,
        base: str,
        replan_every: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.shape, self.executed = config, tuple(tokens), executed
        self.lowest, self.base, self.replan_every = lowest, base, replan_every
        joints = len(relative)
        self.tokens, self.chunk = Normaliser(self.shape), Normaliser((executed, joints))
        self.register_buffer("relative", torch.tensor(relative))
        self.trunk = TRUNKS[config.trunk](config, self.shape, (executed, joints))
        self.weight = nn.Parameter(torch.zeros(config.heads, config.hidden))
        self.bias = nn.Parameter(torch.full((config.heads,), 0.5 * lowest))
        size = tokens[0] * tokens[1] + executed * joints
        self.prior = _Prior(config.heads, size).requires_grad_(requires_grad=False)

    @classmethod
    def for_policy(
        cls,
        config: CriticConfig,
        policy: Policy,
        tokens: tuple[int, int],
        executed: int,
        lowest: float,
    ) -> Self:
        """A fresh critic of chunks of this policy."""
        grippers = policy.arm["grippers"]
        relative = [float(joint not in grippers) for joint in range(policy.joints)]
        return cls(config, tokens, relative, executed, lowest, encoder_digest(policy))

    def fit(self, tokens: Tensor, chunks: Tensor) -> None:
        """Takes the statistics of tokens (N, T, D) and of `seen_from_here` chunks (N, H, J)."""
        self.tokens.fit(tokens.float().cpu().numpy())
        self.chunk.fit(chunks.cpu().numpy())

    def seen_from_here(self, actions: Tensor, agent_pos: Tensor) -> Tensor:
        """Chunks (B, n, H, J) relative to where the joints are (B, J)."""
        return actions - (agent_pos * self.relative)[:, None, None]

    def forward(self, context: Context, actions: Tensor) -> Tensor:
        """Values (M, B, n) of the executed steps of chunks (B, n, H, J)."""
        tokens = self.tokens(context.tokens.float())
        chunk = self.chunk(self.seen_from_here(actions, context.agent_pos))
        found = self.trunk(tokens, chunk)  # (B, n, M or 1, W)
        values = ((found * self.weight).sum(-1) + self.bias).float().permute(2, 0, 1)
        if self.config.prior:
            values = values + self.config.prior * self.prior(side_by_side(tokens, chunk))
        return values

    def pessimistic(self, values: Tensor) -> Tensor:
        """One value (...) of those of all heads (M, ...)."""
        if self.config.aggregation == "min":
            return values.amin(0)
        if self.config.aggregation == "quantile":
            return values.quantile(self.config.pessimism, dim=0)
        return values.mean(0) - self.config.pessimism * values.std(0, correction=0)

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """The cautious value of each candidate (B, n); see `Scorer`.

        Raises:
            ValueError: other tokens than it was fitted to, or a chunk of fewer steps.
        """
        del noise
        found = tuple(context.tokens.shape[1:])
        if found != self.shape or chunks.actions.shape[2] < self.executed:
            raise ValueError(
                f"this critic rates {self.executed} steps upon tokens {self.shape}; the policy "
                f"gives {chunks.actions.shape[2]} steps and tokens {found}; fit one to this policy"
            )
        return self.pessimistic(self(context, chunks.actions[:, :, : self.executed]))

    def check_base(self, policy: Policy, source: "Source") -> None:
        """Refuses a policy that sees otherwise; one that acts otherwise is welcome.

        Raises:
            CheckpointError: its tokens are others.
        """
        if self.base != (found := encoder_digest(policy)):
            raise CheckpointError(
                f"this critic looks at the tokens of another policy ({self.base[:12]}) than those "
                f"of {source.where} ({found[:12]}); fit one with: robolearn improve --base "
                f"{source.where}"
            )

    def check_executed(self, executed: slice) -> None:
        """Refuses another pace of decisions than the one that its values are of.

        Raises:
            CheckpointError: another one.
        """
        taught = slice(0, self.replan_every)
        if self.replan_every and executed not in (taught, slice(None)):
            raise CheckpointError(
                f"this critic was taught with --replan-every {self.replan_every} and --lead 0, and "
                f"now it is --replan-every {executed.stop - executed.start} and --lead "
                f"{executed.start}; give what it was taught with"
            )

    def description(self) -> dict[str, Any]:
        """See `Fitted`."""
        return {
            "config": asdict(self.config),
            "tokens": list(self.shape),
            "relative": self.relative.tolist(),
            "executed": self.executed,
            "lowest": self.lowest,
            "base": self.base,
            "replan_every": self.replan_every,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Fitted`."""
        config = from_json(CriticConfig, description["config"])
        names = ("tokens", "relative", "executed", "lowest", "base")
        pace = description.get("replan_every", 0)  # older critics do not say
        known = {name: description[name] for name in names}
        return cls(config, **known, replan_every=pace)


class MlpTrunk(nn.Module):
    """One residual MLP over all tokens and the chunk.

    Args:
        config: sizes.
        tokens: T and D.
        chunk: H and J.
    """

    def __init__(
        self, config: CriticConfig, tokens: tuple[int, int], chunk: tuple[int, int]
    ) -> None:
        super().__init__()
        size = tokens[0] * tokens[1] + chunk[0] * chunk[1]
        self.net = residual_mlp(size, config.hidden, config.depth, config.hidden)

    def forward(self, tokens: Tensor, chunk: Tensor) -> Tensor:
        """Features (B, n, 1, W), the same for all heads, of (B, T, D) and (B, n, H, J)."""
        return functional.silu(self.net(side_by_side(tokens, chunk)))[:, :, None]


class TransformerTrunk(nn.Module):
    """Chunk tokens look at the policy's tokens layer by layer; a readout of each head at them.

        chunk ─ patches ─ transformer layers ─ M readouts
                              │ keys and values of the tokens, once an observation

    Args:
        config: sizes.
        tokens: T and D.
        chunk: H and J.
    """

    def __init__(
        self, config: CriticConfig, tokens: tuple[int, int], chunk: tuple[int, int]
    ) -> None:
        super().__init__()
        (executed, joints), width = chunk, config.hidden
        self.patch = next(p for p in range(config.patch, 0, -1) if executed % p == 0)
        self.summary = nn.Linear(tokens[0] * tokens[1], width)
        self.inward = nn.Linear(self.patch * joints, width)
        self.place = nn.Parameter(0.02 * torch.randn(executed // self.patch, width))
        self.layers = nn.ModuleList(TransformerLayer(width, tokens[1]) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.readouts = nn.Parameter(torch.randn(config.heads, width) / width**0.5)
        self.read = CrossAttention(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), feed_forward(width), nn.LayerNorm(width))

    def forward(self, tokens: Tensor, chunk: Tensor) -> Tensor:
        """Features (B, n, M, W) of (B, T, D) and (B, n, H, J)."""
        condition = functional.silu(self.summary(tokens.flatten(1)))[:, None, None]
        h = self.inward(chunk.unflatten(2, (-1, self.patch)).flatten(3)) + self.place
        for layer in self.layers:
            h = layer(h, condition, *layer.keys_values(tokens))  # type: ignore[operator]
        count = h.shape[:2]
        keys, values = self.read.keys_values(self.norm(h).flatten(0, 1))
        asked = self.readouts.expand(count[0] * count[1], 1, -1, -1)
        found = self.mlp(asked + self.read(asked, keys, values))[:, 0]
        return found.unflatten(0, count)


TRUNKS: Final[dict[str, Callable[..., nn.Module]]] = {
    "mlp": MlpTrunk,
    "transformer": TransformerTrunk,
}


def side_by_side(tokens: Tensor, chunk: Tensor) -> Tensor:
    """Tokens (B, T, D) beside every chunk (B, n, H, J): (B, n, T D + H J)."""
    flat = tokens.flatten(1)[:, None].expand(-1, chunk.shape[1], -1)
    return torch.cat([flat, chunk.flatten(2)], -1)


class _Prior(nn.Module):
    """A frozen random network for each head: (B, n, S) to (M, B, n), of unit size."""

    WIDTH = 64

    def __init__(self, heads: int, size: int) -> None:
        super().__init__()
        self.inward = nn.Parameter(torch.randn(size, heads * self.WIDTH) / size**0.5)
        self.phase = nn.Parameter(2.0 * torch.pi * torch.rand(heads * self.WIDTH))
        self.outward = nn.Parameter(torch.randn(heads, self.WIDTH) * (2.0 / self.WIDTH) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.cos(x @ self.inward + self.phase).unflatten(-1, self.outward.shape)
        return (h * self.outward).sum(-1).permute(2, 0, 1)


def encoder_digest(policy: Policy) -> str:
    """Names what makes a policy's tokens: its weights and its statistics."""
    return digest(policy.encoder().state_dict())
