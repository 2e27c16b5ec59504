"""Fitting a `ServoModel` to recorded motion by simulation.

The arm of `assets/` is simulated from where each recorded episode begins and driven by the recorded
targets. The fitted servos are those with which it stays closest to the recorded positions: least
squares over log kp, log damping, log frictionloss and delay of every joint. The loss grows only
linearly beyond `SCALE`, so that a bump costs little, and a weak prior keeps at its start what the
recording does not determine.

Shapes: E episodes of T frames, F frames in all, J joints, P = 4 parameters, S servo models, B
simulations of K physics steps. Angles are rad, a gripper's too.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import mujoco
import numpy as np
from mujoco import rollout

from robolearn.contract import ArmSpec
from robolearn.envs.joints import JointMap
from robolearn.envs.scene import arm_spec
from robolearn.envs.servo_model import ServoModel, apply
from robolearn.envs.task import TIMESTEP, Task

FITTED: Final = ("kp", "damping", "frictionloss", "delay")
SCALE: Final = 0.01  # rad: about the play of the gears
# Of the logs and the delay in s: standard deviations around the start, bounds, finite differences.
PRIOR: Final = np.array([1.0, 1.0, 1.0, 0.05])
LOWEST: Final = np.array([np.log(0.1), np.log(0.01), np.log(1e-4), 0.0])
HIGHEST: Final = np.array([np.log(1000.0), np.log(30.0), np.log(3.0), 0.3])
NUDGE: Final = np.array([0.02, 0.02, 0.05, TIMESTEP])
FOLDS: Final = 4
RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Episode:
    """Recorded motion."""

    target: np.ndarray  # (T, J): the action that was sent at each frame
    position: np.ndarray  # (T, J): measured just before
    used: np.ndarray  # bool (T, J): where nothing but the servo moved or held the joint


class Fit(NamedTuple):
    """What `fit` found."""

    servos: ServoModel
    low: ServoModel  # 5th and
    high: ServoModel  # 95th percentile over episodes that are drawn with replacement


class _Arm(Task):
    """The arm alone, of which only `compile` is used."""

    @classmethod
    def build(cls, split: str) -> mujoco.MjSpec:
        del split
        return arm_spec()


class Simulator:
    """Moves the simulated arm as the recorded one was moved.

    Args:
        arm: the arm.
        fps: frames per second of the recording.

    Attributes:
        model: the arm alone, with the physics of the tasks.
        joints: between its vectors and the units of the contract.
    """

    def __init__(self, arm: ArmSpec, fps: float) -> None:
        self.arm, self.fps, self.model = arm, fps, _Arm.compile()
        self.joints = JointMap(self.model, arm)
        self._data = mujoco.MjData(self.model)

    def play(self, servos: Sequence[ServoModel], episodes: Sequence[Episode]) -> np.ndarray:
        """Positions (S, F, J) where each episode runs freely from its start."""
        frames = max(len(episode.target) for episode in episodes)
        times = np.arange(round((frames - 1) / self.fps / TIMESTEP) + 2) * TIMESTEP
        models = [self._model(s) for s in servos for _ in episodes]
        control = [self._control(e.target, s.delay, times) for s in servos for e in episodes]
        first = np.concatenate([e.position[:1] for e in episodes] * len(servos))
        paths = self._rollout(models, self._state(first, np.zeros_like(first)), np.array(control))
        sampled = _sample(paths, np.arange(frames) / self.fps)
        lanes = sampled.reshape(len(servos), len(episodes), frames, -1)
        return np.concatenate([lanes[:, i, : len(e.target)] for i, e in enumerate(episodes)], 1)

    def step(self, servos: ServoModel, episode: Episode) -> np.ndarray:
        """Positions (T, J), each predicted from the two frames before it.

        The difference of these two is the velocity. The first two positions are the recorded ones.
        """
        q = episode.position
        frames = np.arange(1, len(q) - 1)
        times = frames[:, None] / self.fps + np.arange(int(1 / self.fps / TIMESTEP) + 3) * TIMESTEP
        control = self._control(episode.target, servos.delay, times)
        start = self._state(q[frames], (q[frames] - q[frames - 1]) * self.fps)
        paths = self._rollout([self._model(servos)] * len(frames), start, control)
        return np.concatenate([q[:2], _sample(paths, np.array([1 / self.fps]))[:, 0]])

    def gravity(self, position: np.ndarray) -> np.ndarray:
        """The torques, N m, that hold the arm still in the poses (T, J), by inverse dynamics."""
        torques = np.empty_like(position)
        mujoco.mj_resetData(self.model, self._data)
        for pose, torque in zip(position, torques, strict=True):
            self._data.qpos[self.joints.qpos] = pose
            mujoco.mj_forward(self.model, self._data)
            torque[:] = self._data.qfrc_bias[self.joints.qvel]
        return torques

    def _model(self, servos: ServoModel) -> mujoco.MjModel:
        model = copy.copy(self.model)
        apply(model, replace(servos, delay=np.zeros_like(servos.delay)))  # `_control` delays
        return model

    def _control(self, target: np.ndarray, delay: np.ndarray, times: np.ndarray) -> np.ndarray:
        """The mean target of each physics step as it arrives after the delay.

        It changes continuously with the delay, so that the search has a derivative.

        Args:
            target: (T, J); each is held for a frame, the first also before and the last after.
            delay: s (J,).
            times: borders of the physics steps, s (..., K + 1), from the start of the episode.

        Returns:
            (..., K, J).
        """
        always = 1e3  # s
        held = np.concatenate([target[:1], target, target[-1:]])
        lengths = np.array([always, *np.full(len(target), 1 / self.fps), always])
        borders = np.cumsum([-always, *lengths])
        area = np.cumsum(np.concatenate([np.zeros_like(target[:1]), held * lengths[:, None]]), 0)
        columns = [np.interp(times - d, borders, a) for d, a in zip(delay, area.T, strict=True)]
        return np.diff(np.stack(columns, -1), axis=-2) / TIMESTEP

    def _state(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Physics states (B, N) from angles and velocities (B, J)."""
        kind, nq = mujoco.mjtState.mjSTATE_FULLPHYSICS, self.model.nq
        states = np.zeros((len(position), mujoco.mj_stateSize(self.model, kind)))
        states[:, 1 : 1 + nq][:, self.joints.qpos] = position  # after the time
        states[:, 1 + nq :][:, self.joints.qvel] = velocity
        return states

    def _rollout(
        self, models: Sequence[mujoco.MjModel], start: np.ndarray, control: np.ndarray
    ) -> np.ndarray:
        """Angles (B, K + 1, J) from physics states (B, N) and targets (B, K, J)."""
        ctrl = np.zeros((*control.shape[:2], self.model.nu))
        ctrl[..., self.joints.ctrl] = control
        states, _ = rollout.rollout(models, self._data, start, ctrl)
        states = np.concatenate([start[:, None], states], 1)
        return states[..., 1 : 1 + self.model.nq][..., self.joints.qpos]


def _sample(paths: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Angles (B, T, J) at times (T,), s, between the physics steps of (B, K + 1, J)."""
    steps = times / TIMESTEP
    before = np.minimum(steps.astype(int), paths.shape[1] - 2)
    share = (steps - before)[:, None]
    return (1 - share) * paths[:, before] + share * paths[:, before + 1]


def fit(simulator: Simulator, episodes: Sequence[Episode], start: ServoModel) -> Fit:
    """The servos under which the simulation stays closest to the recording.

    Args:
        simulator: of the recorded arm.
        episodes: what to fit to.
        start: where the search begins and what the weak prior holds on to.
    """
    from scipy.optimize import least_squares

    problem = _Problem(simulator, episodes, start)
    solution = least_squares(
        problem.residuals,
        problem.prior.ravel(),
        problem.jacobian,
        bounds=(np.tile(LOWEST, simulator.arm.size), np.tile(HIGHEST, simulator.arm.size)),
        x_scale=np.tile(PRIOR, simulator.arm.size),
        ftol=1e-4,
        xtol=1e-3,
        max_nfev=40,
    )
    low, high = problem.interval(solution.x)
    return Fit(*(_decode(x, start) for x in (solution.x, low, high)))


def cross_validate(
    simulator: Simulator,
    episodes: Sequence[Episode],
    guess: Callable[[Sequence[Episode]], ServoModel],
) -> np.ndarray:
    """Positions (F, J) of every episode, by servos that were fitted to other episodes.

    Args:
        simulator: of the recorded arm.
        episodes: two at least.
        guess: makes the start of a fit from the episodes that it may see.
    """
    folds = np.arange(len(episodes)) % min(FOLDS, len(episodes))
    played: dict[int, np.ndarray] = {}
    for fold in np.unique(folds):
        others = [e for e, number in zip(episodes, folds, strict=True) if number != fold]
        servos = fit(simulator, others, guess(others)).servos
        for index in np.flatnonzero(folds == fold):
            played[int(index)] = simulator.play([servos], [episodes[index]])[0]
    return np.concatenate([played[index] for index in sorted(played)])


class _Problem:
    """The least-squares problem. Its variables x are (J, P), or the same flat."""

    def __init__(
        self, simulator: Simulator, episodes: Sequence[Episode], start: ServoModel
    ) -> None:
        self.prior = np.clip(_encode(start), LOWEST + 1e-6, HIGHEST - 1e-6)
        self._simulator, self._episodes, self._start = simulator, episodes, start
        self._position = np.concatenate([e.position for e in episodes])
        self._used = np.concatenate([e.used for e in episodes])

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Errors joint by joint, then the distance to the prior; (J F + J P,)."""
        (errors,) = self._errors(x)
        distance = (x.reshape(self.prior.shape) - self.prior) / PRIOR
        return np.concatenate([errors.T.ravel(), distance.ravel()])

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """Derivatives of `residuals`, (J F + J P, J P)."""
        from scipy.linalg import block_diag

        _, slopes = self._linearise(x)
        return np.concatenate([block_diag(*slopes), np.diag(1 / np.tile(PRIOR, len(slopes)))])

    def interval(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """5th and 95th percentile, (J, P) each, of the solutions for resampled episodes.

        Each of these is taken to be one Gauss-Newton step away from x.
        """
        errors, slopes = self._linearise(x)
        borders = np.cumsum([len(e.target) for e in self._episodes])[:-1]
        parts = list(zip(np.split(slopes, borders, 1), np.split(errors, borders, 1), strict=True))
        hessian = np.array([s.mT @ s for s, _ in parts])  # (E, J, P, P)
        gradient = np.array([s.mT @ e[..., None] for s, e in parts])  # (E, J, P, 1)
        count = len(parts)
        drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        # Drawing each once is the problem that x solves, up to the bounds and the tolerance.
        steps = np.linalg.solve(
            np.tensordot(drawn, hessian, 1) + np.diag(PRIOR**-2.0),
            np.tensordot(drawn - 1, gradient, 1),
        )
        solutions = np.clip(x.reshape(self.prior.shape) - steps[..., 0], LOWEST, HIGHEST)
        low, high = np.percentile(solutions, (5, 95), axis=0)
        return low, high

    def _linearise(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Errors (J, F), and their derivatives (J, F, P) by the parameters of the same joint.

        One simulation nudges a parameter of all joints at once: what a servo does to the other
        joints is small, and left out.
        """
        nudged = x.reshape(self.prior.shape) + np.diag(NUDGE)[:, None]
        errors, *changed = self._errors(x, *nudged)
        return errors.T, (np.array(changed) - errors).T / NUDGE

    def _errors(self, *variables: np.ndarray) -> np.ndarray:
        """Errors (S, F, J) in units of `SCALE`, large ones reduced to their square root."""
        servos = [_decode(x, self._start) for x in variables]
        errors = self._simulator.play(servos, self._episodes) - self._position
        errors *= self._used / SCALE
        # The square of this is 2 (sqrt(1 + e^2) - 1), the loss that scipy calls soft_l1.
        return errors * np.sqrt(2 / (np.sqrt(1 + errors**2) + 1))


def _encode(servos: ServoModel) -> np.ndarray:
    """The variables (J, P): logs, and the delay as it is."""
    *logs, delay = (getattr(servos, name) for name in FITTED)
    return np.stack([*np.log(logs), delay], 1)


def _decode(x: np.ndarray, start: ServoModel) -> ServoModel:
    """The inverse of `_encode`; what is not fitted comes from `start`."""
    *logs, delay = x.reshape(-1, len(FITTED)).T
    return replace(start, **dict(zip(FITTED, [*np.exp(logs), delay], strict=True)))
