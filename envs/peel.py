"""Peel: draw the blade along the top of a vegetable, pressing as hard as the instruction says.

A vegetable lies on a stand, a blade is mounted on the fixed jaw. Along the middle of the rounded
back runs a path of thin strips of peel. A strip comes off when the blade crosses it pressing at
least `CUTS` hard; how hard it pressed then is compared with the band about the wanted force, and
each time that the blade presses far over the band counts as a gouge. The result is graded:

    quality = coverage * (1 - force error) * (1 - GOUGE_COSTS * gouges)       each factor in 0..1

Success: all strips are off and the quality is at least `GOOD`, for `hold_seconds`. Between
episodes place, turn and wanted force vary; "novel_object" is a thicker and shorter vegetable,
"novel_state" asks for other forces.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Style
from robolearn.envs.language import ANY_SPLIT, Number, Phrases
from robolearn.envs.lookup import yaw_of
from robolearn.envs.task import Start, State

FORCE: Final = Number(
    "the force in newtons",
    low=0.7,
    high=2.0,
    unit=1.0,
    values={ANY_SPLIT: (0.8, 1.2, 1.6), "novel_state": (1.0, 1.4)},
)
PHRASES: Final = Phrases(
    "Peel",
    {
        "train": (
            "peel the vegetable, pressing with {force} N",
            "peel a strip with a force of {force} N",
            "draw the blade along the vegetable at {force} N",
            "peel along the top, press {force} N hard",
            "take the peel off the top with {force} N",
            "with {force} N on the blade, peel the vegetable",
        ),
        "held_out": (
            "please peel the top of the vegetable, about {force} N of pressure",
            "I want it peeled from end to end with {force} N",
        ),
    },
    {"force": FORCE},
)


@dataclass(frozen=True)
class Vegetable:
    """One kind of vegetable, an ellipsoid."""

    length: float  # m, half of it
    radius: float  # m
    skin: tuple[float, float, float, float]
    flesh: tuple[float, float, float, float]

    def height(self, s: np.ndarray | float) -> np.ndarray:
        """Of the back over the middle axis, m, at a distance `s` along the axis."""
        return self.radius * np.sqrt(1.0 - (np.asarray(s) / self.length) ** 2)

    def slope(self, s: np.ndarray | float) -> np.ndarray:
        """Of the back, rad."""
        rise = -((self.radius / self.length) ** 2) * np.asarray(s) / self.height(s)
        return np.arctan(rise)

    @property
    def strips(self) -> np.ndarray:
        """Where the middles of the strips are along the axis, m (STRIPS,)."""
        return (np.arange(STRIPS) - (STRIPS - 1) / 2) * 2 * REACH * self.length / STRIPS


VEGETABLES: Final = {
    "": Vegetable(0.085, 0.024, (0.15, 0.40, 0.12, 1.0), (0.85, 0.95, 0.62, 1.0)),
    "novel_object": Vegetable(0.072, 0.028, (0.35, 0.10, 0.40, 1.0), (0.98, 0.93, 0.70, 1.0)),
}
STRIPS: Final = 16
REACH: Final = 0.75  # share of the length that the path covers
STRIP_WIDTH: Final = 0.009  # m, half
AXIS_HEIGHT: Final = 0.030  # m, of the vegetable's axis over the table
BOX: Final = mujoco.mjtGeom.mjGEOM_BOX
EDGE: Final = 0.009  # m, half the length of the blade
EDGE_RADIUS: Final = 0.002  # m
BLADE_REACH: Final = 0.018  # m from the finger tips to the blade
ROD: Final = 0.0025  # m, radius of what holds it
STEEL: Final = (0.75, 0.77, 0.80, 1.0)

WORK_CENTRE: Final = (0.215, 0.0)
WORK_AREA: Final = (0.19, 0.33)  # m: 84 pixels of the top camera show a strip's width at 4.5
JITTER: Final = (0.015, 0.02)  # m along x and y
MAX_YAW: Final = 0.35  # rad, from lying across the arm
BAND: Final = 0.4  # N, to either side of the wanted force
CUTS: Final = 0.2  # N: less does not take the peel off
GOUGES: Final = 2.5  # times the wanted force: cuts far too deep
GOUGE_COSTS: Final = 0.2  # of the quality, each
GOOD: Final = 0.8  # quality that counts as success
HIDDEN: Final = 1.0  # m: a strip that is off disappears so far below the table
ATTEMPTS: Final = 4  # strokes
GAIN: Final = 0.0007  # m/N: how much deeper the expert presses after a control step
OPENING: Final = 0.05  # of the gripper
TOUCH_SPEED: Final = 0.02  # m/s

# The sensor data: where the blade is, where it is in the vegetable's frame (along its axis, beside
# it, above), whether they touch, and the contact force, normal force first.
BLADE, ALONG, ASIDE, PRESSURE = slice(0, 3), 3, 4, 7
# The user data: which strips are off and the sum of their force errors; of the last control step:
# whether the blade cut, where along the axis, whether it gouged; the grades.
OFF: Final = slice(0, STRIPS)
ERROR, CUTTING, LAST, GOUGING, COVERAGE, MEAN_ERROR, COUNT, QUALITY = range(STRIPS, STRIPS + 8)
NOTES: Final = STRIPS + 8
GRADES: Final = {
    "coverage": COVERAGE,  # 0..1
    "force_error": MEAN_ERROR,  # mean over the strips, 0..1
    "gouges": COUNT,
    "quality": QUALITY,  # 0..1
}


class Peel(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene", "novel_state")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    grasps: ClassVar[bool] = False

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The vegetable on its stand, its strips of peel, the arm with its blade."""
        spec = scene.table_scene(WORK_CENTRE, split)
        _add_vegetable(spec, VEGETABLES.get(split, VEGETABLES[""]))
        scene.add_implement(spec, "blade", BLADE_REACH, (EDGE, EDGE_RADIUS), ROD, STEEL)
        scene.add_position(spec, "blade", mujoco.mjtObj.mjOBJ_SITE)
        scene.add_position(spec, "blade", mujoco.mjtObj.mjOBJ_SITE, within="vegetable")
        scene.add_pressure(spec, "pressure", "blade", "vegetable")
        spec.nuserdata = NOTES
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """A random place, turn and force, unless the instruction is given."""
        place = np.array(WORK_CENTRE) + rng.uniform(-1.0, 1.0, 2) * JITTER
        yaw = np.pi / 2 + rng.uniform(-MAX_YAW, MAX_YAW)
        text, (force,) = self.instruct(rng, instruction)
        centre, axis = np.array([*place, AXIS_HEIGHT]), np.array([np.cos(yaw), np.sin(yaw), 0.0])
        strips, up = self._strips[:, None], np.array([0.0, 0.0, 1.0])
        strips = centre + strips * axis + self._kind.height(strips) * up
        turns = [_tilted(yaw, slope) for slope in self._kind.slope(self._strips)]
        return Start(
            qpos=self.home(rng),
            mocap_pos=np.vstack([centre, strips]),
            goal=np.array([force]),
            instruction=text,
            mocap_quat=np.vstack([scene.about_z(yaw), *turns]),
        )

    def remember(self, state: State, goal: np.ndarray) -> None:
        """Notes the strips that come off, their force errors, and gouges; see the base class."""
        notes, force = state.userdata, state.sensordata[:, PRESSURE]
        if not np.count_nonzero(force):  # the blade is in the air
            notes[:, CUTTING : GOUGING + 1] = 0.0
            return
        along, aside = state.sensordata[:, ALONG], state.sensordata[:, ASIDE]
        cutting = (force > CUTS) & (np.abs(aside) < STRIP_WIDTH)
        both = cutting & (notes[:, CUTTING] > 0.0)
        if np.count_nonzero(both):
            first, last = np.minimum(along, notes[:, LAST]), np.maximum(along, notes[:, LAST])
            crossed = (self._strips >= first[:, None]) & (self._strips <= last[:, None])
            self._take_off(crossed & both[:, None] & (notes[:, OFF] == 0.0), state, goal)
        gouging = force > GOUGES * goal[:, 0]
        begun = gouging > notes[:, GOUGING]
        if np.count_nonzero(begun):
            notes[:, COUNT] += begun
            grade(notes)
        notes[:, CUTTING], notes[:, LAST], notes[:, GOUGING] = cutting, along * cutting, gouging

    def _take_off(self, strips: np.ndarray, state: State, goal: np.ndarray) -> None:
        """Notes that these strips (N, STRIPS) come off now, and lets them disappear."""
        if np.count_nonzero(strips):
            notes, force = state.userdata, state.sensordata[:, PRESSURE]
            notes[:, OFF] += strips
            notes[:, ERROR] += strips.sum(1) * force_error(force, goal[:, 0])
            state.mocap_pos[:, 1:, 2] -= HIDDEN * strips
            grade(notes)

    def grades(self, state: State) -> dict[str, np.ndarray]:
        """How well it is peeled so far; see the module's docstring and the base class."""
        return {name: state.userdata[:, column] for name, column in GRADES.items()}

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All strips off, and well; see the base class."""
        quality, coverage = state.userdata[:, QUALITY], state.userdata[:, COVERAGE]
        done = (quality >= GOOD) & (coverage == 1.0)
        return done, np.where(done, 1.0, 0.99 * quality)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Blade, force, place and turn of the vegetable, all notes and the goal."""
        seen, turn = state.sensordata, yaw_of(state.mocap_quat[:, 0])
        blade, force = seen[:, BLADE], seen[:, PRESSURE, None]
        parts = [blade, force, state.mocap_pos[:, 0], turn[:, None], state.userdata, goal]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """All strips are off."""
        mocap_pos = start.mocap_pos.copy()
        mocap_pos[1:, 2] -= HIDDEN
        return replace(start, mocap_pos=mocap_pos)

    @cached_property
    def _kind(self) -> Vegetable:
        return VEGETABLES.get(self.split, VEGETABLES[""])

    @cached_property
    def _strips(self) -> np.ndarray:
        return self._kind.strips

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Strokes along the strips that are left, until none is."""
        style = Style.draw(rng, self.demonstrator)
        hand = Hand(self, style)
        way = style.side or int(rng.choice([-1, 1]))  # 1: from the left end to the right one
        for _ in range(ATTEMPTS):
            left = self._strips[self.state.userdata[0, OFF] == 0.0]
            if not left.size:
                break
            half = self._strips[1] - self._strips[0]
            begin, end = np.array([left.max() + half, left.min() - half])[::way]
            yield from self._stroke(hand, style, begin, end, rng)
        yield from hand.rest()

    def _stroke(
        self, hand: Hand, style: Style, begin: float, end: float, rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Touches down, draws the blade along with the wanted force, and lifts it."""
        first, hz = begin + rng.normal(0.0, 0.004), self.arm.control_hz
        yield from hand.move(self._over(first, 0.03 + style.lift), self._heading, OPENING)
        yield from hand.move(self._over(begin, 0.012), self._heading, OPENING, speed=0.7)
        wanted, press = float(self.goal[0]), -0.011
        shaky = rng.normal(0.0, 1.0 - style.quality, 200) * BAND
        while self.data.sensordata[PRESSURE] < 0.6 * wanted and press < 0.02:
            press += TOUCH_SPEED / hz
            yield from self._press(hand, begin, press)
        steps = max(8, round(abs(end - begin) / (0.35 * style.speed) * hz))
        for k in range(steps):
            press += GAIN * (wanted + 0.7 * shaky[k % 200] - self.data.sensordata[PRESSURE])
            yield from self._press(hand, begin + (end - begin) * (k + 1) / steps, press)
        yield from hand.move(self._over(end, 0.04), self._heading, OPENING, speed=0.8)

    def _press(self, hand: Hand, at: float, press: float) -> Iterator[np.ndarray]:
        """One control step, or more of a poor demonstrator, with the blade so deep in."""
        goal, seconds = self._over(at, -press), 1 / self.arm.control_hz
        return hand.move(goal, self._heading, OPENING, seconds=seconds, straight=True)

    @property
    def _heading(self) -> float:
        """The vegetable's turn: the blade lies across it."""
        return float(yaw_of(self.data.mocap_quat[0])) - np.pi

    def _over(self, s: float, above: float) -> np.ndarray:
        """Where the finger tips are when the blade is so far over a place of the path, m (3,)."""
        yaw = float(yaw_of(self.data.mocap_quat[0]))
        up = float(self._kind.height(s)) + EDGE_RADIUS + BLADE_REACH + above
        return self.data.mocap_pos[0] + [s * np.cos(yaw), s * np.sin(yaw), up]


def grade(notes: np.ndarray) -> None:
    """Works out the grades of user data (N, NOTES) from what else is noted in it."""
    off = notes[:, OFF].sum(1)
    notes[:, COVERAGE] = off / STRIPS
    notes[:, MEAN_ERROR] = notes[:, ERROR] / np.maximum(off, 1.0)
    whole = np.maximum(0.0, 1.0 - GOUGE_COSTS * notes[:, COUNT])
    notes[:, QUALITY] = notes[:, COVERAGE] * (1.0 - notes[:, MEAN_ERROR]) * whole


def force_error(force: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How far a force is outside the band, 0 inside, 1 from the band's half width on, (N,)."""
    return np.clip((np.abs(force - wanted) - BAND) / BAND, 0.0, 1.0)


def _tilted(yaw: float, slope: float) -> np.ndarray:
    """The quaternion (4,) of a thing along `yaw` that rises by `slope`, rad."""
    w, _, _, z = scene.about_z(yaw)
    c, s = np.cos(slope / 2), np.sin(slope / 2)
    return np.array([w * c, z * s, -w * s, z * c])


def _add_vegetable(spec: mujoco.MjSpec, kind: Vegetable) -> None:
    """The ellipsoid, its flesh that shows below the strips, the stand, and the strips of peel."""
    body = spec.worldbody.add_body(name="vegetable", mocap=True)
    size = [kind.length, kind.radius, kind.radius]
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=size, rgba=kind.skin, **scene.SOLID)
    for s in kind.strips:
        where = [s, 0.0, float(kind.height(s)) - 0.0005]
        _add_patch(body, kind, kind.flesh, pos=where, quat=_tilted(0.0, float(kind.slope(s))))
    for side in (-1, 1):
        where = [side * 0.6 * kind.length, 0.0, -AXIS_HEIGHT / 2 - 0.006]
        size = [0.006, 0.02, AXIS_HEIGHT / 2 - 0.006]
        body.add_geom(type=BOX, pos=where, size=size, rgba=[0.45, 0.35, 0.28, 1.0], **scene.SOLID)
    *skin, alpha = kind.skin
    for k in range(STRIPS):
        strip = spec.worldbody.add_body(name=f"strip {k}", mocap=True)
        _add_patch(strip, kind, [*(0.6 * part for part in skin), alpha], pos=[0.0, 0.0, 0.0005])


def _add_patch(
    body: mujoco.MjsBody,
    kind: Vegetable,
    colour: Sequence[float],
    pos: Sequence[float],
    quat: Sequence[float] | np.ndarray = (1.0, 0.0, 0.0, 0.0),
) -> None:
    """A thin box that is only seen, as large as a strip of peel."""
    size = [1.15 * REACH * kind.length / STRIPS, STRIP_WIDTH, 0.001]
    body.add_geom(type=BOX, pos=pos, quat=quat, size=size, rgba=colour, **scene.SEEN)
