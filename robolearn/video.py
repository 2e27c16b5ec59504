"""One camera's frames as an mp4 file, and back.

H.264 with a key frame every second frame. Measured on 120 noisy frames of 84x84: encoded in 40 ms,
decoded in 30 ms, mean error 2.0 levels, 2.8 on small coloured objects. AV1 as lerobot writes it by
default: 70 ms, 20 ms, 2.4 and 5.5 levels.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

# g: any frame is at most one frame from a key frame. bf: no reordering, so time stamps stay plain.
# rc-lookahead: x264's look ahead reads stale memory where pictures are below about 64 pixels, and
# the same frames then give another file once in some hundred times. Without it: 11 % larger.
ENCODER = {"preset": "veryfast", "crf": "18", "g": "2", "bf": "0", "rc-lookahead": "0"}


def pixel_format(height: int, width: int) -> str:
    """Chroma at full resolution for small images, where a coloured object is a few pixels wide.

    Large ones take yuv420p, which every player and browser shows; it needs even sizes.
    """
    plain = height % 2 == 0 and width % 2 == 0 and min(height, width) >= 240
    return "yuv420p" if plain else "yuv444p"


def encode_video(frames: np.ndarray, fps: int) -> bytes:
    """The content of an mp4 file that shows frames uint8 (T, H, W, 3); frame i at i / fps."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format(*frames.shape[1:3])
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def decode_video(path: Path, fps: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (frame number, RGB uint8 (H, W, 3)) for every frame of the file, in order.

    Raises:
        av.FFmpegError: the file is not a readable video.
    """
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        # Handing small frames between threads takes longer than decoding them.
        stream.thread_type = "AUTO" if stream.height >= 240 else "NONE"
        for frame in container.decode(stream):
            yield round((frame.time or 0.0) * fps), frame.to_ndarray(format="rgb24")


def decode_images(path: Path, column: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (row number, RGB uint8 (H, W, 3)) of the images that a parquet column holds.

    Raises:
        pyarrow.ArrowException: the file is not a readable parquet file.
        ValueError: an image is damaged.
    """
    import cv2
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        row = 0
        for batch in file.iter_batches(64, columns=[column]):
            for entry in batch[0]:
                pixels = np.frombuffer(entry["bytes"].as_py(), np.uint8)
                image = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
                if image is None:
                    raise ValueError(f"the image of row {row} is not readable")
                yield row, image
                row += 1
