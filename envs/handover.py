"""Handover: one arm hands a bar to the other, which lays it on its mat.

A red and a blue bar lie one before each arm of a pair; the instruction names one of them. The arm
before which it lies cannot reach the mat on the other side, so it passes the bar on in the air.
Success: the bar lies along the other arm's mat at rest, no gripper touches it, and the other bar
is still about where it was; all of that for `hold_seconds`. Sides, places and turns vary.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.contract import SIDES, SO101_PAIR, ArmSpec
from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, together, watched
from robolearn.envs.grasp import (
    Grip,
    close_and_lift,
    come_down,
    grip_across,
    grip_aloft,
    hand_for,
    let_go,
)
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import FreeBodies, length
from robolearn.envs.task import Start, State

BARS: Final = ("red", "blue")
PHRASES: Final = Phrases(
    "Handover",
    {
        "train": (
            "hand the {bar} bar to the other arm and lay it on the mat there",
            "pass the {bar} bar across and put it on the far mat",
            "give the {bar} bar to the other arm, which lays it on its mat",
            "bring the {bar} bar over to the mat on the other side",
            "the {bar} bar belongs on the mat of the other arm",
            "move the {bar} bar to the opposite mat",
        ),
        "held_out": (
            "let the arms pass the {bar} bar on to the far mat",
            "I need the {bar} bar on the mat across the table",
        ),
    },
    {"bar": Words(BARS)},
)

WORK_CENTRE: Final = (0.20, 0.0)
WORK_AREA: Final = (0.22, 0.59)  # m: 84 pixels of the top camera show a bar at 4.4
BOX: Final = mujoco.mjtGeom.mjGEOM_BOX
BAR_LENGTH, BAR_WIDTH, BAR_MASS = 0.11, 0.026, 0.03  # m, kg
BAR_SIZE: Final = (BAR_LENGTH / 2, BAR_WIDTH / 2, BAR_WIDTH / 2)  # m, half
AREA: Final = ((0.16, 0.20), (0.075, 0.13))  # x and |y| of where the bars lie, m
MAX_YAW: Final = 0.5  # rad, from looking along x
# The mats: out of the other arm's reach, which is 0.43 m from its pan axis.
MAT_PLACE: Final = (0.25, 0.243)  # x and |y|, m
MAT_JITTER: Final = 0.004  # m
MAT_SIZE: Final = (0.060, 0.024, 0.0005)  # m, half
ON_MAT: Final = np.array([0.025, 0.018, BAR_WIDTH / 2 + 0.004])  # m, of a bar's centre
ALONG: Final = np.cos(np.radians(30.0))  # of the angle between bar and mat
AT_REST: Final = 0.02  # m/s
OTHERS_MAY_MOVE: Final = 0.04  # m
WORTH: Final = 0.9  # progress of a bar that lies on its mat
TO_BAR, TO_MAT = 0.8, 1.8  # 1/m: what the distances hand to bar and bar to mat take off it

# The left hand grips the end that is nearer to the arms and the right hand the other one: then
# the fingers are well apart, and the wrist cameras look away from each other's hand.
GRIP: Final = {"left": -0.040, "right": 0.040}  # m along the bar from its middle
HEADING: Final = {"left": -np.pi / 2, "right": np.pi / 2}  # of the jaws around a bar along x, rad
OPENING: Final = 0.24  # of the grippers there: no more than it takes
# The fingers are pitched there, so that the wrists stay apart. A bar along x then rises outwards,
# in the left hand as in the right one.
SLOPE: Final = 0.3  # rad
MEETING: Final = (0.18, 0.0, 0.115)  # m, where the middle of the bar changes hands
READY: Final = (0.19, 0.11, 0.14)  # m, x, |y| and z of a hand that waits
WAITING: Final = 0.5  # rad, pitch of a hand that waits
GRASP_HEIGHT: Final = 0.010  # m
CARRY_HEIGHT: Final = 0.085  # m
DEEP: Final = 0.006  # m below the middle of the bar: where the receiver's finger tips grip
OVER: Final = 0.055  # m above the bar: where its fingers open
LOW: Final = 0.05  # m, height of the bar over the mat before it is lowered by eye
LIFTED: Final = 0.03  # m: a bar's middle is higher than this only in the air
ATTEMPTS: Final = 4

# The sensor data: positions of the tools, the bars and the mats, then contact counts of the bars
# with the left gripper and with the right one.
TOOLS, FIRST = slice(0, 2), (2, 4)  # among the points; those of a bar and of a mat follow
POINTS: Final = slice(0, 3 * 6)
TOUCH: Final = slice(POINTS.stop, POINTS.stop + len(SIDES) * len(BARS))
# The goal vector: the index of the bar, the index of the arm that gets it, the bar as a one-hot
# vector, and where both bars started (x, y).
NAMED, RECEIVER = 0, 1
SHOWN: Final = slice(1, 2 + len(BARS))
START: Final = slice(SHOWN.stop, SHOWN.stop + 2 * len(BARS))


@dataclass
class Deal:
    """What the two arms tell each other."""

    offered: bool = False  # the giver holds the bar out
    taken: bool = False  # the receiver holds it too
    released: bool = False  # the giver has let go and is out of the way


class Handover(ManipulationEnv):
    """See the module's docstring."""

    arm: ClassVar[ArmSpec] = SO101_PAIR
    cameras: ClassVar[tuple[str, ...]] = ("top", "left_wrist", "right_wrist")
    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Two bars, two mats, two arms."""
        spec = scene.table_scene(WORK_CENTRE, split, pair=True)
        for colour in BARS:
            scene.add_thing(spec, f"{colour} bar", colour, BOX, BAR_SIZE, BAR_MASS)
        for side in SIDES:
            mat = spec.worldbody.add_body(name=f"{side} mat", mocap=True)
            mat.add_geom(type=BOX, size=MAT_SIZE, rgba=scene.COLOURS["white"], **scene.SEEN)
            scene.add_position(spec, f"{side}_tool", mujoco.mjtObj.mjOBJ_SITE)
        for name in [*(f"{c} bar" for c in BARS), *(f"{side} mat" for side in SIDES)]:
            scene.add_position(spec, name, mujoco.mjtObj.mjOBJ_XBODY)
        for side in SIDES:
            for colour in BARS:
                scene.add_touch(spec, f"{side} {colour} touch", f"{colour} bar", f"{side}_gripper")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """A bar before each arm, a random one of them and a random wording."""
        signs = rng.permutation([1.0, -1.0])  # of the bars' sides: left 1
        places = np.column_stack([rng.uniform(*span, len(BARS)) for span in AREA])
        places[:, 1] *= signs
        qpos, yaws = self.home(rng), rng.uniform(-MAX_YAW, MAX_YAW, len(BARS))
        poses = self._bars.poses(qpos)
        for pose, place, yaw in zip(poses, places, yaws, strict=True):
            pose[:] = scene.upright(place, yaw, BAR_WIDTH)
        mats = np.array([MAT_PLACE, MAT_PLACE]) * [[1, 1], [1, -1]]
        mats = mats + rng.uniform(-MAT_JITTER, MAT_JITTER, mats.shape)
        text, (named,) = self.instruct(rng, instruction)
        receiver = signs[named] > 0  # the right arm, index 1, gets what lies on the left
        return Start(
            qpos=qpos,
            mocap_pos=np.column_stack([mats, np.full(len(mats), MAT_SIZE[2])]),
            goal=np.array([named, receiver, *np.eye(len(BARS))[named], *places.ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Along the mat, released, at rest, the other left alone; see the base class."""
        points = state.sensordata[:, POINTS].reshape(len(goal), -1, 3)
        asked = goal[:, :2].astype(int)
        bar, mat = points[np.arange(len(goal)), (asked + FIRST).T]
        offset = bar - mat
        left, right = length(points[:, TOOLS] - bar[:, None]).T
        distance = TO_BAR * np.minimum(left, right) + TO_MAT * length(offset)
        progress = np.maximum(0.0, WORTH - distance)
        there = (np.abs(offset) < ON_MAT).all(1)
        if not np.count_nonzero(there):  # as nearly always; the rest would take as long again
            return there, progress
        done = there & self._settled(state, goal, asked[:, NAMED])
        return done, np.where(done, 1.0, np.where(there, WORTH, progress))

    def _settled(self, state: State, goal: np.ndarray, named: np.ndarray) -> np.ndarray:
        """Whether the bar lies along x, released and at rest, and the other where it was."""
        rows = np.arange(len(goal))
        turn = self._bars.poses(state.qpos)[rows, named, 3:]
        along = np.abs(1.0 - 2.0 * (turn[:, 2] ** 2 + turn[:, 3] ** 2)) > ALONG
        touch = state.sensordata[:, TOUCH].reshape(len(goal), len(SIDES), len(BARS))
        released = (touch[rows, :, named] == 0).all(1)
        at_rest = length(self._bars.twists(state.qvel)[rows, named, :3]) < AT_REST
        moved = self._bars.moved(state.qpos, goal[:, START])
        return along & released & at_rest & (moved[rows, 1 - named] < OTHERS_MAY_MOVE)

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """The named bar; see the base class."""
        return (f"{BARS[int(goal[NAMED])]} bar",)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Poses of the bars (7 each), positions of the mats (3 each), receiver, bar one-hot."""
        poses, mats = state.qpos[:, self._bars.qpos], state.mocap_pos.reshape(len(goal), -1)
        return np.concatenate([poses, mats, goal[:, SHOWN]], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The bar on the other arm's mat."""
        qpos = start.qpos.copy()
        named, receiver = start.goal[:2].astype(int)
        poses = self._bars.poses(qpos)
        poses[named] = scene.upright(start.mocap_pos[receiver, :2], 0.0, BAR_WIDTH)
        return replace(start, qpos=qpos)

    @cached_property
    def _bars(self) -> FreeBodies:
        return FreeBodies(self.model, f"{BARS[0]} bar", len(BARS))

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Both arms at once; each looks at the bar and at what the other has told it."""
        style = Style.draw(rng, self.demonstrator)
        deal, receiver = Deal(), int(self.goal[RECEIVER])
        scripts = []
        for index, (side, own) in enumerate(zip(SIDES, rng.spawn(2), strict=True)):
            role = self._receive if index == receiver else self._give
            scripts.append(role(Hand(self, style, side), own, deal))
        yield from together(*scripts)

    def _give(self, hand: Hand, rng: np.random.Generator, deal: Deal) -> Iterator[np.ndarray]:
        """Offers the bar whenever it lies on this side."""
        rest = hand.rest()
        for _ in range(ATTEMPTS):
            while not self._lies_before(hand):
                yield next(rest)
            if not ((yield from self._pick(hand, rng)) and (yield from self._hold_out(hand))):
                continue
            deal.offered = True
            while not deal.taken and self._is_held():
                yield next(rest)
            deal.offered = False
            if deal.taken:
                yield from self._let_go_aloft(hand)
            deal.released = deal.taken
            yield from _get_ready(hand, straight=True)
        yield from rest

    def _receive(self, hand: Hand, rng: np.random.Generator, deal: Deal) -> Iterator[np.ndarray]:
        """Takes the bar that is offered, or that fell on this side, to the mat."""
        yield from _get_ready(hand)
        rest = hand.rest()
        for _ in range(ATTEMPTS):
            while not (deal.offered or self._is_left_before(hand)):
                yield next(rest)
            if deal.offered:
                held = yield from self._take(hand, rng, deal)
            else:
                held = yield from self._pick(hand, rng)
            if held and (yield from self._lay(hand)):
                yield from hand.move(_ready(hand), None, hand.style.opened)
            deal.taken = deal.released = False
        yield from rest

    def _pick(self, hand: Hand, rng: np.random.Generator) -> Script:
        """Grasps the bar at this hand's end of it, and lifts it."""
        (x, y, _), heading, *_ = self._grip(hand)
        grasp, still = [x, y, GRASP_HEIGHT], partial(self._is_at, self._bar()[:2])
        if not (yield from come_down(hand, hand.style, rng, grasp, heading, BAR_WIDTH, still)):
            return False
        yield from close_and_lift(hand, hand.style, grasp, heading, BAR_WIDTH, CARRY_HEIGHT)
        return self._is_held()

    def _hold_out(self, hand: Hand) -> Script:
        """Brings the middle of the bar to where the arms meet, the second time by eye."""
        there, closed = hand_for(hand, self._bar(), MEETING), hand.style.closed
        hold = partial(hand.move, heading=HEADING[hand.side], opening=closed)
        hold = partial(hold, pitch=_pitch(hand, there))
        if not (yield from watched(hold(there), self._is_held)):
            return False
        yield from hold(hand.position + MEETING - self._bar()[:3], seconds=0.4)
        return self._is_held()

    def _take(self, hand: Hand, rng: np.random.Generator, deal: Deal) -> Script:
        """Grasps the free end of the bar in the air, and waits until the giver has let go."""
        grip = self._grip(hand)
        grip = grip._replace(place=grip.place - [0.0, 0.0, DEEP])
        yield from grip_aloft(hand, rng, grip, BAR_WIDTH, OPENING, OVER)
        if not self._touches(hand):
            yield from self._let_go_aloft(hand)
            return False
        deal.taken, rest = True, hand.rest()
        while not deal.released:
            yield next(rest)
        return self._is_held()

    def _lay(self, hand: Hand) -> Script:
        """Brings the bar over the mat, looks again, lowers it and lets go."""
        mat = self.data.mocap_pos[SIDES.index(hand.side), :2]
        carry = partial(hand.move, heading=HEADING[hand.side], opening=hand.style.closed)
        for height in (MEETING[2], LOW):
            over = hand_for(hand, self._bar(), [*mat, height])
            if not (yield from watched(carry(over, speed=0.8), self._is_held)):
                return False
        down = hand_for(hand, self._bar(), [*mat, BAR_WIDTH / 2 + 0.001])
        yield from carry(down, speed=0.5, straight=True)
        yield from let_go(hand, self._grip(hand), OPENING, CARRY_HEIGHT)
        return True

    def _let_go_aloft(self, hand: Hand) -> Iterator[np.ndarray]:
        """Opens where the arms meet, and withdraws upwards."""
        grip = self._grip(hand)
        return let_go(hand, grip, OPENING, hand.position[2] + OVER, _pitch(hand, grip.place))

    def _bar(self) -> np.ndarray:
        """The named bar's position and quaternion (7,), copied."""
        return self._bars.poses(self.data.qpos)[int(self.goal[NAMED])].copy()

    def _grip(self, hand: Hand) -> Grip:
        """How this hand grips its end of the bar, as it lies or is held out now."""
        return grip_across(hand, self._bar(), GRIP[hand.side], HEADING[hand.side])

    def _lies_before(self, hand: Hand) -> bool:
        """Whether the bar lies on the table on this arm's side."""
        bar = self._bar()
        return bool(bar[1] * hand.base[1] >= 0.0 and bar[2] < LIFTED)

    def _is_left_before(self, hand: Hand) -> bool:
        """Whether it lies there, but not as it should."""
        return self._lies_before(hand) and not self.evaluate(self.state, self.goal[None])[0][0]

    def _is_at(self, place: np.ndarray) -> bool:
        return bool(length(self._bar()[:2] - place[:2]) < 0.01)

    def _is_held(self) -> bool:
        return bool(self._bar()[2] > LIFTED)

    def _touches(self, hand: Hand) -> bool:
        touch = self.data.sensordata[TOUCH].reshape(len(SIDES), len(BARS))
        return bool(touch[SIDES.index(hand.side), int(self.goal[NAMED])])


def _pitch(hand: Hand, place: np.ndarray) -> float:
    """The pitch of fingers that hold the bar with the slope it has where the arms meet, rad."""
    return float(np.arctan2(np.tan(SLOPE), np.cos(hand.facing(place))))


def _ready(hand: Hand) -> list[float]:
    """Where a hand waits, m (3,)."""
    return [READY[0], float(np.copysign(READY[1], hand.base[1])), READY[2]]


def _get_ready(hand: Hand, *, straight: bool = False) -> Iterator[np.ndarray]:
    """Moves the hand to where it waits."""
    heading = HEADING[hand.side]
    return hand.move(_ready(hand), heading, OPENING, pitch=WAITING, straight=straight)
