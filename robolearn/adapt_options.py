"""The options of `robolearn adapt`; apart from it for the same reason as `robolearn.options`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from robolearn.options import COLLECTED, check_at_least, check_collected


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
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
    weights: Literal["lora", "full"] = "lora"  # what learns: adapters alone, or, to compare, all
    rank: int = 16  # of the adapters
    updates: int = 100  # optimiser steps of a round
    batch_size: int = 64  # observations in each
    learning_rate: float = 1e-3  # peak in each round; warms up, then falls to zero as a cosine
    rehearsal: float = 0.25  # share of a batch that is from the demonstrations; published: 0
    data: Path | None = None  # these demonstrations; by default what the policy was trained on
    evaluate: int = 50  # episodes of each evaluation after every round
    seed: int = COLLECTED  # of the first episode; lower seeds are for evaluation and demonstrations
    workers: int = 2  # processes
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuses counts below one, and shares that are none.

        Raises:
            ValueError: naming the option.
        """
        counts = ("episodes", "steps", "replan_every", "rank", "updates", "batch_size", "evaluate")
        check_at_least(self, 1, *counts)
        check_at_least(self, 0, "rounds")
        for name in ("revisit", "rehearsal"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"--{name} is {getattr(self, name)}; give a share, 0 to below 1")
        for name in ("minutes", "learning_rate"):
            if getattr(self, name) <= 0.0:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is {getattr(self, name)}; give it more than 0")
        check_collected(self.seed)
