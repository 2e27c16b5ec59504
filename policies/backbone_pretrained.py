"""A backbone upon a vision model and a language model of others: SigLIP, DINOv2, CLIP, T5, ...

Pictures are scaled to the vision model's own size, and its patches' features, averaged to a coarser
grid, are read off like a feature map of our own. Both models stay as they are, or learn adapters of
low rank.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from robolearn.policies.backbone import Senses
from robolearn.policies.backbone_frozen import FrozenBackbone, scaled
from robolearn.policies.configs import PretrainedConfig
from robolearn.policies.frozen import Frozen, part_of, shared
from robolearn.policies.language import Language, LanguageEncoder
from robolearn.policies.language_model import LanguageModel, load_text_model


class PretrainedBackbone(FrozenBackbone):
    """See the module's docstring.

    Raises:
        CheckpointError: a model that is not there, or cannot be used.
    """

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig, senses: Senses) -> None:
        eye = shared(config.vision, f"patches {config.grid}", lambda path: _eye(path, config.grid))
        text: Frozen | None = None
        language: Language = LanguageEncoder(senses.vocabulary, config.words, config.width)
        if config.language:
            text = shared(config.language, "text", load_text_model).adapted(config.language_lora)
            language = LanguageModel(text, config.width)
        super().__init__(config, senses, language, eye.adapted(config.lora))
        self._text = text

    @property
    def models(self) -> Mapping[str, Frozen]:
        """See `Backbone`."""
        return {"vision": self.eye} | ({"language": self._text} if self._text else {})

    def look(self, pixels: Tensor, instructions: Sequence[str]) -> Tensor:
        """See `FrozenBackbone`."""
        del instructions
        return self.eye(pixels, device=pixels.device)


class PatchModel(nn.Module):
    """The last features of a vision model, as a map.

    Args:
        model: of transformers'.
        processor: its own, which knows the size and the colours that it wants.
        grid: rows and columns at most.

    Raises:
        ValueError: its features are no map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, processor: Any, grid: int) -> None:  # noqa: ANN401
        super().__init__()
        self.model, self._grid, self._size = model, grid, _size(processor)
        self._patch = getattr(model.config, "patch_size", 0)
        for name, plain in (("mean", 0.0), ("std", 1.0)):
            colours = getattr(processor, f"image_{name}") if processor.do_normalize else [plain] * 3
            self.register_buffer(name, torch.tensor(colours).view(3, 1, 1))
        self.register_buffer("size", torch.tensor(self._size))  # part of what it is
        with torch.no_grad():
            self.shape = tuple(self(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)).shape[1:])

    def forward(self, pixels: Tensor) -> Tensor:
        """Maps (N, g, g, C) of uint8 pictures (N, h, w, 3)."""
        x = (scaled(pixels, self._size) - self.mean) / self.std
        seen = self._as_map(self.model(pixel_values=x).last_hidden_state)
        grid = [min(side, self._grid) for side in seen.shape[2:]]
        return functional.interpolate(seen, grid, mode="area").permute(0, 2, 3, 1)

    def _as_map(self, hidden: Tensor) -> Tensor:
        """(N, C, rows, columns) of that, or of tokens (N, T, C), of which the last are patches."""
        if hidden.ndim == 4:
            return hidden
        if not self._patch:
            raise ValueError("its features are no map, since it has no patches")
        rows, columns = (side // self._patch for side in self._size)
        if hidden.shape[1] < rows * columns:
            raise ValueError(
                f"it gives {hidden.shape[1]} features for a picture, which has {rows} x {columns} "
                "patches"
            )
        return hidden[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))


def _size(processor: Any) -> tuple[int, int]:  # noqa: ANN401
    """Height and width of the pictures that go into the model."""
    wanted = processor.crop_size if getattr(processor, "do_center_crop", None) else processor.size
    return wanted.height or wanted.shortest_edge, wanted.width or wanted.shortest_edge


def _eye(path: str, grid: int) -> PatchModel:
    from transformers import AutoImageProcessor

    def seeing(model: nn.Module) -> str:
        return "vision_model" if hasattr(model, "vision_model") else ""  # beside a text model

    return PatchModel(part_of(path, seeing), AutoImageProcessor.from_pretrained(path), grid)
