"""PickPlace: put the named cube into the named bin.

Three cubes and two bins stand at random places on the table; the instruction names one cube and
one bin by colour. Success: the named cube lies at rest inside the named bin, the gripper has let
go of it, and the other cubes are still about where they were; all of that for `hold_seconds`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, partial
from itertools import combinations
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import close_and_lift, come_down, nearest_heading
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import FreeBodies, chosen, length, yaw_of
from robolearn.envs.task import Start, State

CUBES: Final = ("red", "green", "blue")
BINS: Final = ("blue", "yellow")
PHRASES: Final = Phrases(
    "PickPlace",
    {
        "train": (
            "put the {cube} cube in the {bin} bin",
            "place the {cube} cube into the {bin} bin",
            "pick up the {cube} cube and put it in the {bin} bin",
            "move the {cube} block to the {bin} bin",
            "the {cube} cube belongs in the {bin} bin",
            "drop the {cube} cube into the {bin} box",
            "in the {bin} bin, put the {cube} cube",
            "fill the {bin} bin with the {cube} cube",
        ),
        "held_out": (
            "please bring the {cube} cube over to the {bin} bin",
            "I want the {cube} block inside the {bin} box",
            "grab the {cube} cube, then drop it in the {bin} bin",
        ),
    },
    {"cube": Words(CUBES), "bin": Words(BINS)},
)

WORK_CENTRE: Final = (0.21, 0.0)
WORK_AREA: Final = (0.24, 0.455)  # m: 84 pixels of the top camera show a cube at 4.7
CUBE_AREA: Final = ((0.15, 0.27), (-0.075, 0.075))  # x and y of cube centres, m
BIN_SLOTS: Final = ((0.20, 0.155), (0.20, -0.155))
BIN_JITTER: Final = 0.015  # m
CUBE_GAP: Final = 0.055  # m between centres: room for a finger beside a cube
MAX_YAW: Final = 0.3  # rad, from facing the arm
OTHERS_MAY_MOVE: Final = 0.04  # m
AT_REST: Final = 0.02  # m/s
CARRY_HEIGHT: Final = 0.075  # m
GRASP_HEIGHT: Final = 0.012  # m
MISHAPS: Final = ("", "knocked", "slips")  # what may happen to the cube in a demonstration
MISHAP_RATE: Final = 0.4
ATTEMPTS: Final = 4
LIFTED: Final = 0.03  # m: a cube's centre is higher than this only in the air
INSIDE: Final = np.array([scene.BIN_INNER, scene.BIN_INNER, 1.5 * scene.BIN_HEIGHT])
WORTH: Final = 0.9  # progress of a cube that is in its bin
TO_CUBE, TO_BIN = 1.5, 2.4  # 1/m: what the distances tool to cube and cube to bin take off it

# The sensor data: positions of the tool, the cubes and the bins, then contact counts of the cubes.
TOOL, FIRST_CUBE, FIRST_BIN, END = np.cumsum([0, 1, len(CUBES), len(BINS)]).tolist()
POINTS: Final = slice(0, 3 * END)
TOUCH: Final = slice(POINTS.stop, POINTS.stop + len(CUBES))
# The goal vector: which of these points are the named cube and bin, both as one-hot vectors, and
# where every cube started (x, y).
NAMED: Final = slice(0, 2)
ONE_HOT: Final = slice(2, 2 + len(CUBES) + len(BINS))
START: Final = slice(ONE_HOT.stop, ONE_HOT.stop + 2 * len(CUBES))


class PickPlace(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Three cubes, two bins, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for colour in CUBES:
            scene.add_cube(spec, f"{colour} cube", colour)
        for colour in BINS:
            scene.add_bin(spec, f"{colour} bin", colour)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        for name in [*(f"{c} cube" for c in CUBES), *(f"{b} bin" for b in BINS)]:
            scene.add_position(spec, name, mujoco.mjtObj.mjOBJ_XBODY)
        for colour in CUBES:
            scene.add_touch(spec, f"{colour} touch", f"{colour} cube")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places, a random pair and a random wording, unless the instruction is given."""
        bins = np.array(BIN_SLOTS)[rng.permutation(len(BINS))]
        bins = bins + rng.uniform(-BIN_JITTER, BIN_JITTER, bins.shape)
        cubes = _scatter(rng)
        qpos = self.home(rng)
        for pose, (x, y) in zip(self._cubes.poses(qpos), cubes, strict=True):
            yaw = facing((x, y)) + rng.uniform(-MAX_YAW, MAX_YAW)
            pose[:] = scene.upright((x, y), yaw)
        text, (cube, goal_bin) = self.instruct(rng, instruction)
        named = np.array([FIRST_CUBE + cube, FIRST_BIN + goal_bin])
        one_hot = np.eye(END)[named].sum(0)[FIRST_CUBE:]
        return Start(
            qpos=qpos,
            mocap_pos=np.column_stack([bins, np.zeros(len(BINS))]),
            goal=np.concatenate([named, one_hot, cubes.ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """In the named bin, released, at rest, the others left alone; see the base class."""
        points = state.sensordata[:, POINTS].reshape(len(goal), -1, 3)
        cube, goal_bin = chosen(points, goal[:, NAMED].astype(int).T)
        offset = cube - goal_bin
        distance = TO_CUBE * length(points[:, TOOL] - cube) + TO_BIN * length(offset)
        progress = np.maximum(0.0, WORTH - distance)
        inside = (np.abs(offset) < INSIDE).all(1)
        if not np.count_nonzero(inside):  # as nearly always; the rest would take as long again
            return inside, progress
        done = inside & self._settled(state, goal)
        return done, np.where(done, 1.0, np.where(inside, WORTH, progress))

    def _settled(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Whether the named cube is released and at rest and the others are where they were."""
        rows, cube = np.arange(len(goal)), goal[:, 0].astype(int) - FIRST_CUBE
        released = state.sensordata[:, TOUCH][rows, cube] == 0
        at_rest = length(self._cubes.twists(state.qvel)[rows, cube, :3]) < AT_REST
        moved = self._cubes.moved(state.qpos, goal[:, START])
        moved[rows, cube] = 0.0
        return released & at_rest & (moved < OTHERS_MAY_MOVE).all(1)

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """The named cube; see the base class."""
        return (f"{CUBES[int(goal[0]) - FIRST_CUBE]} cube",)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Cube poses (7 each), bin positions (3 each), and the goal as two one-hot vectors."""
        poses = state.qpos[:, self._cubes.qpos]
        bins = state.mocap_pos.reshape(len(goal), -1)
        return np.concatenate([poses, bins, goal[:, ONE_HOT]], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The named cube in the named bin."""
        qpos = start.qpos.copy()
        cube, goal_bin = start.goal[NAMED].astype(int) - [FIRST_CUBE, FIRST_BIN]
        place = start.mocap_pos[goal_bin] + [0.0, 0.0, 2 * scene.BIN_WALL]
        poses = self._cubes.poses(qpos)
        poses[cube] = scene.upright(place[:2], 0.0, above=place[2])
        return replace(start, qpos=qpos)

    @cached_property
    def _cubes(self) -> FreeBodies:
        return FreeBodies(self.model, f"{CUBES[0]} cube", len(CUBES))

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step.

        In some demonstrations the cube is knocked away or slips out of the hand, and the expert
        picks it up again: otherwise a policy would never learn what to do after its own mistakes.
        """
        style = Style.draw(rng, self.demonstrator)
        mishap = str(rng.choice(MISHAPS, p=[1.0 - MISHAP_RATE, *[MISHAP_RATE / 2] * 2]))
        hand = Hand(self, style)
        cube, goal_bin = self.phrases.parse(self.task_description)
        for _ in range(ATTEMPTS):
            knock = partial(self._knock, cube, rng) if mishap == "knocked" else _nothing
            slip = partial(self._knock, cube, rng) if mishap == "slips" else _nothing
            mishap = ""
            picked = yield from self._pick(hand, cube, style, rng, knock)
            if picked and (yield from self._carry(hand, cube, goal_bin, style, rng, slip)):
                break
        yield from hand.rest()

    def _pick(
        self,
        hand: Hand,
        cube: int,
        style: Style,
        rng: np.random.Generator,
        knock: Callable[[], None],
    ) -> Script:
        """Approaches the cube, first a little off as people do, grasps and lifts it."""
        x, y, yaw = self._cube_pose(cube)
        grasp, width = [x, y, GRASP_HEIGHT], scene.CUBE_SIDE
        at = partial(self._is_at, cube, x, y)
        if not (yield from come_down(hand, style, rng, grasp, yaw, width, at, knock)):
            return False
        height = rng.uniform(0.5, 1.0) * CARRY_HEIGHT
        yield from close_and_lift(hand, style, grasp, yaw, width, height)
        return self._is_held(cube)

    def _carry(
        self,
        hand: Hand,
        cube: int,
        goal_bin: int,
        style: Style,
        rng: np.random.Generator,
        slip: Callable[[], None],
    ) -> Script:
        """Brings the cube over the bin, lowers it and lets go."""
        place = self.data.mocap_pos[goal_bin][:2] + rng.normal(0, 0.006, 2)
        way = rng.uniform(0.0, 0.7) * (place - hand.position[:2])
        over = [*(hand.position[:2] + way), CARRY_HEIGHT]
        held = partial(self._is_held, cube)
        if not (yield from watched(hand.move(over, None, style.closed), held)):
            return False
        slip()
        if not (yield from watched(hand.move([*place, CARRY_HEIGHT], None, style.closed), held)):
            return False
        yield from hand.move([*place, 0.04], None, style.closed, speed=0.8)
        yield from hand.move([*place, 0.05], None, style.opened, seconds=0.35)
        yield from hand.move([*place, CARRY_HEIGHT + 0.02], None, style.opened)
        return True

    def _is_at(self, cube: int, x: float, y: float) -> bool:
        return bool(np.linalg.norm(self._cubes.poses(self.data.qpos)[cube, :2] - [x, y]) < 0.01)

    def _is_held(self, cube: int) -> bool:
        return bool(self._cubes.poses(self.data.qpos)[cube, 2] > LIFTED)

    def _knock(self, cube: int, rng: np.random.Generator) -> None:
        """Puts the cube on the table a few centimetres away from where it is."""
        poses = self._cubes.poses(self.data.qpos)
        others = np.delete(poses[:, :2], cube, axis=0)
        (x0, x1), (y0, y1) = CUBE_AREA
        for _ in range(100):
            place = poses[cube, :2] + rng.normal(0.0, 0.03, 2)
            place = np.clip(place, [x0, y0], [x1, y1])
            if np.linalg.norm(others - place, axis=1).min() > CUBE_GAP:
                break
        else:
            return
        yaw = facing(place) + rng.uniform(-MAX_YAW, MAX_YAW)
        scene.put(self.model, self.data, f"{CUBES[cube]} cube", scene.upright(place, yaw))

    def _cube_pose(self, cube: int) -> tuple[float, float, float]:
        """x, y and yaw; of its four equal headings the one that faces the arm best."""
        pose = self._cubes.poses(self.data.qpos)[cube]
        x, y = pose[:2].tolist()
        return x, y, nearest_heading(float(yaw_of(pose[3:])), facing((x, y)))


def _nothing() -> None:
    """No mishap."""


def _scatter(rng: np.random.Generator) -> np.ndarray:
    """Cube centres (cubes, 2), at least `CUBE_GAP` apart."""
    (x0, x1), (y0, y1) = CUBE_AREA
    while True:
        places = rng.uniform([x0, y0], [x1, y1], (len(CUBES), 2))
        if all(np.linalg.norm(a - b) >= CUBE_GAP for a, b in combinations(places, 2)):
            return places
