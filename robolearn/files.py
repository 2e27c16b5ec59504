"""Files that are either whole or absent, whatever happens to the process or the power.

The classic recipe: write under a temporary name, fsync, rename, fsync the directory. See the
manual pages of rename(2) and fsync(2).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The name of a file to write, which in the end gets the name `path`; errors remove it.

    The name is new, so that of two processes that write one file neither takes the other's.
    """
    temporary = path.with_name(f"{path.name}.{uuid4().hex}{TEMPORARY}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Replaces the file by one with this content; a reader sees the old one or the new one.

    Raises:
        OSError: disk full, read-only folder and so on; the old file, if any, is untouched.
    """
    make_directory(path.parent)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


class AtomicFolder:
    """A folder that appears under its name only when it is complete and on disk.

    A folder cannot be replaced in one step, so an old one steps aside first; whoever next writes
    or reads the name after a crash in between puts it back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder, folder.with_name(folder.name + ".partial")

    def __enter__(self) -> Path:
        """The temporary folder to write to."""
        recover(self.folder)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir(parents=True)
        return self.temporary

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        """Renames it, or removes it after an error."""
        if kind is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
            return
        for path in [*self.temporary.rglob("*"), self.temporary]:
            sync(path)
        aside = _aside(self.folder)
        shutil.rmtree(aside, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(aside)
        self.temporary.rename(self.folder)
        sync(self.folder.parent)
        shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def recover(folder: Path) -> None:
    """Undoes a replacement that a crash cut in two."""
    if _aside(folder).is_dir() and not folder.exists():
        _aside(folder).rename(folder)


def check_writable(folder: Path) -> None:
    """Makes a folder; one that cannot be written shows before the work is done, not after.

    Raises:
        OSError: it cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=folder).close()


def copy_folder(folder: Path, to: Path) -> None:
    """A copy that is there whole or not at all; it replaces what was there."""
    with AtomicFolder(to) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
