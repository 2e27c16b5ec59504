"""A backbone upon the features of a text-to-image diffusion model: Stable Control Representations.

Gupta et al. 2024, "Pre-trained text-to-image diffusion models are versatile representation learners
for control": a picture is encoded (VAE), a little noise is put on, and the U-Net, conditioned on
text, denoises it once; what some of its layers feel, brought to a common grid, is the picture's
feature map. The noise is always the same, so a map belongs to its picture. The layers after the
middle and the VAE's decoder are not needed and not kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.backbone import Senses
from robolearn.policies.backbone_frozen import FrozenBackbone, scaled
from robolearn.policies.configs import StableControlConfig
from robolearn.policies.frozen import Frozen, shared
from robolearn.policies.language_model import LanguageModel, TextModel


class StableControlBackbone(FrozenBackbone):
    """See the module's docstring.

    Raises:
        CheckpointError: a model that is not there, or cannot be used.
    """

    config: StableControlConfig
    language: LanguageModel

    def __init__(self, config: StableControlConfig, senses: Senses) -> None:
        text = shared(config.model, "prompt", _text_model)
        settings = f"{config.layers} {config.timestep} {config.size} {config.grid}"
        eye = shared(config.model, settings, lambda path: _eye(path, config))
        super().__init__(config, senses, LanguageModel(text, config.width), eye)
        self._text = text

    @property
    def models(self) -> Mapping[str, Frozen]:
        """See `Backbone`."""
        return {"vision": self.eye, "language": self._text}

    @property
    def map_name(self) -> str:
        """See `FrozenBackbone`; the U-Net hears the empty prompt."""
        return self.eye.fingerprint[:16] + self._text.fingerprint[:16]

    @property
    def looks_alike(self) -> bool:
        """See `FrozenBackbone`; what the U-Net hears changes what it sees."""
        return not self.config.prompt

    def look(self, pixels: Tensor, instructions: Sequence[str]) -> Tensor:
        """See `FrozenBackbone`."""
        if self.config.prompt:
            heard = torch.stack(self.language.states(instructions))
        else:
            heard = torch.stack(self.language.states([""]))
        return self.eye(pixels, heard, device=pixels.device)


class DiffusionFeatures(nn.Module):
    """What layers of a U-Net feel at a picture.

    Args:
        vae: `AutoencoderKL`.
        unet: `UNet2DConditionModel`.
        scheduler: `DDPMScheduler`, which puts noise on.
        config: layers, time and sizes.

    Raises:
        ValueError: no such layer.
    """

    def __init__(self, vae: Any, unet: Any, scheduler: Any, config: StableControlConfig) -> None:  # noqa: ANN401
        super().__init__()
        vae.decoder, unet.up_blocks = None, nn.ModuleList()
        unet.conv_norm_out, unet.conv_out = None, nn.Identity()
        self.vae, self.unet, self._scheduler, self._config = vae, unet, scheduler, config
        self.register_buffer("signal", scheduler.alphas_cumprod.clone())  # part of what it is
        self._felt: list[Tensor] = []
        blocks = [f"down_blocks.{k}" for k in range(len(unet.down_blocks))]
        for name in config.layers:
            if name not in (known := [*blocks, "mid_block"]):
                raise ValueError(f"it has no layer {name!r}; choose among {', '.join(known)}")
            unet.get_submodule(name).register_forward_hook(self._feel)
        with torch.no_grad():
            nothing = torch.zeros(1, 1, unet.config.cross_attention_dim)
            self.shape = tuple(self(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), nothing).shape[1:])

    def _feel(self, layer: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401
        """Keeps a layer's output; a down block also gives what skips the middle."""
        del layer, inputs
        self._felt.append(output[0] if isinstance(output, tuple) else output)

    def forward(self, pixels: Tensor, heard: Tensor) -> Tensor:
        """Maps (N, g, g, C) of uint8 pictures (N, h, w, 3) and text states (N or 1, L, D)."""
        size, grid = (self._config.size,) * 2, (self._config.grid,) * 2
        latent = self.vae.encode(2.0 * scaled(pixels, size) - 1.0).latent_dist.mode()
        noise = torch.randn(latent.shape[1:], generator=torch.Generator().manual_seed(0))
        time = torch.tensor([self._config.timestep], device=latent.device)
        noisy = self._scheduler.add_noise(
            latent * self.vae.config.scaling_factor, noise.to(latent)[None], time
        )
        self._felt.clear()
        self.unet(noisy, time, heard.expand(len(noisy), -1, -1))
        maps = [functional.interpolate(felt, grid, mode="area") for felt in self._felt]
        self._felt.clear()
        return torch.cat(maps, 1).permute(0, 2, 3, 1)


def _text_model(path: str) -> TextModel:
    from transformers import AutoTokenizer, CLIPTextModel

    model = CLIPTextModel.from_pretrained(
        path, subfolder="text_encoder", dtype=torch.float32, use_safetensors=True
    )
    tokenizer = AutoTokenizer.from_pretrained(path, subfolder="tokenizer")
    return TextModel(model, tokenizer, padded=True)


def _eye(path: str, config: StableControlConfig) -> DiffusionFeatures:
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

    options: dict[str, Any] = {"torch_dtype": torch.float32, "use_safetensors": True}
    vae = AutoencoderKL.from_pretrained(path, subfolder="vae", **options)
    unet = UNet2DConditionModel.from_pretrained(path, subfolder="unet", **options)
    scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler")
    return DiffusionFeatures(vae, unet, scheduler, config)
