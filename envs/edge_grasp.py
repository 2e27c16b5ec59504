"""EdgeGrasp: lift the named card, which lies too flat to be grasped from above.

Two cards of 2 mm lie on a board that is 4 cm high; the instruction names one of them by colour. It
has to be pressed and slid over the board's front edge, where its overhang can be grasped. Success:
the card is between both jaws, at least 5 cm above where it lay, slower than 0.1 m/s, and the other
card is still about where it was; all of that for `hold_seconds`. The places and headings of board
and cards and the colour vary.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import reaching
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import FreeBodies, chosen, length, sensor, yaw_of
from robolearn.envs.task import Start, State

CARDS: Final = ("red", "blue")
PHRASES: Final = Phrases(
    "EdgeGrasp",
    {
        "train": (
            "pick up the {card} card",
            "lift the {card} card off the board",
            "slide the {card} card over the edge and lift it",
            "take the {card} card from the board",
            "pull the {card} card to the edge, then pick it up",
            "raise the {card} card",
        ),
        "held_out": (
            "please get the {card} card for me",
            "I want the {card} card in the hand",
        ),
    },
    {"card": Words(CARDS)},
)

WORK_CENTRE: Final = (0.27, 0.0)
WORK_AREA: Final = (0.24, 0.40)  # m: 84 pixels of the top camera show a card's width at 8
CARD: Final = np.array([0.054, 0.040, 0.002])  # m: length, width, thickness
CARD_MASS: Final = 0.01  # kg
BOARD: Final = np.array([0.100, 0.220, 0.040])  # m: depth, width, height
EDGE: Final = ((0.275, 0.288), (-0.01, 0.01))  # x and y of the middle of the front edge, m
BOARD_TURN, CARD_TURN = 0.08, 0.2  # rad, at most, from facing the arm
INSET: Final = (0.006, 0.013)  # m between the front edge and a card's near end
ASIDE, SHIFT = 0.048, 0.010  # m: cards lie to both sides of the middle, shifted at most so much
HARD: Final = {"solref": [0.01, 1.0], "solimp": [0.97, 0.99, 0.0005, 0.5, 2.0]}
BOX: Final = mujoco.mjtGeom.mjGEOM_BOX
WOOD: Final = (0.45, 0.30, 0.18, 1.0)
LYING: Final = float(BOARD[2] + CARD[2] / 2)  # m: height of the middle of a card on the board
RAISED: Final = 0.05  # m: how far a card's middle must have come up
SLOW: Final = 0.1  # m/s
OTHER_MAY_MOVE: Final = 0.03  # m
NEARNESS, SLID, LIFTED = 0.15, 0.35, 0.35  # what each stage adds to progress

# The goal vector: which card; where its middle is when its end is at the front edge (x, y); the
# direction in from there (x, y); where the cards lay; then what is shown of it: which card, as
# one-hot; x, y and yaw of the front edge.
NAMED: Final = 0
MIDDLE, INWARD = slice(1, 3), slice(3, 5)
START: Final = slice(5, 5 + 2 * len(CARDS))
ONE_HOT: Final = slice(START.stop, START.stop + len(CARDS))
FRONT: Final = slice(ONE_HOT.stop, ONE_HOT.stop + 3)
SHOWN: Final = slice(ONE_HOT.start, FRONT.stop)

# How the expert does it.
ATTEMPTS: Final = 6
OVERHANG: Final = 0.021  # m: how far it slides the card over the edge; less than half of it
ENOUGH: Final = 0.016  # m: with that it tries to grasp
PRESS_PITCH, GRASP_PITCH = 0.35, 1.2  # rad
CLEAR: Final = 0.05  # m above the board on the way
PRESS: Final = 0.004  # m: what the finger tips aim at above the board; they meet it at 0.012
PRESSED_AT: Final = 0.036  # m from the card's near end: still on the board when that overhangs
LAG: Final = 0.004  # m: how far the card still comes along when the hand stops
BEFORE, INSIDE = 0.020, 0.012  # m: the tips in front of the card's end, then past it
BELOW: Final = 0.007  # m: the lower jaw under the card while it comes in
OPENED: Final = 0.25
LEVEL: Final = np.pi / 2  # rad: fingers that hold a level card, in goal pictures
TURNING: Final = 0.12  # m: as long a way takes as long


class EdgeGrasp(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    hold_seconds: ClassVar[float] = 0.5

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The board, two cards, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        options = {**scene.SOLID, "friction": [0.4, 0.005, 1e-4], **HARD}
        board = spec.worldbody.add_body(name="board", mocap=True)
        middle = [BOARD[0] / 2, 0, BOARD[2] / 2]
        board.add_geom(type=BOX, pos=middle, size=BOARD / 2, rgba=WOOD, **options)
        for colour in CARDS:
            body = spec.worldbody.add_body(name=f"{colour} card")
            body.add_joint(name=f"{colour} card", type=mujoco.mjtJoint.mjJNT_FREE)
            rgba = scene.COLOURS[colour]
            body.add_geom(type=BOX, size=CARD / 2, mass=CARD_MASS, rgba=rgba, condim=4, **options)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        for colour in CARDS:
            scene.add_touch(spec, f"{colour} touch", f"{colour} card")
            scene.add_touch(spec, f"{colour} jaw", f"{colour} card", "moving_jaw_so101_v1")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places and headings and a random colour, unless the instruction is given."""
        edge, turn = rng.uniform(*np.transpose(EDGE)), rng.uniform(-BOARD_TURN, BOARD_TURN)
        qpos, sides = self.home(rng), rng.permutation([ASIDE, -ASIDE])
        poses = self._cards.poses(qpos)
        for pose, side in zip(poses, sides, strict=True):
            inward = rng.uniform(*INSET) + CARD[0] / 2
            along = side + rng.uniform(-SHIFT, SHIFT)
            pose[:2] = edge + _turned(np.array([inward, along]), turn)
            pose[2] = LYING
            pose[3:] = scene.about_z(turn + rng.uniform(-CARD_TURN, CARD_TURN))
        text, (card,) = self.instruct(rng, instruction)
        inwards = _turned(np.array([1.0, 0.0]), turn)
        way = [*(edge + inwards * CARD[0] / 2), *inwards, *poses[:, :2].ravel()]
        return Start(
            qpos=qpos,
            mocap_pos=np.array([[*edge, 0.0]]),
            mocap_quat=scene.about_z(turn)[None],
            goal=np.array([card, *way, *np.eye(len(CARDS))[card], *edge, turn]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lifted between both jaws, slow, the other card left alone; see the base class."""
        card = goal[:, NAMED].astype(int)
        poses = self._cards.poses(state.qpos)
        place = chosen(poses, card)[:, :3]
        risen = place[:, 2] - LYING
        high = np.minimum(np.maximum(risen / RAISED, 0.0), 1.0)
        slid = np.vecdot(goal[:, MIDDLE] - place[:, :2], goal[:, INWARD]) / OVERHANG
        slid = np.minimum(np.maximum(slid, 4.0 * high), 1.0)
        far = length(state.sensordata[:, self._tool] - place)
        near = np.maximum(0.0, 1.0 - 4.0 * far)
        progress = NEARNESS * near + SLID * slid + LIFTED * high
        up = risen > RAISED
        if not np.count_nonzero(up):
            return up, progress
        done = up & self._between_jaws(state, card) & self._calm(state, goal, card)
        return done, np.where(done, 1.0, progress)

    def _between_jaws(self, state: State, card: np.ndarray) -> np.ndarray:
        """Whether each of both jaws touches the card (N,)."""
        touch, jaw = state.sensordata[np.arange(len(card)), self._touches[:, card]]
        return (jaw > 0) & (touch > jaw)

    def _calm(self, state: State, goal: np.ndarray, card: np.ndarray) -> np.ndarray:
        """Whether the named card is slow and the other one where it was (N,)."""
        rows = np.arange(len(card))
        speed = self._cards.twists(state.qvel)[rows, card, :3]
        moved = self._cards.moved(state.qpos, goal[:, START])
        moved[rows, card] = 0.0
        return (length(speed) < SLOW) & (moved < OTHER_MAY_MOVE).all(1)

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """The named card; see the base class."""
        return (f"{CARDS[int(goal[NAMED])]} card",)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """The cards' poses (7 each), the colour as one-hot, the front edge (x, y, yaw)."""
        parts = [state.qpos[:, self._cards.qpos], goal[:, SHOWN]]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The named card in the air in front of the board, in the hand."""
        qpos = start.qpos.copy()
        pose = self._cards.poses(qpos)[start.goal[ONE_HOT].argmax()]
        pose[:2] -= _turned(np.array([OVERHANG + INSET[0], 0.0]), start.goal[FRONT][2])
        pose[2] += 1.2 * RAISED
        end, low = near_end(pose), pose[2] - CARD[2] / 2
        ahead = facing(end)
        inside = end + INSIDE * np.array([np.cos(ahead), np.sin(ahead)])
        qpos[self.joints.qpos] = reaching(self, [*inside, low], None, 0.0, LEVEL)
        return replace(start, qpos=qpos)

    @cached_property
    def _cards(self) -> FreeBodies:
        return FreeBodies(self.model, f"{CARDS[0]} card", len(CARDS))

    @cached_property
    def _tool(self) -> slice:
        return sensor(self.model, "tool position")

    @cached_property
    def _touches(self) -> np.ndarray:
        """Where the contacts with the gripper and with its moving jaw are counted (2, cards)."""
        kinds = ("touch", "jaw")
        return np.array([[sensor(self.model, f"{c} {k}").start for c in CARDS] for k in kinds])

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Presses and slides the card until it overhangs, grasps it from the front, lifts it.

        Yields:
            One action a control step.
        """
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        for _ in range(ATTEMPTS):
            if self._overhang() < ENOUGH:
                yield from self._slide(hand, style, rng)
            if self._overhang() >= ENOUGH and (yield from self._grasp(hand, style, rng)):
                break
        yield from hand.rest()

    def _slide(self, hand: Hand, style: Style, rng: np.random.Generator) -> Script:
        """Presses the closed fingers on the card's middle and pulls it over the edge."""
        top, yaw = BOARD[2], float(yaw_of(self._pose()[3:]))
        middle = near_end(self._pose()) + _turned(np.array([PRESSED_AT, 0.0]), yaw)
        middle += rng.normal(0.0, style.sloppiness / 4, 2)
        begin = hand.position[:2] + rng.normal(0.0, style.sloppiness, 2)
        yield from hand.move([*begin, top + CLEAR + style.lift], None, 0.0)
        yield from hand.move([*middle, top + CLEAR], None, 0.0, pitch=PRESS_PITCH)
        pressed = [*middle, top + PRESS]
        yield from hand.move(pressed, None, 0.0, pitch=PRESS_PITCH, speed=0.6, straight=True)
        way = _turned(np.array([self._overhang() - OVERHANG - LAG, 0.0]), self.goal[FRONT][2])
        there = [*(middle + way), top + PRESS]
        pull = hand.move(there, None, 0.0, pitch=PRESS_PITCH, speed=0.35, straight=True)
        yield from watched(pull, lambda: self._overhang() < OVERHANG - LAG)
        # A card that is let go while it slides would slide on, and fall.
        stop = [*hand.position[:2], top + PRESS]
        yield from hand.move(stop, None, 0.0, pitch=PRESS_PITCH, seconds=0.3, straight=True)
        yield from hand.move(
            [*hand.position[:2], top + CLEAR], None, 0.0, pitch=PRESS_PITCH, straight=True
        )
        return True

    def _grasp(self, hand: Hand, style: Style, rng: np.random.Generator) -> Script:
        """Takes the overhang from the front, one jaw below it and one above, and lifts it."""
        end, low = near_end(self._pose()), float(self._pose()[2] - CARD[2] / 2)
        ahead = hand.facing(end)
        reach = np.array([np.cos(ahead), np.sin(ahead)])
        before, inside = end - BEFORE * reach, end + INSIDE * reach
        pitch = GRASP_PITCH
        # The wrist has a long way to turn, whatever the tips have.
        over = [*before, low + CLEAR]
        yield from hand.move(over, None, OPENED, pitch=pitch, seconds=TURNING / style.speed)
        yield from hand.move([*before, low - BELOW], None, OPENED, pitch=pitch, speed=0.7)
        come = [*inside, low - BELOW]
        yield from hand.move(come, None, OPENED, pitch=pitch, speed=0.5, straight=True)
        yield from hand.move([*inside, low], None, 0.0, pitch=pitch, seconds=0.5, straight=True)
        height = low + RAISED + rng.uniform(0.02, 0.035)
        yield from hand.move([*inside, height], None, 0.0, pitch=pitch, speed=0.8, straight=True)
        yield from hand.move([*inside, height], None, 0.0, pitch=pitch, seconds=1.0, straight=True)
        return bool(self._pose()[2] > BOARD[2] + RAISED / 2)

    def _pose(self) -> np.ndarray:
        """Of the named card (7,)."""
        return self._cards.poses(self.data.qpos)[self.goal[ONE_HOT].argmax()]

    def _overhang(self) -> float:
        return float(overhang(self._pose()[None], self.goal[None, FRONT])[0])


def near_end(pose: np.ndarray) -> np.ndarray:
    """The middle of the end (..., 2) of a card that is towards the arm, from its pose (..., 7)."""
    yaw = yaw_of(pose[..., 3:])
    return pose[..., :2] - CARD[0] / 2 * np.stack([np.cos(yaw), np.sin(yaw)], axis=-1)


def overhang(pose: np.ndarray, front: np.ndarray) -> np.ndarray:
    """How far (N,) cards stick out over the edge, m, from their poses (N, 7) and the edges."""
    off = front[:, :2] - near_end(pose)
    return np.cos(front[:, 2]) * off[:, 0] + np.sin(front[:, 2]) * off[:, 1]


def _turned(vector: np.ndarray, angle: float) -> np.ndarray:
    """A vector (2,) turned by an angle."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])
