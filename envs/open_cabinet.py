"""OpenCabinet: open the named door of a cabinet as far as the instruction says.

A cabinet with a left and a right door stands in front of the arm, at another place and heading in
each episode, both doors nearly closed. The instruction names one of them and how far it shall be
open, in percent of its way, which is about a quarter turn. Success: it is that far open, give or
take 10 %, at rest, the gripper has let go of it, and the other door is about where it was; all of
that for `hold_seconds`.
"""

from typing import ClassVar, Final

import mujoco

from robolearn.envs import furniture
from robolearn.envs.language import Phrases
from robolearn.envs.opening import OpeningTask, slots

PHRASES: Final = Phrases(
    "OpenCabinet",
    {
        "train": (
            "open the {part} of the cabinet to {goal} percent",
            "open the cabinet's {part} to {goal} percent",
            "swing the {part} open to {goal} percent",
            "pull the {part} until it is {goal} percent open",
            "I need the {part} {goal} percent open",
            "open the {part} {goal} percent of the way",
        ),
        "held_out": (
            "please swing the {part} of the cabinet out to {goal} percent",
            "the {part} should be {goal} percent open",
            "leave the cabinet's {part} open by {goal} percent",
        ),
    },
    slots("door", low=20, high=100, train=(25, 50, 75, 100), novel=(35, 60, 90)),
)


class OpenCabinet(OpeningTask):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    begins: ClassVar[tuple[float, float]] = (0.0, 0.08)

    @classmethod
    def add(cls, spec: mujoco.MjSpec, *, novel: bool) -> None:
        """A cabinet with two doors."""
        furniture.add_cabinet(spec, furniture.NEW_CABINET if novel else furniture.CABINET)
