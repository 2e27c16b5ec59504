"""Action heads: what denoises a chunk, given the backbone's tokens. Flow and diffusion share them.

A head is used in two calls. `prefix` digests the tokens once an observation; `forward` is called
for every denoising step and all candidates at once, and never repeats the prefix for a candidate.

Shapes: B observations, n candidates or noise draws, H chunk steps, J joints, W hidden features.
"""

from abc import ABC, abstractmethod
from itertools import batched

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.configs import DenoiserConfig

Prefix = tuple[Tensor, ...]


class Head(nn.Module, ABC):
    """See the module's docstring.

    Args:
        config: sizes.
        joints: J.
        tokens: T and D, how many tokens the backbone gives, and their width.
    """

    @abstractmethod
    def __init__(self, config: DenoiserConfig, joints: int, tokens: tuple[int, int]) -> None:
        super().__init__()

    @abstractmethod
    def prefix(self, tokens: Tensor) -> Prefix:
        """What `forward` needs of the tokens (B, T, D); every tensor begins with B."""

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """What is predicted of the noisy chunks (B, n, H, J), and features (B, n, W).

        Args:
            x: noisy chunks (B, n, H, J).
            t: time in 0..1, (B, n, 1), or (1, 1, 1) where it is the same for all.
            prefix: from `prefix`.
        """


class TimeEncoder(nn.Module):
    """Time 0..1 (..., 1) becomes features (..., width), by sines of eight frequencies."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(8) * torch.pi, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(16, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Features of times."""
        angles = t * self.frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], -1))


class Modulated(nn.Module):
    """h + gate(c) * inner(norm(h) * (1 + scale(c)) + shift(c)).

    Adaptive layer norm as in Peebles and Xie 2023, section 3.2 (adaLN-Zero), which starts as the
    identity.
    """

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.inner = inner
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """(..., width) and its conditioning, which may be broadcast, to (..., width)."""
        scale, shift, gate = self.modulation(c).chunk(3, dim=-1)
        return h + gate * self.inner(self.norm(h) * (1.0 + scale) + shift)


def feed_forward(width: int) -> nn.Module:
    """Two layers, twice as wide in between."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))


class ActionMLP(Head):
    """A residual MLP over the whole chunk, modulated by time and all tokens.

    While sampling, time is the same for all candidates, so the modulation is computed once an
    observation: what a further candidate costs is two matrix products a block.
    """

    def __init__(self, config: DenoiserConfig, joints: int, tokens: tuple[int, int]) -> None:
        super().__init__(config, joints, tokens)
        size, width = config.horizon * joints, config.hidden
        self.condition = nn.Sequential(
            nn.Linear(tokens[0] * tokens[1], width), nn.SiLU(), nn.Linear(width, width)
        )
        self.time = TimeEncoder(width)
        self.inward = nn.Linear(size, width)
        self.blocks = nn.ModuleList(
            Modulated(feed_forward(width), width) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, size)
        nn.init.zeros_(self.outward.weight)

    def prefix(self, tokens: Tensor) -> Prefix:
        """One vector (B, 1, W) of all tokens; see `Head`."""
        return (self.condition(tokens.flatten(1))[:, None],)

    def forward(self, x: Tensor, t: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """See `Head`; the features are the last hidden layer's."""
        c = functional.silu(prefix[0] + self.time(t))
        h = self.inward(x.flatten(2))
        for block in self.blocks:
            h = block(h, c)
        h = self.norm(h)
        return self.outward(h).view(x.shape), h


class ActionTransformer(Head):
    """Action tokens attend to each other and, layer by layer, to the backbone's tokens.

    `patch` chunk steps are one action token. Keys and values of the backbone's tokens are the
    prefix: computed once an observation, shared by all candidates and all denoising steps.
    """

    def __init__(self, config: DenoiserConfig, joints: int, tokens: tuple[int, int]) -> None:
        super().__init__(config, joints, tokens)
        width, self.patch = config.hidden, config.patch
        self.time = TimeEncoder(width)
        self.inward = nn.Linear(config.patch * joints, width)
        self.place = nn.Parameter(0.02 * torch.randn(config.horizon // config.patch, width))
        self.layers = nn.ModuleList(TransformerLayer(width, tokens[1]) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, config.patch * joints)
        nn.init.zeros_(self.outward.weight)

    def prefix(self, tokens: Tensor) -> Prefix:
        """Keys and values (B, heads, T, d) of every layer; see `Head`."""
        return tuple(x for layer in self.layers for x in layer.keys_values(tokens))  # type: ignore[operator]

    def forward(self, x: Tensor, t: Tensor, prefix: Prefix) -> tuple[Tensor, Tensor]:
        """See `Head`; the features are the first action token's after the last layer."""
        c = functional.silu(self.time(t))[:, :, None]
        patches = x.unflatten(2, (-1, self.patch)).flatten(3)  # (B, n, P, patch J)
        h = self.inward(patches) + self.place
        for layer, memory in zip(self.layers, batched(prefix, 2), strict=True):
            h = layer(h, c, *memory)
        h = self.norm(h)
        return self.outward(h).view(x.shape), h[:, :, 0]


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention to what was remembered, and an MLP; (B, n, P, W)."""

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.self_attention = Modulated(SelfAttention(width), width)
        self.norm = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(width, memory)
        self.mlp = Modulated(feed_forward(width), width)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, T, d) of tokens (B, T, D), for `forward`."""
        return self.cross_attention.keys_values(tokens)

    def forward(self, h: Tensor, c: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Action tokens (B, n, P, W), conditioning (B or 1, n or 1, 1, W), the memory's cache."""
        h = self.self_attention(h, c)
        h = h + self.cross_attention(self.norm(h), keys, values)
        return self.mlp(h, c)


def heads_of(width: int) -> int:
    """Attention heads of about 32 features."""
    return max(count for count in range(1, max(1, width // 32) + 1) if width % count == 0)


class SelfAttention(nn.Module):
    """Among the action tokens of one candidate, in both directions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """(B, n, P, W) to the same shape."""
        split = self.inward(h).unflatten(-1, (3, self.heads, -1))  # (B, n, P, 3, heads, d)
        q, k, v = split.permute(3, 0, 1, 4, 2, 5)
        return self.outward(attention(q, k, v).transpose(2, 3).flatten(3))


class CrossAttention(nn.Module):
    """From the action tokens of all candidates to the backbone's tokens.

    To a token's query it makes no difference which candidate it belongs to, so candidates and
    places are one axis here, and the memory needs no copy for each candidate.
    """

    def __init__(self, width: int, memory: int) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.query, self.outward = nn.Linear(width, width), nn.Linear(width, width)
        self.memory = nn.Linear(memory, 2 * width)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, T, d) of tokens (B, T, D)."""
        split = self.memory(tokens).unflatten(-1, (2, self.heads, -1))  # (B, T, 2, heads, d)
        keys, values = split.permute(2, 0, 3, 1, 4)
        return keys, values

    def forward(self, h: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, n, P, W) to the same shape."""
        q = self.query(h).flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found = attention(q, keys, values).transpose(1, 2).flatten(2)  # (B, n P, W)
        return self.outward(found).view(h.shape)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (..., Q, d) to (..., K, d).

    On a CPU it is written out: torch's fused kernel takes two to four times as long to train with
    bf16, at the few tokens that there are here.
    """
    if q.is_cuda:
        return functional.scaled_dot_product_attention(q, k, v)
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
    return weights.to(v.dtype) @ v


HEADS: dict[str, type[Head]] = {"mlp": ActionMLP, "transformer": ActionTransformer}
