"""FlowPolicy: a vision-language-action policy by conditional flow matching.

Lipman et al. 2023, "Flow matching for generative modeling", with the straight paths of eq. 20-23
(sigma_min = 0). With noise x0 ~ N(0, I), a demonstrated chunk x1 and time t in [0, 1]:

    x_t = (1 - t) x0 + t x1        u = x1 - x0        loss = E |v(x_t, t, context) - u|^2

A chunk is drawn by integrating dx/dt = v from noise at t = 0 to t = 1 with Euler steps. Chunks are
learned relative to the present joint positions (a gripper stays absolute) and normalised for each
chunk step, because a late step moves much further than the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from robolearn.checkpoint import CheckpointError
from robolearn.config import to_json
from robolearn.contract import ArmSpec
from robolearn.policies.backbone import Backbone, vocabulary_of
from robolearn.policies.base import Batch, Chunks, Context, Info, Normaliser, Policy
from robolearn.policies.configs import BackboneConfig, FlowConfig

if TYPE_CHECKING:
    from robolearn.dataset import EpisodeDataset


class VelocityField(nn.Module):
    """v(x_t, t, context): a residual MLP over the whole chunk, modulated by time and context.

    Adaptive layer norm as in Peebles and Xie 2023, section 3.2 (adaLN-Zero).
    """

    frequencies: Tensor

    def __init__(self, size: int, condition: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(8) * torch.pi, persistent=False)
        self.time = nn.Sequential(nn.Linear(16, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.condition = nn.Sequential(
            nn.Linear(condition, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.inward = nn.Linear(size, hidden)
        self.blocks = nn.ModuleList(ModulatedBlock(hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.outward = nn.Linear(hidden, size)
        nn.init.zeros_(self.outward.weight)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, size) and the last hidden features (B, hidden).

        Args:
            x: noisy chunks (B, size).
            t: (B, 1) in 0..1.
            condition: (B, hidden), from `self.condition`.
        """
        angles = t * self.frequencies
        c = nn.functional.silu(condition + self.time(torch.cat([angles.sin(), angles.cos()], -1)))
        h = self.inward(x)
        for block in self.blocks:
            h = block(h, c)
        h = self.norm(h)
        return self.outward(h), h


class ModulatedBlock(nn.Module):
    """h + gate(c) * MLP(norm(h) * (1 + scale(c)) + shift(c))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """(B, width) and conditioning (B, width) to (B, width)."""
        scale, shift, gate = self.modulation(c).chunk(3, dim=-1)
        return h + gate * self.mlp(self.norm(h) * (1.0 + scale) + shift)


class FlowPolicy(Policy):
    """See the module's docstring.

    Args:
        config: sizes and sampling.
        cameras: camera name -> (height, width) of the pictures it will get.
        arm: the fields of the `ArmSpec` that it was trained on.
        vocabulary: the words that training knows.
    """

    kind: ClassVar[str] = FlowConfig.kind
    env_id: str = ""  # where its demonstrations were recorded; "" if in several, or unknown
    relative: Tensor  # (J,): 1 where a chunk is learned relative to the present position

    def __init__(
        self,
        config: FlowConfig,
        cameras: Mapping[str, tuple[int, int]],
        arm: Mapping[str, Any],
        vocabulary: Sequence[str],
    ) -> None:
        super().__init__()
        self.config, self.horizon, self.arm = config, config.horizon, dict(arm)
        joints = len(arm["joints"])
        self.backbone = Backbone(config.backbone, cameras, joints, vocabulary)
        self.chunk = Normaliser((config.horizon, joints))
        self.velocity = VelocityField(
            config.horizon * joints,
            self.backbone.token_count * config.backbone.width,
            config.hidden,
            config.depth,
        )
        absolute = torch.tensor([float(i not in arm["grippers"]) for i in range(joints)])
        self.register_buffer("relative", absolute, persistent=False)

    @classmethod
    def for_dataset(
        cls, config: FlowConfig, dataset: "EpisodeDataset", cameras: Mapping[str, tuple[int, int]]
    ) -> Self:
        """A fresh policy whose vocabulary and normalisers are those of a dataset."""
        arm = asdict(dataset.arm) | {"control_hz": dataset.fps}
        policy = cls(config, cameras, arm, vocabulary_of(dataset.episodes.instruction))
        recorded = set(dataset.episodes.env_id)
        policy.env_id = recorded.pop() if len(recorded) == 1 else ""
        policy.backbone.agent_pos.fit(dataset.columns["agent_pos"])
        windows = dataset.windows(config.horizon)
        batch = windows.get(np.arange(len(windows)))
        relative = policy.relative.numpy()
        chunks = batch["action"] - batch["agent_pos"][:, None] * relative
        policy.chunk.fit(np.where(batch["mask"][..., None], chunks, np.nan))
        return policy

    def encode(self, observation: Batch, instructions: Sequence[str]) -> Context:
        """Tokens of B observations; see `Policy`."""
        return Context(self.backbone(observation, instructions), observation["agent_pos"])

    def sample(self, context: Context, n: int, noise: Sequence[np.random.Generator]) -> Chunks:
        """Integrates n noises for each context with Euler steps; see `Policy`."""
        size, steps = self.chunk.mean.numel(), self.config.sample_steps
        start = np.stack([g.standard_normal((n, size), dtype=np.float32) for g in noise])
        x = torch.from_numpy(start).to(self.device).flatten(0, 1)
        condition = self.velocity.condition(context.tokens.flatten(1)).repeat_interleave(n, 0)
        for k in range(steps):
            t = torch.full((len(x), 1), k / steps, device=x.device)
            v, features = self.velocity(x, t, condition)
            x = x + v / steps
        chunks = self.chunk.inverse(x.view(len(noise), n, *self.chunk.mean.shape))
        base = context.agent_pos * self.relative
        return Chunks(chunks + base[:, None, None], features.view(len(noise), n, -1))

    def loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Info]:
        """The flow-matching loss; steps beyond the end of an episode do not count."""
        tokens = self.backbone(batch, batch["instruction"], rng)
        base = (batch["agent_pos"] * self.relative)[:, None]
        x1 = self.chunk(batch["action"] - base).flatten(1).repeat(self.config.draws, 1)
        x0 = torch.from_numpy(rng.standard_normal(x1.shape, dtype=np.float32)).to(x1.device)
        inside = batch["mask"].repeat_interleave(len(self.relative), 1).repeat(self.config.draws, 1)
        x1 = torch.where(inside, x1, x0)  # beyond the end is noise, so padding teaches nothing
        t = torch.from_numpy(rng.random((len(x1), 1), dtype=np.float32)).to(x1.device)
        condition = self.velocity.condition(tokens.flatten(1)).repeat(self.config.draws, 1)
        v, _ = self.velocity((1 - t) * x0 + t * x1, t, condition)
        error = (v.float() - (x1 - x0)).square()
        loss = (error * inside).sum() / inside.sum()
        return loss, {"flow/loss": float(loss.detach())}

    def check_fits(self, arm: ArmSpec, observations: spaces.Dict) -> None:
        """See `Policy`."""
        for key in ("joints", "grippers", "low", "high", "control_hz"):
            found, trained = to_json(getattr(arm, key)), to_json(self.arm.get(key))
            if key in self.arm and found != trained:
                raise CheckpointError(
                    f"the policy was trained on {self.arm['name']} with {key} {trained}, and "
                    f"{arm.name} has {found}; train one for this arm"
                )
        pixels = observations.spaces.get("pixels")
        pictures = pixels.spaces if isinstance(pixels, spaces.Dict) else {}
        for camera, size in self.backbone.cameras.items():
            if camera not in pictures or (pictures[camera].shape or ())[:2] != tuple(size):
                raise CheckpointError(
                    f"the policy was trained on camera {camera!r} at {size[0]}x{size[1]}; "
                    "give the environment that camera and image_size"
                )

    def description(self) -> dict[str, Any]:
        """See `Policy`."""
        return {
            "config": asdict(self.config),
            "cameras": {k: list(v) for k, v in self.backbone.cameras.items()},
            "arm": self.arm,
            "vocabulary": list(self.backbone.language.vocabulary),
            "env": self.env_id,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """See `Policy`."""
        values = dict(description["config"])
        backbone = BackboneConfig(**values.pop("backbone"))
        cameras = {k: tuple(v) for k, v in description["cameras"].items()}
        config = FlowConfig(**values, backbone=backbone)
        policy = cls(config, cameras, description["arm"], description["vocabulary"])
        policy.env_id = description.get("env", "")  # older checkpoints do not say
        return policy
