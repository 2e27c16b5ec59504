"""Policies that post-training makes of a denoising one, with parts of their own beside it.

The checkpoint holds the inner policy and the parts, so that it acts by itself. The encoder is the
inner policy's, and so are the units of chunks.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
from torch import Tensor, nn

from robolearn import checkpoint
from robolearn.config import from_json, to_json
from robolearn.policies import POLICIES
from robolearn.policies.base import Batch, Chunks, Context, Generators, Info, TrainablePolicy
from robolearn.policies.denoiser import DenoisingPolicy
from robolearn.policies.heads import Prefix

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.windows import Sampler


class DerivedPolicy(TrainablePolicy):
    """See the module's docstring.

    Args:
        inner: the policy that it was made of.
        method: the settings of the method that made it.
    """

    method_type: ClassVar[type]

    def __init__(self, inner: DenoisingPolicy, method: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.inner, self.method, self.config = inner, method, inner.config
        self.horizon, self.history = inner.horizon, inner.history
        self.arm, self.env_id = inner.arm, inner.env_id

    @classmethod
    def made_of(cls, policy: TrainablePolicy, method: Any) -> Self:  # noqa: ANN401
        """Such a policy, of a denoising one or of its own kind, which stays; the encoder is shared.

        Raises:
            ValueError: it is of another kind, or of other sizes.
        """
        if isinstance(policy, cls):  # with these settings from now on
            same = cls.from_description(policy.description() | {"method": to_json(method)})
            checkpoint.assign_weights(same, policy.state_dict(), Path("--base"), "these settings")
            return same.to(policy.device).eval()
        if not isinstance(policy, DenoisingPolicy):
            raise ValueError(
                f"--base holds a {policy.kind} policy; --algo {cls.kind} begins with a flow or "
                "diffusion policy, or goes on with one of its own"
            )
        encoder = policy.encoder().requires_grad_(requires_grad=False)
        ours = copy.deepcopy(policy, {id(encoder): encoder})
        return cls(ours, method).to(policy.device).eval()

    @abstractmethod
    def kept(self, tokens: Tensor) -> Prefix:
        """What `sample` needs of the tokens (B, T, D); every tensor begins with B."""

    @abstractmethod
    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """See `Policy`."""

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """See `Policy`."""
        tokens = self.inner.tokens_of(observation, instructions)
        return Context(tokens, self.inner.present_of(observation), self.kept(tokens))

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """That of the inner policy."""
        return self.inner.loss(batch, rng)

    def encoder(self) -> nn.Module:
        """See `Policy`."""
        return self.inner.encoder()

    def windows(self, dataset: "EpisodeDataset") -> "Sampler":
        """See `Policy`."""
        return self.inner.windows(dataset)

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Policy`."""
        return self.inner.cameras

    @property
    def state_size(self) -> int:
        """See `Policy`."""
        return self.inner.state_size

    @property
    def spread(self) -> Tensor:
        """See `Policy`."""
        return self.inner.spread

    @property
    def tokens(self) -> tuple[int, int]:
        """T and D, of its encoder."""
        backbone = self.inner.backbone
        return backbone.token_count, backbone.config.width

    def description(self) -> dict[str, Any]:
        """See `Policy`: the inner one's, its kind, and the method's settings."""
        made = {"inner": self.inner.kind, "method": to_json(self.method)}
        return self.inner.description() | made

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Policy`."""
        kind = cast(type[DenoisingPolicy], POLICIES[description["inner"]]())
        inner = kind.from_description(description)
        return cls(inner, from_json(cls.method_type, description["method"]))

    @classmethod
    def for_dataset(
        cls,
        config: Any,  # noqa: ANN401 (the method's own)
        dataset: "EpisodeDataset",
        cameras: Mapping[str, tuple[int, int]],
    ) -> Self:
        """Such a policy is made of another one.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"a {cls.kind} policy is made of another one: robolearn improve --algo {cls.kind}"
        )
