"""Cameras: the newest picture at any moment, without ever waiting for one.

A thread per camera takes every frame as it comes and keeps the newest, cut to the observation's
size. A camera that stalls or is unplugged is opened again, and meanwhile its last picture grows
old, which `age` tells; whoever moves the arm must look at it.

| source | what it is |
|---|---|
| `/dev/v4l/by-id/...`, `/dev/videoN`, `N` | a camera of this machine; the first names it for good |
| `http://...` | a stream of JPEG pictures (MJPEG), as network cameras and the twin send it |
| `http://....rgb` | a camera of the twin, drawn anew for every read: for deterministic tests |
| any other path | a video file, played at its own speed |
"""

import http.client
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self
from urllib.parse import urlsplit

import numpy as np

from robolearn.hardware.capture import Pictures, device, stream, video

BACK_OFF: Final = (0.1, 2.0)  # s between attempts to open a camera, from the first to the longest
JOIN_PATIENCE: Final = 11.0  # s; V4L2 may block for ten
UNDER_WAY: Final = 2  # frames that were exposed before they are asked for and arrive afterwards
RENEW_PATIENCE, RENEW_LOOK = 1.0, 0.002  # s


class CameraError(OSError):
    """A camera gives no pictures; the message names it and says what to do."""


class Frame(NamedTuple):
    """One picture."""

    image: np.ndarray  # uint8 (H, W, 3), RGB; shared, so not to be written to
    time: float  # s: monotonic clock when the frame arrived; simulated time if the twin drew it
    seq: int  # counts the frames of this camera from 1; the same number means the same picture


@dataclass(frozen=True)
class CameraConfig:
    """How to open a camera."""

    source: str  # see the table above
    capture_size: tuple[int, int] = (480, 640)  # height and width asked of a device, pixels
    fps: float = 30.0  # asked of a device; one that gives fewer is an error
    loop: bool = False  # a video file starts over; otherwise its last picture grows old
    warm_up: float = 5.0  # s until the first picture must be there
    timeout: float = 1.0  # s without a frame after which a stream is opened again


class CameraSource(Protocol):
    """One open camera; also a context manager."""

    def read(self) -> Frame:
        """The newest frame, at once; only before the first one it waits.

        Raises:
            CameraError: there has never been a frame, or the camera is closed.
        """

    def renew(self) -> None:
        """Waits until the newest frame shows what is there now, or gives up: `age` then tells."""

    def age(self) -> float:
        """Seconds since the newest frame arrived; infinite before the first."""

    def close(self) -> None:
        """Lets go of the camera; doing it twice is no error."""

    def stale(self, max_age: float) -> bool:
        """Whether the newest frame is older than `max_age` seconds."""
        return self.age() > max_age

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        self.close()


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the centre of a picture, cropped to the aspect ratio of `size` and resized to it.

    Nothing is stretched: what is square stays square. A wide picture loses its sides, a tall one
    its top and bottom.

    Args:
        image: (h, w, 3).
        size: height and width, pixels.
    """
    import cv2

    scale = min(have / want for have, want in zip(image.shape, size, strict=False))
    height, width = (round(want * scale) for want in size)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    centre = image[top : top + height, left : left + width]
    return cv2.resize(centre, (size[1], size[0]), interpolation=cv2.INTER_AREA)


class ThreadedCamera(CameraSource):
    """Keeps the newest of the frames that a thread receives.

    Args:
        name: for messages.
        pictures: starts a run of pictures; it is called with an event that is set on closing, and
            again whenever a run ends.
        size: height and width of the frames, pixels.
        warm_up: s that the first `read` waits at most.
    """

    def __init__(
        self,
        name: str,
        pictures: Callable[[threading.Event], Pictures],
        size: tuple[int, int],
        warm_up: float = 5.0,
    ) -> None:
        self.name, self.size = name, size
        self._pictures = pictures
        self._warm_until = time.monotonic() + warm_up
        self._frame: Frame | None = None
        self._problem = "it sends nothing"
        self._first, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)
        self._thread.start()

    def read(self) -> Frame:
        """See `CameraSource.read`."""
        if self._stop.is_set():
            raise CameraError(f"camera {self.name} is closed")
        self._first.wait(max(self._warm_until - time.monotonic(), 0.0))
        if self._frame is None:
            raise CameraError(f"camera {self.name} gives no picture: {self._problem}")
        return self._frame

    def renew(self) -> None:
        """See `CameraSource.renew`; frames that were on their way are passed over."""
        wanted = self.read().seq + UNDER_WAY + 1
        end = time.monotonic() + RENEW_PATIENCE
        while self.read().seq < wanted and time.monotonic() < end:
            self._stop.wait(RENEW_LOOK)

    def age(self) -> float:
        """See `CameraSource.age`."""
        return math.inf if self._frame is None else time.monotonic() - self._frame.time

    def close(self) -> None:
        """Ends the thread; a device that hangs is left to it."""
        self._stop.set()
        self._thread.join(JOIN_PATIENCE)

    def _run(self) -> None:
        import cv2

        pause = BACK_OFF[0]
        while not self._stop.is_set():
            before = self._frame
            try:
                self._receive()
            except (OSError, cv2.error) as error:
                self._problem = str(error)
            pause = BACK_OFF[0] if self._frame is not before else min(2 * pause, BACK_OFF[1])
            self._stop.wait(pause)

    def _receive(self) -> None:
        import cv2

        with closing(self._pictures(self._stop)) as pictures:
            for arrived, image in pictures:
                if self._stop.is_set():
                    return
                image = cv2.cvtColor(fit(image, self.size), cv2.COLOR_BGR2RGB)
                seq = self._frame.seq + 1 if self._frame else 1
                self._frame = Frame(image, arrived, seq)
                self._first.set()


class DrawnCamera(CameraSource):
    """A camera of the twin that draws what is there at the moment of each `read`.

    Its age is 0 as long as it answers and infinite otherwise, whatever the clocks do, so that runs
    on simulated time repeat exactly.

    Args:
        name: for messages.
        url: answers with the raw bytes of a picture, its shape in the header X-Shape ("48,84,3")
            and the simulated time, s, in X-Time.
        size: height and width of the frames, pixels.
        timeout: s to wait for an answer.
    """

    def __init__(self, name: str, url: str, size: tuple[int, int], timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        self.name, self.url, self.size = name, url, size
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
        self._frame: Frame | None = None
        self._fresh = self._closed = False

    def read(self) -> Frame:
        """See `CameraSource.read`; this one waits for the twin."""
        if self._closed:
            raise CameraError(f"camera {self.name} is closed")
        self._fresh = False
        try:
            self._frame = self._request()
            self._fresh = True
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            if self._frame is None:
                problem = f"camera {self.name} gives no picture: {self.url} fails: {error}"
                raise CameraError(problem) from error
        return self._frame

    def _request(self) -> Frame:
        self._connection.request("GET", self._path)
        response = self._connection.getresponse()
        pixels = np.frombuffer(response.read(), np.uint8)
        if response.status != http.client.OK or "X-Shape" not in response.headers:
            raise ValueError(f"{response.status} {response.reason}, and no picture")
        shape = [int(length) for length in response.headers["X-Shape"].split(",")]
        seq = self._frame.seq + 1 if self._frame else 1
        image = fit(pixels.reshape(shape), self.size)
        return Frame(image, float(response.headers.get("X-Time", "nan")), seq)

    def renew(self) -> None:
        """See `CameraSource.renew`; what is read is always of now."""

    def age(self) -> float:
        """See `CameraSource.age`."""
        return 0.0 if self._fresh else math.inf

    def close(self) -> None:
        """Closes the connection."""
        self._closed = True
        self._connection.close()


def open_camera(
    config: CameraConfig | str, size: tuple[int, int], name: str = "camera"
) -> CameraSource:
    """Opens a camera without waiting for it; the first `read` does that.

    Args:
        config: the camera, or only its source.
        size: height and width of the frames, pixels; see `fit`.
        name: for messages.

    Raises:
        CameraError: there is no such file or device.
    """
    config = CameraConfig(config) if isinstance(config, str) else config
    source = config.source
    if source.startswith("http://") and source.endswith(".rgb"):
        return DrawnCamera(name, source, size)
    pictures: Callable[[threading.Event], Pictures]
    if source.startswith(("http://", "https://")):
        pictures = partial(stream, source, config.timeout)
    elif not source.isdigit() and not Path(source).exists():
        raise CameraError(
            f"camera {name}: {source} does not exist; give a number, a URL, a video file or a "
            "device such as those in /dev/v4l/by-id"
        )
    elif source.isdigit() or source.startswith("/dev/"):
        pictures = partial(device, source, config.capture_size, config.fps)
    else:
        pictures = partial(video, source, loop=config.loop)
    return ThreadedCamera(name, pictures, size, config.warm_up)


class Cameras:
    """The cameras of an environment; also a context manager.

    Args:
        cameras: name -> how to open it.
        size: height and width of all frames, pixels.

    Raises:
        CameraError: one of them gives no picture; the others are closed again.
    """

    def __init__(self, cameras: Mapping[str, CameraConfig | str], size: tuple[int, int]) -> None:
        self.sources: dict[str, CameraSource] = {}
        try:
            for name, config in cameras.items():
                self.sources[name] = open_camera(config, size, name)
            self.read()  # they warm up side by side
        except BaseException:  # Ctrl-C too
            self.close()
            raise

    def read(self) -> dict[str, np.ndarray]:
        """The newest pictures, uint8 (H, W, 3) RGB by name; copies, at once."""
        return {name: source.read().image.copy() for name, source in self.sources.items()}

    def renew(self) -> None:
        """Waits until all pictures show what is there now; see `CameraSource.renew`."""
        for source in self.sources.values():
            source.renew()

    def age(self) -> float:
        """Seconds since the oldest of the newest frames; 0 without cameras."""
        return max((source.age() for source in self.sources.values()), default=0.0)

    def close(self) -> None:
        """Closes all of them; doing it twice is no error."""
        for source in self.sources.values():
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        self.close()
