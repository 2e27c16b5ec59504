"""What is fitted to a policy and saved beside it: scorers of candidates, writers of goals."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn

from robolearn import checkpoint
from robolearn.policies.base import Chunks, Context, Generators, Policy, usable_device

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.sources import Source


class Beside(nn.Module, ABC):
    """See the module's docstring; the weights' shapes follow from `description`."""

    kind: ClassVar[str]  # names the method in checkpoints and on the command line

    @abstractmethod
    def check_base(self, policy: Policy, source: "Source") -> None:
        """Refuses another policy than the one it was fitted to.

        Raises:
            CheckpointError: it is another one.
        """

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
            CheckpointError: missing or damaged files, another kind.
        """
        description, weights = checkpoint.load_model(folder, cls.kind)
        with checkpoint.describing(folder, cls.kind):
            fitted = cls.from_description(description)
        checkpoint.assign_weights(fitted, weights, folder)
        return fitted.to(usable_device(device)).eval()


class Fitted(Beside):
    """A scorer that was fitted to a policy."""

    @abstractmethod
    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`."""

    def check_executed(self, executed: slice) -> None:
        """Refuses other steps of a chunk to be executed than it rates; here none.

        Raises:
            CheckpointError: others.
        """
        del executed

    def prepare(self, policy: Policy) -> None:
        """Asks the policy for what it rates beside chunks and features; here for nothing.

        Raises:
            CheckpointError: the policy has no such thing.
        """
        del policy


class Taught(Beside):
    """Fitted by `robolearn train` to one very checkpoint, whose fingerprint is its `base`."""

    base: str
    # What to do next, with the {base} and the folder {out}.
    usage: ClassVar[str] = (
        "choose among candidates with:\n"
        "  robolearn eval --policy {base} --scorer {out} --candidates 16"
    )

    @classmethod
    @abstractmethod
    def fitted_to(
        cls,
        policy: Policy,
        base: str,
        dataset: "EpisodeDataset",
        config: Any,  # noqa: ANN401 (of the command, with the method's settings in `policy`)
    ) -> tuple[Self, dict[str, Any]]:
        """One that was fitted to a policy and its demonstrations, and figures about it.

        Args:
            policy: in eval mode.
            base: the fingerprint of its checkpoint.
            dataset: the demonstrations.
            config: `FitConfig`, or what the method has in its place.

        Raises:
            ValueError: a policy or dataset that cannot be used.
        """

    def check_base(self, policy: Policy, source: "Source") -> None:
        """See `Beside`."""
        del policy
        if self.base != (found := source.fingerprint):
            raise checkpoint.CheckpointError(
                f"this {self.kind} was fitted to another policy ({self.base[:12]}) than "
                f"{source.where} ({found[:12]}); "
                f"fit one with: robolearn train --policy {self.kind} --base {source.where}"
            )
