"""Reach: bring the finger tips to the named marker and keep them there.

Four coloured markers stand on thin poles of different heights; the instruction names one. Success:
the finger tips are within 12 mm of the point that is 2 cm above the middle of the named marker,
slower than 5 cm/s; all of that for `hold_seconds`. Nothing needs to be touched. The colour, the
places and the heights vary, the shape of the markers with the split.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Style, across
from robolearn.envs.grasp import reaching
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import length
from robolearn.envs.task import Start, State

MARKERS: Final = ("red", "green", "blue", "yellow")
PHRASES: Final = Phrases(
    "Reach",
    {
        "train": (
            "reach for the {marker} marker",
            "bring the finger tips to the {marker} marker",
            "point at the {marker} marker from above",
            "move the hand to the {marker} one",
            "go to the {marker} marker and stay there",
            "hold the fingers over the {marker} marker",
        ),
        "held_out": (
            "please show me the {marker} marker",
            "I want the gripper right above the {marker} one",
        ),
    },
    {"marker": Words(MARKERS)},
)

WORK_CENTRE: Final = (0.18, 0.0)
WORK_AREA: Final = (0.23, 0.40)  # m
AREA: Final = ((0.155, 0.27), (-0.135, 0.135))  # x and y of the markers, m
HEIGHTS: Final = (0.012, 0.10)  # m, of their middles
# Where the hand starts, it would hide them: so near to y = 0 they are further away, and low.
NEAR, AWAY, LOW = 0.05, 0.24, 0.055  # m
TRIES: Final = 20  # at placing all markers, before the first one is placed anew
APART: Final = 0.075  # m between two: room for the gripper
RADIUS: Final = 0.010  # m, of a marker
POLE: Final = 0.003  # m
OVER: Final = np.array([0.0, 0.0, 0.02])  # m: where the finger tips shall be
TOLERANCE: Final = 0.012  # m
SLOW: Final = 0.05  # m/s
SAFE: Final = 0.025  # m over the highest marker: the way there
CORRECTIONS: Final = 3  # of the place, by eye
WORTH: Final = 0.9  # progress of finger tips that are there
TO_PLACE: Final = 3.6  # 1/m: what the distance takes off it

TOOL: Final = slice(0, 3)  # sensor data: place and velocity of the finger tips
VELOCITY: Final = slice(3, 6)
# The goal vector: the index of the named marker, the same as a one-hot vector, its place.
NAMED: Final = 0
ONE_HOT: Final = slice(1, 1 + len(MARKERS))
PLACE: Final = slice(ONE_HOT.stop, ONE_HOT.stop + 3)


class Reach(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    grasps: ClassVar[bool] = False
    hold_seconds: ClassVar[float] = 0.5

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """Four markers, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for colour in MARKERS:
            _add_marker(spec, colour, split)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        spec.add_sensor(
            name="tool velocity",
            type=mujoco.mjtSensor.mjSENS_FRAMELINVEL,
            objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname="tool",
        )
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places and heights, a random marker and wording, unless it is given."""
        places = _scatter(rng)
        qpos = self.home(rng)
        text, (named,) = self.instruct(rng, instruction)
        return Start(
            qpos=qpos,
            mocap_pos=places,
            goal=np.array([named, *np.eye(len(MARKERS))[named], *places[named]]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Above the named marker, slow; see the base class."""
        off = length(state.sensordata[:, TOOL] - goal[:, PLACE] - OVER)
        progress = np.maximum(WORTH - TO_PLACE * off, 0.0)
        there = off <= TOLERANCE
        if not np.count_nonzero(there):  # as nearly always on the way
            return there, progress
        done = there & (length(state.sensordata[:, VELOCITY]) < SLOW)
        return done, np.where(done, 1.0, progress)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Marker places (3 each), the place of the finger tips, the goal as a one-hot vector."""
        markers, tool = state.mocap_pos.reshape(len(goal), -1), state.sensordata[:, TOOL]
        return np.concatenate([markers, tool, goal[:, ONE_HOT]], axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The finger tips where they shall be."""
        qpos = start.qpos.copy()
        qpos[self.joints.qpos] = reaching(self, start.goal[PLACE] + OVER, None, 0.0)
        return replace(start, qpos=qpos)

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Demonstrates the task with a person's variety; yields one action a control step."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        goal = self.goal[PLACE] + OVER
        safe = self.data.mocap_pos[:, 2].max() + SAFE
        aside = across(hand.facing(goal)) * (style.side + rng.normal(0.0, 0.3)) * SAFE
        first = goal[:2] + rng.normal(0.0, style.sloppiness, 2) + aside
        yield from hand.move([*hand.position[:2], max(safe, hand.position[2])], None, 0.15)
        yield from hand.move([*first, max(safe, goal[2])], None, style.closed)
        yield from hand.move(goal, None, style.closed, speed=0.8)
        for _ in range(CORRECTIONS):
            place = hand.position + goal - self.data.sensordata[TOOL]
            yield from hand.move(place, None, style.closed, straight=True)
        yield from hand.rest()


def _add_marker(spec: mujoco.MjSpec, colour: str, split: str) -> None:
    """A marker that only a reset moves (a mocap body); its pole goes on below the table."""
    ball = mujoco.mjtGeom.mjGEOM_SPHERE
    shape = mujoco.mjtGeom.mjGEOM_BOX if split == "novel_object" else ball
    body = spec.worldbody.add_body(name=colour, mocap=True)
    solid = {"rgba": scene.COLOURS[colour], **scene.SOLID}
    body.add_geom(type=shape, size=[RADIUS] * 3, **solid)
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        pos=[0.0, 0.0, -HEIGHTS[1] / 2],
        size=[POLE, HEIGHTS[1] / 2, 0.0],
        **solid,
    )


def _scatter(rng: np.random.Generator) -> np.ndarray:
    """Middles of the markers (markers, 3), `APART` in the plane, away from the hand."""
    (x0, x1), (y0, y1) = AREA
    picked: list[np.ndarray] = []
    while len(picked) < len(MARKERS):
        picked = []
        for place in rng.uniform([x0, y0, HEIGHTS[0]], [x1, y1, HEIGHTS[1]], (TRIES, 3)):
            ahead = abs(place[1]) < NEAR
            near = any(np.hypot(*(place - other)[:2]) < APART for other in picked)
            if near or (ahead and place[0] < AWAY):
                continue
            place[2] = min(place[2], LOW if ahead else HEIGHTS[1])
            picked.append(place)
    return np.array(picked[: len(MARKERS)])
