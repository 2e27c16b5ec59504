"""What the tasks share that pour beads out of a cup: the scene, the count, the goal test.

Success: the wanted share of the beads is where it should be, give or take `TOLERANCE`; less than
`SPILL` of them are lost; the cup is upright, held or not, and it and the beads are at rest; all of
that for `hold_seconds`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, Final

import mujoco
import numpy as np

from robolearn.envs import scene
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.beads import (
    COUNT,
    Beads,
    Vessel,
    Vessels,
    add_beads,
    add_vessel,
    layout,
    settled,
)
from robolearn.envs.lookup import free, length, sensor
from robolearn.envs.task import Start, State

CUP: Final = Vessel(inner=0.016, height=0.05)
NOVEL_CUP: Final = Vessel(inner=0.0165, height=0.058, sides=6, rgba=(0.95, 0.80, 0.10, 0.5))
CUP_MASS: Final = 0.015  # kg
WORK_CENTRE: Final = (0.28, 0.0)
WORK_AREA: Final = (0.20, 0.352)  # m: the smallest bead covers four pixels of the top camera
MAX_YAW: Final = 0.15  # rad, of a cup, from the x axis of the table
TOLERANCE: Final = 0.1  # of all beads
SPILL: Final = 0.1  # of all beads: fewer than these
ROUNDING: Final = 1e-9
AT_REST: Final = 0.05  # m/s
UPRIGHT: Final = float(np.cos(np.radians(30.0)))  # of an axis, its vertical part at least
WORTH: Final = 0.9  # progress of all but a success
NEARING: Final = 4.0  # 1/m: what the distances tool to cup and cup to target take off it


class PouringTask(ManipulationEnv):
    """A cup full of beads, and vessels to pour them into.

    The first entry of the goal vector is the share of the beads that is wanted, 0..1.

    Attributes:
        targets: the vessels to pour into, by their names.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "novel_object", "novel_scene", "novel_state")
    work_area: ClassVar[tuple[float, float]] = WORK_AREA
    targets: ClassVar[Mapping[str, Vessel]]

    @classmethod
    def cup(cls, split: str) -> Vessel:
        """The cup of a split."""
        return NOVEL_CUP if split == "novel_object" else CUP

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        """The arm, the cup, the beads and the targets."""
        spec = scene.table_scene(WORK_CENTRE, split)
        add_vessel(spec, "cup", cls.cup(split), CUP_MASS)
        for name, vessel in cls.targets.items():
            add_vessel(spec, name, vessel)
        add_beads(spec)
        scene.add_position(spec, "tool", mujoco.mjtObj.mjOBJ_SITE)
        return spec

    @cached_property
    def beads(self) -> Beads:
        """Where the beads are in the simulator's vectors."""
        return Beads(self.model)

    @cached_property
    def vessels(self) -> Vessels:
        """The cup, then the targets."""
        return Vessels(self.model, {"cup": self.cup(self.split), **self.targets})

    @cached_property
    def _cup(self) -> tuple[slice, slice]:
        return free(self.model, "cup")

    @cached_property
    def _tool(self) -> slice:
        return sensor(self.model, "tool position")

    def full(self, rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
        """The arm at home and the cup, full of beads, at a place of the table (2,); (nq,)."""
        yaw = rng.uniform(-MAX_YAW, MAX_YAW)
        qpos = self.home(rng)
        qpos[self._cup[0]] = [*place, 0.0, *scene.about_z(yaw)]
        filling = _turned(settled(self.model, self.cup(self.split)), yaw)
        self.beads.places(qpos)[:] = filling + [*place, 0.0]
        return qpos

    def poured(self, start: Start, share: float, target: int) -> Start:
        """The same start with this share of the beads in a target."""
        qpos = start.qpos.copy()
        places = self.beads.places(qpos)
        upper = np.argsort(places[:, 2])[COUNT - round(share * COUNT) :]
        vessel = list(self.targets.values())[target]
        places[upper] = layout(vessel, len(upper)) + start.mocap_pos[target]
        return replace(start, qpos=qpos)

    def shares(self, state: State) -> np.ndarray:
        """Shares of the beads (N, vessels): of those in the cup, then in each target."""
        inside = self.vessels.hold(state, self.beads.places(state.qpos))
        inside[:, 1:] &= ~inside[:, :1]  # a cup may stand in a target
        return np.add.reduce(inside, axis=2) / COUNT

    def upright(self, state: State) -> np.ndarray:
        """Whether the cup is, bool (N,)."""
        return self.vessels.frames(state)[:, 0, 1, 2] > UPRIGHT

    def _still(self, state: State) -> np.ndarray:
        """Whether the cup and the beads are at rest, bool (N,)."""
        slow = length(self.beads.velocities(state.qvel)) < AT_REST
        return slow.all(1) & (length(state.qvel[:, self._cup[1]][:, :3]) < AT_REST)

    def judged(
        self,
        state: State,
        *,
        miss: np.ndarray,
        most: np.ndarray,
        spilt: np.ndarray,
        target: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether the goal test holds, bool (N,), and progress (N,).

        Args:
            state: N simulations.
            miss: by how much the share is off (N,).
            most: by how much it is off in the beginning (N,).
            spilt: share of the beads that are neither in the cup nor where they should be (N,).
            target: where to pour (N, 3), m.
        """
        cup = self.vessels.frames(state)[:, 0, 0]
        near = np.maximum(0.0, 1.0 - NEARING * length(state.sensordata[:, self._tool] - cup))
        over = np.maximum(0.0, 1.0 - NEARING * length((target - cup)[:, :2]))
        amount = np.maximum(0.0, 1.0 - miss / most)
        progress = WORTH * np.maximum(0.0, 0.2 * (near + over) + 0.6 * amount - spilt)
        done = (miss < TOLERANCE + ROUNDING) & (spilt < SPILL - ROUNDING)
        if not np.count_nonzero(done):  # as mostly
            return done, progress
        done &= self.upright(state) & self._still(state)
        return done, np.where(done, 1.0, progress)

    def environment_state(self, state: State, goal: np.ndarray) -> np.ndarray:
        """Cup pose (7), beads and targets (3 each), and the goal."""
        parts = (
            state.qpos[:, self._cup[0]],
            state.qpos[:, self.beads.qpos],
            state.mocap_pos.reshape(len(goal), -1),
            goal,
        )
        return np.concatenate(parts, axis=1, dtype=np.float32)


def _turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points (P, 3) after a turn about the vertical, rad."""
    c, s = np.cos(yaw), np.sin(yaw)
    return points @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
