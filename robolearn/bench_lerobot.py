"""LeRobot's own ACT and Diffusion policies, for `robolearn bench`: made, trained, and acting.

Config, processors, optimiser, schedule, dataset and sampler are LeRobot's, with its default
settings except those in `SETTINGS`:

- Chunks are as long as ours. ACT looks again after 4 actions, as ours does; Diffusion after 8, the
  paper's number, because its decisions take seconds on a CPU. DDIM with 10 steps decides ten times
  faster than its default of 100 DDPM steps, and is what the paper uses on real robots.
- Their ResNets start from random weights, as our encoders do: ImageNet weights are a download and
  other data. Diffusion then takes group norm instead of batch norm, as in its paper.
- Warm-up takes at most a tenth of the training: 500 steps would be all of it.

Neither policy reads language. So that they can know the goal, its one-hot vectors (which cube,
which bin) are appended to `observation.state`: they are told what ours has to read.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.factory import make_dataset
from lerobot.datasets.sampler import EpisodeAwareSampler
from lerobot.policies.factory import make_policy, make_policy_config, make_pre_post_processors
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch import Tensor
from torch.utils.data import DataLoader

from robolearn.envs.pick_place import BINS, CUBES, PHRASES
from robolearn.rollout import Observation
from robolearn.seeding import stream

COMMON: Final = {"device": "cpu", "push_to_hub": False, "pretrained_backbone_weights": None}
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "act": {"chunk_size": 16, "n_action_steps": 4},
    "diffusion": {
        "horizon": 16,
        "n_action_steps": 8,
        "drop_n_last_frames": 7,  # horizon - n_action_steps - n_obs_steps + 1
        "noise_scheduler_type": "DDIM",
        "num_inference_steps": 10,
        "use_group_norm": True,
    },
}
BATCH_SIZE: Final = 8  # lerobot-train's default; more would leave Diffusion a few dozen steps
GOAL_SIZE: Final = len(CUBES) + len(BINS)
WARMUP_SHARE: Final = 0.1
Batch = dict[str, Any]


def one_hot_goals(texts: Sequence[str]) -> Tensor:
    """What PickPlace's instructions ask for, float32 (B, cubes + bins)."""
    known = PHRASES.all("all")
    goals = torch.zeros(len(texts), GOAL_SIZE)
    for row, text in zip(goals, texts, strict=True):
        cube, goal_bin = known[text]
        row[cube] = row[len(CUBES) + goal_bin] = 1.0
    return goals


class Learner:
    """A policy of LeRobot in training.

    Args:
        name: "act" or "diffusion".
        data: a LeRobotDataset v3.0 of PickPlace.
        budget: seconds that it will train for; its schedule ends there.
        loader_workers: processes that decode.
        seed: of the weights, the order of the samples and the noise.

    Attributes:
        seconds: spent training so far.
        samples: seen so far.
    """

    def __init__(
        self, name: str, data: Path, budget: float, *, loader_workers: int = 2, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.config = make_policy_config(name, **COMMON, **SETTINGS[name])
        source = DatasetConfig("robolearn/bench", root=str(data))
        dataset = make_dataset(TrainPipelineConfig(dataset=source, policy=self.config))
        self._set_inputs(dataset.meta.features)
        self.policy = make_policy(self.config, ds_meta=dataset.meta)
        stats = with_goal_statistics(dataset.meta.stats)
        self._before, self._after = make_pre_post_processors(self.config, dataset_stats=stats)
        self._batches = batches(dataset, self.config, loader_workers, seed)
        self.seconds, self.samples = 0.0, 0
        self._prepare_training(budget)

    def _set_inputs(self, features: dict[str, Any]) -> None:
        """Cameras, joint positions and the goal: what our policy sees."""
        inputs = {
            key: PolicyFeature(FeatureType.VISUAL, (3, *feature["shape"][:2]))
            for key, feature in features.items()
            if key.startswith(OBS_IMAGES)
        }
        size = features[OBS_STATE]["shape"][0] + GOAL_SIZE
        self.config.input_features = {
            OBS_STATE: PolicyFeature(FeatureType.STATE, (size,)),
            **inputs,
        }

    def _prepare_training(self, budget: float) -> None:
        """Chooses the thread count, and ends the schedule about where the budget ends."""
        counts = sorted({1, torch.get_num_threads()})
        batch = next(self._batches)
        seconds = {count: self._time_step(batch, count) for count in counts}
        self.threads = min(counts, key=lambda count: seconds[count])
        torch.set_num_threads(self.threads)
        steps = max(1, int(budget / seconds[self.threads]))
        self._optimizer = self._make_optimizer()
        schedule = self.config.get_scheduler_preset()
        if schedule is not None:
            warmup = min(schedule.num_warmup_steps, int(WARMUP_SHARE * steps))
            schedule.num_warmup_steps = warmup
        self._schedule = schedule and schedule.build(self._optimizer, steps)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return self.config.get_optimizer_preset().build(self.policy.get_optim_params())

    def _time_step(self, batch: Batch, threads: int) -> float:
        """Seconds of a step, taken with a learning rate of zero so that nothing is learned."""
        torch.set_num_threads(threads)
        optimizer, seconds = self._make_optimizer(), []
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        for _ in range(2):
            begin = time.perf_counter()
            self._update(batch, optimizer)
            seconds.append(time.perf_counter() - begin)
        return min(seconds)

    def train(self, until: float) -> None:
        """Trains until that many seconds were spent on it in all; between calls the clock rests."""
        begin = time.perf_counter() - self.seconds
        while self.seconds < until:
            self._update(next(self._batches), self._optimizer)
            if self._schedule:
                self._schedule.step()
            self.samples += BATCH_SIZE
            self.seconds = time.perf_counter() - begin

    def _update(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """One step as lerobot-train takes it."""
        self.policy.train()
        loss, _ = self.policy.forward(self._prepare(batch))
        loss.backward()
        limit = self.config.get_optimizer_preset().grad_clip_norm
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
        optimizer.step()
        optimizer.zero_grad()

    def _prepare(self, batch: Batch) -> Batch:
        """Adds the goal to the state, then LeRobot's own processors; uint8 images become 0..1."""
        state, goal = batch[OBS_STATE], one_hot_goals(batch["task"])
        if state.ndim == 3:  # (B, past, J): Diffusion looks at two observations
            goal = goal[:, None].expand(-1, state.shape[1], -1)
        images = {key: batch[key].float() / 255.0 for key in self.config.image_features}
        return self._before({**batch, **images, OBS_STATE: torch.cat([state, goal], -1)})

    @torch.no_grad()
    def chunks(self, batch: Batch, noise: Sequence[np.random.Generator]) -> Tensor:
        """The actions to execute, (B, n_action_steps, J), for observations as in the dataset."""
        self.policy.eval()
        settings = {}
        if self.config.type == "diffusion":
            shape = (self.config.horizon, self.config.action_feature.shape[0])
            draws = [rng.standard_normal(shape, dtype=np.float32) for rng in noise]
            settings["noise"] = torch.from_numpy(np.stack(draws))
        actions = self.policy.predict_action_chunk(self._prepare(batch), **settings)
        return self._after(actions[:, : self.config.n_action_steps])


def batches(dataset: Any, config: Any, workers: int, seed: int) -> Iterator[Batch]:  # noqa: ANN401
    """Training batches without end, in lerobot-train's order and with its DataLoader settings."""
    episodes = dataset.meta.episodes
    sampler = EpisodeAwareSampler(
        episodes["dataset_from_index"],
        episodes["dataset_to_index"],
        drop_n_last_frames=getattr(config, "drop_n_last_frames", 0),
        shuffle=True,
        seed=seed,
    )
    loader = DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        sampler=sampler,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )
    while True:
        yield from loader


def with_goal_statistics(stats: dict[str, Any]) -> dict[str, Any]:
    """The dataset's statistics with those of the goal appended to the state's.

    They leave a one-hot entry as it is under mean and deviation, and map it to -1 or 1 under
    minimum and maximum.
    """
    goal = {"mean": 0.0, "std": 1.0, "min": 0.0, "max": 1.0}
    state = {
        key: np.concatenate([np.asarray(stats[OBS_STATE][key]), np.full(GOAL_SIZE, value)])
        for key, value in goal.items()
    }
    return {**stats, OBS_STATE: state}


class LeRobotActor:
    """Acts with a `Learner` in N slots; those that need a new chunk are decided in one batch.

    Each slot has its own past, queue and noise, so that episodes may begin at different times.

    Args:
        learner: the policy.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._slots: dict[int, _Slot] = {}

    def reset(self, slot: int, seed: int, instruction: str) -> None:
        """Begins an episode: forgets past and queue, reseeds the noise."""
        past = self._learner.config.n_obs_steps
        self._slots[slot] = _Slot(instruction, stream(seed, "policy"), past)

    def latency(self, slot: int) -> list[float]:
        """Seconds of every decision in this slot's episode; a batch shares its seconds."""
        return self._slots[slot].seconds

    def act(self, observation: Observation) -> np.ndarray:
        """Actions (N, J); slots without an episode repeat their measured position."""
        action = np.array(observation["agent_pos"], dtype=np.float32)
        for index, slot in self._slots.items():
            slot.see(self._as_recorded(observation, index))
        waiting = [slot for slot in self._slots.values() if not slot.queue]
        if waiting:
            self._decide(waiting)
        for index, slot in self._slots.items():
            action[index] = slot.queue.popleft()
        return action

    def _as_recorded(self, observation: Observation, index: int) -> dict[str, Tensor]:
        """One slot's observation under the dataset's names, images uint8 (3, H, W)."""
        images = {
            key: observation["pixels"][key.removeprefix(f"{OBS_IMAGES}.")][index]
            for key in self._learner.config.image_features
        }
        # Copies, because the environment writes its next observation into the same arrays.
        pictures = {key: torch.tensor(x).permute(2, 0, 1) for key, x in images.items()}
        return {OBS_STATE: torch.tensor(observation["agent_pos"][index]), **pictures}

    def _decide(self, slots: Sequence["_Slot"]) -> None:
        begin = time.perf_counter()
        rows = [slot.observed() for slot in slots]
        batch: Batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        batch["task"] = [slot.instruction for slot in slots]
        chunks = self._learner.chunks(batch, [slot.noise for slot in slots])
        for slot, chunk in zip(slots, chunks.numpy(), strict=True):
            slot.queue.extend(chunk)
            slot.seconds.append((time.perf_counter() - begin) / len(slots))


class _Slot:
    """One running episode of a `LeRobotActor`."""

    def __init__(self, instruction: str, noise: np.random.Generator, past: int) -> None:
        self.instruction, self.noise = instruction, noise
        self.queue: deque[np.ndarray] = deque()
        self.seconds: list[float] = []
        self._past: deque[dict[str, Tensor]] = deque(maxlen=past)

    def see(self, observation: dict[str, Tensor]) -> None:
        """Remembers; an episode's first observation also stands for those before it."""
        self._past.append(observation)
        while len(self._past) < (self._past.maxlen or 0):
            self._past.append(observation)

    def observed(self) -> dict[str, Tensor]:
        """What the policy looks at: the last observation, or (past, ...) where it takes several."""
        if len(self._past) == 1:
            return self._past[0]
        return {key: torch.stack([o[key] for o in self._past]) for key in self._past[0]}
