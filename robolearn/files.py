"""Files that are either whole or absent, whatever happens to the process or the power.

The classic recipe: write under a temporary name, fsync, rename, fsync the directory. See the
manual pages of rename(2) and fsync(2).
"""

import os
from pathlib import Path

# Readers look for `*.parquet`, `*.mp4`, `*.json`: a name that ends otherwise is invisible to them.
TEMPORARY = ".tmp"


def sync(path: Path) -> None:
    """Makes a file, or the entries of a directory (creations, renames), survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Creates a directory and its parents durably; one that exists is left alone."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces the file by one with this content; a reader sees the old one or the new one.

    Raises:
        OSError: disk full, read-only folder and so on; the old file, if any, is untouched.
    """
    make_directory(path.parent)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
