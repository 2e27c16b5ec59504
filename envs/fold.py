"""Fold: fold the cloth twice, the way that the instruction names.

A square cloth with steel balls along its hem lies on the table. It is folded in half to the left or
to the right, and that half in half again, away from the arm or towards it. Success: all four
corners are where the one corner started that lies still in both folds, the cloth covers about a
quarter of its flat area, lies low and does not move, and the gripper touches none of its balls; all
of that for `hold_seconds`. Between episodes place, turn and both directions vary; "novel_object" is
a smaller cloth of another colour.

The cloth is a flex whose edges keep their length, so it bends freely and does not stretch. The
fingers carry it by the balls, six of them, which weigh the hem down as those of a tablecloth do.
One simplification keeps it fast and stable: its layers do not feel each other, so a folded cloth
is no thicker than a flat one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import close_and_lift, come_down
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import length, sensor
from robolearn.envs.task import Start, State

ACROSS: Final = ("left to right", "right to left")
ALONG: Final = ("near to far", "far to near")
PHRASES: Final = Phrases(
    "Fold",
    {
        "train": (
            "fold the cloth from {across}, then from {along}",
            "fold the cloth {across} and then {along}",
            "fold the towel in half from {across}, then in half from {along}",
            "first fold the cloth {across}, then fold it {along}",
            "fold it twice: {across}, then {along}",
            "make a small square of the cloth, folding {across} and then {along}",
        ),
        "held_out": (
            "please fold the towel twice, {across} first and {along} second",
            "I want the cloth folded from {across} and after that from {along}",
        ),
    },
    {"across": Words(ACROSS), "along": Words(ALONG)},
)


@dataclass(frozen=True)
class Cloth:
    """One kind of cloth."""

    side: float  # m
    colour: tuple[float, float, float, float]


CLOTHS: Final = {
    "": Cloth(0.128, (0.15, 0.35, 0.75, 1.0)),
    "novel_object": Cloth(0.112, (0.55, 0.20, 0.45, 1.0)),
}
COUNT: Final = 7  # vertices along a side; odd, so that there is a crease in the middle
LAST, MIDDLE = COUNT - 1, COUNT // 2
RADIUS: Final = 0.003  # m, half the thickness
MASS: Final = 0.014  # kg
BALL: Final = 0.008  # m, radius; 4 pixels of the top camera
BALL_MASS: Final = 0.016  # kg, of steel
BALL_COLOUR: Final = (0.93, 0.93, 0.95, 1.0)
# Balls and cloth touch the table (conaffinity 3) and the arm (contype 2), but not each other.
BALL_BITS: Final = {"contype": 1, "conaffinity": 0}
CLOTH_BITS: Final = (1, 2)  # contype, conaffinity
SLIPPERY: Final = [0.2, 0.005, 0.0001]  # friction: the fingers slide out of the folds again

WORK_CENTRE: Final = (0.215, 0.0)
WORK_AREA: Final = (0.19, 0.33)  # m
JITTER: Final = (0.012, 0.02)  # m along x and y
MAX_YAW: Final = 0.2  # rad
TOLERANCE: Final = 0.03  # m, of each corner
COVERED: Final = (0.15, 0.36)  # share of the flat area, by the box about it; 0.25 is perfect
AT_REST: Final = 0.05  # m/s
LYING: Final = 0.05  # m: so high the folds of a cloth that nobody holds may stand up
WORTH: Final = 0.95  # progress of a cloth that lies as it should, but is not yet let go or at rest
ATTEMPTS: Final = 14  # carries of a ball; five would do
PLACED: Final = 0.02  # m: the expert is content with a ball that is so near to its place
GRASP_HEIGHT: Final = 0.010  # m
LOW, ARC = 0.035, 0.2  # m, and m a metre: a ball is carried in an arc over its way
RELEASE: Final = 0.2  # gripper opening that just lets go of a ball
HELD: Final = 0.01  # m: a ball's vertex is higher than this only in the hand
CLEAR: Final = 0.03  # m: how high the tips are free of a ball that they have let go

# The goal vector: whether the still corner is at the cloth's left (1) and far (1) side, where it
# started (x, y), the cloth's turn, its side, and the sum of the corners' distances at the start.
LEFT, FAR, YAW, SIDE, BEGIN = 0, 1, 4, 5, 6
PLACE: Final = slice(2, 4)


def vertex(column: int, row: int) -> int:
    """The number of a vertex; columns run from near to far, rows from right to left."""
    return column * COUNT + row


CORNERS: Final = np.array([vertex(c, r) for c in (0, LAST) for r in (0, LAST)])
BALLS: Final = (*CORNERS.tolist(), vertex(0, MIDDLE), vertex(LAST, MIDDLE))
# m: how high each vertex may lie; the balls lie on the table.
HIGHEST: Final = np.where(np.isin(np.arange(COUNT**2), BALLS), HELD, LYING)


class Fold(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The cloth with its balls, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        cloth = CLOTHS.get(split, CLOTHS[""])
        flex = spec.worldbody.make_flex(
            "cloth",
            type="grid",
            dim=2,
            count=[COUNT, COUNT, 1],
            spacing=[cloth.side / LAST] * 3,
            radius=RADIUS,
            mass=MASS,
            equality=1,
            pos=[*WORK_CENTRE, RADIUS],
        )
        flex.contype, flex.conaffinity = CLOTH_BITS
        flex.selfcollide = mujoco.mjtFlexSelf.mjFLEXSELF_NONE
        flex.condim, flex.friction, flex.priority = 3, SLIPPERY, 2
        flex.rgba = cloth.colour
        flex.edgedamping = 0.01
        for ball in BALLS:
            _add_ball(spec.body(f"cloth_{ball}"))
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        for ball in BALLS:
            scene.add_touch(spec, f"ball {ball} touch", f"cloth_{ball}")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """A random place, turn and pair of directions, unless the instruction is given."""
        place = np.array(WORK_CENTRE) + rng.uniform(-1.0, 1.0, 2) * JITTER
        yaw = rng.uniform(-MAX_YAW, MAX_YAW)
        qpos = self.home(rng)
        text, (across, along) = self.instruct(rng, instruction)
        left, far = float(across == 1), float(along == 0)
        grid = self._grid @ _turn(yaw).T + place
        self._put(qpos, grid)
        corners = grid[CORNERS]
        still = corners[2 * int(far) + int(left)]
        begin = length(corners - still).sum()
        goal = np.array([left, far, *still, yaw, self._side, begin])
        return Start(qpos, np.zeros((0, 3)), goal, text)

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Corners together, a quarter covered, low, released, at rest; see the base class."""
        corners = self._corners(state)
        off = length(corners[..., :2] - goal[:, None, PLACE])
        progress = WORTH * np.clip(1.0 - off.sum(1) / goal[:, BEGIN], 0.0, 0.99)
        near = np.less(off, TOLERANCE).all(1)
        if not np.count_nonzero(near):  # as nearly always; the rest would take longer
            return near, progress
        covered = self._covered(state, goal)
        folded = near & (covered > COVERED[0]) & (covered < COVERED[1])
        at_rest = length(self._speeds(state)).max(1) < AT_REST
        low = (self._vertices(state)[..., 2] < HIGHEST).all(1)
        let_go = (state.sensordata[:, self._touches] == 0).all(1)
        done = np.logical_and.reduce([folded, at_rest, low, let_go])
        return done, np.where(done, 1.0, np.where(folded, WORTH, progress))

    def _covered(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Area of the box about the cloth, along its own axes, as a share of the flat area (N,)."""
        flat = self._vertices(state)[..., :2]
        cos, sin = np.cos(goal[:, None, YAW]), np.sin(goal[:, None, YAW])
        along = flat[..., 0] * cos + flat[..., 1] * sin
        across = flat[..., 1] * cos - flat[..., 0] * sin
        return np.ptp(along, axis=1) * np.ptp(across, axis=1) / goal[:, SIDE] ** 2

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Positions of all vertices and of the tool, and the goal."""
        vertices = self._vertices(state).reshape(len(goal), -1)
        tool = state.sensordata[:, self._tool]
        return np.concatenate([vertices, tool, goal], axis=1).astype(np.float32)

    def goal_scene(self, start: Start) -> Start:
        """Every vertex on the half that lies still, in both folds."""
        qpos, goal = start.qpos.copy(), start.goal
        sides = np.array([2.0 * goal[FAR] - 1.0, 2.0 * goal[LEFT] - 1.0])
        turn = _turn(goal[YAW])
        middle = goal[PLACE] - turn @ (sides * self._side / 2)
        self._put(qpos, np.abs(self._grid) * sides @ turn.T + middle)
        return replace(start, qpos=qpos)

    @cached_property
    def _cloth(self) -> tuple[slice, slice]:
        """Where the vertices are in qpos and in qvel; they follow each other in both."""
        joint = self.model.body("cloth_0").jntadr[0]
        q, v = int(self.model.jnt_qposadr[joint]), int(self.model.jnt_dofadr[joint])
        size = 3 * COUNT**2
        return slice(q, q + size), slice(v, v + size)

    @cached_property
    def _rest(self) -> np.ndarray:
        """Where the vertices are when qpos is 0 (vertices, 3)."""
        first = self.model.body("cloth_0").id
        return self.model.body_pos[first : first + COUNT**2].copy()

    @cached_property
    def _grid(self) -> np.ndarray:
        """The flat cloth about its middle (vertices, 2)."""
        return self._rest[:, :2] - self._rest[:, :2].mean(0)

    @cached_property
    def _side(self) -> float:
        return float(np.ptp(self._grid[:, 0]))

    @cached_property
    def _tool(self) -> slice:
        return sensor(self.model, "tool position")

    @cached_property
    def _touches(self) -> np.ndarray:
        """Where the contacts between the gripper and each ball are counted (balls,)."""
        return np.array([sensor(self.model, f"ball {ball} touch").start for ball in BALLS])

    def _put(self, qpos: np.ndarray, flat: np.ndarray) -> None:
        """Lays the vertices down at (vertices, 2)."""
        where = np.column_stack([flat, np.full(len(flat), RADIUS)])
        qpos[self._cloth[0]] = (where - self._rest).ravel()

    def _vertices(self, state: State) -> np.ndarray:
        """Positions of the vertices (N, vertices, 3)."""
        return state.qpos[:, self._cloth[0]].reshape(-1, COUNT**2, 3) + self._rest

    def _corners(self, state: State) -> np.ndarray:
        """Positions of the corners (N, 4, 3)."""
        moved = state.qpos[:, self._cloth[0]].reshape(-1, COUNT**2, 3)[:, CORNERS]
        return moved + self._rest[CORNERS]

    def _speeds(self, state: State) -> np.ndarray:
        """Velocities of the vertices (N, vertices, 3)."""
        return state.qvel[:, self._cloth[1]].reshape(-1, COUNT**2, 3)

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Carries ball after ball to where it belongs, those of the first fold first."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        left, far = int(self.goal[LEFT]), int(self.goal[FAR])
        start = self._vertices(self.state)[0, :, :2].copy()
        stages = [_first_fold(left, style.side), _second_fold(left, far, style.side)]
        for _ in range(ATTEMPTS):
            while stages and not (
                waiting := [(b, start[g]) for b, g in stages[0] if self._is_off(b, start[g])]
            ):
                stages.pop(0)
            if not stages:
                break
            yield from self._carry(hand, *waiting[0], style, rng)
        yield from hand.rest()

    def _carry(
        self, hand: Hand, ball: int, goal: np.ndarray, style: Style, rng: np.random.Generator
    ) -> Script:
        """Brings a ball to a place (2,)."""
        grasp = [*self._at(ball)[:2], GRASP_HEIGHT]
        heading = facing(grasp[:2])

        def still_there() -> bool:
            return bool(np.linalg.norm(self._at(ball)[:2] - grasp[:2]) < 0.01)

        if not (yield from come_down(hand, style, rng, grasp, heading, 2 * BALL, still_there)):
            return False
        yield from close_and_lift(hand, style, grasp, heading, 2 * BALL, LOW)
        return (yield from self._lay_down(hand, ball, goal, style))

    def _lay_down(self, hand: Hand, ball: int, goal: np.ndarray, style: Style) -> Script:
        """Carries the ball that is held in an arc, lowers it and lets go."""
        place = goal + hand.position[:2] - self._at(ball)[:2]
        middle = (hand.position[:2] + place) / 2
        height = LOW + ARC * float(np.linalg.norm(place - hand.position[:2]))

        def held() -> bool:
            return bool(self._at(ball)[2] > HELD)

        if not (yield from watched(hand.move([*middle, height], None, style.closed), held)):
            return False
        over = [*place, LOW]
        if not (yield from watched(hand.move(over, None, style.closed), held)):
            return False
        yield from hand.move([*place, GRASP_HEIGHT + 0.002], None, style.closed, speed=0.6)
        yield from hand.move([*place, GRASP_HEIGHT + 0.002], None, RELEASE, seconds=0.35)
        yield from hand.move([*place, CLEAR + 0.02], None, RELEASE)
        return True

    def _at(self, number: int) -> np.ndarray:
        """Where a vertex is, m (3,)."""
        return self._vertices(self.state)[0, number]

    def _is_off(self, ball: int, goal: np.ndarray) -> bool:
        return bool(np.linalg.norm(self._at(ball)[:2] - goal) > PLACED)


def _add_ball(body: mujoco.MjsBody) -> None:
    """A ball that sits on a vertex and touches the table with it."""
    body.mass += BALL_MASS  # a vertex states its mass, so that of its geoms does not count
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        pos=[0.0, 0.0, BALL - RADIUS],
        size=[BALL, 0, 0],
        mass=0.0,
        rgba=BALL_COLOUR,
        friction=[1.0, 0.005, 0.0001],
        **BALL_BITS,
    )


def _turn(yaw: float) -> np.ndarray:
    """The matrix (2, 2) of a turn in the plane."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin], [sin, cos]])


def _first_fold(left: int, side: int) -> list[tuple[int, int]]:
    """Which ball goes onto which, to the left or to the right; first the far one or the near."""
    still, moving = (LAST, 0) if left else (0, LAST)
    columns = (0, LAST) if side < 0 else (LAST, 0)
    return [(vertex(c, moving), vertex(c, still)) for c in columns]


def _second_fold(left: int, far: int, side: int) -> list[tuple[int, int]]:
    """Which ball goes onto which, away or towards: both corners of the still side, the crease."""
    still, moving = (LAST, 0) if far else (0, LAST)
    edge, other = (LAST, 0) if left else (0, LAST)
    corner, crease = vertex(still, edge), vertex(still, MIDDLE)
    pairs = [(vertex(moving, edge), corner), (vertex(moving, MIDDLE), crease)][:: side or 1]
    rest = [vertex(moving, other), vertex(still, other), corner]  # if it was pushed away
    return [*pairs, *((ball, corner) for ball in rest)]
