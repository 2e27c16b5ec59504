"""Checkpoints: a folder with `config.json` and `model.safetensors`, written atomically.

Nothing is pickled, so a checkpoint from a stranger cannot run code. One loader serves every kind
of policy; the kind stands in `config.json`. The weights' file carries a SHA-256 of the weights and
of the config, so that damage is noticed whichever byte it hits.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from robolearn.files import AtomicFolder, recover

if TYPE_CHECKING:
    from robolearn.policies.base import TrainablePolicy

FORMAT = 2  # raised when the layout changes; older formats keep an upgrader here


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


def save_model(
    folder: Path, kind: str, description: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> None:
    """Writes a model checkpoint; a crash leaves either the old folder or the new one."""
    config = {"format": FORMAT, "kind": kind, **description}
    text = json.dumps(config, indent=2) + "\n"
    with AtomicFolder(folder) as temporary:
        save_tensors(temporary / "model.safetensors", weights, text)
        (temporary / "config.json").write_text(text)


def load_model(folder: Path, kind: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a model checkpoint.

    Args:
        folder: the checkpoint, or a run folder (its newest checkpoint is taken).
        kind: the kind of policy that is expected; None takes any.

    Raises:
        CheckpointError: missing or damaged files, another kind or format.
    """
    folder = resolve(folder)
    config, text = _read_config(folder)
    if config.get("format") not in (1, FORMAT):
        raise CheckpointError(
            f"{folder} has checkpoint format {config.get('format')}, this version reads {FORMAT}; "
            "load it with the robolearn version that wrote it"
        )
    if kind is not None and config.get("kind") != kind:
        raise CheckpointError(f"{folder} holds a {config.get('kind')} policy, not a {kind} policy")
    weights = load_tensors(folder / "model.safetensors", text)
    return config, _from_format_1(weights) if config["format"] == 1 else weights


def _from_format_1(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A flow policy's head was called `velocity`, and its parts had other names."""
    renamed = {}
    for name, value in weights.items():
        name = re.sub(r"^velocity\.time\.", "head.time.mlp.", name)  # noqa: PLW2901
        name = re.sub(r"^velocity\.(blocks\.\d+)\.mlp\.", r"head.\1.inner.", name)  # noqa: PLW2901
        renamed[re.sub(r"^velocity\.", "head.", name)] = value
    return renamed


@contextmanager
def describing(folder: Path, what: str) -> Iterator[None]:
    """Says what is wrong if a model cannot be made from its description.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        yield
    except CheckpointError:  # which says it all
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}/config.json does not describe a {what} of this version ({error!r}); "
            "load it with the robolearn version that wrote it"
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], seal: str = "") -> None:
    """Writes named tensors, which may share memory, and a digest of them and of the seal.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    ours = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    path.write_bytes(save(ours, {"sha256": digest(ours, seal)}))


def load_tensors(path: Path, seal: str = "") -> dict[str, Tensor]:
    """Reads what `save_tensors` wrote.

    Raises:
        CheckpointError: missing or damaged, or written with another seal.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stated = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    if digest(tensors, seal) != stated:
        raise _damaged(path, "it does not hold what was written")
    return tensors


def digest(tensors: Mapping[str, Tensor], seal: str = "") -> str:
    """SHA-256 of named tensors and a text, as hex digits."""
    found = hashlib.sha256(seal.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        found.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def absent(name: str, what: str, error: Exception) -> CheckpointError:
    """The error that a folder or an id of the hub is not to be had."""
    return CheckpointError(
        f"{name} is neither {what} nor one that the hub hands out now ({type(error).__name__}); "
        f"without a network, download it elsewhere with `hf download {name}` and give the folder"
    )


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is missing or damaged ({why}); take an earlier checkpoint of the run"
    )


def fingerprint(folder: Path) -> str:
    """The digest of a checkpoint's weights and config, which names the very policy.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = resolve(folder) / "model.safetensors"
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {})["sha256"]
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(path, str(error)) from error


def resolve(folder: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest one of a run folder.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(folder)
    recover(folder)
    if (folder / "model.safetensors").exists():
        return folder
    if (folder / "model").is_dir():  # one of the run's checkpoints, with its training state
        return folder / "model"
    found = checkpoints(folder)
    if not found:
        raise CheckpointError(
            f"{folder} is neither a checkpoint nor a run with checkpoints; "
            "a run is made by: robolearn train --out FOLDER"
        )
    return found[-1] / "model"


def run_of(folder: Path) -> Path:
    """The run that a checkpoint belongs to; a checkpoint that stands alone is its own.

    Raises:
        CheckpointError: no such checkpoint or run.
    """
    folder = resolve(folder)
    return folder.parents[2] if folder.parent.parent.name == "checkpoints" else folder


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = (run / "checkpoints").glob("*")
    complete = [p for p in found if p.name.isdigit() and (p / "model").is_dir()]
    return sorted(complete, key=lambda p: int(p.name))


def assign_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    folder: Path,
    described_by: str = "its own config.json",
) -> None:
    """Loads weights strictly.

    Args:
        model: takes the weights.
        weights: all of its parameters and buffers.
        folder: where they were read, for the error.
        described_by: what the model was made from, for the error.

    Raises:
        CheckpointError: names or shapes differ, or a statistic is missing (NaN).
    """
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{folder} does not fit {described_by}: {first}") from error
    lacking = [k for k, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if lacking:
        raise CheckpointError(
            f"{folder} lacks finite values for {', '.join(lacking[:3])}; "
            "the normaliser was never fitted or training diverged: train again"
        )


def load_policy(folder: Path, device: str = "cpu") -> "TrainablePolicy":
    """Loads whatever kind of policy the checkpoint holds, in eval mode.

    Raises:
        CheckpointError: see `load_model`; also a kind that this version does not know.
    """
    from robolearn.policies import POLICIES  # which import this module

    folder = resolve(folder)
    kind = _read_config(folder)[0].get("kind")
    if kind not in POLICIES:
        raise CheckpointError(f"{folder} holds a {kind!r} policy; known: {', '.join(POLICIES)}")
    return POLICIES[kind]().load(folder, device)


def _read_config(folder: Path) -> tuple[dict[str, Any], str]:
    """The config, and the very text of it."""
    path = folder / "config.json"
    try:
        text = path.read_text()
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(config, dict):
        raise _damaged(path, "not an object")
    return config, text
