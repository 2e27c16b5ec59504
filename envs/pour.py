"""Pour: pour beads out of a cup until only the named percentage is left in it.

A cup full of beads stands in front of the arm, and a wide tray beside it, on the left or on the
right. Success: the named percentage of the beads is left in the cup, give or take 10 percent of
all; less than 10 percent are anywhere but in the cup and in the tray; the cup is upright to 30
degrees, held or not, and it and the beads are at rest; all of that for `hold_seconds`.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

import numpy as np

from robolearn.envs.beads import Vessel
from robolearn.envs.language import ANY_SPLIT, Number, Phrases
from robolearn.envs.pouring import PouringTask
from robolearn.envs.pouring_expert import PouringExpert
from robolearn.envs.task import Start, State

LEFT: Final = Number(
    "what is left, in percent,",
    low=0,
    high=80,
    unit=0.01,
    values={ANY_SPLIT: (0, 25, 50, 75), "novel_state": (10, 40, 60)},
)
PHRASES: Final = Phrases(
    "Pour",
    {
        "train": (
            "pour until {left} percent is left in the cup",
            "pour beads into the tray until {left} percent remains in the cup",
            "empty the cup down to {left} percent",
            "leave {left} percent in the cup and pour out the rest",
            "pour out the cup but keep {left} percent",
            "tip beads out of the cup until it holds {left} percent",
        ),
        "held_out": (
            "please keep {left} percent in the cup and get rid of the rest",
            "I want only {left} percent of the beads to stay in the cup",
        ),
    },
    {"left": LEFT},
)
TRAY: Final = Vessel(inner=0.05, height=0.02, rgba=(0.55, 0.35, 0.25, 1.0))
# x and y of their middles when the tray is on the left; mirrored when it is on the right, m
CUP_AREA: Final = ((0.27, 0.31), (-0.06, -0.03))
TRAY_AREA: Final = ((0.27, 0.295), (0.10, 0.11))


class Pour(PouringTask):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    targets: ClassVar[Mapping[str, Vessel]] = {"tray": TRAY}

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, a random side for the tray, a random share and wording."""
        side = np.array([1.0, rng.choice([-1.0, 1.0])])
        cup, tray = (rng.uniform(*np.transpose(area)) * side for area in (CUP_AREA, TRAY_AREA))
        qpos = self.full(rng, cup)
        text, (left,) = self.instruct(rng, instruction)
        return Start(qpos, np.array([[*tray, 0.0]]), np.array([left]), text)

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The right share left, hardly any spilt, all at rest; see the base class."""
        left, poured = self.shares(state).T
        wanted = goal[:, 0]
        return self.judged(
            state,
            miss=np.abs(left - wanted),
            most=1.0 - wanted,
            spilt=1.0 - left - poured,
            target=state.mocap_pos[:, 0],
        )

    def goal_scene(self, start: Start) -> Start:
        """The cup where it was, with what is to be left; the rest in the tray."""
        return self.poured(start, 1.0 - start.goal[0], target=0)

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        expert = PouringExpert(self, rng, self.data.mocap_pos[0])
        return expert.demonstrate(keep=float(self.goal[0]))
