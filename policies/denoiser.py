"""What flow and diffusion policies share: everything except how noise becomes a chunk.

Chunks are learned relative to the present joint positions (a gripper stays absolute) and normalised
for each chunk step, because a late step moves much further than the first. "Clean" and "noisy" in
this module mean chunks in that form.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.config import from_json, to_json
from robolearn.hindsight import Hindsight
from robolearn.policies import BACKBONES
from robolearn.policies.backbone import Senses
from robolearn.policies.base import (
    Batch,
    Chunks,
    Context,
    Generators,
    Info,
    Normaliser,
    Overlap,
    TrainablePolicy,
)
from robolearn.policies.configs import ChunkConfig
from robolearn.policies.heads import HEADS, Prefix
from robolearn.policies.language import vocabulary_of

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset
    from robolearn.windows import Sampler

Draw = Callable[..., np.ndarray]
STRONGEST = 5.0  # guidance, beta in the paper


def draws_of(draw: Draw, shape: Sequence[int]) -> Tensor:
    """Random numbers (B, n, ...), drawn for one n after the other."""
    observations, draws, *rest = shape
    drawn = draw((draws, observations, *rest), dtype=np.float32)
    return torch.from_numpy(drawn).transpose(0, 1)


def beside_goals[T](cameras: Mapping[str, T]) -> dict[str, T]:
    """Cameras, and further ones that see their goals."""
    return {**cameras, **{f"goal {name}": found for name, found in cameras.items()}}


def with_goals(seen: Batch) -> Batch:
    """An observation whose goals are the pictures of further cameras."""
    goals = {f"goal {name}": x for name, x in seen["goal_pixels"].items()}
    return {**seen, "pixels": {**seen["pixels"], **goals}}


@dataclass(frozen=True)
class Guide:
    """Draws a sampler towards a chunk that is under way (Black et al. 2025, eq. 2 to 4).

    That is inpainting by the gradient of the denoiser (Pokle et al. 2024) with soft weights.

    Attributes:
        towards: a clean chunk (B, 1, H, J).
        weights: of its steps, 0..1, (H, 1).
    """

    towards: Tensor
    weights: Tensor

    def push(self, x: Tensor, t: float, clean_of: Callable[[Tensor], Tensor]) -> Tensor:
        """What is to be added to the velocity of x, as `x`.

        Args:
            x: noisy chunks (B, n, H, J): t of a clean one, 1 - t of noise.
            t: time in 0..1.
            clean_of: what the denoiser takes for the clean chunks of noisy ones.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = clean_of(x)
            error = self.weights * (self.towards - clean.detach())
            (gradient,) = torch.autograd.grad(clean, x, error)
        strength = (t**2 + (1 - t) ** 2) / (t * (1 - t)) if 0 < t < 1 else np.inf
        return min(STRONGEST, strength) * gradient


class DenoisingPolicy(TrainablePolicy):
    """See the module's docstring.

    Args:
        config: sizes and sampling.
        cameras: camera name -> (height, width) of the pictures it will get.
        arm: the fields of the `ArmSpec` that it was trained on.
        vocabulary: the words that training knows.
        state: size of "environment_state", for a policy that looks at it; 0 for none.
    """

    config_type: ClassVar[type[ChunkConfig]]
    backbone: Any  # makes the tokens; `Backbone`, unless a method has its own
    head: Any  # denoises; likewise a `Head`
    relative: Tensor  # (J,): 1 where a chunk is learned relative to the present position

    def __init__(
        self,
        config: ChunkConfig,
        cameras: Mapping[str, tuple[int, int]],
        arm: Mapping[str, Any],
        vocabulary: Sequence[str],
        state: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.horizon, self.arm = config, config.horizon, dict(arm)
        self.history, self._cameras = config.history, dict(cameras)
        joints = len(arm["joints"])
        senses = Senses(self._cameras, joints, tuple(vocabulary), state, config.history)
        self.backbone, self.head = self.networks(senses)
        self.chunk = Normaliser((config.horizon + self.auxiliary, joints))
        relative = torch.tensor([float(i not in arm["grippers"]) for i in range(joints)])
        self.register_buffer("relative", relative, persistent=False)

    def networks(self, senses: Senses) -> tuple[nn.Module, nn.Module]:
        """What makes tokens of these senses, and what denoises chunks given the tokens."""
        config = self.config
        if self.goals:
            senses = replace(senses, cameras=beside_goals(senses.cameras))
        backbone = BACKBONES[config.backbone.kind]()(config.backbone, senses)
        tokens = (backbone.token_count, config.backbone.width)
        return backbone, HEADS[config.head](config, senses.joints, tokens)

    @property
    def auxiliary(self) -> int:
        """Rows of a chunk beyond its horizon, which are learned and never executed."""
        return 0

    @property
    def goals(self) -> bool:
        """See `Policy`."""
        return self.config.goal == "pictures"

    @abstractmethod
    def corrupt(
        self, clean: Tensor, inside: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A training example of clean chunks: noisy ones, their times, and targets.

        Args:
            clean: (B, n, H, J).
            inside: bool (B, 1, H, 1); false beyond the end of an episode.
            rng: the source of noise and times.

        Returns:
            Noisy chunks (B, n, H, J), times (B, n, 1) and what the head shall predict, as `clean`.
        """

    @abstractmethod
    def noised(self, clean: Tensor, noise: Tensor, start: int) -> Tensor:
        """Clean chunks with as much noise as there is before sampling step `start`."""

    @abstractmethod
    def denoise(
        self, x: Tensor, start: int, prefix: Prefix, guide: Guide | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the sampling steps from `start` on: clean chunks, and the last step's features."""

    @classmethod
    def for_dataset(
        cls,
        config: Any,  # noqa: ANN401 (the method's own)
        dataset: "EpisodeDataset",
        cameras: Mapping[str, tuple[int, int]],
    ) -> Self:
        """See `Policy`; without cameras it looks at the simulator's state.

        Raises:
            ValueError: it is shown its goals, and has no cameras.
        """
        arm = asdict(dataset.arm) | {"control_hz": dataset.fps}
        state = 0 if cameras else dataset.columns["environment_state"].shape[1]
        policy = cls(config, cameras, arm, vocabulary_of(dataset.episodes.instruction), state)
        if policy.goals and not cameras:
            raise ValueError("goals are shown in pictures; leave out --obs-type state")
        recorded = set(dataset.episodes.env_id)
        policy.env_id = recorded.pop() if len(recorded) == 1 else ""
        policy.fit(dataset)
        return policy

    def fit(self, dataset: "EpisodeDataset") -> None:
        """Takes from a dataset what is there before the first step: its statistics."""
        self.backbone.fit(dataset.columns)
        windows = dataset.windows(self.horizon)
        batch = windows.get(np.arange(len(windows)))
        chunks = batch["action"] - batch["agent_pos"][:, None] * self.relative.numpy()
        self.chunk.fit(np.where(batch["mask"][..., None], chunks, np.nan))

    @property
    def cameras(self) -> Mapping[str, tuple[int, int]]:
        """See `Policy`."""
        return self._cameras

    @property
    def state_size(self) -> int:
        """See `Policy`."""
        return self.backbone.senses.state

    def windows(self, dataset: "EpisodeDataset") -> "Sampler":
        """See `Policy`; with what a frozen model sees in place of pictures, if that is all."""
        cameras, features = tuple(self.cameras), self.backbone.features()
        seen = dataset.windows(self.horizon, cameras, history=self.history, features=features)
        return Hindsight(seen, self.config.hindsight) if self.goals else seen

    @property
    def spread(self) -> Tensor:
        """See `Policy`: that of the joint positions."""
        return self.backbone.agent_pos.std

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Tokens of B observations, and what the head keeps of them; see `Policy`."""
        tokens = self.tokens_of(observation, instructions)
        return Context(tokens, self.present_of(observation), self.head.prefix(tokens))

    def encoder(self) -> nn.Module:
        """See `Policy`."""
        return self.backbone

    def tokens_of(
        self, seen: Batch, instructions: Sequence[str], rng: np.random.Generator | None = None
    ) -> Tensor:
        """Tokens (B, T, D), unless somebody encoded the observations before."""
        if "tokens" in seen:
            return seen["tokens"]
        if self.goals:  # further cameras, and nothing is said
            seen = with_goals(seen)
            instructions = [""] * len(instructions)
        return self.backbone(seen, instructions, rng)

    def present_of(self, seen: Batch) -> Tensor:
        """Joint positions now (B, J), which is all that is kept beside tokens."""
        return seen["agent_pos"] if "tokens" in seen else self.present(seen["agent_pos"])

    def sample(self, context: Context, n: int, noise: Generators) -> Chunks:
        """Denoises n chunks of pure noise for each context; see `Policy`."""
        return self.finished(context, *self.denoise(self.first_noise(n, noise), 0, context.cache))

    def follow(self, context: Context, n: int, noise: Generators, overlap: Overlap) -> Chunks:
        """Guides the denoising towards what is under way; see `Policy` and `Guide`."""
        with torch.inference_mode(mode=False):  # in which no gradient is possible
            actions = torch.as_tensor(overlap.actions, device=self.device)[None, None]
            towards = self._learned(actions, context.agent_pos.clone())
            weights = torch.as_tensor(overlap.weights, device=self.device)
            weights = functional.pad(weights, (0, self.auxiliary))[:, None]
            prefix = tuple(part.clone() for part in context.cache)
            guide = Guide(towards.detach(), weights)
            clean, features = self.denoise(self.first_noise(n, noise), 0, prefix, guide)
            return self.finished(context, clean.detach(), features.detach())

    def refine(self, context: Context, actions: Tensor, noise: Generators, level: float) -> Chunks:
        """Puts noise on chunks and takes it off again; see `Policy`.

        The level is rounded to a sampling step, so that the features are of the same last step that
        `sample` ends with, whatever the number of steps.
        """
        steps = self.config.sample_steps
        start = min(round((1.0 - level) * steps), steps - 1)
        x = self.first_noise(actions.shape[1], noise)
        if start:
            x = self.noised(self._learned(actions, context.agent_pos), x, start)
        return self.finished(context, *self.denoise(x, start, context.cache))

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """Mean squared error; steps beyond the end of an episode do not count."""
        prefix = self.head.prefix(self.tokens_of(batch, batch["instruction"], rng))
        loss = self._error(self.clean_of(batch), batch["mask"], prefix, rng)
        return loss, {f"{self.kind}/loss": float(loss.detach())}

    def _error(
        self, clean: Tensor, inside: Tensor, prefix: Prefix, rng: np.random.Generator
    ) -> Tensor:
        """Mean squared error of the head for clean chunks (B, 1, H, J), where `inside` (B, H)."""
        clean = clean.expand(-1, self.config.draws, -1, -1)
        inside = inside[:, None, :, None]
        noisy, t, target = self.corrupt(clean, inside, rng)
        predicted, _ = self.head(noisy, t, prefix)
        error = (predicted.float() - target).square() * inside
        return error.sum() / inside.expand_as(error).sum()

    def clean_of(self, batch: Batch) -> Tensor:
        """The recorded chunks (B, 1, H, J), in the form that is learned."""
        return self._learned(batch["action"][:, None], self.present_of(batch))

    def _learned(self, actions: Tensor, agent_pos: Tensor) -> Tensor:
        """Chunks (B, n, H, J) as they are learned, for arms at (B, J)."""
        rows = torch.cat([actions, actions[:, :, -1:].expand(-1, -1, self.auxiliary, -1)], 2)
        return self.chunk(rows - (agent_pos * self.relative)[:, None, None])

    def first_noise(self, n: int, noise: Generators) -> Tensor:
        """(B, n, H, J); the first candidates are the same however many there are."""
        shape = (n, *self.chunk.mean.shape)
        drawn = [generator.standard_normal(shape, dtype=np.float32) for generator in noise]
        return torch.from_numpy(np.stack(drawn)).to(self.device)

    def finished(self, context: Context, clean: Tensor, features: Tensor) -> Chunks:
        """Chunks for the arm, of clean ones (B, n, H, J)."""
        base = (context.agent_pos * self.relative)[:, None, None]
        rows = self.chunk.inverse(clean) + base
        return Chunks(rows[:, :, : self.horizon], features)

    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return {
            "config": to_json(self.config),
            "cameras": {k: list(v) for k, v in self.cameras.items()},
            "arm": self.arm,
            "vocabulary": list(self.backbone.senses.vocabulary),
            "state": self.state_size,
            "env": self.env_id,
            "goals": self.goals,
            "models": {k: model.fingerprint for k, model in self.backbone.models.items()},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Policy`."""
        config = from_json(cls.config_type, description["config"])
        cameras = {k: tuple(v) for k, v in description["cameras"].items()}
        state = description.get("state", 0)  # older checkpoints have none
        policy = cls(config, cameras, description["arm"], description["vocabulary"], state)
        policy.env_id = description.get("env", "")  # older checkpoints do not say
        policy.backbone.check_models(description.get("models", {}))
        return policy
