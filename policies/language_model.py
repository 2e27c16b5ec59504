"""Language models that others have trained: features of an instruction's words.

Few instructions are heard often, so what a frozen model makes of one is kept in memory.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from robolearn.policies.frozen import Frozen, part_of
from robolearn.policies.language import Language

LONGEST: Final = 77  # tokens of a text that count
KEPT: Final = 1024  # texts


class TextModel(nn.Module):
    """Hidden states of texts.

    Args:
        model: of transformers'.
        tokenizer: its own.
        padded: all texts are as long as the longest that the tokenizer takes.

    Raises:
        ValueError: a tokenizer that knows no words, as it is made where its files are missing.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, padded: bool = False) -> None:  # noqa: ANN401
        super().__init__()
        self.model, self._tokenizer = model, tokenizer
        longest = min(tokenizer.model_max_length, LONGEST)
        padding = "max_length" if padded else "longest"
        self._options = {"padding": padding, "truncation": True, "max_length": longest}
        self._padded = padded
        red, blue = (tokenizer(f"the {colour} one")["input_ids"] for colour in ("red", "blue"))
        if red == blue:
            raise ValueError("its tokenizer knows no words; put its files there, too")
        known = json.dumps(sorted(tokenizer.get_vocab().items())).encode()
        digest = torch.tensor(list(sha256(known).digest()), dtype=torch.uint8)
        self.register_buffer("vocabulary", digest)  # part of what it is
        self.width = self(["red"])[0].shape[1]

    def forward(self, texts: Sequence[str]) -> list[Tensor]:
        """Of each text (L, C), all of its own length."""
        tokens = self._tokenizer(list(texts), return_tensors="pt", **self._options)
        device = next(self.model.parameters()).device
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        if self._padded:  # as diffusion models are trained: the padding is heard, too
            return list(self.model(input_ids=ids).last_hidden_state)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return [row[heard.bool()] for row, heard in zip(states, mask, strict=True)]


class LanguageModel(Language):
    """Instructions become tokens (B, D) by what a language model makes of their words.

    Args:
        text: a frozen `TextModel`.
        width: D.
    """

    def __init__(self, text: Frozen, width: int) -> None:
        super().__init__()
        self._text = text
        self._known = lru_cache(KEPT)(self._states_of_one)
        self.adapters = text.adapters
        features = text.module.width
        self.inward = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, width))
        self._pool(width, width)

    def features(
        self, instructions: Sequence[str], rng: np.random.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """See `Language`."""
        del rng
        states = self.states(instructions)
        lengths = torch.tensor([len(state) for state in states], device=states[0].device)
        padded = pad_sequence(list(states), batch_first=True)  # (B, L, C)
        empty = torch.arange(padded.shape[1], device=lengths.device) >= lengths[:, None]
        return functional.silu(self.inward(padded)).transpose(1, 2), empty

    def states(self, instructions: Sequence[str]) -> list[Tensor]:
        """What the model makes of B instructions: of each (L, C)."""
        device = self.out.weight.device
        if not self._text.learns:
            return [self._known(text).to(device) for text in instructions]
        different = list(dict.fromkeys(instructions))
        found = dict(zip(different, self._text(different, device=device), strict=True))
        return [found[text] for text in instructions]

    def _states_of_one(self, text: str) -> Tensor:
        return self._text([text], device=self.out.weight.device)[0]


def load_text_model(path: str) -> TextModel:
    """The part of a model of transformers' that reads.

    Raises:
        Exception: of all kinds, if there is none.
    """
    from transformers import AutoTokenizer

    def reading(model: nn.Module) -> str:
        if hasattr(model, "text_model"):  # beside a vision model
            return "text_model"
        return "encoder" if hasattr(model, "decoder") else ""

    return TextModel(part_of(path, reading), AutoTokenizer.from_pretrained(path))
