"""A video model of others as the world model: a diffusion transformer of the LTX-Video kind.

    now (B, N, C), T noisy frames, goal ─ one token a cell ─ inward ─ (T + 2) N tokens
    transformer, frozen: of each token a time and a place, and how noisy it is ─ velocity ─ outward
    its hidden states after `depth` blocks, frames averaged ─ features (B, 3 N, D) for the expert

HaCohen et al. 2024, "LTX-Video", arXiv 2501.00103, which "Genie Envisioner" (arXiv 2508.05635), and
on it Act2Goal, start from; the transformer is diffusers' `LTXVideoTransformer3DModel`. There, sigma
goes from 0 (data) to 1 (noise), a token is told 1000 sigma, and the output is noise minus data.
Here, t goes from noise to data: sigma is 1 - t, and the velocity is minus the output. Now and goal
are clean tokens, sigma 0, as diffusers' `LTXConditionPipeline` has its given frames.

It is told no words: its text is one token of zeros. Latents are those of the policy's autoencoder,
which need not be the model's own; linear maps in and out learn to translate.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.policies.frozen import Frozen, shared
from robolearn.policies.hashing import Hashing
from robolearn.policies.world_model import GROUPS, PLACE, Imaginer

if TYPE_CHECKING:
    from robolearn.policies.latent_configs import Act2GoalConfig

SIGMAS: Final = 1000.0  # what a token of nothing but noise is told
# Pixels from a token to the next in what the model has learned of; our cells are as near to each
# other, whatever they stand for, since these are distances that it knows.
APART: Final = 32.0
DEAF: Final = ("attn2.to_q", "attn2.to_k")  # of one word, nobody chooses what to hear
KIND: Final = "LTXVideoTransformer3DModel"


class VideoModel(Imaginer):
    """See the module's docstring.

    Args:
        config: sizes, and the model.
        cameras: camera name -> (height, width) of its pictures.
        hashing: which frames.
        rate: control steps a second.

    Raises:
        CheckpointError: a model that is not there, or cannot be used.
    """

    places: Tensor  # (2, N): row and column of each cell, in the model's pixels

    def __init__(
        self,
        config: "Act2GoalConfig",
        cameras: Mapping[str, tuple[int, int]],
        hashing: Hashing,
        rate: float,
    ) -> None:
        super().__init__(config, cameras, hashing, config.autoencoder)
        self._rate = rate
        depth = config.depth
        video = shared(config.video, f"video {depth}", lambda path: _load(path, depth))
        self.video = video.adapted(config.video_lora, DEAF)
        self.adapters = self.video.adapters
        sizes = self.video.module.transformer.config
        self.inward = _identity(self.channels, sizes.in_channels)
        self.outward = _identity(sizes.out_channels or sizes.in_channels, self.channels)
        inner = sizes.num_attention_heads * sizes.attention_head_dim
        self.readouts = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, config.width)) for _ in range(depth)
        )
        # The model knows places inside of its attention only, and the expert has to tell cells.
        self.place = nn.Parameter(PLACE * torch.randn(GROUPS * self.count, config.width))
        self.register_buffer("places", self._places(), persistent=False)

    @property
    def models(self) -> Mapping[str, Frozen]:
        """See `Latents`."""
        return {**super().models, "video": self.video}

    def _places(self) -> Tensor:
        """Row and column of each cell (2, N); the cameras' pictures lie side by side."""
        grids, left = [], 0
        for rows, columns in self.cells.values():
            grid = torch.meshgrid(
                torch.arange(rows), torch.arange(left, left + columns), indexing="ij"
            )
            grids.append(torch.stack(grid).flatten(1))
            left += columns
        return APART * torch.cat(grids, 1)

    def forward(
        self, now: Tensor, goal: Tensor, noisy: Tensor, t: Tensor, steps: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `Imaginer`."""
        frames = torch.cat([now[:, None], noisy, goal[:, None]], 1)  # (B, T + 2, N, C)
        tokens = self.inward(frames).flatten(1, 2)
        times, places = self._timesteps(t), self._coordinates(steps)
        output, felt = self.video.through(tokens, times, places, device=tokens.device)
        velocity = -self.outward(output).view(frames.shape)[:, 1:-1]
        return velocity, [
            readout(self._grouped(states)) + self.place
            for readout, states in zip(self.readouts, felt, strict=True)
        ]

    def _timesteps(self, t: Tensor) -> Tensor:
        """How noisy each token is, 0 to 1000, (B, (T + 2) N), at the flow time (B, 1)."""
        sigma = (1.0 - t).expand(-1, self.hashing.frames)
        clean = torch.zeros_like(t)
        return SIGMAS * torch.cat([clean, sigma, clean], 1).repeat_interleave(self.count, 1)

    def _coordinates(self, steps: Tensor) -> Tensor:
        """Seconds from now, row and column of each token (B, 3, (T + 2) N), K = `steps` (B,)."""
        goal = steps.detach().cpu().numpy()
        offsets = np.column_stack([0 * goal, self.hashing.offsets(goal), goal])
        seconds = torch.from_numpy(offsets).to(self.places) / self._rate
        times = seconds.repeat_interleave(self.count, 1)[:, None]
        places = self.places.repeat(1, offsets.shape[1]).expand(len(goal), -1, -1)
        return torch.cat([times, places], 1)

    def _grouped(self, states: Tensor) -> Tensor:
        """Hidden states (B, (T + 2) N, W) as those of now, goal and future (B, 3 N, W)."""
        frames = states.unflatten(1, (-1, self.count))
        groups = [frames[:, 0], frames[:, -1], frames[:, 1:-1].mean(1)]
        return torch.cat(groups, 1)


class VideoTransformer(nn.Module):
    """A video transformer that hears no words, and what it feels after some of its blocks.

    Args:
        transformer: diffusers' `LTXVideoTransformer3DModel`.
        depth: of how many blocks, evenly spaced, the last one among them.

    Raises:
        ValueError: it has not as many blocks, or makes a token of several cells.
    """

    heads: Tensor
    words: Tensor  # (1, 1, W)

    def __init__(self, transformer: Any, depth: int) -> None:  # noqa: ANN401
        super().__init__()
        self.transformer, self._felt = transformer, list[Tensor]()
        sizes, blocks = transformer.config, transformer.transformer_blocks
        if depth > len(blocks):
            raise ValueError(f"it has {len(blocks)} blocks, and policy depth is {depth}")
        if sizes.patch_size != 1 or sizes.patch_size_t != 1:
            raise ValueError("a token of it is several cells of a latent, and here it is one")
        for k in range(1, depth + 1):
            blocks[k * len(blocks) // depth - 1].register_forward_hook(self._feel)
        # No weight tells how many heads there are, and it is part of what the model is.
        self.register_buffer("heads", torch.tensor(sizes.num_attention_heads))
        self.register_buffer("words", torch.zeros(1, 1, sizes.caption_channels))

    def _feel(self, block: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ANN401
        del block, inputs
        self._felt.append(output)

    def forward(
        self, tokens: Tensor, timesteps: Tensor, coordinates: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Noise minus data (B, S, C), and hidden states (B, S, W) after each chosen block.

        Args:
            tokens: noisy and clean ones (B, S, C).
            timesteps: 1000 sigma of each (B, S).
            coordinates: seconds, row and column of each (B, 3, S).
        """
        self._felt.clear()
        heard = self.words.to(tokens.dtype).expand(len(tokens), -1, -1)
        options = {"video_coords": coordinates, "return_dict": False}
        (output,) = self.transformer(tokens, heard, timesteps, None, **options)
        felt = self._felt.copy()
        self._felt.clear()
        return output, felt


def _identity(inward: int, outward: int) -> nn.Linear:
    """A linear map that learns, and begins as the identity as far as sizes allow."""
    layer = nn.Linear(inward, outward, bias=False)
    nn.init.eye_(layer.weight)
    return layer


def _load(path: str, depth: int) -> VideoTransformer:
    """The transformer of a folder or an id: by itself, or as a pipeline keeps it.

    Raises:
        ValueError: the model is of another kind, or has not all weights.
        Exception: of all kinds, if there is no such model.
    """
    from diffusers import LTXVideoTransformer3DModel

    alone = Path(path, "config.json").is_file()
    place: dict[str, Any] = {} if alone else {"subfolder": "transformer"}
    kind = LTXVideoTransformer3DModel.load_config(path, **place).get("_class_name")
    if kind != KIND:
        raise ValueError(f"it is a {kind} and no {KIND}")
    model, info = LTXVideoTransformer3DModel.from_pretrained(
        path, **place, torch_dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if lacking := sorted(info["missing_keys"]):
        raise ValueError(f"{len(lacking)} weights are not there, {lacking[0]} for one")
    return VideoTransformer(model, depth)
