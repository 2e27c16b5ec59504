"""A film of an episode for people: H.264 that every browser plays, with text and progress drawn in.

The videos of a dataset, which serve training, are another matter: `robolearn/video.py`.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robolearn.files import replacing


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes H.264 that every browser plays: yuv420p, index at the front.

    Args:
        path: the .mp4 file; it appears under this name only when it is complete.
        frames: uint8 (T, H, W, 3) RGB. An odd height or width gets its last row or column twice.
        fps: frames per second.

    Raises:
        ValueError: frames of another form, or none.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
            f"a video takes uint8 frames (T, H, W, 3), not {frames.dtype} {frames.shape}"
        )
    height, width = frames.shape[1:3]
    # 4:2:0 chroma covers 2x2 pixels, so both sides must be even.
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "+faststart"}  # reads its own file, so not in memory
    with replacing(path) as part, av.open(str(part), "w", format="mp4", options=options) as film:
        stream = film.add_stream("libx264", Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = even.shape[2], even.shape[1]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "23", "preset": "fast"}
        for frame in even:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())


def annotate(
    frames: np.ndarray,
    lines: Sequence[str],
    *,
    progress: np.ndarray | None = None,
    success: np.ndarray | None = None,
) -> np.ndarray:
    """Writes text on the top of every frame and draws progress as a bar along the bottom.

    Args:
        frames: uint8 (T, H, W, 3); left as it is.
        lines: the text, the same on every frame; long lines wrap.
        progress: (T,) 0..1, the length of the bar; none draws no bar.
        success: bool (T,), where the bar is green instead of white.

    Returns:
        The frames with text, uint8 (T, H, W, 3).
    """
    height, width = frames.shape[1:3]
    frames = frames.copy()
    pad = max(2, height // 60)
    font = ImageFont.load_default(size=max(9, height // 20))
    text = "\n".join(_wrap(line, font, width - 2 * pad) for line in lines)
    if text:
        canvas = Image.new("L", (width, height))
        draw = ImageDraw.Draw(canvas)
        draw.multiline_text((pad, pad), text, fill=255, font=font, spacing=pad)
        bottom = int(draw.multiline_textbbox((pad, pad), text, font=font, spacing=pad)[3]) + 2 * pad
        letters = np.asarray(canvas, np.float32)[:bottom, :, None] / 255  # (strip, W, 1)
        dark = 0.35 * frames[:, :bottom].astype(np.float32)
        frames[:, :bottom] = dark + (255 - dark) * letters
    for t, share in enumerate([] if progress is None else progress):
        done = success is not None and success[t]
        colour = (70, 200, 140) if done else (255, 255, 255)
        frames[t, -pad:, : round(width * float(np.clip(share, 0, 1)))] = colour
    return frames


def _wrap(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    rows = [""]
    for word in line.split():
        longer = f"{rows[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            rows[-1] = longer
        else:
            rows.append(word)
    return "\n".join(rows).strip()
