"""The camera files of a dataset: the same frames give the same file, and come back as they were."""

import numpy as np
import pytest

from robolearn.video import decode_video, encode_video


def squares(count, size, seed):
    """`count` frames of a coloured square that wanders over a dark table."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, *size, 3), 20, np.uint8)
    row, column = (rng.integers(0, side - 3) for side in size)
    for frame in frames:
        frame[row : row + 3, column : column + 3] = (220, 40, 40)
        column = (column + 1) % (size[1] - 3)
    return frames


def test_the_same_frames_give_the_same_file():
    clips = [squares(3 + seed % 5, (36, 48), seed) for seed in range(12)]
    first = [encode_video(clip, 20) for clip in clips]
    rng, used = np.random.default_rng(0), []
    for _ in range(900):  # with x264's look ahead, about one file in a hundred is another one
        used = [*used[-20:], rng.bytes(rng.integers(60_000))]  # the encoder gets dirty memory
        which = rng.integers(len(clips))
        assert encode_video(clips[which], 20) == first[which]


@pytest.mark.parametrize("size", [(12, 16), (84, 84), (240, 320)])
def test_frames_come_back_in_order(tmp_path, size):
    frames = squares(9, size, 0)
    path = tmp_path / "top.mp4"
    path.write_bytes(encode_video(frames, 20))
    numbers, decoded = zip(*decode_video(path, 20), strict=True)
    assert numbers == tuple(range(9))
    assert np.abs(np.stack(decoded).astype(int) - frames).mean() < 2
