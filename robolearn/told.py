"""Goals of instructions: `--goal words` remembers them, and `--goal imagined` imagines them.

The first looks into a recording (`recall.py`); the second asks a goal-writer that was fitted to the
policy (`policies/goal_writer.py`). What it imagines depends on the first pictures of the episode,
on its instruction and on its seed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import gymnasium

from robolearn import checkpoint
from robolearn.checkpoint import CheckpointError
from robolearn.contract import Info
from robolearn.goals import IMAGINED, WORDS, Goal, Maker, picture_file
from robolearn.policies.base import as_tensors
from robolearn.policies.goal_writer import GoalWriter
from robolearn.policies.latents import latents_of
from robolearn.recall import Recall
from robolearn.seeding import stream
from robolearn.sources import Source, source_of


class Imagination:
    """Makes goals with a goal-writer; see the module's docstring.

    Args:
        folder: of the goal-writer.
        policy: the source of the policy that it was fitted to.
        env: the environment that wants goals.

    Raises:
        CheckpointError: no goal-writer, or one that was fitted to another policy.
    """

    def __init__(self, folder: Path, policy: str, env: gymnasium.Env) -> None:
        del env
        source = source_of(policy)
        acting = source.load()
        self._writer, self._folder = GoalWriter.load(folder), folder
        self._writer.check_base(acting, source)
        self._latents = latents_of(acting, str(folder))

    def __call__(self, observation: Mapping[str, Any], info: Mapping[str, Any]) -> Goal:
        """See `robolearn.goals.Maker`.

        Raises:
            ValueError: an instruction of which no word is known.
        """
        told, noise = str(info[Info.TASK]), stream(int(info[Info.SEED]), "goal writer")
        now = {camera: observation["pixels"][camera][None] for camera in self._latents.cameras}
        seen = self._latents.encode(as_tensors(now, "cpu"))
        pictures = self._latents.decode(self._writer.write(seen, [told], [noise])[:, None])
        source = f"imagined by {self._folder}: {told}"
        return Goal({camera: x[0, 0].numpy() for camera, x in pictures.items()}, source)


def maker_of(
    goal: Sequence[str], data: Path | None, source: Source, task: str = ""
) -> Callable[[gymnasium.Env], Maker] | None:
    """What makes goals of instructions in an environment; None where others are wanted.

    Args:
        goal: see `robolearn.goals`.
        data: the recording in which `words` looks.
        source: of the policy.
        task: environment id of what is done, where the environment does not say: an arm's.

    Raises:
        ValueError: words without a recording, or a recording without words.
        CheckpointError: no such goal-writer.
    """
    if (tuple(goal) == (WORDS,)) != (data is not None):
        raise ValueError(
            "give --goal words and --goal-data FOLDER, a recording, or none of both; "
            "--goal imagined does without"
        )
    if data is not None:
        return partial(Recall, data, source.where, task=task)
    if IMAGINED not in goal[:1]:
        return None
    if len(goal) > 2:
        raise ValueError(f"--goal {' '.join(goal)} names two goal-writers; give one folder")
    return partial(Imagination, _writer(goal[1:], source), source.where)


def goal_fingerprints(goal: Sequence[str], data: Path | None, source: Source) -> list[str]:
    """Of the pictures, the recording or the goal-writer that a goal names.

    A recording is known by how many episodes of which lengths it holds and by their statistics.

    Args:
        goal: see `robolearn.goals`.
        data: the recording in which `words` looks.
        source: of the policy.
    """
    if not source.goals:  # it is told what to do
        return []
    if IMAGINED in goal[:1]:
        return [checkpoint.fingerprint(_writer(goal[1:], source))]
    files = [picture_file(entry) for entry in goal]
    files += sorted((data / "meta").rglob("*.parquet")) if data else []
    return [sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()]


def _writer(named: Sequence[str], source: Source) -> Path:
    """The folder of the goal-writer, by default the one in the run of the policy."""
    folder = Path(*named) if named else source.run / GoalWriter.kind
    if not folder.exists():
        raise CheckpointError(
            f"there is no {GoalWriter.kind} in {folder}; fit one with: "
            f"robolearn train --policy {GoalWriter.kind} --base {source.run}"
        )
    return folder
