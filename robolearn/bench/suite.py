"""Suites: what a benchmark fixes, as data. Those of this project lie in `robolearn/suites`.

A suite fixes everything that changes a number but the agents: tasks, splits, wordings, variations,
seeds, how often is replanned, how many episodes. All of it, also what is a default today and the
tasks' time limits, goes into the suite's hash, and only results with the same hash are compared.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from robolearn.config import config_hash, from_json, to_json
from robolearn.options import WORKERS, EvalConfig
from robolearn.results import harder

SUFFIX: Final = ".toml"
# Settings of an evaluation that are the agent's or the machine's, and not the suite's.
NOT_THE_SUITES: Final = ("policy", "scorer", "device", "out", "videos", *WORKERS)


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite, in one form."""

    env: str  # environment id
    split: str = "train"  # which objects, scenes and goals
    variations: dict[str, int] = field(default_factory=dict)  # name and level
    dynamics: dict[str, float] = field(default_factory=dict)  # fixed factors by name, s of delay
    instruction: str = ""  # asks for the same goal in every episode

    @property
    def label(self) -> str:
        """Its name in tables and folders: `PickPlace`, `PickPlace-novel_scene`, `Lift-push2`.

        With fixed dynamics `Lift-dynamics-friction0.6-mass1.4`.
        """
        name = self.env.rpartition(":")[2].rpartition("/")[2].removesuffix("-v0")
        split = [self.split] if self.split != "train" else []
        return "-".join([name, *split, *harder(self.variations, self.dynamics)])


@dataclass(frozen=True)
class Suite:
    """What a suite's file says."""

    title: str  # one line
    tasks: tuple[SuiteTask, ...]
    episodes: int  # of each agent and task
    seed: int = 0  # of the first one
    replan_every: int = 4  # steps of a chunk that are executed before looking again
    candidates: int = 16  # for agents with a scorer
    paraphrases: str = "held_out"  # wording of the instructions
    # With this error rate, an agent that is clearly better or worse than the first one on a task
    # plays no more of it; 0 plays all episodes.
    stop: float = 0.0
    agents: dict[str, str] = field(default_factory=dict)  # that are always measured too, by name
    name: str = ""

    def __post_init__(self) -> None:
        """Refuses what cannot be run.

        Raises:
            ValueError: it says what.
        """
        labels = [task.label for task in self.tasks]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise ValueError(
                f"two of its tasks are called {twice[0]}; a task's name, split, variations or "
                "dynamics must tell it from the others, so put one of the two into another suite"
            )
        if not labels:
            raise ValueError("a suite has one task or more; this one has none")
        if self.episodes < 1 or self.candidates < 2 or not 0.0 <= self.stop < 1.0:
            raise ValueError("a suite has 1 episode or more, 2 candidates or more, 0 <= stop < 1")

    def settings(self, task: SuiteTask, policy: str, **agent: Any) -> EvalConfig:  # noqa: ANN401
        """The evaluation of an agent on a task.

        Args:
            task: one of the suite's.
            policy: the source.
            agent: further settings that are the agent's or the machine's.
        """
        own = {key: value for key, value in vars(task).items()}
        shared = ("episodes", "seed", "replan_every", "paraphrases")
        own |= {key: getattr(self, key) for key in shared}
        candidates = self.candidates if agent.get("scorer") else 1
        return EvalConfig(policy=policy, candidates=candidates, **own, **agent)

    def fixed(self) -> dict[str, Any]:
        """Everything that the hash is made of, as JSON values.

        Raises:
            ValueError: an environment that does not exist.
        """
        return {
            "stop": self.stop,
            "tasks": {task.label: self._fixed(task) for task in self.tasks},
        }

    def _fixed(self, task: SuiteTask) -> dict[str, Any]:
        from robolearn.registry import spec_of

        # An agent with a scorer, so that the number of candidates is fixed as well.
        settings = to_json(self.settings(task, "", scorer="any"))
        plain = {key: value for key, value in settings.items() if key not in NOT_THE_SUITES}
        return {**plain, "steps": spec_of(task.env).max_episode_steps}

    @property
    def hash(self) -> str:
        """Twelve hex digits that differ whenever something differs that may change a number."""
        return config_hash(self.fixed())


def suite_names() -> list[str]:
    """The suites of this project."""
    return sorted(path.stem for path in _folder() if path.suffix == SUFFIX)


def load_suite(name: str) -> Suite:
    """A suite of this project by its name, or the one that a file holds.

    Raises:
        ValueError: no such suite, or it says something that no suite says.
        OSError: no such file.
    """
    if name.endswith(SUFFIX):
        return _parse(Path(name))
    found = [path for path in _folder() if path.name == name + SUFFIX]
    if not found:
        known = ", ".join(suite_names())
        raise ValueError(f"no suite {name!r}; choose among {known}, or give a file NAME{SUFFIX}")
    return _parse(found[0])


def _folder() -> Sequence[Path]:
    return [Path(str(path)) for path in resources.files("robolearn").joinpath("suites").iterdir()]


def _parse(path: Path) -> Suite:
    try:
        values = tomllib.loads(path.read_text())
        return replace(from_json(Suite, values), name=path.stem)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no suite: {error}") from error
