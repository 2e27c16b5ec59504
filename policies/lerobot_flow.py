"""Our flow policy as one of LeRobot's: `lerobot-train --policy.type=robolearn_flow`.

LeRobot finds it after `--policy.discover_packages_path=robolearn.policies`: the config by its
registered name, policy and processors beside it by theirs. Normalisation and statistics are the
policy's own, so the processors only move things to the device.
"""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, NormalizationMode
from lerobot.optim.optimizers import AdamWConfig
from lerobot.optim.schedulers import CosineDecayWithWarmupSchedulerConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import make_default_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from torch import Tensor

from robolearn.dataset import EpisodeDataset
from robolearn.policies.base import Batch
from robolearn.policies.configs import FlowConfig
from robolearn.policies.flow import FlowPolicy

PICTURES = f"{OBS_IMAGES}."


def cameras_of(config: PreTrainedConfig) -> dict[str, tuple[int, int]]:
    """Camera name -> height and width of the pictures that a policy was trained on."""
    return {
        key.removeprefix(PICTURES): (feature.shape[1], feature.shape[2])
        for key, feature in config.image_features.items()
    }


@PreTrainedConfig.register_subclass("robolearn_flow")
@dataclass
class RobolearnFlowConfig(PreTrainedConfig):
    """What defines it, for LeRobot; see `FlowConfig`.

    Attributes:
        description: what rebuilds the trained policy, as JSON; training fills it in.
    """

    chunk_size: int = 16  # steps in a chunk
    n_action_steps: int = 4  # of these are executed
    sample_steps: int = 8
    draws: int = 4
    hidden: int = 384
    depth: int = 3
    learning_rate: float = 1e-3
    description: str = ""
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {kind.value: NormalizationMode.IDENTITY for kind in FeatureType}
    )

    def flow(self) -> FlowConfig:
        """The same for the policy itself."""
        names = ("sample_steps", "draws", "hidden", "depth")
        sizes = {name: getattr(self, name) for name in names}
        return FlowConfig(horizon=self.chunk_size, **sizes)

    def validate_features(self) -> None:
        """Refuses data without pictures or joint positions.

        Raises:
            ValueError: naming what is missing.
        """
        if not self.image_features or self.robot_state_feature is None:
            raise ValueError("robolearn_flow needs pictures and observation.state in the dataset")

    @property
    def observation_delta_indices(self) -> None:
        """It looks at the present only."""

    @property
    def action_delta_indices(self) -> list[int]:
        """The steps of a chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """It learns from no rewards."""

    def get_optimizer_preset(self) -> AdamWConfig:
        """As `robolearn train` has it."""
        return AdamWConfig(lr=self.learning_rate, weight_decay=1e-4, grad_clip_norm=1.0)

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """As `robolearn train` has it; LeRobot shortens it to the length of training."""
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=200, num_decay_steps=4000, peak_lr=self.learning_rate, decay_lr=0.0
        )


class RobolearnFlowPolicy(PreTrainedPolicy):
    """See the module's docstring.

    Args:
        config: of a trained policy, or of a new one.
        dataset_meta: of the dataset that a new one is trained on.

    Raises:
        ValueError: a new policy without a dataset.
    """

    config_class: ClassVar = RobolearnFlowConfig
    name: ClassVar = "robolearn_flow"
    config: RobolearnFlowConfig

    def __init__(
        self,
        config: RobolearnFlowConfig,
        dataset_meta: Any = None,  # noqa: ANN401 (LeRobot's)
        **others: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(config)
        del others  # LeRobot's statistics are of single steps
        config.validate_features()
        if not config.description:
            if dataset_meta is None:
                raise ValueError("a new robolearn_flow policy needs the dataset it is trained on")
            fresh = FlowPolicy.for_dataset(
                config.flow(), EpisodeDataset(dataset_meta.root), cameras_of(config)
            )
            config.description = json.dumps(fresh.description())
            self.inner = fresh
        else:
            self.inner = FlowPolicy.from_description(json.loads(config.description))
        self._queue: deque[Tensor] = deque()

    def get_optim_params(self) -> Any:  # noqa: ANN401
        """All weights alike."""
        return self.parameters()

    def reset(self) -> None:
        """An episode begins: forgets the queue."""
        self._queue.clear()

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """The training loss and figures to log."""
        chunk = {"action": batch[ACTION], "mask": ~batch["action_is_pad"]}
        whole = self._observation(batch) | chunk | {"instruction": list(batch["task"])}
        return self.inner.loss(whole, self._generator())

    @torch.no_grad()
    def predict_action_chunk(self, batch: dict[str, Any], **others: Any) -> Tensor:  # noqa: ANN401
        """Chunks (B, H, J), whose noise comes from torch's own stream."""
        del others
        self.eval()
        context = self.inner.encode(self._observation(batch), list(batch["task"]))
        noise = [self._generator() for _ in range(len(context.agent_pos))]
        return self.inner.sample(context, 1, noise).actions[:, 0]

    @torch.no_grad()
    def select_action(self, batch: dict[str, Any], **others: Any) -> Tensor:  # noqa: ANN401
        """The next action (B, J) of the running chunk."""
        if not self._queue:
            chunk = self.predict_action_chunk(batch, **others)
            self._queue.extend(chunk[:, : self.config.n_action_steps].unbind(1))
        return self._queue.popleft()

    def _observation(self, batch: dict[str, Any]) -> Batch:
        """LeRobot's pictures are float (B, 3, h, w) in 0..1."""
        pixels = {
            name: (255.0 * batch[PICTURES + name]).round().to(torch.uint8).movedim(1, -1)
            for name in self.inner.cameras
        }
        return {"agent_pos": batch[OBS_STATE], "pixels": pixels}

    @staticmethod
    def _generator() -> np.random.Generator:
        return np.random.default_rng(int(torch.randint(2**62, ())))


def make_robolearn_flow_pre_post_processors(
    config: RobolearnFlowConfig,
    dataset_stats: dict[str, Any] | None = None,
) -> tuple[Any, Any]:
    """LeRobot's usual ones, which leave all quantities as they are."""
    return make_default_pre_post_processors(config, dataset_stats)
