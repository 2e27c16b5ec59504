"""What a model sees in the frames of a dataset, kept beside the frames.

A model whose weights stay as they are sees the same in every epoch, so it looks at each picture
once. The cache is named by the model's fingerprint: another model has another file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.cache import Clip, cached_rows

BATCH = 64  # pictures that are looked at together


@dataclass(frozen=True)
class PictureFeatures:
    """What makes features of pictures.

    Attributes:
        name: differs whenever the features would.
        shape: of a picture's features.
        of: uint8 pictures (n, h, w, 3) to float16 (n, *shape).
    """

    name: str
    shape: tuple[int, ...]
    of: Callable[[np.ndarray], np.ndarray]


def cached_features(
    frames: np.ndarray, clips: Sequence[Clip], features: PictureFeatures, path: Path
) -> np.memmap:
    """Features of all frames, float16 (F, *shape), read-only; makes those not yet in the cache.

    Args:
        frames: uint8 (F, h, w, 3).
        clips: where they came from.
        features: makes them.
        path: the cache file.

    Raises:
        DatasetError: the cache cannot be written.
    """

    def look(some: Sequence[Clip], rows: np.ndarray) -> None:
        for clip in some:
            end = clip.start + clip.length
            for start in range(clip.start, end, BATCH):
                part = slice(start, min(start + BATCH, end))
                rows[part] = features.of(frames[part])

    return cached_rows(clips, features.shape, np.float16, path, look)
