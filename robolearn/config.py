"""Frozen dataclasses are the configuration: of the command line, of a run, of a result."""

import dataclasses
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from robolearn.files import write_atomic

NAME = "config.json"
TOLD = 3  # settings that differ, in one sentence


class ConfigError(ValueError):
    """A saved configuration that cannot be read."""


def to_json(config: object) -> Any:  # noqa: ANN401 (a JSON value)
    """A config as JSON values; paths become strings."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        kind = {"kind": config.kind} if hasattr(config, "kind") else {}  # tells a method's settings
        return kind | {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Path):
        return str(config)
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    return config


def config_hash(config: object) -> str:
    """Twelve hex digits that differ whenever a setting differs."""
    text = json.dumps(to_json(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def save_config(config: object, folder: Path, name: str = NAME) -> None:
    """Writes `config.json`, or another name, into a folder.

    Raises:
        OSError: the folder cannot be written.
    """
    _write_json(to_json(config), folder, name)


def _write_json(values: object, folder: Path, name: str) -> None:
    try:
        write_atomic(folder / name, (json.dumps(values, indent=2) + "\n").encode())
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error}); choose another folder") from error


def load_config[T](kind: type[T], folder: Path, name: str = NAME, **changes: object) -> T:
    """Reads what `save_config` wrote, with changes.

    Raises:
        ConfigError: missing, damaged, or with keys that this version does not know.
    """
    try:
        values = json.loads((folder / name).read_text())
        return from_json(kind, {**values, **changes})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder / name} is missing or unusable: {error}") from error


def check_same(config: object, folder: Path, name: str, free: Collection[str]) -> None:
    """Notes the settings that decide on what lies in a folder, and refuses others.

    Args:
        config: a config, or what else decides, by name.
        folder: is filled by a command that goes on where it was interrupted.
        name: of the file for the settings.
        free: settings that may differ from one run of the command to the next.

    Raises:
        ValueError: the folder was begun with other settings.
    """
    settings = {key: value for key, value in to_json(config).items() if key not in free}
    try:
        told = _complete(config, json.loads((folder / name).read_text()), free)
        known = {key: value for key, value in told.items() if key not in free}
    except FileNotFoundError:
        known = settings
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / name} is unusable ({error}); take another --out") from error
    if known != settings:
        changes = _changes(known, settings)
        raise ValueError(f"{folder} was begun with other settings ({changes}); take another --out")
    _write_json(settings, folder, name)


def _complete(config: object, told: dict[str, Any], free: Collection[str]) -> dict[str, Any]:
    """What a file tells of a config; settings that it does not know were as by default."""
    if not dataclasses.is_dataclass(config):
        return told
    kept = {key: value for key, value in to_json(config).items() if key in free}
    return to_json(from_json(type(config), told | kept))


def _changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, in words; those in settings have names with a dot."""
    was, wanted = _leaves(before), _leaves(now)
    names = [name for name in {**was, **wanted} if was.get(name) != wanted.get(name)]
    told = [f"{name} {was.get(name)}, not {wanted.get(name)}" for name in names[:TOLD]]
    return "; ".join(told + ["..."] * (len(names) > TOLD))


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict) and value
        leaves |= _leaves(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return leaves


def from_json[T](kind: type[T], values: dict[str, Any]) -> T:
    """The inverse of `to_json`, of a config.

    Raises:
        ValueError, TypeError: keys that the config does not know, or not all that it needs.
    """
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if hasattr(kind, "kind"):
        values = {k: v for k, v in values.items() if k != "kind"}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"unknown key {', '.join(unknown)}; known are {', '.join(known)}")
    return kind(**{k: _value(known[k].type, v) for k, v in values.items()})


def _value(kind: Any, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict) and (config := _config_type(kind, value)):
        return from_json(config, value)
    if isinstance(value, list):
        return tuple(_value((get_args(kind) or (None,))[0], item) for item in value)
    if isinstance(value, str) and Path in (kind, *get_args(kind)):  # Path, or Path | None
        return Path(value)
    return value


def _config_type(kind: Any, value: dict[str, Any]) -> Any:  # noqa: ANN401
    """The config class that a JSON object is of; among several methods' its `kind` decides."""
    configs = [c for c in (kind, *get_args(kind)) if dataclasses.is_dataclass(c)]
    named = [c for c in configs if getattr(c, "kind", None) == value.get("kind")]
    return next(iter([*named, *configs]), None)
