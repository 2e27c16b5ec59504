"""Rows that took long to make, one for each frame of a dataset, kept in a memory-mapped file.

A JSON file of the same name says what they were made from: a cache that does not match its dataset
is rebuilt, and one that merely lacks the newest episodes is extended.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.episodes import DatasetError
from robolearn.files import TEMPORARY, make_directory, write_atomic


@dataclass(frozen=True)
class Clip:
    """Where one episode's frames lie in a file, and where they go."""

    file: Path
    first: int  # frame number within the file
    start: int  # frame number within the dataset
    length: int
    column: str = ""  # of a parquet file that holds the images; "" for a video file

    def fingerprint(self) -> list[str | int]:
        """Changes when the decoded frames could change."""
        status = self.file.stat()
        return [self.file.name, status.st_size, status.st_mtime_ns, self.first, self.length]


Make = Callable[[Sequence[Clip], np.ndarray], None]  # writes the rows of some clips


def cached_rows(
    clips: Sequence[Clip], row: tuple[int, ...], dtype: type, path: Path, make: Make
) -> np.memmap:
    """All rows (F, *row), read-only; makes those not yet in the cache.

    Args:
        clips: one per episode, in order.
        row: the shape of one.
        dtype: of the numbers.
        path: the cache file.
        make: writes the rows of the clips that it is given into an array of all rows.

    Raises:
        DatasetError: the cache cannot be written, or what `make` raises.
    """
    shape = (sum(clip.length for clip in clips), *row)
    try:
        make_directory(path.parent)
        with exclusive(path):
            _refresh(clips, shape, np.dtype(dtype), path, make)
    except OSError as error:
        size = _bytes(shape, np.dtype(dtype))
        raise DatasetError(
            f"cannot write the cache {path} ({error.strerror or error}): it needs "
            f"{size / 1e9:.1f} GB; free some space or pass another folder as cache=..."
        ) from error
    return np.memmap(path, dtype, "r", shape=shape)


def _bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lets one process build what will lie at `path`, in a folder, while others wait for it."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refresh(
    clips: Sequence[Clip], shape: tuple[int, ...], dtype: np.dtype, path: Path, make: Make
) -> None:
    wanted = [clip.fingerprint() for clip in clips]
    valid = _valid_episodes(path, wanted, _bytes(shape[1:], dtype))
    if valid == len(clips):
        return
    label = path.with_suffix(".json")
    # A new file, not the old one grown: other processes may have the old one mapped.
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        if valid:
            shutil.copyfile(path, temporary)
        _reserve(temporary, _bytes(shape, dtype), keep=bool(valid))
        rows = np.memmap(temporary, dtype, "r+", shape=shape)
        make(clips[valid:], rows)
        rows.flush()
        label.unlink(missing_ok=True)
        os.replace(temporary, path)
        write_atomic(label, json.dumps(wanted).encode())
    finally:
        temporary.unlink(missing_ok=True)


def _valid_episodes(path: Path, wanted: list[list[str | int]], row_bytes: int) -> int:
    """How many episodes at the front the cache already holds."""
    try:
        found = json.loads(path.with_suffix(".json").read_text())
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    whole = found == wanted[: len(found)] and size == row_bytes * sum(clip[-1] for clip in found)
    return len(found) if whole else 0


def _reserve(path: Path, size: int, *, keep: bool) -> None:
    """Claims the disk space now: running out of it under a memory map would kill the process."""
    with path.open("r+b" if keep else "wb") as file:
        file.truncate(size)
        os.posix_fallocate(file.fileno(), 0, size)
