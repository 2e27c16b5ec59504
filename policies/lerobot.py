"""Every policy of LeRobot's behind our protocol: `--policy lerobot:FOLDER` or `lerobot:HUB_ID`.

The policy and its processors are LeRobot's own; what is ours is the translation of observations and
actions, noise that belongs to the episode, and the feature that verifiers and critics read: what
goes into the layer that makes the first action of the chunk. Each candidate is a pass of its own,
since LeRobot's policies draw their noise inside, from one stream for all.

Quantities are taken as they are: a policy that was trained on degrees needs a robot in degrees.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from gymnasium import spaces
from huggingface_hub import snapshot_download
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import NormalizationMode
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGES, OBS_STATE
from torch import Tensor, nn

from robolearn.checkpoint import CheckpointError, absent
from robolearn.contract import ArmSpec
from robolearn.policies.base import Batch, Chunks, Context, Generators, Policy, usable_device
from robolearn.policies.lerobot_flow import cameras_of  # with this LeRobot knows ours as well
from robolearn.sources import Source

PREFIX: Final = "lerobot:"
PATTERNS: Final = ["*.json", "*.safetensors"]  # of the files of a policy on the hub
# The layer that makes actions of features: of the flow policies, of ACT, of our own. What goes into
# it is (B, H, F), or (B, 1, F) for the whole chunk; other policies' feature is the chunk itself.
LAST_LAYERS: Final = ("model.action_out_proj", "model.action_head", "inner.head.outward")


@dataclass
class LeRobotContext(Context):
    """Observations as LeRobot's policy takes them.

    Attributes:
        batches: of one observation each.
    """

    batches: list[dict[str, Any]] = field(default_factory=list)


class LeRobotPolicy(Policy):
    """See the module's docstring.

    Args:
        inner: LeRobot's policy, in eval mode.
        before: its preprocessor.
        after: its postprocessor.
    """

    def __init__(self, inner: Any, before: Any, after: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.inner, self._before, self._after = inner, before, after
        config = inner.config
        self.horizon = int(getattr(config, "chunk_size", 0) or config.n_action_steps)
        self.history, self.arm = int(config.n_obs_steps), {}
        self._felt: list[Tensor] = []
        modules = dict(inner.named_modules())
        last = next((modules[name] for name in LAST_LAYERS if name in modules), None)
        if last is not None:
            last.register_forward_pre_hook(self._feel)

    def _feel(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Keeps what goes into the last layer for the first action."""
        del layer
        self._felt = [inputs[0][:, 0]]  # of the last sampling step, once all are done

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Policy`."""
        return cameras_of(self.inner.config)

    @property
    def joints(self) -> int:
        """See `Policy`."""
        return self.inner.config.output_features[ACTION].shape[0]

    @property
    def state_size(self) -> int:
        """See `Policy`."""
        feature = self.inner.config.env_state_feature
        return feature.shape[0] if feature else 0

    @property
    def spread(self) -> Tensor:
        """See `Policy`: that of the actions, which the postprocessor may know."""
        known = [getattr(step, "_tensor_stats", None) or {} for step in self._after.steps]
        found = [stats[ACTION]["std"] for stats in known if "std" in stats.get(ACTION, {})]
        if not found:
            return super().spread
        return torch.where(found[0] > 0, found[0], 1.0).to(self.device, torch.float32)

    def check_fits(self, arm: ArmSpec, observations: spaces.Dict) -> None:
        """See `Policy`."""
        if self.joints != arm.size:
            raise CheckpointError(
                f"the policy moves {self.joints} joints, and {arm.name} has {arm.size}"
            )
        super().check_fits(arm, observations)

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Puts B observations through LeRobot's preprocessor; see `Policy`."""
        batches = [
            self._before(self._translated(observation, index, text))
            for index, text in enumerate(instructions)
        ]
        present = self.present(observation["agent_pos"])
        return LeRobotContext(present.new_zeros(len(present), 0, 0), present, (), batches)

    def _translated(self, observation: Batch, index: int, text: str) -> dict[str, Any]:
        """One observation, with a batch dimension of 1, under LeRobot's names."""
        row = slice(index, index + 1)
        batch: dict[str, Any] = {OBS_STATE: observation["agent_pos"][row].float(), "task": [text]}
        if self.state_size:
            batch[OBS_ENV_STATE] = observation["environment_state"][row].float()
        for name in self.cameras:
            pixels = observation["pixels"][name][row].float() / 255.0
            batch[f"{OBS_IMAGES}.{name}"] = pixels.movedim(-1, -3).contiguous()
        return batch

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """Runs the policy n times for each of B contexts; see `Policy`."""
        assert isinstance(context, LeRobotContext)
        drawn = [
            [self._chunk(batch, int(generator.integers(2**62))) for _ in range(n)]
            for batch, generator in zip(context.batches, noise, strict=True)
        ]
        actions = torch.stack([torch.stack([chunk for chunk, _ in row]) for row in drawn])
        features = torch.stack([torch.stack([feature for _, feature in row]) for row in drawn])
        return Chunks(actions, features)

    def _chunk(self, batch: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
        """One chunk (H, J) and its feature (F,)."""
        self.inner.reset()  # its queues
        self._felt = []
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            torch.manual_seed(seed)
            raw = self.inner.predict_action_chunk(dict(batch))
        feature = self._felt[0] if self._felt else raw.flatten(1)
        return self._after(raw)[0].to(self.device, torch.float32), feature[0].float()


class LeRobotSource(Source):
    """A folder that LeRobot's `save_pretrained` wrote, a run of `lerobot-train`, or a hub id.

    Args:
        where: "lerobot:" and that.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        name = where.removeprefix(PREFIX)
        newest = Path(name) / "checkpoints/last/pretrained_model"
        self._name = str(newest if newest.is_dir() else name)

    @cached_property
    def _folder(self) -> Path:
        """On this machine; what the hub has is fetched, or was before."""
        folder = Path(self._name)
        if folder.is_dir():
            return folder
        try:
            return Path(snapshot_download(self._name, allow_patterns=PATTERNS))
        except Exception as error:  # of all kinds, as below
            raise absent(self._name, "a folder with a policy of LeRobot's", error) from error

    @cached_property
    def _config(self) -> PreTrainedConfig:
        try:
            return PreTrainedConfig.from_pretrained(self._folder)
        except CheckpointError:
            raise
        except Exception as error:  # the hub's, draccus's and the parser's are of all kinds
            raise absent(self._name, "a folder with a policy of LeRobot's", error) from error

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Source`."""
        return cameras_of(self._config)

    @property
    def env(self) -> str:
        """See `Source`; LeRobot does not tell."""
        return ""

    @property
    def run(self) -> Path:
        """See `Source`."""
        folder = Path(self._name)
        return folder if folder.is_dir() else Path("runs") / self._name.replace("/", "-")

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        files = sorted(self._folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{self._name} holds no weights; give a folder that does")
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def load(self, device: str = "cpu") -> Policy:
        """See `Source`."""
        config = self._config
        config.device = str(usable_device(device))
        try:
            inner = get_policy_class(config.type).from_pretrained(self._folder, config=config)
            placed = {"device_processor": {"device": config.device}}
            before, after = make_pre_post_processors(
                config, pretrained_path=str(self._folder), preprocessor_overrides=placed
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CheckpointError(f"{self._name} does not load: {error}") from error
        _check_statistics(self._name, before, after)
        return LeRobotPolicy(inner.eval(), before, after).eval()


def _check_statistics(name: str, *pipelines: Any) -> None:  # noqa: ANN401
    """Refuses processors that would let a quantity pass as it is.

    LeRobot normalises only what it has statistics of, and says nothing of the rest.

    Raises:
        CheckpointError: a statistic is missing.
    """
    missing: dict[str, None] = {}
    for step in (step for pipeline in pipelines for step in pipeline.steps):
        known = getattr(step, "_tensor_stats", None)
        if known is None:
            continue
        for key, feature in step.features.items():
            mode = step.norm_map.get(feature.type, NormalizationMode.IDENTITY)
            if mode is not NormalizationMode.IDENTITY and key not in known:
                missing[key] = None
    if missing:
        raise CheckpointError(
            f"{name} has no statistics of {', '.join(missing)}, so they would reach the policy "
            "unnormalised; save its processors with the statistics of its training data"
        )
