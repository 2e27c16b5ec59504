"""A policy that thinks on another machine: `--policy ws://HOST:PORT` wherever a policy is named.

To our own server (`robolearn serve`) nothing else need be said, and the chunks are those that the
policy would give here, bit for bit, since the state of the noise travels along. A server of
openpi's says nothing of itself; its words stand in the address:

    ws://HOST:PORT?agent_pos=observation/state&top=observation/image&prompt=prompt&horizon=50
        &size=224x224

names its keys for the joint positions, for every camera and for the instruction, the steps of its
chunks, and the height and width of its pictures. The token comes from the variable ROBOLEARN_TOKEN.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import numpy as np
import torch

from robolearn.ask import GOAL_KEY
from robolearn.connection import Connection, RemoteError
from robolearn.policies.base import Batch, Chunks, Context, Generators, Overlaps, Policy
from robolearn.sources import Source
from robolearn.wire import noise_to

OURS: Final = {"agent_pos": "agent_pos", "prompt": "prompt"}


@dataclass(frozen=True)
class Dialect:
    """How a server wants to be spoken to.

    Attributes:
        keys: our name of a quantity -> its key.
        cameras: our name of a camera -> its key; empty for our own server.
    """

    keys: Mapping[str, str] = field(default_factory=lambda: OURS)
    cameras: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether the server knows what our own knows."""
        return not self.cameras

    def words(self, observation: Mapping[str, Any], instruction: str) -> dict[str, Any]:
        """The message for one observation, without a batch dimension."""
        message = {self.keys["agent_pos"]: observation["agent_pos"]}
        message[self.keys["prompt"]] = instruction
        if not self.is_ours:
            pictures = observation.get("pixels", {})
            return message | {key: pictures[name] for name, key in self.cameras.items()}
        kept = ("pixels", GOAL_KEY, "environment_state")
        return message | {key: observation[key] for key in kept if key in observation}


@dataclass
class RemoteContext(Context):
    """Observations on their way to a server.

    Attributes:
        messages: one for each observation.
        notes: what the server has told of each besides its chunks, once it was asked.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Mapping[str, float]] = field(default_factory=list)


class RemotePolicy(Policy):
    """See the module's docstring.

    Args:
        connection: open.
        dialect: of the server.
        horizon: steps in its chunks.
        cameras: whose pictures it wants, and their height and width.
    """

    def __init__(
        self,
        connection: Connection,
        dialect: Dialect,
        horizon: int,
        cameras: Mapping[str, tuple[int, int]],
    ) -> None:
        super().__init__()
        self._connection, self._dialect, self._cameras = connection, dialect, dict(cameras)
        self.horizon, self.arm = horizon, connection.greeting.get("arm", {})
        self._state_size = int(connection.greeting.get("state_size", 0))
        self.history = int(connection.greeting.get("history", 1))

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Policy`."""
        return self._cameras

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return bool(self._connection.greeting.get("goals", False))

    @property
    def joints(self) -> int:
        """See `Policy`; another's server does not tell."""
        return int(self._connection.greeting.get("joints", 0))

    @property
    def state_size(self) -> int:
        """See `Policy`."""
        return self._state_size

    @property
    def spread(self) -> torch.Tensor:
        """See `Policy`."""
        return torch.tensor(self._connection.greeting.get("spread", [1.0]))

    @property
    def device(self) -> torch.device:
        """Where its answers are."""
        return torch.device("cpu")

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Puts B observations into words; see `Policy`."""
        messages = [
            self._dialect.words(_row(observation, index), text)
            for index, text in enumerate(instructions)
        ]
        positions = self.present(observation["agent_pos"])
        return RemoteContext(positions.new_zeros(len(positions), 0, 0), positions, (), messages)

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """Asks the server for n chunks for each of B contexts; see `Policy`.

        Raises:
            RemoteError: see `Connection.ask`.
        """
        assert isinstance(context, RemoteContext)
        drawn = [
            self._candidates(message, n, generator)
            for message, generator in zip(context.messages, noise, strict=True)
        ]
        return _noted(context, drawn)

    def follow(self, context: Context, n: int, noise: Generators, overlaps: Overlaps) -> Chunks:
        """Has our server guide n chunks; those of another's, or an older one, are blended here.

        Raises:
            RemoteError: see `Connection.ask`.
        """
        assert isinstance(context, RemoteContext)
        if not (self._dialect.is_ours and self._connection.greeting.get("follows", False)):
            return super().follow(context, n, noise, overlaps)
        drawn = [
            self._asked(message | {"candidates": n, "overlap": vars(overlap)}, generator)
            for message, overlap, generator in zip(context.messages, overlaps, noise, strict=True)
        ]
        return _noted(context, drawn)

    def refine(
        self, context: Context, actions: torch.Tensor, noise: Generators, level: float
    ) -> Chunks:
        """Has our server refine chunks; another's draws whole ones. See `Policy`.

        Raises:
            RemoteError: see `Connection.ask`.
        """
        assert isinstance(context, RemoteContext)
        if not self._dialect.is_ours:
            return super().refine(context, actions, noise, level)
        refined = [
            self._asked(message | {"refine": shown.numpy(), "level": level}, generator)
            for message, shown, generator in zip(context.messages, actions, noise, strict=True)
        ]
        return _noted(context, refined)

    def notes(self, context: Context) -> dict[str, torch.Tensor]:
        """What the server said of its newest chunks for this context; see `Policy`."""
        assert isinstance(context, RemoteContext)
        names = context.notes[0] if context.notes else {}
        return {name: torch.tensor([note[name] for note in context.notes]) for name in names}

    def _candidates(self, message: dict[str, Any], n: int, noise: np.random.Generator) -> "_Answer":
        """Chunks (n, H, J) and their features (n, F); another's server gives no features."""
        if self._dialect.is_ours:
            return self._asked(message | {"candidates": n}, noise)
        answers = [self._connection.ask(message) for _ in range(n)]
        actions = torch.stack([_tensor(answer, "actions", 2) for answer in answers])
        return _Answer(actions[:, : self.horizon], torch.zeros(n, 0), {})

    def _asked(self, message: dict[str, Any], noise: np.random.Generator) -> "_Answer":
        """Our server's chunks, their features, and what it notes."""
        answer = self._connection.ask(message | {"noise": noise_to(noise)})
        candidates, features = _tensor(answer, "candidates", 3), _tensor(answer, "features", 2)
        return _Answer(candidates, features, _notes(answer))


class _Answer(NamedTuple):
    """What a server makes of one observation."""

    chunks: torch.Tensor  # (n, H, J)
    features: torch.Tensor  # (n, F)
    notes: Mapping[str, float]


def _noted(context: RemoteContext, answers: Sequence[_Answer]) -> Chunks:
    """The chunks of all answers; their notes stay with the context."""
    chunks, features, notes = zip(*answers, strict=True)
    context.notes = list(notes)
    return Chunks(torch.stack(chunks), torch.stack(features))


def _notes(answer: Mapping[str, Any]) -> dict[str, float]:
    notes = answer.get("notes", {})  # older servers send none
    if not isinstance(notes, Mapping) or not all(isinstance(x, float) for x in notes.values()):
        raise RemoteError("the server's notes are no numbers by name")
    return {str(name): value for name, value in notes.items()}


def _tensor(answer: Mapping[str, Any], key: str, dimensions: int) -> torch.Tensor:
    value = answer.get(key)
    if not isinstance(value, np.ndarray) or value.ndim != dimensions:
        raise RemoteError(f"the server's answer has no {key} of {dimensions} dimensions")
    if not np.isfinite(value).all():
        raise RemoteError(f"the server's {key} are not finite")
    return torch.from_numpy(value.astype(np.float32))


def _row(observation: Batch, index: int) -> dict[str, Any]:
    return {
        key: _row(value, index) if isinstance(value, dict) else value[index].cpu().numpy()
        for key, value in observation.items()
    }


class RemoteSource(Source):
    """A server's policy.

    Args:
        where: its address.

    Raises:
        ValueError: an address that does not say enough of another's server.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        parts = urlsplit(where)
        self._url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        words = dict(parse_qsl(parts.query))
        self._horizon, self._size = words.pop("horizon", ""), words.pop("size", "")
        keys = {name: words.pop(name, key) for name, key in OURS.items()}
        self._dialect = Dialect(keys, words)
        if not self._dialect.is_ours and not (self._horizon.isdigit() and "x" in self._size):
            raise ValueError(
                f"{where} is another's server; say horizon=STEPS and size=HEIGHTxWIDTH, too"
            )

    @cached_property
    def _connection(self) -> Connection:
        connection = Connection(self._url)
        connection.open()
        return connection

    def _told(self, key: str) -> Any:  # noqa: ANN401
        """What our server's greeting says."""
        greeting = self._connection.greeting
        if key not in greeting:
            raise RemoteError(
                f"{self._url} says nothing of its {key}, so it is another's server; its address "
                "must say how to speak to it, see docs/policies.md"
            )
        return greeting[key]

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Source`."""
        if self._dialect.is_ours:
            return {name: (int(h), int(w)) for name, (h, w) in self._told("cameras").items()}
        height, _, width = self._size.partition("x")
        return dict.fromkeys(self._dialect.cameras, (int(height), int(width)))

    @property
    def goals(self) -> bool:
        """See `Source`; another's server shows none."""
        return bool(self._connection.greeting.get("goals", False))

    @property
    def env(self) -> str:
        """See `Source`."""
        return str(self._connection.greeting.get("env", ""))

    @property
    def run(self) -> Path:
        """See `Source`."""
        return Path("runs") / f"remote-{hashlib.sha256(self._url.encode()).hexdigest()[:8]}"

    @property
    def fingerprint(self) -> str:
        """See `Source`; another's server has none but its address."""
        return str(self._told("fingerprint")) if self._dialect.is_ours else self.where

    def load(self, device: str = "cpu") -> Policy:
        """See `Source`; the device is the server's business."""
        del device
        horizon = int(self._horizon or self._told("horizon"))
        return RemotePolicy(self._connection, self._dialect, horizon, self.cameras)
