"""How an expert pours: it carries the cup over a vessel and watches the beads as it tips it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from robolearn.envs.expert import Hand, Script, Style, across, watched
from robolearn.envs.lookup import length, sensor

if TYPE_CHECKING:
    from robolearn.envs.pouring import PouringTask

LEVEL: Final = 1.3  # rad, pitch of the fingers around a cup
WIDER: Final = 0.13  # of the gripper's opening: a cup is so much wider than a cube
GAP: Final = 0.006  # m between the fixed jaw and the cup while the fingers come down
HIGH: Final = 0.15  # m, height of the tips on the way to the cup
ABOVE: Final = 0.09  # m, height of the tips before they come down
GRASP: Final = 0.026  # m, height of the tips around a cup that stands
PAST: Final = 0.006  # m, how far the tips reach beyond the cup's middle
CLOSING: Final = 0.5  # s
CARRY: Final = 0.09  # m, height of the tips with the cup
HELD: Final = 0.06  # m: a cup in the hand is nearer to the tips
OFF_TABLE: Final = 0.015  # m
SHORT: Final = 0.005  # m, how far before the middle of the target the lip is
TIPPING: Final = 10.0  # rad/m: how fast a cup tips for each speed of the style
FLOWING: Final = 1.2  # rad: nothing flows before
FINE: Final = 0.35  # of the speed of tipping from there on
MOST: Final = 2.3  # rad
AHEAD: Final = 0.12  # s: what will have left the cup by then counts as gone
WATCHED: Final = 5  # control steps over which the flow is judged
TRICKLE, FLOOD = 0.03, 0.13  # of the beads in that time: tip no further; tip back a little
EARLY: Final = 0.055  # of the beads: just over one too many; by then others are on their way
STOP: Final = (0.4, 0.05)  # rad, s: how a flow is stopped
TIP_BACK: Final = 0.6  # s
LOOK: Final = 0.5  # s, at what is left, before pouring again
ENOUGH: Final = 0.09  # of the beads: missing that much is still right
ATTEMPTS: Final = 5


class PouringExpert:
    """Grasps the cup from the side, tips it over the target, watches, and tips it back.

    Args:
        task: just reset.
        rng: of the demonstration.
        target: where to pour, m (3,).
    """

    def __init__(self, task: "PouringTask", rng: np.random.Generator, target: np.ndarray) -> None:
        self._task, self._rng, self._target = task, rng, np.array(target)
        self._style = Style.draw(rng, task.demonstrator)
        self._hand = Hand(task, self._style)
        self._vessel = task.cup(task.split)
        self._tool = sensor(task.model, "tool position")
        self._side = 1 if target[1] > 0 else -1  # to which the cup tips: left 1, right -1
        self._angle = 0.0  # by which it is tipped, rad

    def demonstrate(self, keep: float) -> Iterator[np.ndarray]:
        """Pours, and pours again if it was too little; then keeps still for ever.

        Args:
            keep: the share of the beads that shall stay in the cup, 0..1.
        """
        for _ in range(ATTEMPTS):
            if not self._held() and not (yield from self._pick()):
                continue
            if not (yield from watched(self._go(self._over(), 0.0), self._held)):
                continue
            yield from self._tip(keep)
            yield from self._go(self._over(), 0.0, seconds=LOOK)
            if self.staying(0.0) - keep < ENOUGH:
                break
        yield from self._hand.rest()

    def _pick(self) -> Script:
        """Comes down around the cup with level fingers, first a little off; lifts it."""
        opened = self._style.opened + WIDER
        first = self._beside(GAP, ABOVE + self._style.lift)
        first[:2] += self._rng.normal(0.0, self._style.sloppiness, 2)
        way = self._hand.position[:2] + 0.2 * (first[:2] - self._hand.position[:2])
        yield from self._go([*way, HIGH], opened)  # so that the fingers swing out over the cup
        yield from self._go(first, opened)
        yield from self._go(self._beside(GAP, ABOVE), opened, speed=0.7)
        yield from self._go(self._beside(GAP, GRASP), opened, speed=0.6, straight=True)
        if not self._task.upright(self._task.state)[0]:
            return False
        yield from self._go(self._beside(0.0, GRASP), 0.0, seconds=CLOSING, straight=True)
        yield from self._go([*self._hand.position[:2], CARRY], 0.0, speed=0.8)
        return self._held()

    def _tip(self, keep: float) -> Iterator[np.ndarray]:
        """Tips the cup, but no further while beads flow, until enough have left; tips it back."""
        step = 1.0 / self._task.arm.control_hz
        recent = [self.staying(AHEAD)] * WATCHED
        while self._angle < MOST and recent[-1] - keep > EARLY and self._held():
            self._angle += step * self._turn(recent[0] - recent[-1])
            yield from self._go(self._over(), 0.0, seconds=step)
            recent = [*recent[1:], self.staying(AHEAD)]
        self._angle = max(0.0, self._angle - STOP[0])
        yield from self._go(self._over(), 0.0, seconds=STOP[1])
        self._angle = 0.0
        yield from self._go(self._over(), 0.0, seconds=TIP_BACK)

    def _turn(self, flow: float) -> float:
        """How fast to tip the cup, rad/s, while this share of the beads flows."""
        pace = TIPPING * self._style.speed * (FINE if self._angle > FLOWING else 1.0)
        if flow < TRICKLE:
            return pace
        return -2.0 * pace if flow > FLOOD else 0.0

    def _go(
        self,
        position: Sequence[float] | np.ndarray,
        opening: float,
        *,
        speed: float = 1.0,
        seconds: float | None = None,
        straight: bool = False,
    ) -> Iterator[np.ndarray]:
        """Moves the hand, fingers level, the jaws so that the cup is tipped by the angle."""
        return self._hand.move(
            position,
            self._hand.facing(position) - self._side * (np.pi / 2 - self._angle),
            opening,
            pitch=LEVEL,
            speed=speed,
            seconds=seconds,
            straight=straight,
        )

    def _beside(self, gap: float, height: float) -> np.ndarray:
        """Where the tips belong so that the fixed jaw is so far beside the cup, m (3,)."""
        place = self._cup_place()[:2]
        ahead = self._hand.facing(place)
        forward = PAST * np.array([np.cos(ahead), np.sin(ahead)])
        aside = self._side * (self._vessel.outer + gap) * across(ahead)
        return np.array([*(place + forward + aside), height])

    def _over(self) -> np.ndarray:
        """Where the tips belong so that the lip of the tipped cup is over the target, m (3,)."""
        place = self._target[:2]
        lean = np.sin(self._angle) * (self._vessel.height - GRASP) + SHORT
        return np.array([*(place - self._side * lean * across(self._hand.facing(place))), CARRY])

    def staying(self, ahead: float) -> float:
        """Share of the beads that are in the cup and will still be in so many seconds."""
        task, state = self._task, self._task.state
        velocity = task.beads.velocities(state.qvel) - task.data.joint("cup").qvel[:3]
        points = task.beads.places(state.qpos)
        now, soon = (task.vessels.hold(state, points + t * velocity) for t in (0.0, ahead))
        return float((now & soon)[0, 0].mean())

    def _cup_place(self) -> np.ndarray:
        """The middle of the cup's base, m (3,)."""
        return self._task.vessels.frames(self._task.state)[0, 0, 0]

    def _held(self) -> bool:
        """Whether the cup is in the hand."""
        cup = self._cup_place()
        away = length(self._task.state.sensordata[0, self._tool] - cup)
        return bool(away < HELD and cup[2] > OFF_TABLE)
