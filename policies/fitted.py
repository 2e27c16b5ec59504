"""Scorers that were fitted to a policy, and whose checkpoints are ours."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from robolearn import checkpoint
from robolearn.policies.base import Chunks, Context, Generators, Policy, usable_device

if TYPE_CHECKING:
    from robolearn.sources import Source


class Fitted(nn.Module, ABC):
    """See the module's docstring; the weights' shapes follow from `description`."""

    kind: ClassVar[str]  # names the method in checkpoints and on the command line

    @abstractmethod
    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`."""

    @abstractmethod
    def check_base(self, policy: Policy, source: "Source") -> None:
        """Refuses candidates of another policy than the one it was fitted to.

        Raises:
            CheckpointError: it is another one.
        """

    def check_executed(self, executed: slice) -> None:
        """Refuses other steps of a chunk to be executed than it rates; here none.

        Raises:
            CheckpointError: others.
        """
        del executed

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """JSON values that rebuild it."""

    @classmethod
    @abstractmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The inverse of `description`; the weights are loaded afterwards."""

    def save(self, folder: Path) -> None:
        """Writes the checkpoint `folder` atomically."""
        checkpoint.save_model(folder, self.kind, self.description(), self.state_dict())

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Reads a checkpoint that `save` wrote.

        Raises:
            CheckpointError: missing or damaged files, another kind of scorer.
        """
        description, weights = checkpoint.load_model(folder, cls.kind)
        with checkpoint.describing(folder, f"{cls.kind} scorer"):
            scorer = cls.from_description(description)
        checkpoint.assign_weights(scorer, weights, folder)
        return scorer.to(usable_device(device)).eval()
