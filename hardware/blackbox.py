"""The black box: the last minute of raw packets, goals, state and events, kept for every fault.

The rings are files that are mapped into memory, so writing costs microseconds and what was written
survives the death of the driver process; whoever outlives it (the guardian) can still save them.

    <folder>/live-<process>/       the rings, overwritten for ever, removed when all went well
    <folder>/<time>-<reason>/      a saved recording
        header.json                arm, calibration, settings
        cycles.npy, packets.npy, events.npy      structured arrays, oldest first

Both kinds of folder can be read. Their disk space is taken when the driver starts, and a disk that
is full later stops nothing: then the rings stay where they are. `robolearn blackbox show FOLDER`
prints a recording and `robolearn blackbox replay FOLDER` plays its packets into the digital twin
(`robolearn.hardware.replay`).
"""

import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from robolearn.files import make_directory, write_atomic

CYCLES: Final = 3000  # a minute at 50 Hz
PACKETS: Final = 4 * CYCLES  # a question, the answers to it, goals, and now and then another
EVENTS: Final = 1000
PACKET_BYTES: Final = 160  # the answers of six servos have 126
RINGS: Final = ("cycles", "packets", "events")
HEADER: Final = "header.json"


def cycle_fields(joints: int) -> list[tuple]:
    """What is kept of every cycle of the driver; SI units."""
    vector = np.float64, (joints,)
    return [
        ("time", np.float64),
        ("state", "S16"),
        ("fault", "S24"),
        ("requested", *vector),  # NaN: nothing was asked
        ("goal", *vector),  # what went to the servos; NaN: nothing
        ("limited", np.bool_),
        ("torque_limit", *vector),
        ("fresh", np.bool_),  # whether the servos answered; else the readings are the last ones
        ("position", *vector),
        ("velocity", *vector),
        ("effort", *vector),
        ("current", *vector),
        ("voltage", *vector),
        ("temperature", *vector),
        ("alarms", np.uint8, (joints,)),
    ]


PACKET: Final = np.dtype(
    [
        ("time", np.float64),
        ("direction", "S2"),  # tx: to the servos, rx: from them
        ("length", np.uint16),  # of the packet, also where `data` has no room for all of it
        ("data", np.uint8, (PACKET_BYTES,)),
    ]
)
EVENT: Final = np.dtype([("time", np.float64), ("event", "S248")])  # UTF-8


class Ring:
    """The newest `capacity` records, in a file.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, path: Path, dtype: np.dtype, capacity: int) -> None:
        # Zeros are written now: a write into a hole of a mapped file kills the process when the
        # disk is full.
        for file, array in (
            (path, np.zeros(capacity, dtype)),
            (_counter(path), np.zeros(1, np.int64)),
        ):
            np.save(file, array)
        self._records = np.load(path, mmap_mode="r+")
        self._count = np.load(_counter(path), mmap_mode="r+")

    def append(self, record: tuple) -> None:
        """Adds a record, over the oldest one when the ring is full."""
        self._records[self._count[0] % len(self._records)] = record
        self._count[0] += 1

    @staticmethod
    def read(path: Path) -> np.ndarray:
        """The records in `path`, oldest first, while it is being written, after, or as saved."""
        if not _counter(path).exists():
            return np.load(path)
        before = int(np.load(_counter(path))[0])
        records = np.load(path)
        after = int(np.load(_counter(path))[0])
        # Record number `after` may be half written, in the place of the one a whole ring older.
        oldest = max(after + 1 - len(records), 0)
        return records[np.arange(min(oldest, before), before) % len(records)]


def _counter(path: Path) -> Path:
    return path.with_suffix(".count.npy")


class BlackBox:
    """Records what a driver does.

    Args:
        folder: where the rings and the recordings go; made if needed.
        joints: J.
        header: JSON values that a reader needs to understand the rest.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, joints: int, header: dict[str, Any]) -> None:
        self.folder, self.live = folder, live_folder(folder, os.getpid())
        self._unsaved = False
        make_directory(self.live)
        write_atomic(self.live / HEADER, (json.dumps(header, indent=1) + "\n").encode())
        self._cycles, self._packets, self._events = (
            Ring(self.live / f"{name}.npy", dtype, capacity)
            for name, dtype, capacity in zip(
                RINGS,
                (np.dtype(cycle_fields(joints)), PACKET, EVENT),
                (CYCLES, PACKETS, EVENTS),
                strict=True,
            )
        )

    def packet(self, time: float, direction: str, data: bytes) -> None:
        """Keeps a packet; the bus's `tap`."""
        kept = np.zeros(PACKET_BYTES, np.uint8)
        kept[: len(data)] = np.frombuffer(data[:PACKET_BYTES], np.uint8)
        self._packets.append((time, direction.encode(), len(data), kept))

    def cycle(self, record: tuple) -> None:
        """Keeps a cycle; the values are those of `cycle_fields`, in its order."""
        self._cycles.append(record)

    def event(self, time: float, text: str) -> None:
        """Keeps an event."""
        self._events.append((time, text.encode()))

    def save(self, reason: str) -> Path | None:
        """Copies what the rings hold into a folder of its own, and returns it.

        If that fails, it returns None, and `close` leaves the rings: an arm must not suffer from a
        full disk.
        """
        try:
            saved = save_live(self.live, reason)
        except OSError:
            saved = None
        self._unsaved = saved is None
        return saved

    def close(self) -> None:
        """Removes the rings, unless saving them has failed; what was saved stays."""
        if not self._unsaved:
            shutil.rmtree(self.live, ignore_errors=True)


def live_folder(folder: Path, process: int) -> Path:
    """Where a driver's rings are, by the id of its process."""
    return folder / f"live-{process}"


def save_live(live: Path, reason: str) -> Path:
    """Saves rings, also those of a driver that has died.

    Raises:
        OSError: there are none, or the disk is full; nothing new is left on it.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    saved = live.parent / f"{stamp}-{reason or 'asked'}"
    partial = saved.with_name(saved.name + ".tmp")
    try:
        partial.mkdir(parents=True)
        shutil.copy(live / HEADER, partial)
        for name in RINGS:
            np.save(partial / f"{name}.npy", Ring.read(live / f"{name}.npy"))
        return partial.rename(saved)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@dataclass(frozen=True)
class Recording:
    """What a black box holds."""

    header: dict[str, Any]
    events: list[dict[str, Any]]  # "time" in s, "event" in words
    cycles: np.ndarray  # structured, `cycle_fields`
    packets: np.ndarray  # structured, `PACKET`

    @property
    def fault(self) -> str:
        """The first fault, or ""."""
        faults = self.cycles["fault"]
        return "".join(fault.decode() for fault in faults[faults != b""][:1])

    @property
    def end(self) -> float:
        """When the first fault began, s; without one, the time of the last cycle."""
        time, faulty = self.cycles["time"], self.cycles["fault"] != b""
        return float(time[faulty.argmax() if faulty.any() else -1]) if len(time) else 0.0


def load(folder: Path) -> Recording:
    """Reads a saved black box, or the rings of a driver, whether that is alive or dead.

    Raises:
        ValueError: the folder is none.
    """
    try:
        header = json.loads((folder / HEADER).read_text())
        cycles, packets, events = (Ring.read(folder / f"{name}.npy") for name in RINGS)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{folder} is not a black box ({error}); give a folder like {_example(folder)}"
        ) from None
    told = [
        {"time": float(event["time"]), "event": event["event"].decode(errors="replace")}
        for event in events
    ]
    return Recording(header, told, cycles, packets)


def _example(folder: Path) -> Path:
    """The newest recording in the folder, or one that might be."""
    return max(
        folder.glob(f"[0-9]*/{HEADER}"), default=folder / "20260923T101500.0-overload/x"
    ).parent
