"""Where what acts comes from: a checkpoint, a run, a server, or a task's scripted expert.

A source says what evaluation, deployment and verifiers must know of a policy before it runs.
`source_of` tells it by its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from robolearn import checkpoint

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from robolearn.options import AgentOptions
    from robolearn.policies.base import Policy
    from robolearn.rollout import Actor

EXPERT: Final = "expert"  # instead of a policy, the scripted expert of the simulated task
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

    @property
    def training_seconds(self) -> float | None:
        """Wall-clock time of the training that led to it, if that is known."""
        return None

    @abstractmethod
    def load(self, device: str = "cpu") -> "Policy":
        """The policy, in eval mode.

        Raises:
            CheckpointError: damaged.
            OSError: a server does not answer.
        """

    def actor(
        self, options: "AgentOptions", env: "VectorEnv", *, background: bool = False
    ) -> "Actor":
        """What acts in an environment; see `robolearn.agent.open_agent`."""
        from robolearn.agent import open_policy

        return open_policy(self, options, env, background=background)

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

    @property
    def training_seconds(self) -> float | None:
        """See `Source`: of the run's own training, if the checkpoint lies in one."""
        from robolearn.training_log import seconds_until

        step = self.folder.parent.name
        return seconds_until(self.run, int(step)) if self.run != self.folder else None

    def load(self, device: str = "cpu") -> "Policy":
        """See `Source`."""
        return checkpoint.load_policy(self.folder, device)


class ExpertSource(Source):
    """The scripted expert of the simulated task itself: what a policy may be measured against."""

    where, env, fingerprint = EXPERT, "", EXPERT
    cameras: Mapping[str, tuple[int, int]] = {}

    @property
    def run(self) -> Path:
        """It has none; see `Source`."""
        raise ValueError("a scripted expert has no folder for results; give --out")

    def load(self, device: str = "cpu") -> "Policy":
        """It is no policy; see `Source`."""
        del device
        raise ValueError("a scripted expert looks into the simulator: it can only be evaluated")

    def actor(
        self, options: "AgentOptions", env: "VectorEnv", *, background: bool = False
    ) -> "Actor":
        """See `Source`.

        Raises:
            ValueError: the environment has no expert, or its candidates shall be chosen among.
        """
        from robolearn.agent import ExpertAgent

        if options.scorer or options.candidates > 1 or background:
            raise ValueError("a scripted expert has no candidates, and acts in simulation only")
        if not hasattr(env.get_attr("unwrapped")[0], "expert"):  # type: ignore[attr-defined]
            raise ValueError(f"{env.spec and env.spec.id} has no scripted expert; give a policy")
        return ExpertAgent(env)


def source_of(where: str | Path) -> Source:
    """The source of this name.

    Args:
        where: a checkpoint, a run, the address of a server (ws://HOST:PORT), a policy of LeRobot's
            (lerobot:FOLDER or lerobot:HUB_ID), or `EXPERT`.

    Raises:
        CheckpointError: no such checkpoint.
        OSError: no such server.
    """
    where = str(where)
    if where == EXPERT:
        return ExpertSource()
    for beginning, place in ELSEWHERE.items():
        if where.startswith(beginning):
            module, _, name = place.partition(":")
            return getattr(import_module(f"robolearn.{module}"), name)(where)
    return CheckpointSource(where)
