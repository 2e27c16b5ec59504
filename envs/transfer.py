"""Transfer: pour the named percentage of a cup's beads into the named one of two bowls.

A cup full of beads stands between two bowls of different colours, either of them on the left.
Success: the named percentage of the beads is in the named bowl, give or take 10 percent of all;
less than 10 percent are anywhere but there and in the cup, and the other bowl counts as spilt; the
cup is upright to 30 degrees, held or not, and it and the beads are at rest; all of that for
`hold_seconds`.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

import numpy as np

from robolearn.envs import scene
from robolearn.envs.beads import Vessel
from robolearn.envs.language import ANY_SPLIT, Number, Phrases, Words
from robolearn.envs.pouring import PouringTask
from robolearn.envs.pouring_expert import PouringExpert
from robolearn.envs.task import Start, State

BOWLS: Final = ("green", "red")
SHARE: Final = Number(
    "the share to transfer, in percent,",
    low=20,
    high=100,
    unit=0.01,
    values={ANY_SPLIT: (25, 50, 75, 100), "novel_state": (40, 60, 90)},
)
PHRASES: Final = Phrases(
    "Transfer",
    {
        "train": (
            "transfer {share} percent of the beads to the {bowl} bowl",
            "pour {share} percent of the cup into the {bowl} bowl",
            "give {share} percent of the beads to the {bowl} bowl",
            "the {bowl} bowl gets {share} percent of the beads",
            "move {share} percent from the cup to the {bowl} bowl",
            "in the {bowl} bowl, put {share} percent of the beads",
        ),
        "held_out": (
            "please tip {share} percent of the beads over into the {bowl} bowl",
            "I want {share} percent of what is in the cup in the {bowl} bowl",
        ),
    },
    {"share": SHARE, "bowl": Words(BOWLS)},
)
CUP_AREA: Final = ((0.27, 0.31), (-0.015, 0.015))  # x and y of its middle, m
BOWL_AREA: Final = ((0.27, 0.295), (0.115, 0.125))  # of the left bowl; the right one's is mirrored
# The goal vector: the share, and which bowl as a one-hot vector.
NAMED: Final = slice(1, 1 + len(BOWLS))


class Transfer(PouringTask):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    targets: ClassVar[Mapping[str, Vessel]] = {
        f"{colour} bowl": Vessel(inner=0.036, height=0.03, sides=8, rgba=scene.COLOURS[colour])
        for colour in BOWLS
    }

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, a random bowl, share and wording."""
        nearest, farthest = np.transpose(BOWL_AREA)
        bowls = rng.uniform(nearest, farthest, (len(BOWLS), 2))
        bowls[:, 1] *= rng.permutation([-1.0, 1.0])
        cup = rng.uniform(*np.transpose(CUP_AREA))
        qpos = self.full(rng, cup)
        text, (share, bowl) = self.instruct(rng, instruction)
        return Start(
            qpos=qpos,
            mocap_pos=np.column_stack([bowls, np.zeros(len(BOWLS))]),
            goal=np.array([share, *np.eye(len(BOWLS))[bowl]]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The right share in the bowl, hardly any spilt, all at rest; see the base class."""
        shares, named = self.shares(state), goal[:, NAMED]
        inside, wanted = np.vecdot(shares[:, 1:], named), goal[:, 0]
        return self.judged(
            state,
            miss=np.abs(inside - wanted),
            most=wanted,
            spilt=1.0 - shares[:, 0] - inside,
            target=np.vecmat(named, state.mocap_pos),
        )

    def goal_scene(self, start: Start) -> Start:
        """The share in the named bowl; the cup where it was, with the rest."""
        return self.poured(start, start.goal[0], target=int(start.goal[NAMED].argmax()))

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        bowl = int(self.goal[NAMED].argmax())
        expert = PouringExpert(self, rng, self.data.mocap_pos[bowl])
        return expert.demonstrate(keep=1.0 - float(self.goal[0]))
