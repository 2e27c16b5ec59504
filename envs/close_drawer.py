"""CloseDrawer: close the named drawer of a chest as far as the instruction says.

A chest with a left and a right drawer stands in front of the arm, at another place and heading in
each episode, both drawers about open. The instruction names one of them and how far it shall still
be open, in percent of its way: 0 is closed. Success: it is that far open, give or take 10 %, at
rest, the gripper has let go of it, and the other drawer is about where it was; all of that for
`hold_seconds`.
"""

from typing import ClassVar, Final

import mujoco

from robolearn.envs import furniture
from robolearn.envs.language import Phrases
from robolearn.envs.opening import OpeningTask, slots

PHRASES: Final = Phrases(
    "CloseDrawer",
    {
        "train": (
            "close the {part} to {goal} percent",
            "push the {part} in to {goal} percent",
            "close the {part} until it is {goal} percent open",
            "push in the {part} and leave it {goal} percent open",
            "I need the {part} closed to {goal} percent",
            "slide the {part} shut to {goal} percent",
        ),
        "held_out": (
            "please push the {part} back to {goal} percent",
            "the {part} should be only {goal} percent open",
            "shut the {part}, but leave {goal} percent of it open",
        ),
    },
    slots("drawer", low=0, high=50, train=(0, 25, 50), novel=(10, 40)),
)


class CloseDrawer(OpeningTask):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    begins: ClassVar[tuple[float, float]] = (0.8, 1.0)

    @classmethod
    def add(cls, spec: mujoco.MjSpec, *, novel: bool) -> None:
        """A chest with two drawers."""
        furniture.add_chest(spec, furniture.NEW_CHEST if novel else furniture.CHEST)
