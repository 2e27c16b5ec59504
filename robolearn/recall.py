"""`--goal words`: an instruction becomes a goal picture, that of an episode that did the same.

Of the episodes of a recording that succeeded and whose instruction says the same, the one whose
first pictures look most like the present ones, as the policy encodes them, shows the goal with its
last pictures. What an instruction says is known of the tasks here (`robolearn.envs.language`); of
any others their words are compared: the cosine of counts of words and of pairs of neighbours, rare
ones weighing more (tf-idf, Sparck Jones 1972).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log, sqrt
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator

from robolearn import lerobot_format as v3
from robolearn.contract import Info
from robolearn.dataset import EpisodeDataset
from robolearn.envs.language import Phrases
from robolearn.episodes import DatasetError
from robolearn.goals import Goal, Pictures, check_proportions
from robolearn.policies.base import as_tensors
from robolearn.registry import spec_of
from robolearn.sources import source_of

LEAST: Final = 0.3  # likeness of words, 0 to 1, from which on two instructions are of a kind
BATCH: Final = 64  # pictures of a camera that are encoded at once


class Recall:
    """Makes goals of what was recorded; see the module's docstring.

    Args:
        data: the folder of the dataset.
        policy: the source of the policy, which tells whether pictures look alike.
        env: the environment that wants goals.
        task: environment id of what is done in it, where it does not say: an arm's.

    Raises:
        DatasetError: no dataset, one of another task or of other cameras, or without a success.
    """

    def __init__(self, data: Path, policy: str, env: gymnasium.Env, task: str = "") -> None:
        self._policy, self._data = source_of(policy).load(), data
        understood = phrases_of(task) if task else None
        self._phrases: Phrases | None = getattr(env.unwrapped, "phrases", understood)
        # Positions are not looked at, so that the units of somebody else's do not matter.
        dataset = EpisodeDataset(data, units=None if (data / v3.OURS).exists() else "si")
        self._frames = _frames(dataset, self._policy.cameras)
        table = dataset.episodes
        here = env.spec.id if env.spec else ""
        self._episodes = usable(dataset, here, *filter(None, [task]))
        self._told = [table.instruction[k] for k in self._episodes]
        self._last = (table.start + table.length - 1)[self._episodes]
        batches = np.array_split(table.start[self._episodes], -(-len(self._episodes) // BATCH))
        self._gists = torch.cat([self._gist(self._pictures(some)) for some in batches])

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Goal:
        """See `robolearn.goals.Maker`.

        Raises:
            DatasetError: no episode does what the instruction says.
        """
        told = str(info[Info.TASK])
        now = {camera: observation["pixels"][camera][None] for camera in self._frames}
        apart = (self._gists - self._gist(now)).square().mean(1).numpy()
        nearest = remembered(told, self._told, apart, self._phrases)
        if nearest is None:
            raise DatasetError(
                f"no episode of {self._data} that succeeded was told anything like {told!r}, but "
                f"for example {self._told[0]!r}; record some that do it"
            )
        source = f"{self._data}, episode {self._episodes[nearest]}: {self._told[nearest]}"
        last = self._pictures(self._last[[nearest]])
        return Goal({camera: np.array(rows[0]) for camera, rows in last.items()}, source)

    def _pictures(self, frames: np.ndarray) -> Pictures:
        return {camera: rows[frames] for camera, rows in self._frames.items()}

    @torch.inference_mode()
    def _gist(self, pictures: Pictures) -> torch.Tensor:
        return self._policy.gist(as_tensors(pictures, self._policy.device)).cpu()


def _frames(
    dataset: EpisodeDataset, cameras: Mapping[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    """All frames of these cameras, in these sizes."""
    for camera, size in cameras.items():
        if camera in dataset.cameras:
            check_proportions(f"{camera} of {dataset.root}", dataset.cameras[camera], size)
    return {camera: dataset.frames(camera, size) for camera, size in cameras.items()}


def usable(dataset: EpisodeDataset, *env_ids: str) -> np.ndarray:
    """The episodes that were recorded in these environments, as far as known, and succeeded.

    Returns:
        Their numbers, int (N,).

    Raises:
        DatasetError: none.
    """
    table, wanted = dataset.episodes, " or ".join(env_ids)
    here = np.array([known in ("", *env_ids) for known in table.env_id])
    if not here.any():
        raise DatasetError(
            f"{dataset.root} was recorded in {', '.join(sorted({*table.env_id}))} and not in "
            f"{wanted}; give a recording of this task"
        )
    found = np.flatnonzero(here & succeeded(dataset))
    if not len(found):
        raise DatasetError(
            f"no episode of {dataset.root} succeeded at {wanted}, so none shows a goal; record "
            "some that do"
        )
    return found


def succeeded(dataset: EpisodeDataset) -> np.ndarray:
    """Which episodes succeeded, as far as anybody noted it: bool (N,)."""
    table = dataset.episodes
    return table.success if "success" in dataset.columns else np.ones(len(table), bool)


def phrases_of(env_id: str) -> Phrases | None:
    """What instructions of a task mean, if it is known and can read them."""
    try:
        entry = spec_of(env_id).entry_point
    except ValueError:  # no such task here
        return None
    return getattr(load_env_creator(entry) if isinstance(entry, str) else entry, "phrases", None)


def remembered(
    told: str, known: Sequence[str], apart: np.ndarray, phrases: Phrases | None
) -> int | None:
    """Which known episode says the same and is the least apart; None if none says the same.

    Args:
        told: the instruction.
        known: those of N episodes.
        apart: how unlike these begin, (N,).
        phrases: see `same_goal`.
    """
    same = same_goal(told, known, phrases)
    return int(np.where(same, apart, np.inf).argmin()) if same.any() else None


def same_goal(told: str, known: Sequence[str], phrases: Phrases | None = None) -> np.ndarray:
    """Which of the known instructions say the same as what is told, bool (N,).

    Args:
        told: the instruction.
        known: those of recorded episodes.
        phrases: what they mean; without, or where they mean nothing to it, words are compared.
    """
    if phrases:
        meanings = {text: _meaning(phrases, text) for text in (told, *known)}
        if meanings[told] is not None and any(meanings[text] is not None for text in known):
            return np.array([meanings[text] == meanings[told] for text in known])
    alike = likeness(told, known)
    return (alike >= LEAST) & (alike > alike.max() - 1e-9)


def _meaning(phrases: Phrases, text: str) -> tuple[Any, ...] | None:
    try:
        return phrases.parse(text)
    except ValueError:
        return None


def likeness(told: str, known: Sequence[str]) -> np.ndarray:
    """How alike an instruction and the known ones are, float (N,), from 0 to 1."""
    different = {text: _terms(text) for text in known}
    counts = Counter(term for terms in different.values() for term in terms)
    total = 1.0 + len(different)

    def weighted(terms: Mapping[str, int]) -> dict[str, float]:
        raw = {t: n * (1.0 + log(total / (1.0 + counts[t]))) for t, n in terms.items()}
        length = sqrt(sum(value**2 for value in raw.values())) or 1.0
        return {term: value / length for term, value in raw.items()}

    ours = weighted(_terms(told))
    cosines = {text: _dot(ours, weighted(terms)) for text, terms in different.items()}
    return np.array([cosines[text] for text in known])


def _terms(text: str) -> Counter[str]:
    """Words, and pairs of neighbours: the blue cube is not the cube of a blue bin."""
    words = re.findall(r"[^\W_]+", text.lower())
    return Counter([*words, *(f"{a} {b}" for a, b in pairwise(words))])


def _dot(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    return sum(value * b.get(term, 0.0) for term, value in a.items())
