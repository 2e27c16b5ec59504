"""LeRobot's own ACT and Diffusion policies, for `robolearn bench-policies`: made and trained.

Config, processors, optimiser, schedule, dataset and sampler are LeRobot's, with its default
settings except those in `SETTINGS`:

- Chunks are as long as ours. ACT looks again after 4 actions, as ours does; Diffusion after 8, the
  paper's number, because its decisions take seconds on a CPU. DDIM with 10 steps decides ten times
  faster than its default of 100 DDPM steps, and is what the paper uses on real robots.
- Their ResNets start from random weights, as our encoders do: ImageNet weights are a download and
  other data. Diffusion then takes group norm instead of batch norm, as in its paper.
- Warm-up takes at most a tenth of the training: 500 steps would be all of it.
- They train in bf16 where ours do, on CPUs that are faster at it.

Neither policy reads language. So that they can know the goal, a step of their preprocessor appends
it to `observation.state` (`robolearn/lerobot_goal.py`): they are told what ours has to read.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.factory import make_dataset
from lerobot.datasets.sampler import EpisodeAwareSampler
from lerobot.policies.factory import make_policy, make_policy_config
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from torch.utils.data import DataLoader

from robolearn.lerobot_goal import GoalStep, processors_with_goal
from robolearn.policies.fitting import in_bf16
from robolearn.policies.lerobot import PREFIX

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
WARMUP_SHARE: Final = 0.1
Batch = dict[str, Any]


class Learner:
    """A policy of LeRobot in training.

    Args:
        name: "act" or "diffusion".
        data: a LeRobotDataset v3.0 of a simulated task, with pictures.
        env: the id of that task.
        budget: seconds that it will train for; its schedule ends there.
        loader_workers: processes that decode.
        seed: of the weights, the order of the samples and the noise.

    Attributes:
        seconds: spent training so far.
        samples: seen so far.
    """

    def __init__(
        self,
        name: str,
        data: Path,
        env: str,
        budget: float,
        *,
        loader_workers: int = 2,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config = make_policy_config(name, **COMMON, **SETTINGS[name])
        source = DatasetConfig("robolearn/bench", root=str(data))
        dataset = make_dataset(TrainPipelineConfig(dataset=source, policy=self.config))
        goal = GoalStep(env)
        self._set_inputs(dataset.meta.features, goal.size)
        self.policy = make_policy(self.config, ds_meta=dataset.meta)
        self._before, self._after = processors_with_goal(self.config, dataset.meta.stats, goal)
        self._batches = batches(dataset, self.config, loader_workers, seed)
        self.seconds, self.samples = 0.0, 0
        self._prepare_training(budget)

    def _set_inputs(self, features: dict[str, Any], goal_size: int) -> None:
        """Cameras, joint positions and the goal: what our policy sees."""
        inputs = {
            key: PolicyFeature(FeatureType.VISUAL, (3, *feature["shape"][:2]))
            for key, feature in features.items()
            if key.startswith(OBS_IMAGES)
        }
        size = features[OBS_STATE]["shape"][0] + goal_size
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

    def save(self, folder: Path) -> str:
        """Writes the policy and its processors, and returns how `--policy` names them."""
        for part in (self.policy, self._before, self._after):
            part.save_pretrained(folder)
        return f"{PREFIX}{folder}"

    def _update(self, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        """One step as lerobot-train takes it."""
        self.policy.train()
        with in_bf16(torch.device("cpu")):
            loss, _ = self.policy.forward(self._prepare(batch))
        loss.backward()
        limit = self.config.get_optimizer_preset().grad_clip_norm
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), limit)
        optimizer.step()
        optimizer.zero_grad()

    def _prepare(self, batch: Batch) -> Batch:
        """LeRobot's own processors; before them uint8 images become 0..1."""
        images = {key: batch[key].float() / 255.0 for key in self.config.image_features}
        return self._before({**batch, **images})


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
