"""Disturbances: what goes wrong in the middle of an episode, by name, seeded, with levels.

Spells of trouble come at random times that the episode's seed decides, together with all that
happens in them. The simulator's model and applied forces are as before after every step, so that
an episode leaves nothing behind.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final

import gymnasium
import mujoco
import numpy as np

from robolearn.contract import Info, check_action
from robolearn.envs.contacts import CLOTH, Hands, fingers
from robolearn.envs.variation import MAX_LEVEL, Variation, step_late, variation_stream

# What happens at full strength.
PUSH: Final = 20.0  # N on the hand, about 3 cm
DISPLACEMENT: Final = 0.04  # m that an object is moved
SLIPPERY: Final = 0.001  # of a finger's friction is left: a cube weighs 0.1 N, the grip is 20
OVERLAP: Final = -0.0005  # m: what is deeper in each other than this overlaps
SAG: Final = 0.001  # m: what lies on so much less than before, along x or y, lies over an edge
LEVEL: Final = 0.7  # vertical part of a contact's normal, at least, of what an object lies on
TRIES: Final = 20

Step = tuple[Any, Any, bool, bool, dict[str, Any]]


class Disturbance(Variation):
    """Has spells, in which a subclass does what it is there for.

    Args:
        env: a simulated task, perhaps wrapped.
        level: from 0, nothing, to `MAX_LEVEL`.

    Raises:
        ValueError: no such level, or nothing here that could be disturbed like this.
    """

    kind: ClassVar[str]
    gap: ClassVar[tuple[float, float]] = (1.0, 3.0)  # s between two spells, at least and at most
    lasts: ClassVar[float]  # s, a spell

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, self.kind, level)
        self._wait = self._left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins the episode, and its own course of trouble."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.rng = variation_stream(info[Info.SEED], self.name)
        self._wait, self._left = self._steps(self.rng.uniform(*self.gap)), 0
        self.begin(observation, info)
        return observation, info

    def step(self, action: np.ndarray) -> Step:
        """One control period, perhaps disturbed.

        Raises:
            ActionError: wrong shape, NaN or infinity; nothing has moved, and no time has passed.
        """
        if not self.level:
            return self.env.step(action)
        check_action(self.task.arm, action)
        fresh = not self._left and self._due()
        self._left = self._steps(self.duration()) if fresh else max(0, self._left - 1)
        if fresh:
            self.start()
        return self.disturb(action) if self._left else self.leave(action)

    def begin(self, observation: Any, info: dict[str, Any]) -> None:  # noqa: ANN401
        """An episode has begun."""

    def duration(self) -> float:
        """How long a spell lasts, s."""
        return self.lasts

    def ready(self) -> bool:
        """Whether time towards the next spell passes."""
        return True

    def start(self) -> None:
        """A spell begins: draws what happens in it."""

    def disturb(self, action: np.ndarray) -> Step:
        """A step within a spell."""
        return self.env.step(action)

    def leave(self, action: np.ndarray) -> Step:
        """A step without trouble."""
        return self.env.step(action)

    def _due(self) -> bool:
        if not self.ready():
            return False
        self._wait -= 1
        if self._wait > 0:
            return False
        self._wait = self._steps(self.rng.uniform(*self.gap))
        return True

    def _steps(self, seconds: float) -> int:
        return max(1, round(seconds * self.task.arm.control_hz))


class Push(Disturbance):
    """Somebody bumps into the hand: a horizontal force for a moment."""

    kind = "push"
    lasts = 0.25

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, level)
        self._hands = [hand for hand, _ in fingers(self.task)]

    def start(self) -> None:
        """Draws the hand, the direction and the force."""
        self._hand = self._hands[self.rng.integers(len(self._hands))]
        angle, share = self.rng.uniform(-np.pi, np.pi), self.rng.uniform(0.7, 1.0)
        force = share * PUSH * self.strength
        self._force = force * np.array([np.cos(angle), np.sin(angle), 0.0])

    def disturb(self, action: np.ndarray) -> Step:
        """The force acts for the whole control period."""
        applied = self.task.data.xfrc_applied[self._hand, :3]
        applied += self._force
        result = self.env.step(action)
        if np.count_nonzero(applied):  # a diverged simulation has been reset
            applied -= self._force
        return result


class Displace(Disturbance):
    """Somebody moves an object of the instruction: it is suddenly a few centimetres away.

    An object that the arm touches stays, and so does one that has no room or nothing to lie on.
    """

    kind = "displace"
    lasts = 0.01

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, level)
        if level and not self.task.movable(self.task.goal):
            raise ValueError(
                f"displace moves loose objects, and {self.task.spec.id} has none that could be "
                "moved without spoiling the episode"
            )
        self._trial = mujoco.MjData(self.task.model)

    def disturb(self, action: np.ndarray) -> Step:
        """Moves one object to where it overlaps with nothing, at rest, then steps."""
        names = self.task.movable(self.task.goal)
        joint = self.task.model.joint(names[self.rng.integers(len(names))]).id
        shifts = self.rng.uniform(-1, 1, (TRIES, 2)) * DISPLACEMENT * self.strength
        for shift in shifts if self._is_alone(joint) else ():
            if self._has_room(joint, shift):
                self._move(self.task.data, joint, shift)
                break
        return self.env.step(action)

    def _is_alone(self, joint: int) -> bool:
        """Whether nothing that can move holds it or lies on it."""
        body = self.task.model.jnt_bodyid[joint]
        touching = _touching(self.task, body)
        return not (self.task.model.body_weldid[touching] > 0).any()

    def _has_room(self, joint: int, shift: np.ndarray) -> bool:
        model, data, trial = self.task.model, self.task.data, self._trial
        trial.qpos[:], trial.mocap_pos[:] = data.qpos, data.mocap_pos
        trial.mocap_quat[:] = data.mocap_quat
        body = model.jnt_bodyid[joint]
        mujoco.mj_fwdPosition(model, trial)
        before, lies_on = _overlap(model, trial, body), _support(model, trial, body)
        self._move(trial, joint, shift)
        mujoco.mj_fwdPosition(model, trial)
        if _overlap(model, trial, body) < min(before, OVERLAP):
            return False
        found = _support(model, trial, body)
        same = bool(lies_on) and found.keys() == lies_on.keys()
        return same and all((found[geom] > lies_on[geom] - SAG).all() for geom in found)

    def _move(self, data: mujoco.MjData, joint: int, shift: np.ndarray) -> None:
        q, v = self.task.model.jnt_qposadr[joint], self.task.model.jnt_dofadr[joint]
        data.qpos[q : q + 2] += shift
        data.qvel[v : v + 6] = 0.0


class Slip(Disturbance):
    """What the hand holds slips: for a moment its fingers have hardly any friction."""

    kind = "slip"
    gap = (0.3, 1.5)  # s of holding something
    lasts = 0.2

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, level)
        if level and not self.task.grasps:
            raise ValueError(f"slip needs something in the hand, and {self.task.spec.id} has none")
        self._hands = Hands(self.task)

    def duration(self) -> float:
        """Longer at higher levels."""
        return self.lasts * self.strength

    def ready(self) -> bool:
        """Whether a hand has something solid between its fingers."""
        return bool(self._hands.held() - {CLOTH})

    def disturb(self, action: np.ndarray) -> Step:
        """The control period with slippery fingers."""
        pads, cloth = self.task.model.geom_friction, self.task.model.flex_friction
        touching = self._hands.pads
        before = pads[touching].copy(), cloth.copy()
        pads[touching] *= SLIPPERY
        cloth *= SLIPPERY  # it decides about its contacts, whatever touches it
        result = self.env.step(action)
        pads[touching], cloth[:] = before
        return result


class Freeze(Disturbance):
    """The cameras hang: for a while they repeat their last picture."""

    kind = "freeze"
    lasts = 1.6

    def __init__(self, env: gymnasium.Env, level: int) -> None:
        super().__init__(env, level)
        if level and not self.task.active_cameras:
            raise ValueError("freeze needs pictures: take an obs_type with cameras")

    def duration(self) -> float:
        """Longer at higher levels."""
        return self.lasts * self.strength

    def begin(self, observation: Any, info: dict[str, Any]) -> None:  # noqa: ANN401
        """Remembers the first pictures."""
        del info
        if self.level:
            self._seen = _pictures(observation)

    def disturb(self, action: np.ndarray) -> Step:
        """Everything goes on except the pictures."""
        observation, *rest = self.env.step(action)
        return ({**observation, **_copy(self._seen)}, *rest)  # type: ignore[return-value]

    def leave(self, action: np.ndarray) -> Step:
        """Remembers the pictures, in case they are the last for a while."""
        result = self.env.step(action)
        self._seen = _pictures(result[0])
        return result


class ActionDelay(Disturbance):
    """The connection is slow for a while: as many control steps as the level, actions are late."""

    kind = "action_delay"
    lasts = 1.5

    def begin(self, observation: Any, info: dict[str, Any]) -> None:  # noqa: ANN401
        """The arm's past is at rest."""
        del observation
        self._past = [info[Info.ACTION_SENT]] * (MAX_LEVEL + 1)

    def disturb(self, action: np.ndarray) -> Step:
        """Executes what was asked a few steps ago."""
        return step_late(self.env, action, lambda sent: self._pushed(sent)[self.level])

    def leave(self, action: np.ndarray) -> Step:
        """Executes what is asked."""
        return step_late(self.env, action, lambda sent: self._pushed(sent)[0])

    def _pushed(self, sent: np.ndarray) -> list[np.ndarray]:
        self._past = [sent, *self._past[:-1]]
        return self._past


DISTURBANCES: Final[dict[str, Callable[[gymnasium.Env, int], Disturbance]]] = {
    disturbance.kind: disturbance for disturbance in (Push, Displace, Slip, Freeze, ActionDelay)
}


def _touching(task: Any, body: int) -> np.ndarray:  # noqa: ANN401
    """The bodies that a body touches."""
    geoms = task.data.contact.geom
    pairs = task.model.geom_bodyid[geoms[(geoms >= 0).all(1)]]
    return np.concatenate([pairs[pairs[:, 0] == body, 1], pairs[pairs[:, 1] == body, 0]])


def _overlap(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> float:
    """The deepest contact of a body, m, negative; 0 without one."""
    mine = _contacts(model, data, body).any(1)
    return float(min(0.0, data.contact.dist[mine].min(initial=0.0)))


def _contacts(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
    """Which sides of the contacts are a body's, bool (ncon, 2); a cloth's are no body's."""
    geoms = data.contact.geom
    return (model.geom_bodyid[geoms] == body) & (geoms >= 0)


def _support(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> dict[int, np.ndarray]:
    """The geoms that a body lies on, and how far along x and y it does, m (2,)."""
    mine = _contacts(model, data, body)
    level = mine.any(1) & (np.abs(data.contact.frame[:, 2]) > LEVEL)
    others = np.where(mine[:, 0], data.contact.geom[:, 1], data.contact.geom[:, 0])
    places = data.contact.pos
    return {int(g): np.ptp(places[level & (others == g)][:, :2], axis=0) for g in others[level]}


def _pictures(observation: dict[str, Any]) -> dict[str, Any]:
    return _copy({key: observation[key] for key in ("pixels", "depth") if key in observation})


def _copy(pictures: dict[str, Any]) -> dict[str, Any]:
    return {key: {c: p.copy() for c, p in views.items()} for key, views in pictures.items()}
