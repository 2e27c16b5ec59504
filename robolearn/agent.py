"""Agents: a policy's chunks become actions, one control step at a time.

Choosing among candidate chunks is written once, here: sample `candidates`, let the scorer rate
them, execute `replan_every` actions of the best, then look again (receding horizon). An arm that
answers `lead` steps late is still busy with the chunk before when a new one begins, so as many of
its first actions are left out: they were for what is under way already (latency matching as in the
Universal Manipulation Interface, Chi et al. 2024).
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import create_empty_array

from robolearn.arrival import Arrival, InBackground, Later
from robolearn.contract import SO101
from robolearn.memory import check_candidates
from robolearn.options import AgentOptions
from robolearn.plans import Ensemble, Plan, RealTime, RecedingHorizon
from robolearn.policies.base import Overlap, Policy, as_tensors, stacked
from robolearn.policies.scorers import Scorer, open_scorer
from robolearn.rollout import Actor, Observation, arm_of, copied
from robolearn.seeding import stream
from robolearn.sources import Source, source_of

SAG: Final = 0.15  # rad; no arm hangs farther below its target


def open_agent(options: AgentOptions, env: VectorEnv, *, background: bool = False) -> Actor:
    """Opens what shall act, and the scorer if there is one, and checks that they fit.

    Args:
        options: what the command line says.
        env: where it will act.
        background: decide in a thread, for an arm, which does not wait.

    Raises:
        CheckpointError: damaged, or trained for another arm or other cameras.
        ValueError: candidates without a scorer, or more than memory allows; a horizon outside the
            chunk.
    """
    return source_of(options.policy).actor(options, env, background=background)


def open_policy(
    source: Source, options: AgentOptions, env: VectorEnv, *, background: bool = False
) -> "PolicyAgent":
    """The same for a source that has a policy."""
    policy = source.load(options.device)
    observations = env.single_observation_space
    assert isinstance(observations, gymnasium.spaces.Dict)  # the contract
    policy.check_fits(arm_of(env), observations)
    executed = slice(options.lead, options.lead + options.replan_every)
    scorer = open_scorer(options.scorer, policy, source, executed) if options.scorer else None
    agent = PolicyAgent(
        policy,
        replan_every=options.replan_every,
        lead=options.lead,
        ensemble=options.ensemble,
        delay=options.delay,
        guided=options.guided,
        background=background,
        candidates=options.candidates,
        scorer=scorer,
        fixed_noise=options.fixed_noise,
        keep_trying=options.keep_trying,
    )
    if options.candidates > 1:
        nothing: Any = create_empty_array(observations, fn=np.zeros)
        check_candidates(partial(agent.rehearse, nothing), options.candidates)
    return agent


class PolicyAgent:
    """Acts with a policy.

    Every slot is decided by itself, with noise that derives from its episode's seed, so the same
    seed gives the same episode whatever else runs beside it: batching several slots would change
    the last bits of the matrix products, and contacts magnify them. Each decision has noise of its
    own, so its first candidates are the same however many there are, and one is the plain policy.

    Args:
        policy: the policy, in eval mode.
        replan_every: how many actions of a chunk are executed before looking again.
        lead: how many first actions of a chunk are left out, for an arm that answers so late.
        ensemble: averages overlapping chunks with this decay, see `robolearn.plans`; None does not.
        delay: how many control steps a decision takes, which goes on meanwhile; see `RealTime`.
        guided: whether chunks are told what is under way while they are made.
        background: decisions take as long as they take, in a thread; for an arm.
        candidates: how many chunks are sampled.
        scorer: chooses among them; needed from two candidates on.
        fixed_noise: every decision of every episode gets the same noise instead.
        keep_trying: goes on where the policy finds no plan; otherwise the arm stays where it is.

    Attributes:
        looks_every: control steps between the observations that it looks at, from the first on.

    Raises:
        ValueError: a horizon outside the chunk, or candidates without a scorer.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        replan_every: int = 4,
        lead: int = 0,
        ensemble: float | None = None,
        delay: int = 0,
        guided: bool = True,
        background: bool = False,
        candidates: int = 1,
        scorer: Scorer | None = None,
        fixed_noise: bool = False,
        keep_trying: bool = False,
    ) -> None:
        _check_horizon(policy.horizon, replan_every, lead)
        _check_timing(ensemble, delay, background=background)
        if candidates < 1 or (candidates > 1 and scorer is None):
            raise ValueError(
                f"candidates is {candidates}; take 1, or more with a scorer to choose among them"
            )
        executed, ahead = slice(lead, lead + replan_every), delay > 0 or background
        self._plan = _plan_of(executed, ensemble, ahead=ahead, guided=guided)
        self._arrival: Callable[[], Arrival] = partial(Later, delay)
        if background:
            period = 1.0 / policy.arm.get("control_hz", SO101.control_hz)
            self._arrival = partial(InBackground, period)
        # Whoever averages chunks or decides ahead, or remembers, looks at every observation.
        plain = ensemble is None and not ahead and policy.history == 1
        self.looks_every = replan_every if plain else 1
        self.policy = policy
        self.candidates, self.scorer, self._fixed_noise = candidates, scorer, fixed_noise
        self._keep_trying = keep_trying
        self._slots: dict[int, _Slot] = {}

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Begins an episode: forgets the queue, reseeds the noise."""
        if slot in self._slots:
            self._slots[slot].arrival.end()
        self._slots[slot] = _Slot(seed, instruction, self._plan(), self._arrival())

    def latency(self, slot: int) -> list[float]:
        """Seconds of every decision in this slot's episode."""
        return self._slots[slot].seconds

    def notes(self, slot: int) -> dict[str, list[float]]:
        """What the policy knew of each of them."""
        return self._slots[slot].notes

    def rehearse(self, observation: Observation, candidates: int) -> None:
        """Decides among so many candidates without an episode, with all that may belong to it."""
        slot = _Slot(0, "", self._plan(), self._arrival())
        seen = slot.look_back(_row(observation, 0), self.policy.history)
        slot.plan.add(self._decide(slot, seen, slot.plan.begin(0), candidates))
        if (overlap := slot.plan.begin(0)) is not None:
            self._decide(slot, seen, overlap, candidates)

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (N, J); slots that had no episode yet repeat their measured position."""
        action = np.array(observation["agent_pos"], dtype=np.float32)
        for index, slot in self._slots.items():
            seen = slot.look_back(_row(observation, index), self.policy.history)
            arrival, plan = slot.arrival, slot.plan
            if plan.is_due() and not arrival.is_under_way():
                overlap = plan.begin(arrival.delay())
                # A thread may still look at it when the environment writes the next one.
                decision = partial(self._decide, slot, copied(seen), overlap, self.candidates)
                arrival.begin(decision, wait=plan.is_empty())
            if (chunk := arrival.take()) is not None:
                plan.add(chunk)
            action[index] = slot.told = plan.next()
        return action

    @torch.inference_mode()
    def _decide(
        self, slot: "_Slot", observation: Observation, overlap: Overlap | None, candidates: int
    ) -> np.ndarray:
        begin = time.perf_counter()
        tensors = as_tensors(observation, self.policy.device)
        context = self.policy.encode(tensors, [slot.instruction])
        noise = [stream(0, "fixed noise") if self._fixed_noise else slot.noise("policy")]
        if overlap is None:
            chunks = self.policy.sample(context, candidates, noise)
        else:
            chunks = self.policy.follow(context, candidates, noise, [overlap])
        best = 0
        if self.scorer is not None:
            best = int(self.scorer.score(context, chunks, [slot.noise("scorer")])[0].argmax())
        chunk = chunks.actions[0, best].cpu().numpy()
        notes = {name: float(values[0]) for name, values in self.policy.notes(context).items()}
        for name, value in notes.items():
            slot.notes.setdefault(name, []).append(value)
        if not self._keep_trying and not notes.get("plan_found", 1.0):
            chunk = self._stay(slot, observation, chunk.shape)
        slot.seconds.append(time.perf_counter() - begin)
        return chunk

    def _stay(self, slot: "_Slot", observation: Observation, shape: tuple[int, ...]) -> np.ndarray:
        """A chunk in which the arm stays where it is."""
        now = np.atleast_2d(observation["agent_pos"][0])[-1]
        still = slot.still(now, self.policy.arm.get("grippers", ()))
        return np.broadcast_to(still, shape).copy()


def _check_horizon(horizon: int, replan_every: int, lead: int) -> None:
    if not 1 <= replan_every <= horizon:
        raise ValueError(
            f"replan_every is {replan_every}; a chunk of this policy has {horizon} steps"
        )
    if not 0 <= lead <= horizon - replan_every:
        raise ValueError(
            f"lead is {lead}; beside the {replan_every} executed steps, a chunk of this policy "
            f"has {horizon - replan_every} to leave out"
        )


def _check_timing(ensemble: float | None, delay: int, *, background: bool) -> None:
    if ensemble is not None and not 0.0 <= ensemble < np.inf:
        raise ValueError(f"ensemble is {ensemble}; give a decay of 0 or more, such as 0.01")
    if delay < 0 or sum((delay > 0, background, ensemble is not None)) > 1:
        raise ValueError(
            f"delay is {delay}; give 0 or more, and only one of delay, background and ensemble"
        )


def _plan_of(
    executed: slice, ensemble: float | None, *, ahead: bool, guided: bool
) -> Callable[[], Plan]:
    """How an episode's chunks become actions; `ahead` is where the arm goes on meanwhile."""
    if ahead:
        return partial(RealTime, executed, guided=guided)
    if ensemble is not None:
        return partial(Ensemble, executed, ensemble)
    return partial(RecedingHorizon, executed)


class _Slot:
    """One running episode of an agent."""

    def __init__(self, seed: int, instruction: str, plan: Plan, arrival: Arrival) -> None:
        self.seed, self.instruction, self.plan, self.arrival = seed, instruction, plan, arrival
        self.seconds: list[float] = []
        self.notes: dict[str, list[float]] = {}
        self.told: np.ndarray | None = None  # the newest action (J,)
        self._past: deque[Observation] = deque()

    def look_back(self, observation: Observation, history: int) -> Observation:
        """This observation behind those before it; the first one stands for those missing."""
        if history == 1:
            return observation
        self._past.extend([copied(observation)] * (1 if self._past else history))
        while len(self._past) > history:
            self._past.popleft()
        return stacked(self._past, axis=1)

    def still(self, now: np.ndarray, grippers: Sequence[int]) -> np.ndarray:
        """The target (J,) of an arm at `now` (J,) that shall stay where it is.

        That is its last one: measured positions would lead an arm that sags down. An arm that is
        far from it was moved by somebody else, and would go back there. A gripper is far from it
        because it holds something, which it shall not let go.
        """
        if self.told is None or np.abs(np.delete(self.told - now, list(grippers))).max() > SAG:
            return now
        return self.told

    def noise(self, what: str) -> np.random.Generator:
        """The noise of this episode's next decision."""
        return stream(self.seed, f"{what} {len(self.seconds)}")


class ExpertAgent:
    """Acts with the tasks' scripted experts, which may look at the simulator."""

    def __init__(self, env: VectorEnv) -> None:
        assert isinstance(env, SyncVectorEnv)  # the simulators must be in this process
        self._envs: list[Any] = [e.unwrapped for e in env.envs]
        self._scripts: dict[int, Iterator[np.ndarray]] = {}

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Starts the script for the episode that was just reset."""
        del instruction  # the expert knows the goal
        self._scripts[slot] = self._envs[slot].expert(stream(seed, "expert"))

    def act(self, observation: Observation) -> np.ndarray:
        """The scripts' next actions (N, J)."""
        action = np.array(observation["agent_pos"], dtype=np.float32)
        for slot, script in self._scripts.items():
            action[slot] = next(script)
        return action

    def latency(self, slot: int) -> list[float]:
        """A script decides in no time."""
        del slot
        return []

    def notes(self, slot: int) -> dict[str, list[float]]:
        """A script knows nothing of its decisions."""
        del slot
        return {}


def _row(observation: Observation, index: int) -> dict[str, Any]:
    """One slot's observation, the batch dimension kept (1, ...)."""
    return {
        k: _row(v, index) if isinstance(v, dict) else v[index : index + 1]
        for k, v in observation.items()
    }
