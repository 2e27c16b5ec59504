"""Decoded frames, kept in a memory-mapped file.

Decoding a video per training sample is what makes dataset loading slow. Here every frame of a
camera is decoded once, scaled to the size that is wanted, and kept as raw uint8; a sample is then a
copy of a few pages. `<camera>-<H>x<W>.u8` holds the frames, a JSON file of the same name what they
were decoded from: a cache that does not match its dataset is rebuilt, and one that merely lacks the
newest episodes is extended.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from robolearn.episodes import DatasetError
from robolearn.files import TEMPORARY, make_directory, write_atomic
from robolearn.video import decode_images, decode_video

WORKERS = 2  # decoding threads; the decoder and the scaling release Python's lock


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


def cached_frames(
    clips: Sequence[Clip], fps: float, size: tuple[int, int], path: Path
) -> np.memmap:
    """All frames of a camera, uint8 (F, H, W, 3), read-only; decodes those not yet in the cache.

    Args:
        clips: one per episode, in order.
        fps: frames per second of the video files.
        size: height and width of the result; scaled by pixel area where the videos differ.
        path: the cache file, "….u8".

    Raises:
        DatasetError: a video file is damaged, or the cache cannot be written.
    """
    shape = (sum(clip.length for clip in clips), *size, 3)
    try:
        make_directory(path.parent)
        with _exclusive(path):
            _refresh(clips, fps, shape, path)
    except OSError as error:
        raise DatasetError(
            f"cannot write the frame cache {path} ({error.strerror or error}): it needs "
            f"{_bytes(shape) / 1e9:.1f} GB; free some space or pass another folder as cache=..."
        ) from error
    return np.memmap(path, np.uint8, "r", shape=shape)


def _bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Lets one process build a cache while others wait for the result."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _refresh(clips: Sequence[Clip], fps: float, shape: tuple[int, ...], path: Path) -> None:
    wanted = [clip.fingerprint() for clip in clips]
    valid = _valid_episodes(path, wanted, _bytes(shape[1:]))
    if valid == len(clips):
        return
    label = path.with_suffix(".json")
    # A new file, not the old one grown: other processes may have the old one mapped.
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        if valid:
            shutil.copyfile(path, temporary)
        _reserve(temporary, _bytes(shape), keep=bool(valid))
        frames = np.memmap(temporary, np.uint8, "r+", shape=shape)
        _decode(clips[valid:], fps, frames)
        frames.flush()
        label.unlink(missing_ok=True)
        os.replace(temporary, path)
        write_atomic(label, json.dumps(wanted).encode())
    finally:
        temporary.unlink(missing_ok=True)


def _valid_episodes(path: Path, wanted: list[list[str | int]], frame_bytes: int) -> int:
    """How many episodes at the front the cache already holds."""
    try:
        found = json.loads(path.with_suffix(".json").read_text())
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    whole = found == wanted[: len(found)] and size == frame_bytes * sum(clip[-1] for clip in found)
    return len(found) if whole else 0


def _reserve(path: Path, size: int, *, keep: bool) -> None:
    """Claims the disk space now: running out of it under a memory map would kill the process."""
    with path.open("r+b" if keep else "wb") as file:
        file.truncate(size)
        os.posix_fallocate(file.fileno(), 0, size)


def _decode(clips: Sequence[Clip], fps: float, frames: np.ndarray) -> None:
    files = [(file, list(group)) for file, group in groupby(clips, key=lambda clip: clip.file)]
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = [pool.submit(_decode_file, file, group, fps, frames) for file, group in files]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _decode_file(file: Path, clips: list[Clip], fps: float, frames: np.ndarray) -> None:
    """Writes the frames of all episodes that share one file."""
    import av
    import cv2
    import pyarrow as pa

    column = clips[0].column
    height, width = frames.shape[1:3]
    targets = {
        clip.first + offset: clip.start + offset for clip in clips for offset in range(clip.length)
    }
    try:
        for number, image in decode_images(file, column) if column else decode_video(file, fps):
            target = targets.pop(number, None)
            if target is None:
                continue
            if image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            frames[target] = image
    except (av.FFmpegError, pa.ArrowException, OSError, ValueError, IndexError) as error:
        raise DatasetError(
            f"the video file {file} is damaged ({error}): restore it or remove its episodes"
        ) from error
    if targets:
        raise DatasetError(
            f"the video file {file} is cut short: {len(targets)} frames are missing from number "
            f"{min(targets)} on; restore it or remove its episodes"
        )
