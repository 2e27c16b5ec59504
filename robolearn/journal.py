"""Rows on disk as they come, so that work which was killed goes on after the last of them."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from robolearn.files import write_atomic

Row = dict[str, Any]


class Journal:
    """One JSON object a line, each on disk when `append` returns.

    Args:
        path: the file; its folder exists.
        about: all that the rows depend on. It is the first line, and rows that depended on anything
            else are dropped.

    Attributes:
        rows: those of now and of before.
    """

    def __init__(self, path: Path, about: Row) -> None:
        self.path, self.about = path, about
        self.rows = _read(path, about)

    def __enter__(self) -> Self:
        """Nothing is written before the first row."""
        self._file: IO[bytes] | None = None
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        if self._file:
            self._file.close()

    def append(self, row: Row) -> None:
        """Adds a row.

        Raises:
            OSError: the disk is full.
        """
        self._file = self._file or self._open()
        self._file.write(_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(row)

    def _open(self) -> IO[bytes]:
        """The file, without what a crash left behind: half a line, or rows about something else."""
        write_atomic(self.path, b"".join(map(_line, [self.about, *self.rows])))
        return self.path.open("ab")

    def remove(self) -> None:
        """The work is done, and what became of it is on disk."""
        self.path.unlink(missing_ok=True)


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()


def _read(path: Path, about: Row) -> list[Row]:
    """The whole rows of a journal about the same."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    first, *lines = whole.split(b"\n")
    return [json.loads(line) for line in lines] if first + b"\n" == _line(about) else []
