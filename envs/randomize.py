"""Domain randomisation: named, seeded variations of a task's world, each with levels.

An episode's world is drawn from the episode's seed and the variation's name alone, so it depends on
no order, no other variation and no number of workers. A randomiser reads the nominal model and
writes the varied one, element by element: nothing drifts over episodes. With a higher level the
same seed is varied in the same direction, only further, so that robustness is a curve.

The functions of `RANDOMIZERS` change a compiled model; `Randomized` calls them for a single
environment and `robolearn.envs.batch` for every slot of a batch. Only `delay` is about actions.
What writes masses, frictions and so on, and how far they go, is in `robolearn.envs.dynamics`.
"""

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, Final, NamedTuple

import gymnasium
import mujoco
import numpy as np

from robolearn.contract import Info, wish
from robolearn.envs.dynamics import DELAY, LATEST, SCALED
from robolearn.envs.props import COLOURS, HIDDEN, NAME, PATTERNS, SHAPES, SHOWN, height_of
from robolearn.envs.scene import TOP_EYE
from robolearn.envs.task import Start, Task
from robolearn.envs.variation import (
    MAX_LEVEL,
    DelayLine,
    Variation,
    next_seed,
    step_late,
    variation_stream,
)

# What happens at full strength.
CAMERA_SHIFT: Final = 0.010  # m along each axis
CAMERA_TURN: Final = np.radians(4.0)
CAMERA_ZOOM: Final = 0.06  # share of the field of view
LIGHT: Final = 0.6  # share of each light's brightness
LIGHT_TINT: Final = 0.12  # share of a single colour
LIGHT_TURN: Final = np.radians(35.0)
SHADE: Final = 0.35  # share of an object's brightness; its hue stays, since words may name it
PROP_AREA: Final = 1.15  # sides of where distractors may stand, in those of the work area
PROP_GAP: Final = 0.03  # m between distractors and whatever the task uses
PROP_TRIES: Final = 60
UNCOLOURED: Final = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default
LARGEST: Final = 0.25  # m: what has a larger radius is furniture to stand on


class World(NamedTuple):
    """What a randomiser works on."""

    task: Task  # never written
    model: mujoco.MjModel  # what it writes
    nominal: mujoco.MjModel  # what it reads
    start: Start  # of the episode


Randomizer = Callable[[World, np.random.Generator, float], None]


def _scaled(name: str, world: World, rng: np.random.Generator, strength: float) -> None:
    """Other masses, frictions and so on: a factor for every body, joint or servo."""
    write, most = SCALED[name]
    write(world.model, world.nominal, partial(_factors, rng, most, strength))


def camera(world: World, rng: np.random.Generator, strength: float) -> None:
    """Cameras that are mounted a little elsewhere; the film camera stays."""
    for name in world.task.cameras:
        shift, axis, turn, zoom = rng.uniform(-1, 1, 3), rng.normal(size=3), *rng.uniform(-1, 1, 2)
        number, nominal = world.nominal.camera(name).id, world.nominal
        world.model.cam_pos[number] = nominal.cam_pos[number] + CAMERA_SHIFT * strength * shift
        quat = _turned(nominal.cam_quat[number], axis, CAMERA_TURN * strength * turn)
        world.model.cam_quat[number] = quat
        world.model.cam_fovy[number] = nominal.cam_fovy[number] * (
            1 + CAMERA_ZOOM * strength * zoom
        )


def light(world: World, rng: np.random.Generator, strength: float) -> None:
    """Brighter, darker, tinted light from elsewhere."""
    model, nominal = world.model, world.nominal
    lamps = model.nlight
    dim = 1 + LIGHT * strength * rng.uniform(-1, 1, (lamps + 1, 1))
    shade = dim * (1 + LIGHT_TINT * strength * rng.uniform(-1, 1, (lamps + 1, 3)))
    model.light_diffuse[:] = nominal.light_diffuse * shade[1:]
    model.vis.headlight.ambient[:] = nominal.vis.headlight.ambient * shade[0]
    for lamp in range(lamps):
        axis, turn = rng.normal(size=3), rng.uniform(-1, 1) * LIGHT_TURN * strength
        quat = _turned(np.array([1.0, 0.0, 0.0, 0.0]), axis, turn)
        direction = np.empty(3)
        mujoco.mju_rotVecQuat(direction, nominal.light_dir[lamp], quat)
        model.light_dir[lamp] = direction


def texture(world: World, rng: np.random.Generator, strength: float) -> None:
    """Another colour and perhaps a pattern for the table, other shades for what is on it."""
    model, nominal = world.model, world.nominal
    shades = 1 + SHADE * strength * rng.uniform(-1, 1, (model.ngeom, 1))
    # Geoms without a colour of their own have their material's.
    dyed = np.any(nominal.geom_rgba != UNCOLOURED, axis=1) | (nominal.geom_matid < 0)
    dyed[_props(nominal)] = False
    model.geom_rgba[dyed, :3] = np.clip(nominal.geom_rgba[dyed, :3] * shades[dyed], 0, 1)
    dyes = 1 + SHADE * strength * rng.uniform(-1, 1, (model.nmat, 1))
    model.mat_rgba[:, :3] = np.clip(nominal.mat_rgba[:, :3] * dyes, 0, 1)
    model.mat_texrepeat[:] = nominal.mat_texrepeat
    for geom in np.flatnonzero((nominal.geom_bodyid == 0) & (nominal.geom_group != HIDDEN)):
        colour, chosen, repeats = rng.uniform(0.15, 0.95, 3), rng.integers(4), rng.uniform(2, 16)
        mixed = (1 - strength) * nominal.geom_rgba[geom, :3] + strength * colour
        patterned = rng.random() < strength
        model.geom_rgba[geom, :3] = mixed
        pattern = nominal.material(f"{NAME} {PATTERNS[chosen]}").id
        model.geom_matid[geom] = pattern if patterned else nominal.geom_matid[geom]
        if patterned:
            model.mat_rgba[pattern] = 1.0
            model.mat_texrepeat[pattern] = repeats


def distractors(world: World, rng: np.random.Generator, strength: float) -> None:
    """Things that have nothing to do with the task stand beside what has, up to eight.

    They are there to be seen: nothing can touch them, so that this variation is about looks alone.
    """
    model, props = world.model, _props(world.nominal)
    for field in ("geom_group", "geom_pos", "geom_quat", "geom_rgba"):
        getattr(model, field)[props] = getattr(world.nominal, field)[props]
    spots = _free_spots(world, rng)
    order, colours = rng.permutation(len(props)), rng.choice(COLOURS, len(props))
    yaws = rng.uniform(-np.pi, np.pi, len(props))
    for number, spot in zip(order[: round(strength * len(props))], spots, strict=False):
        prop, yaw = props[number], yaws[number] / 2
        model.geom_group[prop] = SHOWN
        model.geom_pos[prop] = [*spot, height_of(number)]
        model.geom_quat[prop] = [np.cos(yaw), 0.0, 0.0, np.sin(yaw)]
        model.geom_rgba[prop, :3] = colours[number]


RANDOMIZERS: Final[dict[str, Randomizer]] = {
    **{name: partial(_scaled, name) for name in SCALED},
    "camera": camera,
    "light": light,
    "texture": texture,
    "distractors": distractors,
}


def draw_world(name: str, level: int, seed: int, world: World) -> None:
    """Gives a model the world that one randomiser draws for the episode of `seed`."""
    RANDOMIZERS[name](world, variation_stream(seed, name), level / MAX_LEVEL)


def draw_delay(level: int, seed: int, control_hz: float) -> float:
    """How many control steps, a fraction, actions of this episode come late."""
    share = variation_stream(seed, DELAY).uniform(0.5, 1.0)
    return float(share * LATEST * level / MAX_LEVEL * control_hz)


class Randomized(Variation):
    """Draws a world for every episode, with one of `RANDOMIZERS`.

    Raises:
        ValueError: no such randomiser, no such level, or no simulated task.
    """

    def __init__(self, env: gymnasium.Env, name: str, level: int) -> None:
        super().__init__(env, name, level)
        if name not in RANDOMIZERS:
            raise ValueError(f"no randomiser {name!r}; choose one of {', '.join(RANDOMIZERS)}")
        inner: Any = env
        while isinstance(inner, gymnasium.Wrapper) and not isinstance(inner, Randomized):
            inner = inner.env
        varied = isinstance(inner, Randomized)
        self.nominal: mujoco.MjModel = inner.nominal if varied else copy(self.task.model)

    def _constructed_with(self, name: str, level: int) -> dict[str, Any]:
        return {"name": name, "level": level}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Draws the world, then begins the episode in it."""
        if self.level:
            task, chosen = self.task, next_seed(self.task, seed)
            start = task.draw(chosen, wish(options))
            world = World(task, task.model, self.nominal, start)
            draw_world(self.name, self.level, chosen, world)
        return self.env.reset(seed=seed, options=options)


class Delayed(Variation):
    """Every action of an episode reaches the servos late, by a time drawn for the episode."""

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, DELAY, level)
        self._line = DelayLine(1, self.task.arm.size)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the episode; the arm's past is at rest."""
        observation, info = self.env.reset(seed=seed, options=options)
        steps = draw_delay(self.level, info[Info.SEED], self.task.arm.control_hz)
        self._line.begin(0, info[Info.ACTION_SENT], steps)
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Executes what was asked a while ago; `info` tells what was asked now."""
        if not self.level:
            return self.env.step(action)
        return step_late(self.env, action, lambda sent: self._line.push(sent[None])[0])


def _factors(
    rng: np.random.Generator, most: float, strength: float, shape: int | tuple[int, ...]
) -> np.ndarray:
    """Factors between 1 / most and most at full strength, as often above 1 as below."""
    return np.exp(rng.uniform(-1, 1, shape) * np.log(most) * strength)


def _turned(quat: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    turn, result = np.empty(4), np.empty(4)
    mujoco.mju_axisAngle2Quat(turn, axis / np.linalg.norm(axis), angle)
    mujoco.mju_mulQuat(result, turn, quat)
    return result


def _props(model: mujoco.MjModel) -> np.ndarray:
    """The geoms of the hidden things."""
    return np.array([model.geom(f"{NAME} {number}").id for number in range(len(SHAPES))])


def _free_spots(world: World, rng: np.random.Generator) -> list[np.ndarray]:
    """Places (x, y) on the table where nothing is, neither at the start nor at the goal."""
    taken = np.concatenate(
        [_footprints(world, start) for start in (world.start, world.task.goal_scene(world.start))]
    )
    eye = world.nominal.cam_pos[world.nominal.camera("top").id]
    half = PROP_AREA * np.array(world.task.work_area) / 2
    spots: list[np.ndarray] = []
    for shift in rng.uniform(-half, half, (PROP_TRIES, 2)):
        spot = eye[:2] - [TOP_EYE[0], 0.0] + shift
        near = np.linalg.norm(taken[:, :2] - spot, axis=1) < taken[:, 2] + PROP_GAP
        if not near.any():
            spots.append(spot)
            taken = np.concatenate([taken, [[*spot, PROP_GAP]]])
    return spots


def _footprints(world: World, start: Start) -> np.ndarray:
    """Circles (K, 3), x, y and radius, around all that the task has put somewhere."""
    model, data = world.nominal, mujoco.MjData(world.nominal)
    data.qpos[:], data.mocap_pos[:] = start.qpos, start.mocap_pos
    if start.mocap_quat is not None:
        data.mocap_quat[:] = start.mocap_quat
    mujoco.mj_kinematics(model, data)
    things = (model.geom_bodyid > 0) & (model.geom_rbound < LARGEST)
    return np.column_stack([data.geom_xpos[things, :2], model.geom_rbound[things]])
