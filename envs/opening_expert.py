"""How an expert opens and closes: grasps a handle, brings its part along its way, and lets go."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import mujoco
import numpy as np

from robolearn.envs.expert import MIN_SECONDS, Hand, Style, minimum_jerk
from robolearn.envs.furniture import SIDES
from robolearn.envs.grasp import CLOSING, GAP, come_down

if TYPE_CHECKING:
    from robolearn.envs.opening import OpeningTask

TIPS_BELOW: Final = 0.006  # m from the middle of a handle to the tips that grasp it
NEARBY: Final = 0.01  # m: a handle that is so far off has moved
RELEASED: Final = 0.1  # m above the table: finger tips after a release
ATTEMPTS: Final = 5
CORRECTIONS: Final = 2  # how often the expert corrects before it lets go
GOOD_ENOUGH: Final = 0.04  # of the way: an error that the expert lets pass
MISJUDGED: Final = 0.25  # how often it first misjudges the goal
MISJUDGEMENT: Final = (0.12, 0.25)  # of the way
LETTING_GO: Final = 0.4  # s
PULLING: Final = 0.7  # of the style's speed: a part that is held moves slower than a free hand


class OpeningExpert:
    """Grasps the handle, brings the part to its goal and lets go; until it is right.

    In some demonstrations the goal is misjudged and then corrected with a second grasp:
    otherwise a policy would never learn what to do after its own mistakes.

    Args:
        task: just reset.
        rng: of the demonstration.
    """

    def __init__(self, task: "OpeningTask", rng: np.random.Generator) -> None:
        self._task, self._rng = task, rng
        self._style = Style.draw(rng, task.demonstrator)
        self._part, self._goal = task.phrases.parse(task.task_description)
        self._aim = _misjudged(self._goal, rng)
        self._turned = self._style.side or int(rng.choice((-1, 1)))
        self._hand = Hand(task, self._style)

    def demonstrate(self) -> Iterator[np.ndarray]:
        """Operates the part, at most `ATTEMPTS` times; then keeps still for ever."""
        for _ in range(ATTEMPTS):
            yield from self._operate(HandlePath(self._task, self._part, self._turned))
            if self._error(self._goal) < GOOD_ENOUGH:
                break
            self._aim = self._goal
        yield from self._hand.rest()

    def _operate(self, path: "HandlePath") -> Iterator[np.ndarray]:
        """One grasp: down to the handle, along its path, and up again."""
        begin, style = self._fraction(), self._style
        centre, heading = path.grasp(begin)
        there = partial(path.is_at, begin)
        come = come_down(self._hand, style, self._rng, centre, heading, path.width, there)
        if (yield from come):
            tips = path.tips(begin)
            yield from self._hand.move(*tips, style.closed, seconds=CLOSING, straight=True)
            yield from self._bring(path)
        yield from self._let_go(path)

    def _bring(self, path: "HandlePath") -> Iterator[np.ndarray]:
        """Moves the part that is held to where it aims, looks, and corrects as people do."""
        target = self._fraction()
        for _ in range(1 + CORRECTIONS):
            before = target
            target = float(np.clip(before + self._aim - self._fraction(), 0.0, 1.0))
            yield from self._follow(path, before, target)
            if self._error(self._aim) < GOOD_ENOUGH:
                return

    def _follow(self, path: "HandlePath", begin: float, end: float) -> Iterator[np.ndarray]:
        """Takes the handle from one fraction to another."""
        hz = self._task.arm.control_hz
        speed = PULLING * self._style.speed
        seconds = max(MIN_SECONDS, abs(end - begin) * path.length / speed)
        for phase in self._style.phases(seconds, hz):
            tips = path.tips(begin + minimum_jerk(phase) * (end - begin))
            yield from self._hand.move(*tips, self._style.closed, seconds=1 / hz)

    def _let_go(self, path: "HandlePath") -> Iterator[np.ndarray]:
        """Opens the jaws around the handle and leaves it upwards."""
        tips, heading = path.tips(self._fraction(), GAP)
        opened = self._style.opened
        yield from self._hand.move(tips, heading, opened, seconds=LETTING_GO, straight=True)
        yield from self._hand.move([*tips[:2], RELEASED], heading, opened)

    def _fraction(self) -> float:
        """How far the part is open now."""
        return self._task.fraction(self._part)

    def _error(self, wanted: float) -> float:
        """How far the part is from a fraction now."""
        return abs(self._fraction() - wanted)


class HandlePath:
    """Where the handle of a part is when the part is open so far, and how jaws hold it there.

    Args:
        task: just looked at; the furniture stays where it is.
        part: which.
        turned: for a drawer, to which side the jaws close: left 1, right -1. A door's jaws close
            towards its hinge, since the moving one needs the room.

    Attributes:
        length: how far the handle moves from closed to open, m.
        width: of the handle, m.
    """

    def __init__(self, task: "OpeningTask", part: int, turned: int) -> None:
        model, data, name = task.model, task.data, SIDES[part]
        joint = model.joint(name)
        self._hinged = int(joint.type[0]) == int(mujoco.mjtJoint.mjJNT_HINGE)
        self._axis, self._anchor = data.xaxis[joint.id].copy(), data.xanchor[joint.id].copy()
        self._site = data.site(f"{name} handle")
        self._now, self._place = task.fraction(part), self._site.xpos.copy()
        sign = (1, -1)[part] if self._hinged else turned
        across = self._site.xmat.reshape(3, 3)[:2, 1] * sign
        self._heading = float(np.arctan2(across[1], across[0]))
        radius = float(np.linalg.norm((self._place - self._anchor)[:2])) if self._hinged else 1.0
        self._range = float(joint.range[1])
        self.length = self._range * radius
        self.width = 2 * float(model.site(f"{name} handle").size[0])

    def grasp(self, fraction: float) -> tuple[np.ndarray, float]:
        """Where the tips hold the handle, m (3,), and to where the jaws close, rad."""
        travel = (fraction - self._now) * self._range
        below = np.array([0.0, 0.0, TIPS_BELOW])
        if not self._hinged:
            return self._place + travel * self._axis - below, self._heading
        turn = travel * float(self._axis[2])
        c, s = np.cos(turn), np.sin(turn)
        x, y, z = self._place - self._anchor
        place = self._anchor + np.array([c * x - s * y, s * x + c * y, z])
        return place - below, self._heading + turn

    def tips(self, fraction: float, gap: float = 0.0) -> tuple[np.ndarray, float]:
        """Place of the fixed jaw beside the handle, m (3,), and heading of the jaws, rad."""
        centre, heading = self.grasp(fraction)
        closing = np.array([np.cos(heading), np.sin(heading), 0.0])
        return centre - closing * (self.width / 2 + gap), heading

    def is_at(self, fraction: float) -> bool:
        """Whether the handle is about where it is at that fraction."""
        place = self.grasp(fraction)[0]
        return bool(np.linalg.norm((self._site.xpos - place)[:2]) < NEARBY)


def _misjudged(goal: float, rng: np.random.Generator) -> float:
    """The goal, or sometimes one that is clearly too near or too far, if the way goes on there."""
    off = float(rng.uniform(*MISJUDGEMENT) * rng.choice((-1, 1)))
    return float(np.clip(goal + off, 0.0, 1.0)) if rng.uniform() < MISJUDGED else goal
