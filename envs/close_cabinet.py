"""CloseCabinet: close the named door of a cabinet as far as the instruction says.

A cabinet with a left and a right door stands in front of the arm, at another place and heading in
each episode, both doors about open. The instruction names one of them and how far it shall still be
open, in percent of its way, which is about a quarter turn: 0 is closed. Success: it is that far
open, give or take 10 %, at rest, the gripper has let go of it, and the other door is about where it
was; all of that for `hold_seconds`.
"""

from typing import ClassVar, Final

import mujoco

from robolearn.envs import furniture
from robolearn.envs.language import Phrases
from robolearn.envs.opening import OpeningTask, slots

PHRASES: Final = Phrases(
    "CloseCabinet",
    {
        "train": (
            "close the {part} of the cabinet to {goal} percent",
            "close the cabinet's {part} to {goal} percent",
            "swing the {part} shut to {goal} percent",
            "push the {part} until it is {goal} percent open",
            "I need the {part} closed to {goal} percent",
            "close the {part} and leave it {goal} percent open",
        ),
        "held_out": (
            "please swing the {part} of the cabinet back to {goal} percent",
            "the {part} should be only {goal} percent open",
            "shut the cabinet's {part}, but leave it {goal} percent open",
        ),
    },
    slots("door", low=0, high=50, train=(0, 25, 50), novel=(10, 40)),
)


class CloseCabinet(OpeningTask):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    begins: ClassVar[tuple[float, float]] = (0.8, 1.0)

    @classmethod
    def add(cls, spec: mujoco.MjSpec, *, novel: bool) -> None:
        """A cabinet with two doors."""
        furniture.add_cabinet(spec, furniture.NEW_CABINET if novel else furniture.CABINET)
