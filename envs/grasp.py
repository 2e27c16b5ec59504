"""Picking up and putting down, for the experts of all tasks that hold something.

The fingers point down. The tool frame is the face of the fixed jaw, so a thing is grasped with the
tool half its width beside its centre.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import mujoco
import numpy as np

from robolearn.envs.expert import Demonstrator, Hand, Script, Style, across, watched
from robolearn.envs.lookup import wrapped, yaw_of

if TYPE_CHECKING:
    from robolearn.envs.task import Task

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


def reaching(
    task: "Task",
    position: Sequence[float] | np.ndarray,
    heading: float | None,
    opening: float,
    pitch: float = 0.0,
) -> np.ndarray:
    """The arm's part of `qpos` (J,) with the finger tips there, for goal pictures.

    Args:
        task: whose arm it is.
        position: of the finger tips, m (3,).
        heading: the jaws' closing direction, rad; None faces the arm.
        opening: of the gripper, 0..1.
        pitch: of the fingers, rad: 0 down, pi/2 level and forward.
    """
    hand = Hand(task, Style.draw(np.random.default_rng(0), Demonstrator()))
    *_, action = hand.move(position, heading, opening, pitch=pitch, seconds=1.0)
    # What the servos are told leads by what they sag; the pose itself is that of the kinematics.
    pose = hand.pose
    pose[-1] = task.joints.to_ctrl(action)[-1]
    return pose


class Grip(NamedTuple):
    """How a hand grips something long."""

    place: np.ndarray  # m (3,), the middle of the grip
    heading: float  # rad, of the jaws
    pitch: float  # rad, of fingers at right angles to the thing
    closing: np.ndarray  # (3,), the direction in which the jaws then close


def grip_across(hand: Hand, bar: np.ndarray, off: float, heading: float) -> Grip:
    """How fingers stand at right angles on a bar, which may slope, as in another hand.

    Args:
        hand: of the arm that grips.
        bar: its pose (7,); it is long along its x axis.
        off: from its middle to the grip, towards the end that is away from the arm, m.
        heading: about where the jaws shall close to, rad: of the two ways the nearer one is taken.
    """
    axis = np.zeros(3)
    mujoco.mju_rotVecQuat(axis, np.array([1.0, 0.0, 0.0]), bar[3:])
    axis *= np.sign(axis[0])
    place = bar[:3] + off * axis
    ahead = hand.facing(place)
    forwards, sideways = np.zeros((2, 3))
    forwards[:2], sideways[:2] = [np.cos(ahead), np.sin(ahead)], across(ahead)
    pitch = float(np.arctan2(axis[2], axis @ forwards))
    # The closing direction of jaws that are not turned, and how to turn them across the axis.
    ready = np.cos(pitch) * forwards + [0.0, 0.0, np.sin(pitch)]
    twist = float(np.arctan2(-axis @ ready, axis @ sideways))
    twist += np.pi * (np.cos(ahead + twist - heading) < 0.0)
    closing = np.cos(twist) * ready + np.sin(twist) * sideways
    return Grip(place, ahead + float(wrapped(twist)), pitch, closing)


def grip_aloft(
    hand: Hand, rng: np.random.Generator, grip: Grip, width: float, opening: float, over: float
) -> Iterator[np.ndarray]:
    """Grips something that another hand holds out, from above.

    Args:
        hand: that grips.
        rng: of the demonstration.
        grip: how it shall.
        width: of the thing along the closing direction, m.
        opening: of the gripper before, 0..1.
        over: from where the fingers are opened down to the grip, m.
    """
    beside = grip.place - grip.closing * (width / 2 + GAP)
    above = beside + [*rng.normal(0.0, hand.style.sloppiness / 2, 2), over]
    # Straight even for a poor demonstrator: the other hand is a few centimetres away.
    reach = partial(hand.move, heading=grip.heading, pitch=grip.pitch, straight=True)
    yield from reach(above, opening=opening)
    yield from reach(beside + [0.0, 0.0, over / 2], opening=opening, speed=0.7)
    yield from reach(beside, opening=opening, speed=0.6)
    place = grip.place - grip.closing * width / 2
    yield from reach(place, opening=hand.style.closed, seconds=CLOSING)


def hand_for(hand: Hand, bar: np.ndarray, goal: Sequence[float] | np.ndarray) -> np.ndarray:
    """Where a hand must be so that the bar it holds gets somewhere, turned along x, m (3,).

    Args:
        hand: that holds it.
        bar: its pose (7,) now; it is long along its x axis and has no front.
        goal: of its middle, m (3,).
    """
    yaw = wrapped(yaw_of(bar[3:]), np.pi)
    x, y, z = bar[:3] - hand.position
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array(goal) - [c * x + s * y, c * y - s * x, z]


def let_go(
    hand: Hand, grip: Grip, opening: float, height: float, pitch: float = 0.0
) -> Iterator[np.ndarray]:
    """Opens, the fixed jaw too stepping back, and withdraws upwards.

    Args:
        hand: that holds something.
        grip: how it does.
        opening: of the gripper then, 0..1.
        height: of the finger tips in the end, m.
        pitch: of the fingers, rad.
    """
    leave = partial(hand.move, heading=grip.heading, opening=opening, pitch=pitch, straight=True)
    away = hand.position - grip.closing * GAP / 2
    yield from leave(away, seconds=0.4)
    yield from leave([*away[:2], height])
