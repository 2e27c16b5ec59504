"""Which rollouts of practice came to their goals, as the policy itself saw it.

Nobody tells practice whether it succeeded. But a policy that estimates how far its goal is notes
the steps at every decision (`Policy.notes`). An episode counts as a success here if its goal was,
at some decision, no farther than what is executed before the next one. The estimate may be wrong;
it is the policy's that acted, and the reward has no part in it.

The folder of a round holds what was noted, by the episodes' seeds:

    nearest.json    {"3000000": 4.2, ...}: the fewest steps that were left at any decision
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from gymnasium.vector import SyncVectorEnv

from robolearn.episodes import Episode
from robolearn.files import write_atomic
from robolearn.rollout import Actor

NEAREST: Final = "nearest.json"
STEPS: Final = "steps_to_goal"  # the note, see `Policy.notes`
ALL: Final = "all"
# What `--learn-from` keeps of a round, told which episodes came to their goals, bool (E,).
KEPT: Final[Mapping[str, Callable[[np.ndarray], np.ndarray]]] = {
    ALL: np.ones_like,
    "successes": np.copy,
    "failures": np.logical_not,
}


def note(folder: Path, episode: Episode) -> None:
    """Notes in the folder of a round how near an episode came, if its policy estimates that."""
    if STEPS not in episode.notes:
        return
    path = folder / NEAREST
    known = json.loads(path.read_text()) if path.exists() else {}
    known[str(episode.seed)] = float(episode.notes[STEPS].min())
    write_atomic(path, json.dumps(known, indent=1).encode())


def arrived(folder: Path, seeds: np.ndarray, within: int) -> np.ndarray | None:
    """Which episodes of a round came to their goals, bool (E,); None if that was not estimated.

    Args:
        folder: of the round.
        seeds: of the episodes, int (E,).
        within: steps from which on a goal counts as reached.
    """
    path = folder / NEAREST
    if not path.exists():
        return None
    known = json.loads(path.read_text())
    return np.array([known[str(seed)] <= within for seed in seeds])


def check_estimates(actor: Actor, env: SyncVectorEnv, seed: int) -> None:
    """Refuses what acts without knowing how far its goal is.

    Args:
        actor: acts in the environment.
        env: of one episode at a time.
        seed: of an episode that is begun for this.

    Raises:
        ValueError: it does not estimate it.
    """
    observation, _ = env.reset(seed=[seed])
    actor.reset(0, seed, "")
    actor.act(observation)
    if STEPS not in actor.notes(0):
        raise ValueError(
            "this policy does not estimate how far its goal is, so it cannot tell its successes "
            "from its failures; take --learn-from all, or an act2goal policy"
        )
