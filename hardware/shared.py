"""A record in shared memory that one process writes and others read.

There are two copies. The writer fills the one that is not current and then makes it current by
raising a counter; a reader takes the current copy and tries again if the counter has moved. So
neither waits for the other, and a writer that is killed at any moment leaves the last whole record.
"""

import zlib
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

TRIES: Final = 1000  # one does, unless the writer writes all the time


class Record:
    """One structured record in a file that is mapped into memory.

    Args:
        path: the file; made, and filled with zeros, if it is not there.
        fields: name -> dtype, as `numpy.dtype` takes them.
    """

    def __init__(self, path: Path, fields: list[tuple]) -> None:
        body = np.dtype(fields)  # packed: bytes between fields would have no certain value
        # The checksum is for processors that may show another core the counter before the copy.
        whole = np.dtype([("count", np.int64), ("sum", np.uint32, (2,)), ("copies", body, (2,))])
        if not path.exists():
            empty = np.zeros(1, whole)
            empty["sum"] = zlib.crc32(bytes(body.itemsize))
            path.write_bytes(empty.tobytes())
        record = np.memmap(path, whole, "r+", shape=(1,))
        self._count, self._sums, self._copies = (
            record["count"],
            record["sum"][0],
            record["copies"][0],
        )

    def write(self, **values: Any) -> None:  # noqa: ANN401 (whatever the fields take)
        """Sets some fields; a reader sees all of them or none."""
        count = int(self._count[0])
        old, new = count % 2, (count + 1) % 2
        self._copies[new] = self._copies[old]
        for name, value in values.items():
            self._copies[name][new] = value
        self._sums[new] = zlib.crc32(self._copies[new].tobytes())
        self._count[0] = count + 1

    def read(self) -> np.void:
        """A consistent copy, whose fields are scalars and arrays.

        Raises:
            OSError: the memory holds something else, perhaps of another version of this program.
        """
        for _ in range(TRIES):
            count = int(self._count[0])
            copy = self._copies[count % 2].copy()
            if zlib.crc32(copy.tobytes()) == self._sums[count % 2] and count == self._count[0]:
                return cast(np.void, copy)
        raise OSError("the shared memory of the driver is damaged; start the driver anew")
