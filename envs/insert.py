"""Insert: lay the phone into the tray of the named colour, which is 1 mm wider than the phone.

A phone-sized plate lies on the table beside two trays; the instruction names one of them by colour.
The tray is 1 mm longer and 1 mm wider than the plate, in total, and has notches for the fingers in
its long walls. Success: the plate lies flat on the floor of the named tray, at rest, and the
gripper has let go of it; all of that for `hold_seconds`. Places and headings of all three and the
colour vary. ALOE has the same precision task as packing a phone.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.expert import Hand, Script, Style, facing, watched
from robolearn.envs.grasp import close_and_lift, come_down, nearest_heading
from robolearn.envs.language import Phrases, Words
from robolearn.envs.lookup import free, length, sensor, tilt_of, wrapped, yaw_of
from robolearn.envs.task import Start, State

TRAYS: Final = ("blue", "yellow")
PHRASES: Final = Phrases(
    "Insert",
    {
        "train": (
            "put the phone in the {tray} tray",
            "lay the phone into the {tray} tray",
            "insert the phone into the {tray} tray",
            "pack the phone in the {tray} case",
            "place the phone flat in the {tray} tray",
            "fit the phone into the {tray} case",
        ),
        "held_out": (
            "please set the phone down inside the {tray} tray",
            "the phone belongs in the {tray} case",
        ),
    },
    {"tray": Words(TRAYS)},
)

WORK_CENTRE: Final = (0.21, 0.0)
WORK_AREA: Final = (0.22, 0.40)  # m: 84 pixels of the top camera show the phone's width at 5.9
PHONE: Final = np.array([0.060, 0.028, 0.008])  # m, its length (x), width (y) and thickness
SCREEN: Final = (0.55, 0.75, 0.85, 1.0)
PHONE_MASS: Final = 0.04  # kg
# As hard as the timestep allows: MuJoCo's default contacts give way by more than the clearance.
HARD: Final = {"priority": 1, "solref": [0.01, 1.0], "solimp": [0.97, 0.99, 0.0005, 0.5, 2.0]}
BOX: Final = mujoco.mjtGeom.mjGEOM_BOX
CLEARANCE: Final = 0.001  # m: how much longer and wider than the phone the inside of a tray is
FLOOR: Final = 0.002  # m, thickness of a tray's floor
WALL: Final = 0.004  # m, thickness of its walls
RIM: Final = 0.008  # m, height of its walls above the table
NOTCH: Final = 0.028  # m: the gap in the middle of a long wall, in which the fingers fit
PHONE_PLACES: Final = ((0.17, 0.255), (-0.035, 0.035))  # x and y of its centre, m
SLOTS: Final = ((0.21, 0.132), (0.21, -0.132))  # m
JITTER: Final = 0.012  # m
PHONE_TURN, TRAY_TURN = 0.6, 0.4  # rad, at most, from lying across the arm's reach
SEATED: Final = 0.0008  # m: how far a corner may be above the floor
INSIDE: Final = np.array([CLEARANCE, CLEARANCE])  # m: sideways there is not more room than that
FLAT: Final = np.radians(1.5)
AT_REST: Final = 0.02  # m/s
WORTH: Final = 0.9  # progress of a phone that is in its tray but not yet let go
TO_PHONE, TO_TRAY = 1.5, 2.4  # 1/m: what the distances tool to phone to its place take off it

# The goal vector: x, y and yaw of the named tray and the height of a phone in it, its colour as
# one-hot, x, y and yaw of all trays.
TRAY: Final = slice(0, 3)
SEAT: Final = np.array([0, 1, 3])
ONE_HOT: Final = slice(4, 4 + len(TRAYS))

# How the expert does it.
ATTEMPTS: Final = 6
WIDE: Final = 0.06  # opening that the phone takes more than a cube
GRIP: Final = 0.005  # m: the finger tips above the phone's middle
CARRY_HEIGHT: Final = 0.065  # m
HELD: Final = 0.024  # m between the finger tips and the middle of a phone between the jaws
OVER: Final = 0.004  # m between phone and rim while it is lined up
TRIES: Final = 4  # lowerings before it starts all over
LOOKS: Final = 80  # corrections, one a control step, before it goes up again
GAIN: Final = 0.12  # share of the error that each takes away
SINK: Final = 0.03  # m/s
FINE, TRUE = 0.0006, np.radians(1.0)  # m and rad: lined up so well, it goes down
PRESS: Final = 0.004  # m: how far below what it meets the hand aims, at most
ASIDE: Final = 0.003  # m: how far the fixed jaw backs off when the hand lets go


class Insert(ManipulationEnv):
    """See the module's docstring."""

    phrases: ClassVar[Phrases] = PHRASES
    splits: ClassVar[tuple[str, ...]] = ("train", "novel_scene")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The phone, two trays, the arm."""
        spec = scene.table_scene(WORK_CENTRE, split)
        for colour in TRAYS:
            _add_tray(spec, f"{colour} tray", colour)
        _add_phone(spec)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        scene.add_touch(spec, "touch", "phone")
        return spec

    def start(self, rng: np.random.Generator, instruction: str | None) -> Start:
        """Random places and headings and a random colour, unless the instruction is given."""
        trays = np.array(SLOTS)[rng.permutation(len(TRAYS))]
        trays = trays + rng.uniform(-JITTER, JITTER, trays.shape)
        yaws = [_across(p) + rng.uniform(-TRAY_TURN, TRAY_TURN) for p in trays]
        place = rng.uniform(*np.transpose(PHONE_PLACES))
        yaw = _across(place) + rng.uniform(-PHONE_TURN, PHONE_TURN)
        qpos = self.home(rng)
        qpos[self._phone[0]] = [*place, PHONE[2] / 2, *scene.about_z(yaw)]
        text, (tray,) = self.instruct(rng, instruction)
        shown, height = np.column_stack([trays, yaws]), FLOOR + PHONE[2] / 2
        return Start(
            qpos=qpos,
            mocap_pos=np.column_stack([trays, np.zeros(len(TRAYS))]),
            mocap_quat=np.array([scene.about_z(yaw) for yaw in yaws]),
            goal=np.array([*shown[tray], height, *np.eye(len(TRAYS))[tray], *shown.ravel()]),
            instruction=text,
        )

    def evaluate(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat on the floor of the named tray, released, at rest; see the base class."""
        pose = state.qpos[:, self._phone[0]]
        place = pose[:, :3]
        away = length(place - goal[:, SEAT])
        error = TO_PHONE * length(state.sensordata[:, self._tool] - place) + TO_TRAY * away
        progress = np.maximum(0.0, WORTH - error)
        close = away < 2 * CLEARANCE
        if not np.count_nonzero(close):  # as nearly always; the rest would take as long again
            return close, progress
        offset, _ = self._offset(state, goal)
        seated = (np.abs(offset[:, :2]) < INSIDE).all(1) & (offset[:, 2] < SEATED)
        at_rest = length(state.qvel[:, self._phone[1]][:, :3]) < AT_REST
        released = (state.sensordata[:, self._touch] == 0).all(1)
        done = seated & at_rest & released & (tilt_of(pose[:, 3:]) < FLAT)
        return done, np.where(done, 1.0, np.where(seated, WORTH, progress))

    def movable(self, goal: np.ndarray) -> tuple[str, ...]:
        """The phone; see the base class."""
        del goal
        return ("phone",)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """The phone's pose (7), the named tray's, its colour as one-hot, all trays' poses."""
        parts = [state.qpos[:, self._phone[0]], goal]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def goal_scene(self, start: Start) -> Start:
        """The phone in the named tray."""
        qpos = start.qpos.copy()
        x, y, yaw = start.goal[TRAY]
        qpos[self._phone[0]] = [x, y, FLOOR + PHONE[2] / 2, *scene.about_z(yaw)]
        return replace(start, qpos=qpos)

    @cached_property
    def _phone(self) -> tuple[slice, slice]:
        return free(self.model, "phone")

    @cached_property
    def _tool(self) -> slice:
        return sensor(self.model, "tool position")

    @cached_property
    def _touch(self) -> slice:
        return sensor(self.model, "touch")

    def _offset(self, state: State, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the phone in the frame of its place in the named tray: m (N, 3), and its turn (N,)."""
        pose = state.qpos[:, self._phone[0]]
        x, y = (pose[:, :2] - goal[:, :2]).T
        c, s = np.cos(goal[:, 2]), np.sin(goal[:, 2])
        z = pose[:, 2] - FLOOR - PHONE[2] / 2
        turn = wrapped(yaw_of(pose[:, 3:]) - goal[:, 2], np.pi)
        return np.column_stack([c * x + s * y, c * y - s * x, z]), turn

    def expert(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Picks the phone up by its long edges, lines it up over the tray and lowers it.

        Yields:
            One action a control step.
        """
        style = Style.draw(rng, self.demonstrator)
        style = replace(style, opened=style.opened + WIDE)
        hand = Hand(self, style)
        for _ in range(ATTEMPTS):
            heading = self._heading()
            if (yield from self._pick(hand, style, rng, heading)) and (
                yield from self._fit(hand, style, heading)
            ):
                break
        yield from hand.rest()

    def _pick(self, hand: Hand, style: Style, rng: np.random.Generator, heading: float) -> Script:
        """Grasps the phone across its width and lifts it."""
        x, y, z = self._pose()[:3]
        grasp, width = [x, y, z + GRIP], float(PHONE[1])
        if not (yield from come_down(hand, style, rng, grasp, heading, width, self._is_at(x, y))):
            return False
        yield from close_and_lift(hand, style, grasp, heading, width, CARRY_HEIGHT)
        return self._is_held()

    def _fit(self, hand: Hand, style: Style, heading: float) -> Script:
        """Brings the phone over the tray, looks and corrects, lowers it, lets go."""
        tool = self.state.sensordata[0, self._tool]
        height = float(tool[2] - self._pose()[2])  # of the tips above the phone's middle
        over = RIM + OVER + PHONE[2] / 2 + height
        for z, speed in ((CARRY_HEIGHT, 1.0), (over, 0.7)):
            place, heading = self._aim(hand, heading)
            move = hand.move([*place, z], heading, style.closed, speed=speed)
            if not (yield from watched(move, self._is_held)):
                return False
        for _ in range(TRIES):
            heading = yield from self._lower(hand, style, heading)
            if self._is_seated():
                return (yield from self._let_go(hand, style, heading))
            up = [*hand.position[:2], over]
            yield from hand.move(up, heading, style.closed, straight=True)
        return False

    def _lower(
        self, hand: Hand, style: Style, heading: float
    ) -> Generator[np.ndarray, None, float]:
        """Goes down bit by bit as long as all is lined up, corrects, and returns the heading.

        The servos stick, so the hand comes to rest a millimetre from where it should; a phone that
        sits on the rim is shifted, lightly pressed, until it slips in.
        """
        period = 1.0 / self.arm.control_hz
        for _ in range(LOOKS):
            if self._is_seated():
                break
            place, heading = self._aim(hand, heading, GAIN)
            low = self.state.sensordata[0, self._tool][2] - PRESS
            z = max(low, hand.position[2] - SINK * period * self._is_lined_up())
            way = [*place, z]
            yield from hand.move(way, heading, style.closed, seconds=period, straight=True)
        return heading

    def _let_go(self, hand: Hand, style: Style, heading: float) -> Script:
        """Opens, the fixed jaw a little away as well, and rises."""
        aside = hand.position - [ASIDE * np.cos(heading), ASIDE * np.sin(heading), 0.0]
        opened = style.opened - WIDE
        yield from hand.move(aside, heading, opened, seconds=0.4, straight=True)
        yield from hand.move([*aside[:2], CARRY_HEIGHT], heading, opened, straight=True)
        return self._is_seated()

    def _aim(self, hand: Hand, heading: float, gain: float = 1.0) -> tuple[np.ndarray, float]:
        """Where the hand should be (2,), m, and its heading, by what the phone is off."""
        (offset,), (turn,) = self._offset(self.state, self.goal[None])
        c, s = np.cos(self.goal[2]), np.sin(self.goal[2])
        off = np.array([c * offset[0] - s * offset[1], s * offset[0] + c * offset[1]])
        return hand.position[:2] - gain * off, heading - gain * float(turn)

    def _is_seated(self) -> bool:
        return bool(self._offset(self.state, self.goal[None])[0][0, 2] < SEATED)

    def _is_lined_up(self) -> bool:
        (offset,), (turn,) = self._offset(self.state, self.goal[None])
        return bool(np.abs(offset[:2]).max() < FINE and abs(turn) < TRUE)

    def _is_at(self, x: float, y: float) -> Callable[[], bool]:
        return lambda: bool(np.hypot(*(self._pose()[:2] - [x, y])) < 0.01)

    def _is_held(self) -> bool:
        tool = self.state.sensordata[0, self._tool]
        return bool(np.linalg.norm(tool - self._pose()[:3]) < HELD)

    def _pose(self) -> np.ndarray:
        return self.state.qpos[0, self._phone[0]]

    def _heading(self) -> float:
        """Across the phone; of its two equal headings the one that faces the arm best, rad."""
        pose = self._pose()
        return nearest_heading(float(yaw_of(pose[3:])) + np.pi / 2, facing(pose), np.pi)


def _across(place: np.ndarray) -> float:
    """The yaw of a thing that lies across the direction in which the arm reaches it, rad."""
    return facing(place) + np.pi / 2


def _add_phone(spec: mujoco.MjSpec) -> None:
    """A plate with a screen."""
    body = spec.worldbody.add_body(name="phone")
    body.add_joint(name="phone", type=mujoco.mjtJoint.mjJNT_FREE)
    x, y, z = PHONE / 2
    options = {**scene.SOLID, "condim": 4, "friction": [0.6, 0.01, 0.001]}
    body.add_geom(type=BOX, size=[x, y, z], mass=PHONE_MASS, rgba=scene.COLOURS["black"], **options)
    seen = {**scene.SEEN, "mass": 0.0, "rgba": SCREEN}
    body.add_geom(type=BOX, pos=[0, 0, z], size=[x - 0.004, y - 0.003, 0.0003], **seen)


def _add_tray(spec: mujoco.MjSpec, name: str, colour: str) -> None:
    """A tray that only a reset moves (a mocap body); its origin is the middle of its base."""
    body = spec.worldbody.add_body(name=name, mocap=True)
    x, y = (PHONE[:2] + CLEARANCE) / 2
    half, long = WALL / 2, (x + WALL - NOTCH / 2) / 2
    parts = [([0, 0, FLOOR / 2], [x + WALL, y + WALL, FLOOR / 2])]
    for side in (-1, 1):
        parts.append(([side * (x + half), 0, RIM / 2], [half, y + WALL, RIM / 2]))
        for end in (-1, 1):
            place = [end * (NOTCH / 2 + long), side * (y + half), RIM / 2]
            parts.append((place, [long, half, RIM / 2]))
    options = {**scene.SOLID, "friction": [0.3, 0.005, 1e-4], **HARD}
    for pos, size in parts:
        body.add_geom(type=BOX, pos=pos, size=size, rgba=scene.COLOURS[colour], **options)
