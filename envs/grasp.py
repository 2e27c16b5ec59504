"""Picking up and putting down, for the experts of all tasks that hold something.

The fingers point down. The tool frame is the face of the fixed jaw, so a thing is grasped with the
tool half its width beside its centre.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from robolearn.envs.expert import Hand, Script, Style, across, watched
from robolearn.envs.lookup import wrapped

SIDESTEP: Final = 0.03  # m: how far to its side a style comes in
GAP: Final = 0.007  # m between the fixed jaw and the thing while the fingers come down
ABOVE: Final = 0.028  # m over the grasp at which the fingers are lined up
CLOSING: Final = 0.45  # s
Check = Callable[[], bool]


def nearest_heading(yaw: float, facing: float, symmetry: float = np.pi / 2) -> float:
    """Of a thing's equal headings the one that faces the arm best, rad.

    Args:
        yaw: one of them.
        facing: the direction in which the arm reaches the thing.
        symmetry: angle between two of them: a quarter for a square, a half for a bar.
    """
    return facing + float(wrapped(yaw - facing, symmetry))


def come_down(
    hand: Hand,
    style: Style,
    rng: np.random.Generator,
    centre: Sequence[float] | np.ndarray,
    heading: float,
    width: float,
    still_there: Check,
    before: Callable[[], None] = lambda: None,
) -> Script:
    """Brings the open jaws around a thing, first a little off as people do.

    Args:
        hand: of the arm that grasps.
        style: of the demonstrator.
        rng: of the demonstration.
        centre: of the grasp, m (3,).
        heading: the jaws' closing direction, rad.
        width: of the thing along it, m.
        still_there: whether the thing is where it was; else the script ends as a failure.
        before: called just before the descent, for mishaps.
    """
    closing = np.array([np.cos(heading), np.sin(heading)])
    x_y, z = np.asarray(centre[:2]), float(centre[2])
    ready = x_y - closing * (width / 2 + GAP)
    first = ready + rng.normal(0.0, style.sloppiness, 2) + style.side * SIDESTEP * across(heading)
    yield from hand.move([*first, z + 0.033 + style.lift], heading, style.opened)
    yield from hand.move([*ready, z + ABOVE], heading, style.opened, speed=0.7)
    before()
    descent = hand.move([*ready, z], heading, style.opened, speed=0.6, straight=True)
    return (yield from watched(descent, still_there))


def close_and_lift(
    hand: Hand,
    style: Style,
    centre: Sequence[float] | np.ndarray,
    heading: float,
    width: float,
    height: float,
) -> Script:
    """Closes the jaws around the thing and lifts it.

    Args:
        hand: where `come_down` has brought it.
        style: of the demonstrator.
        centre: of the grasp, m (3,).
        heading: the jaws' closing direction, rad.
        width: of the thing along it, m.
        height: of the finger tips in the end, m.
    """
    grasp = np.asarray(centre[:2]) - np.array([np.cos(heading), np.sin(heading)]) * width / 2
    closed = hand.move([*grasp, centre[2]], heading, style.closed, seconds=CLOSING, straight=True)
    yield from closed
    yield from hand.move([*grasp, height], heading, style.closed, speed=0.9)
    return True
