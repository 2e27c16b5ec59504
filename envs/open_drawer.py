"""OpenDrawer: open the named drawer of a chest as far as the instruction says.

A chest with a left and a right drawer stands in front of the arm, at another place and heading in
each episode, both drawers nearly closed. The instruction names one of them and how far it shall be
open, in percent of its way. Success: it is that far open, give or take 10 %, at rest, the gripper
has let go of it, and the other drawer is about where it was; all of that for `hold_seconds`.
"""

from typing import ClassVar, Final

import mujoco

from robolearn.envs import furniture
from robolearn.envs.language import Phrases
from robolearn.envs.opening import OpeningTask, slots

PHRASES: Final = Phrases(
    "OpenDrawer",
    {
        "train": (
            "open the {part} to {goal} percent",
            "pull the {part} out to {goal} percent",
            "pull out the {part} until it is {goal} percent open",
            "open the {part} {goal} percent of the way",
            "I need the {part} {goal} percent open",
            "slide the {part} open to {goal} percent",
        ),
        "held_out": (
            "please pull the {part} open to {goal} percent",
            "the {part} should be {goal} percent open",
            "leave the {part} open by {goal} percent",
        ),
    },
    slots("drawer", low=20, high=100, train=(25, 50, 75, 100), novel=(35, 60, 90)),
)


class OpenDrawer(OpeningTask):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    begins: ClassVar[tuple[float, float]] = (0.0, 0.08)

    @classmethod
    def add(cls, spec: mujoco.MjSpec, *, novel: bool) -> None:
        """A chest with two drawers."""
        furniture.add_chest(spec, furniture.NEW_CHEST if novel else furniture.CHEST)
