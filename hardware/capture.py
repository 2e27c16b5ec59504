"""What OpenCV captures, as iterators: one run of pictures from a device, a stream or a file.

Each function yields (s on the monotonic clock at arrival, BGR image) until the camera stalls or
ends; `robolearn.hardware.camera` starts the next run then. Each raises OSError if the camera
cannot be opened, and lets go of it however the run ends. `stop` is set when the caller wants no
more.
"""

import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import cv2

type Pictures = Generator[tuple[float, np.ndarray], None, None]


def device(source: str, size: tuple[int, int], fps: float, stop: Event) -> Pictures:
    """A camera of this machine.

    Args:
        source: path or number.
        size: height and width to ask for, pixels; the nearest that the device has is taken.
        fps: pictures per second to ask for.
        stop: not needed here.

    Raises:
        OSError: no such device, in use, or slower than `fps`.
    """
    import cv2

    del stop
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source, backend)
    todo = "check that it is plugged in, that nothing else uses it and that you may (group video)"
    with _opened(capture, source, todo):
        _set_up(capture, size, fps)
        if 0.0 < (given := capture.get(cv2.CAP_PROP_FPS)) < fps - 1.0:  # 29.97 passes for 30
            raise OSError(
                f"{source} gives {given:g} instead of {fps:g} pictures per second at "
                f"{size[1]}x{size[0]}; choose a size and a rate that it has, which "
                "`v4l2-ctl --list-formats-ext` shows"
            )
        yield from _grab(capture)


def _set_up(capture: "cv2.VideoCapture", size: tuple[int, int], fps: float) -> None:
    import cv2

    # The format first, because sizes and rates depend on it: uncompressed pictures come slowly.
    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[0])
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[1])
    capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old frames are of no use


def stream(url: str, timeout: float, stop: Event) -> Pictures:
    """An MJPEG stream; `timeout` s without a frame end the run.

    Raises:
        OSError: nothing there, or no pictures.
    """
    import cv2

    del stop
    patience = round(1000 * timeout)
    limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience)
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    with _opened(capture, url, "check in a browser that it shows pictures"):
        yield from _grab(capture)


def video(path: str, stop: Event, *, loop: bool) -> Pictures:
    """A file at its own speed; unless it should `loop`, the run does not end before `stop`.

    Raises:
        OSError: not a video.
    """
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    with _opened(capture, path, "check that it is a video"):
        period = 1.0 / max(capture.get(cv2.CAP_PROP_FPS), 1.0)
        due = time.monotonic()
        for _, image in _grab(capture):
            stop.wait(due - time.monotonic())
            yield time.monotonic(), image
            due = max(due + period, time.monotonic())  # a late frame is not followed by a burst
    if not loop:
        stop.wait()


@contextmanager
def _opened(capture: "cv2.VideoCapture", source: str, todo: str) -> Iterator[None]:
    try:
        if not capture.isOpened():
            raise OSError(f"{source} cannot be opened; {todo}")
        yield
    finally:
        capture.release()


def _grab(capture: "cv2.VideoCapture") -> Pictures:
    while capture.grab():
        arrived = time.monotonic()  # before it is decoded
        whole, image = capture.retrieve()
        if not whole:
            return
        yield arrived, image
