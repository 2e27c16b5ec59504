"""`robolearn online`: a task is learned by trying, without demonstrations (`policies/gorl.py`).

Episodes of an iteration run side by side; progress and success are the reward. The folder is a run
like one of `robolearn train`, with a checkpoint at the end of each stage; `online.jsonl` has a line
for each iteration. A run that was interrupted begins anew in another folder.
"""

import json
import time
from collections import deque
from contextlib import closing
from typing import Any, Final

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from rich.console import Console
from torch import Tensor

from robolearn import checkpoint
from robolearn.config import check_same
from robolearn.contract import Info
from robolearn.episodes import Episode
from robolearn.files import AtomicFolder, check_writable
from robolearn.learn_options import OnlineConfig
from robolearn.policies.base import as_tensors
from robolearn.policies.dsrl import DsrlPolicy
from robolearn.policies.gorl import Decisions, Gorl, fresh_policy, joined
from robolearn.policies.language import vocabulary_of
from robolearn.registry import make_env, spec_of
from robolearn.rollout import Observation, rollout
from robolearn.seeding import stream
from robolearn.workers import one_thread

SETTINGS: Final = "online.json"
LOG: Final = "online.jsonl"
BEGINNINGS: Final = 200  # episodes whose beginnings tell the words, and the first units
SUCCESS: Final = 1.0  # is worth as much as all progress
COST: Final = 0.01  # of a decision


class Explorer:
    """An actor that executes whole chunks, and remembers every decision by its episode's seed.

    Args:
        learner: decides.
        slots: of the environment.
    """

    def __init__(self, learner: Gorl, slots: int) -> None:
        self._learner, self._policy = learner, learner.policy
        self._told, self._noise = [""] * slots, [np.random.default_rng(0)] * slots
        self._chunks = np.zeros((slots, learner.policy.horizon, learner.policy.joints), np.float32)
        self._age = np.full(slots, learner.policy.horizon)
        self._decided: list[list[dict[str, Any]]] = [[] for _ in range(slots)]
        self.decisions: dict[int, list[dict[str, Any]]] = {}

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """See `Actor`."""
        self._told[slot], self._noise[slot] = instruction, stream(seed, "exploration")
        self._age[slot] = self._policy.horizon
        self._decided[slot] = self.decisions[seed] = []

    def act(self, observation: Observation) -> np.ndarray:
        """See `Actor`."""
        due = np.flatnonzero(self._age == self._policy.horizon)
        if len(due):
            self._decide(observation, due)
        actions = self._chunks[np.arange(len(self._age)), self._age]
        self._age += 1
        return actions

    def notes(self, slot: int) -> dict[str, list[float]]:
        """See `Actor`: none."""
        del slot
        return {}

    @torch.no_grad()
    def _decide(self, observation: Observation, due: np.ndarray) -> None:
        names = ("agent_pos", "environment_state")
        seen = as_tensors({name: observation[name][due] for name in names}, "cpu")
        told = [self._told[slot] for slot in due]
        shape = self._policy.actor.shape
        drawn = [self._noise[slot].standard_normal((1, *shape), dtype=np.float32) for slot in due]
        noise = torch.from_numpy(np.stack(drawn))
        chunks, latent, density = self._learner.decide(self._policy.encode(seen, told), noise)
        self._chunks[due], self._age[due] = chunks, 0
        for row, slot in enumerate(due):
            what = {name: value[row] for name, value in seen.items()}
            what |= {"told": told[row], "latent": latent[row], "density": density[row]}
            self._decided[slot].append(what)

    def latency(self, slot: int) -> list[float]:
        """See `Actor`; nobody asks."""
        del slot
        return []


def decisions_of(episodes: list[Episode], explorer: Explorer, horizon: int) -> Decisions:
    """Everything that was decided in these episodes, one after the other."""
    rows: list[dict[str, Any]] = []
    rewards: list[np.ndarray] = []
    last: list[np.ndarray] = []
    terminated: list[np.ndarray] = []
    for episode in episodes:
        decided = explorer.decisions[episode.seed]
        paid = reward_of(episode, horizon)
        rows.extend(decided[: len(paid)])
        rewards.append(paid)
        last.append(np.arange(len(paid)) == len(paid) - 1)
        terminated.append(last[-1] & episode.terminated)

    def column(name: str) -> Tensor:
        return torch.stack([row[name] for row in rows])

    return Decisions(
        seen={name: column(name) for name in ("agent_pos", "environment_state")},
        instructions=[row["told"] for row in rows],
        latent=column("latent"),
        density=column("density"),
        reward=np.concatenate(rewards).astype(np.float32),
        last=np.concatenate(last),
        terminated=np.concatenate(terminated),
    )


def reward_of(episode: Episode, horizon: int) -> np.ndarray:
    """What each decision of an episode was paid: progress, success, and its cost.

    An episode does not tell how far the task was at its start, so its first step gains nothing.
    """
    gained = np.diff(episode.progress, prepend=episode.progress[:1])
    steps = gained + SUCCESS * episode.success
    return np.add.reduceat(steps, np.arange(0, len(steps), horizon)) - COST


class Online:
    """One run of `robolearn online`; see the module's docstring.

    Raises:
        ValueError: unusable options, or a folder with another run.
    """

    def __init__(self, config: OnlineConfig) -> None:
        self.config = config
        check_writable(config.out)
        if (config.out / LOG).exists() or checkpoint.checkpoints(config.out):
            raise ValueError(f"{config.out} holds a run already; take another --out")
        self.policy = _begun(config)
        self.learner = Gorl(config.algo, self.policy)
        check_same(config, config.out, SETTINGS, ())
        self.iteration, self.begin = 0, time.perf_counter()

    def run(self) -> float:
        """All stages; the share of episodes that succeeded in the last iteration."""
        success = 0.0
        with one_thread(), closing(_side_by_side(self.config)) as env:
            for stage in range(self.config.stages):
                recent: deque[Decisions] = deque(maxlen=self.config.algo.recent)
                for _ in range(self.config.iterations):
                    decisions, success = self.iterate(env, stage)
                    recent.append(decisions)
                self.save(stage)
                if stage + 1 < self.config.stages:
                    self.learner.refine(joined(recent), self.config.seed + stage)
        return success

    def iterate(self, env: VectorEnv, stage: int) -> tuple[Decisions, float]:
        """Collects episodes and learns of them; what was decided, and how many succeeded."""
        config, explorer = self.config, Explorer(self.learner, env.num_envs)
        first = config.seed + self.iteration * config.episodes
        episodes = list(rollout(env, explorer, range(first, first + config.episodes)))
        decisions = decisions_of(episodes, explorer, self.policy.horizon)
        if not self.iteration:  # at first it moves at random, in whatever units it sees
            self.learner.fit(decisions)
        loss = self.learner.update(decisions, stream(first, "update"))
        self.iteration += 1
        success = float(np.mean([episode.success.any() for episode in episodes]))
        row = {
            "iteration": self.iteration,
            "stage": stage,
            "success": success,
            "progress": float(np.mean([episode.progress[-1] for episode in episodes])),
            "reward": float(decisions.reward.sum() / len(episodes)),
            "steps": sum(len(episode.action) for episode in episodes),
            "loss": loss,
            "seconds": time.perf_counter() - self.begin,
        }
        with (config.out / LOG).open("a") as file:
            file.write(json.dumps(row) + "\n")
        Console(stderr=True).print(
            f"{self.iteration}: success {success:.1%}, reward {row['reward']:.3f}, "
            f"{row['seconds']:.0f} s"
        )
        return decisions, success

    def save(self, stage: int) -> None:
        """Writes a checkpoint."""
        with AtomicFolder(self.config.out / "checkpoints" / f"{stage + 1:07d}") as temporary:
            self.policy.save(temporary / "model")


def _begun(config: OnlineConfig) -> DsrlPolicy:
    """A fresh policy, with the units and the words of the task."""
    with closing(make_env(config.env, obs_type="state")) as env:
        begun = [env.reset(seed=config.seed + k) for k in range(BEGINNINGS)]
        task: Any = env.unwrapped
        arm, names = task.arm, ("agent_pos", "environment_state")
        states = {name: np.stack([seen[name] for seen, _ in begun]) for name in names}
        words = vocabulary_of(info[Info.TASK] for _, info in begun)
    policy = fresh_policy(config.algo, arm, states, words, config.seed)
    policy.inner.env_id = policy.env_id = config.env
    return policy


def _side_by_side(config: OnlineConfig) -> VectorEnv:
    if spec_of(config.env).vector_entry_point is None:
        raise ValueError(
            f"{config.env} has no batch of simulations, in which learning by trying goes on; take "
            "a task of this project"
        )
    return gymnasium.make_vec(
        config.env,
        num_envs=config.slots,
        obs_type="state",
        autoreset_mode=AutoresetMode.DISABLED,
        threads=config.threads,
    )


def main(config: OnlineConfig) -> int:
    """Runs the command."""
    run = Online(config)
    success = run.run()
    print(
        f"success {success:.1%} of the last {config.episodes} tries; evaluate it on unseen seeds:"
    )
    print(f"  robolearn eval --policy {config.out} --replan-every {config.algo.horizon}")
    return 0
