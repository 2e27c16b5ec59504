"""Scorers: what chooses among candidate chunks. A higher score is better.

Those of this module need no fitting; the verifiers do (`robolearn.policies.verifier`). All of them
see the same candidates, so what they gain can be compared. Distances between chunks are those of
the steps that will be executed, each joint in units of its spread in the demonstrations, so that
radians and the opening of a gripper weigh alike.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn import checkpoint
from robolearn.policies.base import Chunks, Context, Generators, Policy

if TYPE_CHECKING:
    from robolearn.policies.fitted import Fitted, Taught
    from robolearn.sources import Source


class Scorer(Protocol):
    """Rates candidate chunks."""

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """Scores (B, n) for chunks (B, n, H, J); whatever is random in it comes from `noise`."""


WHOLE: Final = slice(None)  # of a chunk is executed, as far as known


class RandomScorer:
    """Takes any candidate: what several candidates are worth without a judgement."""

    def __init__(self, policy: Policy, executed: slice = WHOLE) -> None:
        del policy, executed

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`."""
        del context
        n = chunks.actions.shape[1]
        drawn = np.stack([generator.random(n) for generator in noise])
        return torch.from_numpy(drawn).to(chunks.actions.device)


class MedoidScorer:
    """Takes the candidate with the least mean distance to the others.

    Args:
        policy: made the candidates.
        executed: steps of a chunk.
    """

    def __init__(self, policy: Policy, executed: slice = WHOLE) -> None:
        self._policy, self._executed = policy, executed

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`."""
        del context, noise
        flat = (chunks.actions[:, :, self._executed] / self._policy.spread).flatten(2)
        return -torch.cdist(flat, flat).mean(-1)


class ResidualScorer:
    """Takes the candidate that the policy would change least: the denoising residual.

    Some noise is put on a candidate and taken off again. What the policy learned well it restores.

    Args:
        policy: made the candidates.
        executed: steps of a chunk.
        draws: of noise for each candidate.
        level: of the noise, see `Policy.refine`.
    """

    def __init__(
        self, policy: Policy, executed: slice = WHOLE, draws: int = 4, level: float = 0.25
    ) -> None:
        self._policy, self._executed = policy, executed
        self._draws, self._level = draws, level

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`."""
        tried = chunks.actions.repeat_interleave(self._draws, dim=1)
        restored = self._policy.refine(context, tried, noise, self._level).actions
        change = (restored - tried)[:, :, self._executed] / self._policy.spread
        error = change.square().mean((2, 3))
        return -error.unflatten(1, (-1, self._draws)).mean(-1)


class Blend:
    """Several scorers with equal say: each one's scores are standardised over the candidates."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = scorers

    def score(self, context: Context, chunks: Chunks, noise: Generators) -> Tensor:
        """See `Scorer`."""
        given = [scorer.score(context, chunks, noise) for scorer in self.scorers]
        return torch.stack([_standardised(score) for score in given]).sum(0)


def _standardised(score: Tensor) -> Tensor:
    spread = score.std(1, correction=0, keepdim=True)
    return (score - score.mean(1, keepdim=True)) / spread.clamp_min(1e-12)


UNFITTED: Final[dict[str, Callable[[Policy, slice], Scorer]]] = {
    "random": RandomScorer,
    "medoid": MedoidScorer,
    "residual": ResidualScorer,
}
VERIFIERS: Final = {
    "taco": "taco:Taco",
    "knn": "comparators:Knn",
    "mahalanobis": "comparators:Mahalanobis",
    "rnd": "comparators:Rnd",
}
SCORERS: Final = {**VERIFIERS, "subgoal-filter": "subgoal_filter:SubgoalFilter"}
# Those that any command opens, and what `robolearn train` fits.
FITTED: Final = {**SCORERS, "critic": "critic:Critic"}
TAUGHT: Final = {**SCORERS, "goal-writer": "goal_writer:GoalWriter"}


def taught_type(kind: str) -> "type[Taught]":
    """The class of a kind that `robolearn train` fits."""
    return _class(TAUGHT[kind])


def _class(place: str) -> Any:  # noqa: ANN401 (a class)
    module, _, name = place.partition(":")
    return getattr(import_module(f"robolearn.policies.{module}"), name)


def open_scorer(name: str, policy: Policy, source: "Source", executed: slice = WHOLE) -> Scorer:
    """A scorer for the candidates of a policy.

    Args:
        name: random, medoid or residual; the folder of a fitted scorer; or a kind of these, which
            is then looked for in the run of the policy, where it was put; or several of them with
            "+" between.
        policy: makes the candidates.
        source: where the policy comes from.
        executed: steps of a chunk that will be executed.

    Raises:
        CheckpointError: no such scorer, or it was fitted to another policy or pace.
    """
    if len(parts := _parts(name)) > 1:
        return Blend([open_scorer(part, policy, source, executed) for part in parts])
    if name in UNFITTED:
        return UNFITTED[name](policy, executed)
    place = _place(name, source)
    if not place.exists():
        known = ", ".join([*UNFITTED, *FITTED])
        how = f"fit one with: robolearn train --policy {name if name in SCORERS else 'taco'}"
        how = "fit one with: robolearn improve" if name == "critic" else how
        raise checkpoint.CheckpointError(
            f"there is no scorer {name!r} ({place} does not exist); known are {known} and folders "
            f"of fitted ones; {how} --base {source.run}"
        )
    description, _ = checkpoint.load_model(place)
    if description["kind"] not in FITTED:
        raise checkpoint.CheckpointError(
            f"{place} holds a {description['kind']} policy, which rates no candidates; give one of "
            f"{', '.join([*UNFITTED, *FITTED])}, or the folder of a fitted scorer"
        )
    scorer: Fitted = _class(FITTED[description["kind"]]).load(place, str(policy.device))
    scorer.check_base(policy, source)
    scorer.check_executed(executed)
    scorer.prepare(policy)
    return scorer


def scorer_fingerprints(name: str, source: "Source") -> list[str]:
    """The weights of all fitted parts of a scorer: one that was fitted again is another one.

    Args:
        name: as for `open_scorer`; "" has none.
        source: likewise.
    """
    places = [_place(part, source) for part in _parts(name) if part and part not in UNFITTED]
    return [checkpoint.fingerprint(place) for place in places if place.exists()]


def _parts(name: str) -> list[str]:
    return name.split("+") if "+" in name and not Path(name).exists() else [name]


def _place(name: str, source: "Source") -> Path:
    return source.run / name if name in FITTED else Path(name)
