"""Where a policy comes from: a checkpoint, a run, or a server. `source_of` tells by its name.

A source says what evaluation, deployment and verifiers must know of a policy before it runs.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from robolearn import checkpoint

if TYPE_CHECKING:
    from robolearn.policies.base import Policy

# beginning of the name -> module:class of its source; anything else is a folder
ELSEWHERE: Final = {
    "ws://": "remote:RemoteSource",
    "wss://": "remote:RemoteSource",
    "lerobot:": "policies.lerobot:LeRobotSource",
}


class Source(ABC):
    """Where one very policy comes from.

    Attributes:
        where: names it; of a run that goes on, the checkpoint that was the newest.
    """

    where: str

    @property
    @abstractmethod
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """Those that the policy looks through, and height and width of their pictures."""

    @property
    def goals(self) -> bool:
        """Whether the policy is shown its goal in pictures."""
        return False

    @property
    @abstractmethod
    def env(self) -> str:
        """The id of the environment that it was trained on; "" if it does not say."""

    @property
    @abstractmethod
    def run(self) -> Path:
        """The folder for what is made of it.

        Raises:
            ValueError: it has none.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of its weights and settings."""

    @abstractmethod
    def load(self, device: str = "cpu") -> "Policy":
        """The policy, in eval mode.

        Raises:
            CheckpointError: damaged.
            OSError: a server does not answer.
        """

    def observation_options(self) -> dict[str, Any]:
        """The environment's options for what the policy was trained to look at."""
        if not self.cameras:
            return {"obs_type": "state"}
        return {
            "cameras": tuple(self.cameras),
            "image_size": tuple(next(iter(self.cameras.values()))),
        }

    def picture_options(self) -> dict[str, Any]:
        """The same for an arm, which can tell no more than its joints and its pictures.

        Raises:
            CheckpointError: the policy looks into the simulator instead.
        """
        if not self.cameras:
            raise checkpoint.CheckpointError(
                f"{self.where} looks at the simulator's state, which no arm can tell; "
                "train one on pictures"
            )
        return self.observation_options()


class CheckpointSource(Source):
    """A checkpoint, or the newest one of a run.

    Args:
        where: the folder.

    Raises:
        CheckpointError: there is none.
    """

    def __init__(self, where: str) -> None:
        self.folder = checkpoint.resolve(Path(where))
        self.where = str(self.folder)

    @cached_property
    def _description(self) -> dict[str, Any]:
        return checkpoint.load_model(self.folder)[0]

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Source`."""
        return {name: tuple(size) for name, size in self._description["cameras"].items()}

    @property
    def goals(self) -> bool:
        """See `Source`."""
        return bool(self._description.get("goals", False))  # older checkpoints do not say

    @property
    def env(self) -> str:
        """See `Source`."""
        return str(self._description.get("env", ""))

    @property
    def run(self) -> Path:
        """See `Source`."""
        return checkpoint.run_of(self.folder)

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        return checkpoint.fingerprint(self.folder)

    def load(self, device: str = "cpu") -> "Policy":
        """See `Source`."""
        return checkpoint.load_policy(self.folder, device)


def source_of(where: str | Path) -> Source:
    """The source of this name.

    Args:
        where: a checkpoint, a run, the address of a server (ws://HOST:PORT), or a policy of
            LeRobot's (lerobot:FOLDER or lerobot:HUB_ID).

    Raises:
        CheckpointError: no such checkpoint.
        OSError: no such server.
    """
    where = str(where)
    for beginning, place in ELSEWHERE.items():
        if where.startswith(beginning):
            module, _, name = place.partition(":")
            return getattr(import_module(f"robolearn.{module}"), name)(where)
    return CheckpointSource(where)
