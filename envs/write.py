"""Write: write the named letter with the pen, in one stroke, within nine faint dots on the board.

The dots, three rows of three, tell where the letter is, how large and how turned; which letter it
is, and so the way between them, only the instruction tells, or a picture of the goal. The pen is
mounted on the fixed jaw. Where it touches the board it leaves ink, which stays. A letter has
`PLACES` places along its way; one is written when the pen leaves ink within `NEAR` of it, and at
most `AHEAD` places further than what has been written: from its beginning, in its order. Ink that
is further than `ASTRAY` from all of them is astray.

Success: nine tenths of the places are written, at most `STRAYS` drops of ink are astray, and the
hand has gone aside, so that the letter can be read; all of that for `hold_seconds`. Letter, place,
size and turn vary. "novel_object" has letters that training never writes, "novel_scene" another
board.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Style
from robolearn.envs.grasp import reaching
from robolearn.envs.language import ANY_SPLIT, Phrases, Words
from robolearn.envs.lookup import length
from robolearn.envs.task import Start, State

# The way of each letter in the order of writing: right and up, in halves of its width and height
# from its middle, so that every corner is a dot.
LETTERS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "L": ((-1, 1), (-1, -1), (1, -1)),
    "V": ((-1, 1), (0, -1), (1, 1)),
    "Z": ((-1, 1), (1, 1), (-1, -1), (1, -1)),
    "U": ((-1, 1), (-1, -1), (1, -1), (1, 1)),
    "S": ((1, 1), (-1, 1), (-1, 0), (1, 0), (1, -1), (-1, -1)),
    "N": ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    "C": ((1, 1), (-1, 1), (-1, -1), (1, -1)),
    "J": ((1, 1), (1, -1), (-1, -1)),
}
NOVEL: Final = ("N", "C", "J")
KNOWN: Final = tuple(letter for letter in LETTERS if letter not in NOVEL)
PHRASES: Final = Phrases(
    "Write",
    {
        "train": (
            "write the letter {letter} on the board",
            "write the letter {letter}",
            "draw the letter {letter} between the dots",
            "with the pen, write the letter {letter}",
            "put the letter {letter} on the board",
            "follow the dots and write the letter {letter}",
        ),
        "held_out": (
            "please write me the letter {letter}",
            "I want the letter {letter} to be read on the board",
        ),
    },
    {"letter": Words(tuple(LETTERS), {ANY_SPLIT: KNOWN, "novel_object": NOVEL})},
)

WORK_CENTRE: Final = (0.205, 0.0)
WORK_AREA: Final = (0.165, 0.285)  # m: 84 pixels of the top camera show ink at 4.1
JITTER: Final = (0.012, 0.045)  # m along x and y, of a letter's middle
WIDTHS: Final = (0.060, 0.075)  # m
HEIGHTS: Final = (0.085, 0.105)  # m
MAX_TURN: Final = 0.3  # rad
BOARD: Final = (0.095, 0.15, 0.004)  # m, half its extent
# Bright boards and faint dots, so that ink is what is seen first.
BOARDS: Final = {"": (0.80, 0.80, 0.77, 1.0), "novel_scene": (0.80, 0.70, 0.46, 1.0)}
FAINT: Final = (0.52, 0.64, 0.77, 1.0)
SURFACE: Final = 2 * BOARD[2]  # m over the table
DISC: Final = 0.007  # m, radius of dots and of drops of ink
DOTS: Final = 9
DROPS: Final = 72  # of ink in the pen; the longest letter takes 55
SPACING: Final = 0.0055  # m between drops: they overlap
THIN: Final = 0.0001  # m, half the thickness of a dot
AWAY: Final = (0.0, 0.0, -1.0)  # where ink is that has not been used, m

PEN: Final = 0.022  # m from the finger tips to the middle of its end
NIB: Final = (0.0005, 0.005)  # m, half the width of its end, and the radius
BARREL: Final = 0.005  # m
INK: Final = (0.08, 0.10, 0.35, 1.0)

PLACES: Final = 40
NUMBERS: Final = np.arange(1, PLACES + 1)
NEAR: Final = 0.008  # m
AHEAD: Final = 4
ASTRAY: Final = 0.013  # m
ENOUGH: Final = 0.9  # share of the places
STRAYS: Final = 3
CLEAR: Final = 0.015  # m over the board
GONE: Final = 0.10  # m from the letter's middle
WORTH: Final = 0.95  # progress of a whole letter while the pen is still at it
STRAY_COSTS: Final = 0.02  # of the progress, each

# How the expert writes.
ATTEMPTS: Final = 3
HOVER: Final = 0.03  # m over the board, besides the style's lift
PRESS: Final = 0.003  # m that it aims below the surface
WRITING, LANDING = 0.4, 0.5  # times the style's speed
TOUCHDOWN: Final = 0.5  # s
RESTING: Final = (0.13, 0.12, 0.12)  # m, the finger tips beside the letter
SHAKY: Final = 0.004  # m, how far corners of the poorest demonstrator are off

# The sensor data: where the end of the pen is, whether it touches the board, the force, N.
NIB_PLACE, FORCE = slice(0, 3), 4
TOUCHES: Final = 0.02  # N
# The user data: which places are written, where the pen touched in the last control step and
# whether it did, how many drops of ink were used, how many went astray, one more than the furthest
# place that is written, the share that is written.
WRITTEN, LAST = slice(0, PLACES), slice(PLACES, PLACES + 2)
DOWN, USED, ASIDE, FRONT, SHARE = range(LAST.stop, LAST.stop + 5)
NOTES: Final = LAST.stop + 5
PEN_NOW: Final = slice(LAST.start, DOWN + 1)
GRADES: Final = {"written": SHARE, "strays": ASIDE}
# The goal vector: the letter as a one-hot vector; its middle x, y, m, its turn, rad, its width and
# height, m; its places in order, x and y each.
ONE_HOT: Final = slice(0, len(LETTERS))
FRAME: Final = slice(ONE_HOT.stop, ONE_HOT.stop + 5)
WAY: Final = slice(FRAME.stop, FRAME.stop + 2 * PLACES)
# The mocap bodies: the board, the dots, the ink.
FIRST_DROP: Final = 1 + DOTS


class Write(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    grasps: ClassVar[bool] = False

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The board, its dots, the ink in the pen, the arm with the pen."""
        spec = scene.table_scene(WORK_CENTRE, split)
        board = spec.worldbody.add_body(name="board", mocap=True)
        look = {"rgba": BOARDS.get(split, BOARDS[""]), **scene.SOLID}
        board.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=BOARD, **look)
        for k in range(DOTS):
            _add_disc(spec, f"dot {k}", THIN, FAINT)
        for k in range(DROPS):
            _add_disc(spec, f"drop {k}", 2 * THIN, INK)
        scene.add_implement(spec, "pen", PEN, NIB, BARREL, INK)
        scene.add_position(spec, "pen", mujoco.mjtObj.mjOBJ_SITE)
        scene.add_pressure(spec, "pressure", "pen", "board")
        spec.nuserdata = NOTES
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Dots at a random place, size and turn, and a random letter, unless it is given."""
        middle = np.array(WORK_CENTRE) + rng.uniform(-1.0, 1.0, 2) * JITTER
        turn, size = rng.uniform(-MAX_TURN, MAX_TURN), rng.uniform(*np.transpose([WIDTHS, HEIGHTS]))
        frame = np.array([*middle, turn, *size])
        qpos = self.home(rng)
        text, (letter,) = self.instruct(rng, instruction)
        mocap_pos = np.tile(AWAY, (FIRST_DROP + DROPS, 1))
        mocap_pos[0] = [*WORK_CENTRE, BOARD[2]]
        dots = [(right, up) for up in (1, 0, -1) for right in (-1, 0, 1)]
        mocap_pos[1:FIRST_DROP] = _on_board(_placed(dots, frame))
        way = spread(corners(letter, frame), PLACES)
        return Start(
            qpos=qpos,
            mocap_pos=mocap_pos,
            goal=np.concatenate([np.eye(len(LETTERS))[letter], frame, way.ravel()]),
            instruction=text,
        )

    def remember(self, state: State, goal: np.ndarray) -> None:
        """Leaves ink where the pen has touched the board since the last control step."""
        notes, touching = state.userdata, state.sensordata[:, FORCE] > TOUCHES
        if not np.count_nonzero(touching):  # the pen is in the air
            notes[:, PEN_NOW] = 0.0
            return
        nib = state.sensordata[:, NIB_PLACE][:, :2]
        way = nib - notes[:, LAST]
        fast = touching & (notes[:, DOWN] > 0.0) & (np.vecdot(way, way) > SPACING**2)
        if np.count_nonzero(fast):  # a drop in between, so that the line has no gaps
            self._write(nib - way / 2, fast, state, goal)
        self._write(nib, touching, state, goal)
        notes[:, LAST], notes[:, DOWN] = nib * touching[:, None], touching

    def _write(self, at: np.ndarray, wet: np.ndarray, state: State, goal: np.ndarray) -> None:
        """Leaves ink at the places (N, 2) of pens that are wet, bool (N,), and notes it."""
        notes, here = state.userdata, at[:, None]
        gaps = state.mocap_pos[:, FIRST_DROP:, :2] - here
        blank = np.vecdot(gaps, gaps).min(1) >= SPACING**2
        writes = wet & ~(blank & (notes[:, USED] == DROPS))
        ways = goal[:, WAY].reshape(len(goal), PLACES, 2) - here
        off = np.vecdot(ways, ways)  # squared
        fresh = writes & blank
        for row in fresh.nonzero()[0]:
            drop = state.mocap_pos[row, FIRST_DROP + int(notes[row, USED])]
            drop[:2], drop[2] = at[row], SURFACE
        if np.count_nonzero(fresh):
            notes[:, USED] += fresh
            notes[:, ASIDE] += fresh & (off.min(1) > ASTRAY**2)
        turn = notes[:, FRONT, None] + AHEAD >= NUMBERS
        new = (off < NEAR**2) & turn & writes[:, None] & (notes[:, WRITTEN] == 0.0)
        if np.count_nonzero(new):
            notes[:, WRITTEN] += new
            notes[:, FRONT] = np.maximum(notes[:, FRONT], (new * NUMBERS).max(1))
            notes[:, SHARE] = notes[:, WRITTEN].sum(1) / PLACES

    def grades(self, state: State) -> dict[str, np.ndarray]:
        """The share that is written and how much ink is astray; see the base class."""
        return {name: state.userdata[:, column] for name, column in GRADES.items()}

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Written, hardly any ink astray, the hand aside; see the base class."""
        share, strays = state.userdata[:, SHARE], state.userdata[:, ASIDE]
        progress = WORTH * np.maximum(share - STRAY_COSTS * strays, 0.0)
        written = (share >= ENOUGH) & (strays <= STRAYS)
        if not np.count_nonzero(written):  # as nearly always
            return written, progress
        nib = state.sensordata[:, NIB_PLACE]
        away = length(nib[:, :2] - goal[:, FRAME][:, :2]) > GONE
        done = written & away & (nib[:, 2] > SURFACE + CLEAR)
        return done, np.where(done, 1.0, progress)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """The end of the pen (3), the force, all notes and the goal vector."""
        seen = state.sensordata
        parts = [seen[:, NIB_PLACE], seen[:, FORCE, None], state.userdata, goal]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The letter stands on the board, and the hand has gone aside."""
        mocap_pos = start.mocap_pos.copy()
        places = _on_board(start.goal[WAY].reshape(PLACES, 2))
        mocap_pos[FIRST_DROP : FIRST_DROP + PLACES] = places
        qpos = start.qpos.copy()
        qpos[self.joints.qpos] = reaching(self, _beside(start.goal), None, 0.0)
        return replace(start, qpos=qpos, mocap_pos=mocap_pos)

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Writes the letter, once more where that was not enough, and goes aside."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        way = corners(int(self.goal[ONE_HOT].argmax()), self.goal[FRAME])
        for _ in range(ATTEMPTS):
            if self.state.userdata[0, SHARE] >= ENOUGH:
                break
            shaky = rng.normal(0.0, SHAKY * (1.0 - style.quality), way.shape)
            yield from self._stroke(hand, style, way + shaky, rng)
        yield from hand.move(_beside(self.goal), None, style.closed)
        yield from hand.rest()

    def _stroke(
        self, hand: Hand, style: Style, way: np.ndarray, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Touches down, goes along the corners (C, 2) of a letter, and lifts the pen."""
        over, closed = SURFACE + HOVER + style.lift, style.closed
        first = way[0] + rng.normal(0.0, style.sloppiness, 2)
        yield from hand.move(_above(first, over), None, closed)
        yield from hand.move(_above(way[0], SURFACE + 0.01), None, closed, speed=LANDING)
        ground = _above(way[0], SURFACE - PRESS)
        yield from hand.move(ground, None, closed, seconds=TOUCHDOWN, straight=True)
        for corner in way:
            # Friction and sagging servos hold the pen back; a person sees that and corrects it.
            missed = hand.position[:2] - self.data.sensordata[NIB_PLACE][:2]
            goal = _above(corner + missed, SURFACE - PRESS)
            yield from hand.move(goal, None, closed, speed=WRITING, straight=True)
        yield from hand.move(_above(hand.position[:2], over), None, closed, speed=LANDING)


def corners(letter: int, frame: np.ndarray) -> np.ndarray:
    """The corners (C, 2) of a letter's way, m, in the order of writing.

    Args:
        letter: its index in `LETTERS`.
        frame: middle x and y, turn, width, height.
    """
    return _placed(list(LETTERS.values())[letter], frame)


def spread(way: np.ndarray, count: int) -> np.ndarray:
    """Places (count, 2) at equal distances along a way, from its begin to its end.

    Args:
        way: its corners (C, 2).
        count: how many.
    """
    at = np.insert(np.cumsum(length(np.diff(way, axis=0))), 0, 0.0)
    along = np.linspace(0.0, at[-1], count)
    return np.column_stack([np.interp(along, at, part) for part in way.T])


def _placed(points: Sequence[tuple[int, int]], frame: np.ndarray) -> np.ndarray:
    """Where points (K, 2), right and up, of a frame are, x and y, m (K, 2).

    Letters stand upright for the camera `top`, which looks at the arm: up is where the arm is.
    """
    x, y, turn, *size = frame
    right, up = (np.array(points) * size / 2).T
    c, s = np.cos(turn), np.sin(turn)
    return np.column_stack([x - c * up - s * right, y - s * up + c * right])


def _on_board(places: np.ndarray) -> np.ndarray:
    """Places (K, 2) on the board, in space (K, 3)."""
    return np.column_stack([places, np.full(len(places), SURFACE)])


def _above(place: np.ndarray, height: float) -> np.ndarray:
    """Where the finger tips are when the pen's end touches so high over a place, m (3,)."""
    return np.array([*place, height + PEN + NIB[1]])


def _beside(goal: np.ndarray) -> np.ndarray:
    """Where the finger tips rest beside the letter of a goal vector, on its freer side, m (3,)."""
    x, y, z = RESTING
    return np.array([x, -np.copysign(y, goal[FRAME][1]), z])


def _add_disc(spec: mujoco.MjSpec, name: str, half: float, rgba: Sequence[float]) -> None:
    """A thin disc, a mocap body, that is only seen."""
    body = spec.worldbody.add_body(name=name, mocap=True)
    cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
    body.add_geom(type=cylinder, size=[DISC, half, 0.0], rgba=rgba, **scene.SEEN)
