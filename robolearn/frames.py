"""Decoded frames, kept in a memory-mapped file.

Decoding a video per training sample is what makes dataset loading slow. Here every frame of a
camera is decoded once, scaled to the size that is wanted, and kept as raw uint8; a sample is then a
copy of a few pages. `<camera>-<H>x<W>.u8` holds the frames.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np

from robolearn.cache import Clip, cached_rows
from robolearn.episodes import DatasetError
from robolearn.video import decode_images, decode_video

WORKERS = 2  # decoding threads; the decoder and the scaling release Python's lock


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

    def decode(some: Sequence[Clip], frames: np.ndarray) -> None:
        _decode(some, fps, frames)

    return cached_rows(clips, (*size, 3), np.uint8, path, decode)


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
