"""`BatchedEnv`: many simulations of one task, stepped natively on a thread pool.

Every slot does, bit for bit, what a single environment with the same seed does: the physics is the
same, the task's own `start`, `evaluate` and `environment_state` work on all slots at once, and
variations draw every slot's model (`robolearn.envs.batch_worlds`).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch

from robolearn.contract import Info, check_action, limit_action
from robolearn.envs.base import DIVERGED, UNSTABLE, ManipulationEnv
from robolearn.envs.batch_pixels import BatchCameras
from robolearn.envs.batch_worlds import BatchWorlds
from robolearn.envs.dynamics import Dynamics
from robolearn.envs.servo_model import settle
from robolearn.envs.task import State

Observation = dict[str, Any]
Infos = dict[str, Any]
_COUNT = 1  # a warning is (last info, count)


class BatchedEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """N simulations of one task behind gymnasium's vector interface.

    `gymnasium.make_vec("robolearn/PickPlace-v0", num_envs=64)` makes one.

    Args:
        env_id: a simulated task.
        num_envs: the number of slots, N.
        obs_type: "state", "pixels_agent_pos" or "depth", as for the single environment.
        autoreset_mode: SAME_STEP, NEXT_STEP, or DISABLED: then the caller resets with `reset_mask`.
        max_episode_steps: the time limit in control steps; None takes the registered one.
        threads: simulate on so many; 0 takes all CPUs.
        variations: names and levels of what shall differ from slot to slot and episode to episode,
            see `robolearn.envs.randomize`.
        dynamics: fixed factors by name, see `robolearn.envs.dynamics`.
        options: all other options of the single environment, such as cameras or servos.

    Attributes:
        batch: the simulations, as `mujoco.batch.Batch`.
        arm: the arm of every slot.

    Raises:
        ValueError: an option that is unknown or cannot be batched.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int = 1,
        *,
        obs_type: str = "state",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        threads: int = 0,
        variations: Mapping[str, int] | None = None,
        dynamics: Mapping[str, float] | None = None,
        **options: Any,  # noqa: ANN401 (each has its own type)
    ) -> None:
        self._mode = AutoresetMode(autoreset_mode)
        if options.get("render_mode") is not None:
            raise ValueError("a batch makes no videos; leave render_mode out")
        single = Dynamics(gymnasium.make(env_id, obs_type=obs_type, **options), dynamics or {})
        self._task = cast(ManipulationEnv, single.unwrapped)
        self.spec, self.arm, self.num_envs = gymnasium.spec(env_id), self._task.arm, num_envs
        self.metadata = {**self._task.metadata, "render_modes": [], "autoreset_mode": self._mode}
        self.max_episode_steps = max_episode_steps or self.spec.max_episode_steps or np.inf
        self.single_observation_space = single.observation_space
        self.single_action_space = single.action_space
        self.observation_space = batch_space(single.observation_space, num_envs)
        self.action_space = batch_space(single.action_space, num_envs)
        draws = bool(self._task.active_cameras)
        self.batch = Batch(self._task.model, num_envs, threads, persistent=draws)
        self._worlds = BatchWorlds(self.batch, self._task, variations or {}, single.late)
        self._cameras = BatchCameras(self.batch, self._worlds.models, self._task)
        self._state = State(*map(self.batch.bind, State._fields))
        self._force, self._ctrl = self.batch.bind("actuator_force"), self.batch.bind("ctrl")
        self._past = self.batch.bind("history")
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._seeds = np.zeros(num_envs, int)
        self._goals = np.tile(self._task.goal, (num_envs, 1))
        self._instructions = np.full(num_envs, "", object)
        self._elapsed, self._held = np.zeros((2, num_envs), int)
        self._over = np.ones(num_envs, bool)  # waits for a reset
        self._begun = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Infos]:
        """Starts new episodes.

        Args:
            seed: one for each slot; a number stands for itself and its N - 1 successors; None draws
                each slot's next seed from its generator.
            options: "reset_mask", bool (N,), limits the reset to some slots; "instruction" asks for
                a certain goal.

        Raises:
            ValueError: a bad mask, too few seeds, an unknown instruction or option; all episodes
                go on.
        """
        options = dict(options or {})
        mask = _checked_mask(options.pop("reset_mask", None), self.num_envs)
        if seed is None:
            seed = [None] * self.num_envs
        elif isinstance(seed, int | np.integer):
            seed = range(int(seed), int(seed) + self.num_envs)
        if len(seed) != self.num_envs:
            raise ValueError(f"reset got {len(seed)} seeds for {self.num_envs} slots")
        if unknown := options.keys() - {"instruction"}:
            known = "{'instruction': text, 'reset_mask': bool (N,)}"
            raise ValueError(f"reset has no option {min(unknown)!r}; give {known}")
        info = self._begin(mask, seed, options.get("instruction"))
        return self._observe(), _masked(info, mask)

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Holds the joint targets (N, J) of all slots for one control period.

        Raises:
            ActionError: wrong shape, NaN or infinity in any slot; nothing has moved.
            ResetNeeded: an episode is over, or none was begun, and autoreset is off.
        """
        resting = self._resting()
        running = None
        if np.count_nonzero(resting):
            running, actions = np.flatnonzero(~resting), np.array(actions, np.float32)
            if actions.shape == self.action_space.shape:
                actions[resting] = self.arm.home  # whatever was asked of them
        requested = check_action(self.arm, actions, (self.num_envs,))
        sent = limit_action(self.arm, requested)
        arriving = self._worlds.arriving(sent)
        self._ctrl[:, self._task.joints.ctrl] = self._task.joints.to_ctrl(arriving)
        self.batch.step(running, nstep=self._task.substeps)
        self._elapsed += 1
        unstable = self.batch.warning[:, DIVERGED, _COUNT].any(1)
        self._task.remember(self._state, self._goals)
        holds, progress = self._task.evaluate(self._state, self._goals)
        self._held = np.where(holds & ~unstable, self._held + 1, 0)
        success = (self._held >= self._task.hold_steps) & ~resting
        truncated = (unstable | (self._elapsed >= self.max_episode_steps)) & ~resting
        progress = np.where(unstable, 0.0, progress)
        info = self._info(requested, sent, progress, success=success, unstable=unstable)
        self._over = success | truncated
        if running is not None:
            info = _merged(resting, self._begin(resting, [None] * self.num_envs, None), info)
        observation = self._observe()
        if self._mode == AutoresetMode.SAME_STEP and np.count_nonzero(self._over):
            observation, info = self._begin_again(observation, info)
        else:
            info = _masked(info, np.ones(self.num_envs, bool))
        return observation, success.astype(float), success.copy(), truncated, info

    def _resting(self) -> np.ndarray:
        """The slots that this step resets instead of stepping them, bool (N,).

        Raises:
            ResetNeeded: that is the caller's to do.
        """
        if self._mode == AutoresetMode.NEXT_STEP and self._begun:
            return self._over.copy()
        if np.count_nonzero(self._over):
            slots = ", ".join(map(str, np.flatnonzero(self._over)[:10]))
            raise gymnasium.error.ResetNeeded(f"reset these slots before the next step: {slots}")
        return self._over.copy()

    def _begin(
        self, mask: np.ndarray, seeds: Sequence[int | None], instruction: str | None
    ) -> Infos:
        """Begins episodes in the slots of the mask; the info's other rows mean nothing."""
        slots = np.flatnonzero(mask)
        chosen = [self._choose_seed(slot, seeds[slot]) for slot in slots]
        starts = [self._task.draw(seed, instruction) for seed in chosen]
        self._worlds.begin(slots, chosen, starts)
        self.batch.reset(slots, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for slot, seed, start in zip(slots, chosen, starts, strict=True):
            self._state.qpos[slot] = start.qpos
            self._state.mocap_pos[slot] = start.mocap_pos
            if start.mocap_quat is not None:
                self._state.mocap_quat[slot] = start.mocap_quat
            self._ctrl[slot, self._task.joints.ctrl] = start.qpos[self._task.joints.qpos]
            self._settle(slot)
            self._goals[slot], self._instructions[slot] = start.goal, start.instruction
            self._seeds[slot] = seed
        self.batch.forward(slots)
        self._cameras.begin(slots, starts)
        self._elapsed[mask] = self._held[mask] = 0
        self._over[mask] = False
        self._begun = self._begun or not self._over.any()
        part = State(*(field[slots] for field in self._state))
        self._task.remember(part, self._goals[slots])
        self._state.userdata[slots] = part.userdata
        progress = self._task.evaluate(self._state, self._goals)[1]
        action = self._task.joints.position(self._state.qpos)
        self._worlds.rest(slots, chosen, action[slots])
        no = np.zeros(self.num_envs, bool)
        return self._info(action, action, progress, success=no, unstable=no)

    def _settle(self, slot: int) -> None:
        """Makes the controls of a slot the past of delayed actuators too, as `settle` does."""
        if self._past.shape[1]:
            data = mujoco.MjData(self._task.model)
            data.ctrl[:] = self._ctrl[slot]
            settle(self._task.model, data)
            self._past[slot] = data.history

    def _choose_seed(self, slot: int, seed: int | None) -> int:
        """As a single environment does: without a seed, the next one of the slot's generator."""
        if seed is not None:
            self._generators[slot], _ = seeding.np_random(int(seed))
            return int(seed)
        generator = self._generators[slot] or seeding.np_random()[0]
        self._generators[slot] = generator
        return int(generator.integers(2**31))

    def _begin_again(self, last: Observation, info: Infos) -> tuple[Observation, Infos]:
        """Resets the slots whose episode is over; what they ended with goes into the info."""
        over = self._over.copy()
        final = np.full(self.num_envs, None, object)
        for slot in np.flatnonzero(over):
            final[slot] = _row(last, slot)
        merged = _merged(over, self._begin(over, [None] * self.num_envs, None), info)
        infos = _masked(merged, np.ones(self.num_envs, bool))
        ended = {"final_obs": final, "final_info": _masked(info, over)}
        return self._observe(over, last), infos | _masked(ended, over)

    def _observe(
        self, fresh: np.ndarray | None = None, last: Observation | None = None
    ) -> Observation:
        """Observations of all slots; slots that are not fresh have pictures in the last one."""
        state = self._state
        observation: Observation = self._task.joints.observe(state.qpos, state.qvel, self._force)
        if self._task.obs_type == "state":
            states = self._task.environment_state(state, self._goals)
            return observation | {"environment_state": states}
        slots = range(self.num_envs) if fresh is None else np.flatnonzero(fresh)
        return observation | self._cameras.draw(slots, last)

    def _info(
        self,
        requested: np.ndarray,
        sent: np.ndarray,
        progress: np.ndarray,
        *,
        success: np.ndarray,
        unstable: np.ndarray,
    ) -> Infos:
        return {
            Info.TASK: self._instructions.copy(),
            Info.SEED: self._seeds.copy(),
            Info.IS_SUCCESS: success,
            Info.SUCCESS: success,
            Info.PROGRESS: progress,
            Info.ACTION_REQUESTED: requested,
            Info.ACTION_SENT: sent,
            Info.LIMITED: (requested != sent).any(1),
            Info.IS_INTERVENTION: np.zeros(self.num_envs, bool),
            Info.TELEOP_ACTION: sent,
            Info.FAULT: np.where(unstable, UNSTABLE, "").astype(object),
            **{Info.GRADE + k: v.copy() for k, v in self._task.grades(self._state).items()},
        }


def __getattr__(task: str) -> Callable[..., BatchedEnv]:
    """Makes `robolearn.envs.batch:PickPlace` the entry point of the batched PickPlace."""
    env_id = f"robolearn/{task}-v0"
    if env_id not in gymnasium.registry:
        raise AttributeError(f"module {__name__!r} has no attribute {task!r}")
    return partial(BatchedEnv, env_id)


def _masked(infos: Infos, mask: np.ndarray) -> Infos:
    """Adds gymnasium's `_key` masks, which tell the slots that a key is about."""
    return infos | {f"_{key}": mask for key in infos}


def _merged(mask: np.ndarray, these: Infos, others: Infos) -> Infos:
    """Rows of these where the mask holds, and of the others elsewhere."""
    return {
        key: np.where(mask.reshape(-1, *[1] * (value.ndim - 1)), these[key], value)
        for key, value in others.items()
    }


def _row(observation: Observation, slot: int) -> Observation:
    """One slot's part of an observation."""
    return {k: _row(v, slot) if isinstance(v, dict) else v[slot] for k, v in observation.items()}


def _checked_mask(mask: np.ndarray | None, count: int) -> np.ndarray:
    if mask is None:
        return np.ones(count, bool)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != (count,) or not mask.any():
        raise ValueError(f"reset_mask must be bool ({count},) and hold at least one True: {mask}")
    return mask
