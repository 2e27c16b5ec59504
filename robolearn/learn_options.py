"""The options of the commands in which a policy learns from what it experiences.

They stand apart from their commands for the same reason as `robolearn.options`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from robolearn.options import WorkerOptions, check_at_least
from robolearn.policies.improver_configs import (
    AloeConfig,
    AwrConfig,
    BcConfig,
    DaggerConfig,
    DsrlConfig,
    FqlConfig,
    GorlConfig,
    IqlConfig,
    QChunkingConfig,
    RecapConfig,
    RlpdConfig,
)
from robolearn.units import Units

COLLECTED: Final = 3_000_000  # the first seed for what a policy experiences


def check_collected(seed: int) -> None:
    """Refuses seeds of evaluations and demonstrations.

    Raises:
        ValueError: it is one.
    """
    if seed < COLLECTED:
        raise ValueError(
            f"--seed is {seed}; seeds below {COLLECTED} belong to evaluations and demonstrations"
        )


Improve = (
    AloeConfig
    | BcConfig
    | DaggerConfig
    | AwrConfig
    | IqlConfig
    | QChunkingConfig
    | RecapConfig
    | FqlConfig
    | DsrlConfig
    | RlpdConfig
)


@dataclass(frozen=True, kw_only=True)
class ImproveConfig(WorkerOptions):
    """Improve a policy by what it experiences: collect, judge, imitate, and again."""

    base: Path  # the policy to begin with: a run, or one of its checkpoints
    out: Path  # run folder: rollouts, critics, checkpoints, the table of rounds
    algo: Improve = field(default_factory=AloeConfig)  # how it learns of what was collected
    data: Path | None = None  # demonstrations; by default what the base was trained on
    units: Units | None = None  # of that, if somebody else recorded it: percent, degrees or si
    also: tuple[Path, ...] = ()  # further recordings, e.g. of `robolearn deploy` with takeovers
    env: str = ""  # environment id; by default the one that the base was trained on
    rounds: int = 3
    episodes: int = 400  # that are collected in each round
    replan_every: int = 8  # steps of a chunk that are executed before looking again
    judged: int = 0  # steps of a chunk that a critic rates at once; 0: those that are executed
    stride: int = 4  # steps between the observations that are learned from; divides those judged
    patience: float = 3.0  # what a failure costs, in mean episodes
    correct: bool = False  # let the task's expert take over where the policy gets stuck
    candidates: int = 16  # among which the critic chooses in the evaluation
    evaluate: int = 200  # episodes of each evaluation after the last round
    videos: int = 4  # episodes of each that are filmed
    variations: dict[str, int] = field(default_factory=dict)  # name and level, e.g. push 2 mass 1
    seed: int = COLLECTED  # of the first episode; lower seeds are for evaluation and demonstrations
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses counts below one.

        Raises:
            ValueError: naming the option.
        """
        counts = ("rounds", "episodes", "replan_every", "stride", "candidates", "evaluate")
        check_at_least(self, 1, *counts)
        check_collected(self.seed)
        if self.judged < 0 or (self.judged or self.replan_every) % self.stride:
            raise ValueError(
                f"--judged is {self.judged}, --replan-every {self.replan_every} and --stride "
                f"{self.stride}; the stride must divide the steps that are judged"
            )


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Learn a task by trying, without demonstrations, from the simulator's state."""

    out: Path  # run folder
    env: str = "robolearn/Reach-v0"  # environment id
    algo: GorlConfig = field(default_factory=GorlConfig)
    stages: int = 2  # after each but the last the decoder learns
    iterations: int = 40  # of each stage
    episodes: int = 64  # of each iteration
    slots: int = 32  # side by side
    threads: int = 1  # that simulate
    seed: int = COLLECTED  # of the first episode; lower seeds are for evaluation and demonstrations

    def __post_init__(self) -> None:
        """Refuses counts below one, and seeds of evaluations.

        Raises:
            ValueError: naming the option.
        """
        check_at_least(self, 1, "stages", "iterations", "episodes", "slots", "threads")
        check_collected(self.seed)


@dataclass(frozen=True, kw_only=True)
class AdaptConfig(WorkerOptions):
    """Practise towards goal pictures, and learn of what was reached, without reward."""

    policy: Path  # one that is shown its goal: a run, or one of its checkpoints
    out: Path  # run folder: rollouts, checkpoints, the table of rounds
    env: str = ""  # where it practises; by default where it was trained
    split: str = "train"  # which objects, scenes and goals of the task
    variations: dict[str, int] = field(default_factory=dict)  # name and level, e.g. camera 1
    goal: tuple[str, ...] = ("demonstration",)  # demonstration, scene, own, files: see practice.py
    revisit: float = 0.25  # share of a round in scenes from before, towards what was reached there
    minutes: float = 10.0  # of practice: no round begins later; evaluations do not count
    rounds: int = 0  # so many, however long they take; 0: as many as the minutes allow
    episodes: int = 20  # of a round, which is learned from and then forgotten
    steps: int = 128  # of an episode
    replan_every: int = 8  # steps of a chunk that are executed before looking again
    # Only rollouts that came to their goals, or that did not, as the policy itself judges
    learn_from: Literal["all", "successes", "failures"] = "all"
    # What learns: adapters alone, those of linear layers alone, or, to compare, all
    weights: Literal["lora", "lora-linear", "full"] = "lora"
    rank: int = 16  # of the adapters
    updates: int = 100  # optimiser steps of a round
    batch_size: int = 64  # observations in each
    learning_rate: float = 3e-4  # peak in each round; warms up, then falls to zero as a cosine
    rehearsal: float = 0.25  # share of a batch that is from the demonstrations; published: 0
    data: Path | None = None  # these demonstrations; by default what the policy was trained on
    units: Units | None = None  # of them, if somebody else recorded them: percent, degrees or si
    held_out: float = 0.0  # share of the rollouts whose loss ends a round when it rises; 0: none
    evaluate: int = 50  # episodes of each evaluation after every round
    seed: int = COLLECTED  # of the first episode; lower seeds are for evaluation and demonstrations
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses counts below one, and shares that are none.

        Raises:
            ValueError: naming the option.
        """
        counts = ("episodes", "steps", "replan_every", "rank", "updates", "batch_size", "evaluate")
        check_at_least(self, 1, *counts)
        check_at_least(self, 0, "rounds")
        for name in ("revisit", "rehearsal", "held_out"):
            if not 0.0 <= getattr(self, name) < 1.0:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is {getattr(self, name)}; give a share, 0 to below 1")
        for name in ("minutes", "learning_rate"):
            if getattr(self, name) <= 0.0:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is {getattr(self, name)}; give it more than 0")
        check_collected(self.seed)
