"""The only loop that steps an environment.

Recording, evaluation, post-training, adaptation and deployment differ in what they hand in: an
environment or a vector of them, an actor, the seeds. What comes out is episodes.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from robolearn.contract import ArmSpec, Info
from robolearn.episodes import Episode

Observation = dict[str, Any]
Options = Callable[[int], dict[str, Any]]
Watcher = Callable[[VectorEnv], None]


class Actor(Protocol):
    """What chooses actions: a policy's agent, a scripted expert, a person."""

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Begins an episode in one slot of the vector environment."""

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (N, J) for the batched observation of all N slots."""

    def latency(self, slot: int) -> list[float]:
        """Seconds of every decision of the episode in this slot."""

    def notes(self, slot: int) -> dict[str, list[float]]:
        """What is known of each of these decisions, by name; see `Policy.notes`."""


def rollout(
    env: gymnasium.Env | VectorEnv,
    actor: Actor,
    seeds: Iterable[int],
    *,
    options: Options | None = None,
    watch: Watcher | None = None,
) -> Iterator[Episode]:
    """Runs one episode per seed and yields each as it ends.

    Args:
        env: an environment, or a vector environment with disabled autoreset.
        actor: chooses the actions.
        seeds: one per episode; the episode's env and policy noise both derive from it.
        options: gives the reset options for a seed.
        watch: called after every reset and step, for videos.

    Raises:
        ValueError: a vector environment that resets itself.
    """
    vector = env if isinstance(env, VectorEnv) else SyncVectorEnv([lambda: env], **_MANUAL)
    if vector.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
        raise ValueError("rollout needs a vector environment made with AutoresetMode.DISABLED")
    yield from _Rollout(vector, actor, iter(seeds), options, watch).run()


def asking(instruction: str, pursued: str = "") -> Options | None:
    """Reset options that ask for the same in every episode; those that are "" ask nothing.

    Args:
        instruction: the goal that is told.
        pursued: the goal that wrong labels hide; see `robolearn.envs.mislabel`.
    """
    asked = {"instruction": instruction, "pursued": pursued}
    asked = {name: text for name, text in asked.items() if text}
    return partial(_asked, asked) if asked else None


def _asked(asked: dict[str, Any], seed: int) -> dict[str, Any]:
    del seed
    return asked


_MANUAL: dict[str, Any] = {"copy": False, "autoreset_mode": AutoresetMode.DISABLED}


class _Rollout:
    """The state of one `rollout`: what each slot has gathered so far."""

    def __init__(
        self,
        env: VectorEnv,
        actor: Actor,
        seeds: Iterator[int],
        options: Options | None,
        watch: Watcher | None,
    ) -> None:
        self.env, self.actor, self.seeds = env, actor, seeds
        self.options, self.watch = options, watch
        self.slots: list[_Recording | None] = [None] * env.num_envs
        self.observation: Observation = {}
        self.captured = np.zeros(env.num_envs)  # unix seconds

    def run(self) -> Iterator[Episode]:
        if self.env.num_envs > 1:
            self.env.reset(seed=0)  # single slots can be reset only after all of them were
        for slot in range(self.env.num_envs):
            self._begin(slot)
        while any(self.slots):
            action = self.actor.act(self.observation)
            before, captured = copied(self.observation), self.captured
            self.observation, reward, terminated, truncated, info = self.env.step(action)
            self.captured = np.full(self.env.num_envs, time.time())
            if self.watch:
                self.watch(self.env)
            for slot, recording in enumerate(self.slots):
                if recording:
                    recording.add(slot, before, captured[slot], reward, terminated, truncated, info)
            for slot in np.flatnonzero(terminated | truncated):
                finished = self.slots[slot]
                if finished:
                    yield finished.episode(self.actor, slot)
                self._begin(int(slot))

    def _begin(self, slot: int) -> None:
        """Starts the next seed in a slot; out of seeds, the slot idles through a spare episode.

        The last slot to finish stays as it is: an arm shall not move once more for nothing.
        """
        seed = next(self.seeds, None)
        self.slots[slot] = None
        if seed is None and not any(self.slots):
            return
        mask = np.arange(self.env.num_envs) == slot
        options = self.options(seed) if self.options and seed is not None else {}
        seeds: Any = [seed or 0] * self.env.num_envs  # gymnasium annotates one number
        self.observation, info = self.env.reset(seed=seeds, options={**options, "reset_mask": mask})
        self.captured[slot] = time.time()
        if self.watch:
            self.watch(self.env)
        if seed is not None:
            instruction = str(info[Info.TASK][slot])
            self.actor.reset(slot, seed, instruction)
            self.slots[slot] = _Recording(
                env_id=_env_id(self.env),
                arm=arm_of(self.env),
                seed=seed,
                instruction=instruction,
                goal_source=str(_told(info, Info.GOAL_SOURCE, slot, "")),
                goal_steps=int(_told(info, Info.GOAL_STEPS, slot, 0)),
            )


def _told(info: Mapping[str, Any], key: str, slot: int, otherwise: object) -> Any:  # noqa: ANN401
    """What `reset` told of a slot, if it did."""
    return info[key][slot] if key in info else otherwise


class _Recording:
    """The frames of one running episode."""

    def __init__(self, **header: Any) -> None:  # noqa: ANN401 (what is known of it from the start)
        self.header = header
        self.frames: list[dict[str, Any]] = []
        self.observations: list[dict[str, np.ndarray]] = []
        self.end: dict[str, Any] = {}

    def add(
        self,
        slot: int,
        before: Observation,
        captured: float,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        info: dict[str, Any],
    ) -> None:
        self.observations.append(_flatten(before, slot))
        self.frames.append(
            {
                "action": info[Info.ACTION_SENT][slot],
                "action_requested": info[Info.ACTION_REQUESTED][slot],
                "reward": np.float32(reward[slot]),
                "success": bool(info[Info.IS_SUCCESS][slot]),
                "progress": np.float32(info[Info.PROGRESS][slot]),
                "intervention": bool(info[Info.IS_INTERVENTION][slot]),
                "wall_time": captured,
            }
        )
        self.end = {
            "terminated": bool(terminated[slot]),
            # Success at the very last step is success.
            "truncated": bool(truncated[slot] and not terminated[slot]),
            "fault": str(info[Info.FAULT][slot]),
            "failure": str(info[Info.FAILURE][slot]) if Info.FAILURE in info else "",
            "grades": {
                key.removeprefix(Info.GRADE): float(value[slot])
                for key, value in info.items()
                if key.startswith(Info.GRADE)
            },
        }

    def episode(self, actor: Actor, slot: int) -> Episode:
        stacked: dict[str, Any] = {k: np.stack([f[k] for f in self.frames]) for k in self.frames[0]}
        keys = self.observations[0]
        observations = {k: np.stack([o[k] for o in self.observations]) for k in keys}
        return Episode(
            **self.header,
            observations=observations,
            **stacked,
            **self.end,
            latency=np.array(actor.latency(slot), np.float32),
            notes={k: np.array(values) for k, values in actor.notes(slot).items()},
        )


def _flatten(observation: Observation, slot: int, prefix: str = "") -> dict[str, np.ndarray]:
    """{"pixels": {"top": (N, ...)}} becomes {"pixels/top": (...)} for one slot."""
    flat: dict[str, np.ndarray] = {}
    for key, value in observation.items():
        if isinstance(value, dict):
            flat |= _flatten(value, slot, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value[slot]
    return flat


def copied(observation: Observation) -> Observation:
    """An environment may write the next observation over this one."""
    return {k: copied(v) if isinstance(v, dict) else v.copy() for k, v in observation.items()}


def _env_id(env: VectorEnv) -> str:
    spec = env.spec or getattr(env, "envs", [env])[0].spec
    return spec.id if spec else ""


def arm_of(env: VectorEnv) -> ArmSpec:
    """The arm of a vector environment, whether it steps single ones or is a batch by itself."""
    vector: Any = env
    return vector.get_attr("arm")[0] if hasattr(vector, "get_attr") else vector.unwrapped.arm
