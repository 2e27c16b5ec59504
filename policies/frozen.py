"""Models that others have trained, whose weights stay as they are.

Such a model is looked up as a folder, then in the folder that the variable ROBOLEARN_MODELS names,
then as an id of the hub. Its weights are in no checkpoint, no optimiser and no average: there is
one copy of them in a process, and what a checkpoint keeps is where they were and their digest. What
may learn are adapters of low rank (Hu et al. 2022, "LoRA", eq. 3) beside its linear layers.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from robolearn.checkpoint import CheckpointError, absent, digest
from robolearn.policies.lora import inject, linear_layers

MODELS: Final = "ROBOLEARN_MODELS"  # variable that names a folder of models


class Frozen:
    """One model; no torch module, so that a policy's weights are its own.

    Args:
        module: what runs.
        where: the folder or id that it came from.
        fingerprint: of its weights and settings.

    Attributes:
        adapters: all of it that learns; for a policy to keep among its weights.
    """

    def __init__(self, module: nn.Module, where: str, fingerprint: str) -> None:
        self.module: Any = module.eval().requires_grad_(requires_grad=False)
        self.where, self.fingerprint = where, fingerprint
        self.adapters = nn.ParameterDict()
        self.lender: Frozen | None = None  # whose weights it uses, to be found by the next one

    @property
    def learns(self) -> bool:
        """Whether it has adapters."""
        return len(self.adapters) > 0

    def adapted(self, rank: int, spared: tuple[str, ...] = ()) -> "Frozen":
        """The same weights with adapters beside them; itself for a rank of 0.

        Args:
            rank: of them.
            spared: how the names of layers end that get none.

        Raises:
            ValueError: there is nothing to adapt.
        """
        if not rank:
            return self
        weights = {id(value): value for value in _tensors(self.module)}
        module = deepcopy(self.module, weights)  # another structure around the same weights
        copy = Frozen(module, self.where, self.fingerprint)
        copy.lender = self
        adapters = inject(module, rank, _in_blocks(module, spared))
        copy.adapters.update({name.replace(".", "/"): p for name, p in adapters.items()})
        return copy

    def __call__(self, *args: Any, device: torch.device) -> Any:  # noqa: ANN401
        """Runs it on a device; without adapters nothing is recorded, in full precision."""
        if self.learns:
            return self.through(*args, device=device)
        with (
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            return self.through(*args, device=device)

    def through(self, *args: Any, device: torch.device) -> Any:  # noqa: ANN401
        """Runs it on a device, so that what comes before it learns through it."""
        with torch.inference_mode(mode=False):  # weights that move shall not forget how to learn
            module = self.module.to(device)
        return module(*args)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _in_blocks(module: nn.Module, spared: tuple[str, ...]) -> list[str]:
    """The linear layers of the repeated blocks; what comes after these may be without use.

    Raises:
        ValueError: there are none.
    """
    layers = [name for name in linear_layers(module) if not name.endswith(spared)]
    found = [name for name in layers if any(part.isdigit() for part in name.split("."))]
    if not found:
        raise ValueError("a model without blocks of linear layers takes no adapters; set rank 0")
    return found


_ALIVE: "WeakValueDictionary[tuple[Any, ...], Frozen]" = WeakValueDictionary()


def shared(where: str, settings: str, load: Callable[[str], nn.Module]) -> Frozen:
    """The model from there, loaded unless somebody has it already.

    Args:
        where: a folder, or an id of the hub.
        settings: what else its outputs depend on.
        load: makes it of a folder or an id.

    Raises:
        CheckpointError: it is not there, or cannot be used.
    """
    path = _located(where)
    key = (path, settings, *_stamp(Path(path)))
    found = _ALIVE.get(key)
    if found is None:
        with _explaining(where, path):
            module = load(path)
        found = Frozen(module, where, digest(module.state_dict(), settings))
        _ALIVE[key] = found
    return found


def check_models(models: Mapping[str, Frozen], trained: Mapping[str, str]) -> None:
    """Refuses other models than those that a policy was trained with.

    Args:
        models: those here, by name.
        trained: fingerprints of those, likewise.

    Raises:
        CheckpointError: another one.
    """
    for name, model in models.items():
        if (wanted := trained.get(name, "")) != model.fingerprint:
            raise CheckpointError(
                f"the policy was trained with another {name} model ({wanted[:12]}) than the "
                f"one in {model.where} ({model.fingerprint[:12]}); put that one there"
            )


def _located(where: str) -> str:
    kept = os.environ.get(MODELS)
    places = [Path(where), *([Path(kept, Path(where).name)] if kept else [])]
    return next((str(place) for place in places if place.is_dir()), where)


def _stamp(folder: Path) -> list[tuple[str, int, int]]:
    """Changes when the files of a folder do."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


@contextmanager
def _explaining(where: str, path: str) -> Iterator[None]:
    """Says in one sentence why a model cannot be had.

    Raises:
        CheckpointError: always, if anything goes wrong.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # the hub's and the libraries' are of all kinds
        if not Path(path).is_dir():
            raise absent(where, "a folder with a model", error) from error
        lines = [line.strip() for line in str(error).splitlines()]
        reason = (
            next((line for line in lines if line), type(error).__name__).split(". ")[0].rstrip(":")
        )
        advice = "; for timm's: pip install 'robolearn[timm]'" * ("timm" in reason)
        raise CheckpointError(
            f"{where} holds no model that can be used here: {reason}{advice}"
        ) from error


def part_of(path: str, choose: Callable[[nn.Module], str]) -> Any:  # noqa: ANN401
    """A part of a model of transformers'.

    Args:
        path: a folder, or an id of the hub.
        choose: the name of the part, "" for the whole.

    Raises:
        ValueError: the part has weights that are not there.
        Exception: of all kinds, if there is no such model.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, info = AutoModel.from_pretrained(
        path, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    name = choose(model)
    lacking = sorted(key for key in info["missing_keys"] if key.startswith(name))
    if lacking:
        raise ValueError(f"{len(lacking)} weights are not there, {lacking[0]} for one")
    return model.get_submodule(name)
