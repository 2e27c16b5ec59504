"""Cameras: the newest picture at once, whatever the camera behind it does."""

import math
import queue
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.hardware import capture
from robolearn.hardware.camera import (
    CameraConfig,
    CameraError,
    Cameras,
    DrawnCamera,
    ThreadedCamera,
    fit,
    open_camera,
)

SIZE = (24, 42)
RED = (200, 40, 10)  # RGB


def plain(colour, size=SIZE):
    return np.full((*size, 3), colour, np.uint8)


def until(condition, patience=20.0):
    """Waits for something that must happen; generous, because the machine may be busy."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


class Server:
    """A camera on the network that can be told to stall or to send rubbish."""

    def __init__(self, port=0):
        self.stalled = threading.Event()
        self.sent, self.clients, self.colour = 0, 0, RED
        self.answer = None  # (status, headers, body) of everything but the stream
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.stream(self) if self.path.endswith(".mjpg") else outer.reply(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}/top"
        self.running = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def reply(self, handler):
        status, headers, body = self.answer
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def stream(self, handler):
        self.clients += 1
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        while self.running:
            if not self.stalled.is_set():
                _, jpeg = cv2.imencode(".jpg", plain(self.colour)[..., ::-1])
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.size}\r\n\r\n"
                try:
                    handler.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
                except OSError:
                    return
                self.sent += 1
            time.sleep(0.02)

    def close(self):
        self.running = False
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    if server.running:
        server.close()


@contextmanager
def opened(source, size=SIZE, **settings):
    with open_camera(CameraConfig(source, **settings), size, "top") as camera:
        yield camera


@pytest.fixture
def film(tmp_path):
    """Six frames, 0.3 s: red from bright to dark."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, SIZE[::-1])
    for number in range(6):
        writer.write(plain((250 - 40 * number, 0, 0))[..., ::-1])
    writer.release()
    return str(path)


# Cropping and resizing ---------------------------------------------------------------------------


def test_a_wide_picture_loses_its_sides_and_a_tall_one_its_ends():
    wide = np.concatenate([plain(0, (40, 20)), plain(255, (40, 70)), plain(0, (40, 20))], axis=1)
    assert fit(wide, SIZE).min() == 255
    tall = np.concatenate([plain(0, (30, 42)), plain(255, (24, 42)), plain(0, (30, 42))])
    np.testing.assert_array_equal(fit(tall, SIZE), plain(255))


@given(
    height=st.integers(20, 200),
    width=st.integers(20, 200),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
)
def test_nothing_is_stretched(height, width, size):
    """A disc in the middle stays round."""
    image = np.zeros((height, width, 3), np.uint8)
    radius = min(height, width) / 4
    cv2.circle(image, (width // 2, height // 2), round(radius), (255, 255, 255), -1)
    fitted = fit(image, size)
    assert fitted.shape == (*size, 3)
    rows, columns = np.nonzero(fitted[..., 0] > 127)
    scale = max(size[0] / height, size[1] / width)
    for extent, limit in ((np.ptp(rows) + 1, size[0]), (np.ptp(columns) + 1, size[1])):
        assert abs(extent - min(2 * radius * scale, limit)) <= 2 + 2 * scale


def test_a_picture_of_the_right_size_stays_as_it_is():
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(fit(noise, SIZE), noise)


# The newest frame --------------------------------------------------------------------------------


class Feed:
    """Pictures that a test hands out one by one."""

    def __init__(self):
        self.queue, self.asked, self.runs = queue.Queue(), threading.Semaphore(0), 0

    def __call__(self, stop):
        self.runs += 1
        while not stop.is_set():
            self.asked.release()
            if (item := self.queue.get()) is None:
                return
            yield time.monotonic(), np.array(plain(item))

    def give(self, *greys):
        """Returns when the camera has taken all of them; None ends a run."""
        for grey in greys:
            assert self.asked.acquire(timeout=20)
            self.queue.put(grey)
        assert self.asked.acquire(timeout=20)
        self.asked.release()


@pytest.fixture
def feed():
    feed = Feed()
    feed.camera = ThreadedCamera("top", feed, SIZE)
    yield feed
    feed.queue.put(None)
    feed.camera.close()


def test_read_returns_the_newest_frame_and_skips_the_others(feed):
    feed.give(10, 20, 30)
    frame = feed.camera.read()
    assert (frame.seq, frame.image[0, 0, 0]) == (3, 30)
    assert feed.camera.read() is frame
    feed.give(40)
    assert (feed.camera.read().seq, frame.image[0, 0, 0]) == (4, 30)


def test_age_is_that_of_the_newest_frame(feed):
    assert feed.camera.age() == math.inf
    assert feed.camera.stale(1e9)
    before = time.monotonic()
    feed.give(10)
    first = feed.camera.read().time
    assert before <= first <= time.monotonic()
    assert 0 <= feed.camera.age() <= time.monotonic() - before
    assert not feed.camera.stale(1000.0)
    until(lambda: feed.camera.stale(0.05))
    feed.give(20)
    assert feed.camera.read().time > first + 0.05


def test_a_renewed_picture_was_not_under_way_when_it_was_asked_for(feed):
    feed.give(10)
    waiting = threading.Thread(target=feed.camera.renew)
    waiting.start()
    for level in (20, 30):
        feed.give(level)
        waiting.join(0.05)
        assert waiting.is_alive()
    feed.give(40)
    waiting.join(20)
    assert feed.camera.read().image[0, 0, 0] == 40


def test_a_picture_that_is_not_renewed_grows_old(feed, monkeypatch):
    monkeypatch.setattr("robolearn.hardware.camera.RENEW_PATIENCE", 0.02)
    feed.give(10)
    feed.camera.renew()
    assert feed.camera.stale(0.02)


def test_a_run_that_ends_is_followed_by_another(feed):
    feed.give(10, None, 20)
    assert (feed.runs, feed.camera.read().seq) == (2, 2)


def test_a_picture_in_the_observation_may_be_written_to(server):
    with Cameras({"top": server.url + ".mjpg"}, SIZE) as cameras:
        server.stalled.set()
        first = cameras.read()["top"]
        first[:] = 0
        np.testing.assert_allclose(cameras.read()["top"], plain(RED), atol=3)


def test_a_camera_may_be_closed_twice_but_not_read_after(server):
    with opened(server.url + ".mjpg") as camera:
        camera.read()
        thread = camera._thread
    assert not thread.is_alive()
    camera.close()
    with pytest.raises(CameraError, match="camera top is closed"):
        camera.read()


# Streams -----------------------------------------------------------------------------------------


def test_a_stream_arrives_as_rgb_and_keeps_coming(server):
    with opened(server.url + ".mjpg", size=(12, 12)) as camera:
        frame = camera.read()
        assert (frame.image.shape, frame.image.dtype) == ((12, 12, 3), np.uint8)
        np.testing.assert_allclose(frame.image, plain(RED, (12, 12)), atol=3)
        until(lambda: camera.read().seq > frame.seq + 3)


def test_a_stalled_stream_ages_and_recovers(server):
    with opened(server.url + ".mjpg", timeout=0.2) as camera:
        camera.read()
        server.stalled.set()
        until(lambda: camera.stale(0.1))
        until(lambda: server.clients > 1)  # it was opened again
        old = camera.read()
        server.colour = (0, 0, 250)
        server.stalled.clear()
        until(lambda: camera.read().seq > old.seq)
        until(lambda: np.abs(camera.read().image - np.int16(server.colour)).max() < 10)


def test_a_camera_that_dies_and_comes_back_is_found_again(server):
    with opened(server.url + ".mjpg", timeout=0.2) as camera:
        old = camera.read()
        server.close()
        until(lambda: camera.stale(0.3))
        camera.read()  # the last picture, no error
        again = Server(server.port)
        try:
            until(lambda: not camera.stale(0.3))
            assert camera.read().seq > old.seq
        finally:
            again.close()


def test_closing_does_not_wait_for_a_stalled_stream_for_long(server):
    with opened(server.url + ".mjpg", timeout=0.2) as camera:
        camera.read()
        server.stalled.set()
    assert not camera._thread.is_alive()


@pytest.mark.parametrize("status", [200, 404])
def test_something_else_than_a_stream_is_named(server, status):
    server.answer = (status, {"Content-Type": "text/html"}, b"<p>hello</p>")
    with (
        opened(server.url, warm_up=0.5, timeout=0.2) as camera,
        pytest.raises(CameraError, match=f"camera top.*{server.url} cannot be opened; check"),
    ):
        camera.read()


# Video files -------------------------------------------------------------------------------------


def test_a_video_plays_at_its_own_speed_and_then_ages(film):
    start = time.monotonic()
    with opened(film) as camera:
        assert camera.read().image[0, 0, 1] < 10
        until(lambda: camera.read().seq == 6)
        assert camera.read().time - start > 0.24  # 5 periods of 0.05 s
        np.testing.assert_allclose(camera.read().image[0, 0], (50, 0, 0), atol=5)
        until(lambda: camera.stale(0.3))
        assert camera.read().seq == 6


def test_a_video_can_start_over(film):
    with opened(film, loop=True) as camera:
        until(lambda: camera.read().seq > 6)


# The twin's pictures of the moment ---------------------------------------------------------------


def drawn(image, seconds):
    shape = ",".join(str(length) for length in image.shape)
    return (200, {"X-Shape": shape, "X-Time": str(seconds)}, image.tobytes())


def test_a_drawn_picture_arrives_bit_by_bit(server):
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    with opened(server.url + ".rgb") as camera:
        assert isinstance(camera, DrawnCamera)
        assert camera.age() == math.inf
        server.answer = drawn(noise, 1.25)
        frame = camera.read()
        np.testing.assert_array_equal(frame.image, noise)
        assert (frame.time, frame.seq, camera.age()) == (1.25, 1, 0.0)
        server.answer = drawn(plain(RED, (48, 84)), 1.3)
        np.testing.assert_array_equal(camera.read().image, plain(RED))
        assert camera.read().seq == 3
    with pytest.raises(CameraError, match="closed"):
        camera.read()


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"X-Shape": "24,42,3"}, b""),
        (200, {}, b"hello"),
        (200, {"X-Shape": "24,42,3", "X-Time": "0"}, b"short"),
        (200, {"X-Shape": "big", "X-Time": "0"}, b""),
    ],
)
def test_a_drawn_picture_that_is_none_ages_or_raises(server, answer):
    server.answer = answer
    with opened(server.url + ".rgb") as camera:
        with pytest.raises(CameraError, match="camera top gives no picture: http"):
            camera.read()
        server.answer = drawn(plain(RED), 0.5)
        good = camera.read()
        server.answer = answer
        assert camera.read() is good
        assert camera.stale(1e9)
        server.answer = drawn(plain(RED), 0.6)
        assert camera.read().time == 0.6
        assert not camera.stale(0.0)


def test_a_twin_that_is_gone_ages(server):
    server.answer = drawn(plain(RED), 0.5)
    with opened(server.url + ".rgb") as camera:
        good = camera.read()
        server.close()
        assert camera.read() is good
        assert camera.age() == math.inf


# Devices -----------------------------------------------------------------------------------------


class FakeCapture:
    """What OpenCV does with a device: a picture of another size, at a rate of its own."""

    settings: list
    fps = 30.0

    def __init__(self, source, backend):
        self.settings.append(("open", source))

    def isOpened(self):
        return True

    def set(self, name, value):
        self.settings.append((name, value))
        return False

    def get(self, name):
        return self.fps if name == cv2.CAP_PROP_FPS else 0.0

    def grab(self):
        time.sleep(0.01)
        return True

    def retrieve(self):
        return True, plain(RED[::-1], (72, 96))

    def release(self):
        self.settings.append("released")


@pytest.fixture
def fake_device(monkeypatch):
    FakeCapture.settings = []
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "fps", 30.0)
    return FakeCapture


def test_a_device_is_asked_for_format_then_size_then_rate(fake_device):
    with opened("3", capture_size=(600, 800)) as camera:
        np.testing.assert_array_equal(camera.read().image, plain(RED))  # another size is cropped
    assert fake_device.settings == [
        ("open", 3),
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_HEIGHT, 600),
        (cv2.CAP_PROP_FRAME_WIDTH, 800),
        (cv2.CAP_PROP_FPS, 30.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
        "released",
    ]


def test_a_device_that_is_too_slow_is_an_error(fake_device, monkeypatch):
    monkeypatch.setattr(fake_device, "fps", 5.0)
    with (
        opened("0", warm_up=0.1) as camera,
        pytest.raises(CameraError, match="0 gives 5 instead of 30 pictures per second at 640x480"),
    ):
        camera.read()


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(OSError, match="99 cannot be opened; check that it is plugged in"):
        next(capture.device("99", (480, 640), 30.0, threading.Event()))


@pytest.mark.parametrize("source", ["/dev/video99", "missing.mp4"])
def test_a_source_that_does_not_exist_is_named_at_once(source):
    with pytest.raises(CameraError, match=f"camera top: {source} does not exist; give a number"):
        open_camera(source, SIZE, "top")


# All together ------------------------------------------------------------------------------------


def test_the_bundle_is_as_old_as_its_oldest_camera(server, film):
    with Cameras({"top": server.url + ".mjpg", "wrist": film}, SIZE) as cameras:
        assert {name: image.shape for name, image in cameras.read().items()} == {
            "top": (*SIZE, 3),
            "wrist": (*SIZE, 3),
        }
        until(lambda: cameras.age() > 0.5)  # the film has ended
        until(lambda: cameras.sources["top"].age() < 0.5)
    assert Cameras({}, SIZE).age() == 0.0


def test_a_bundle_with_a_dead_camera_closes_the_others(server, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    broken = CameraConfig(str(path), warm_up=0.3)
    before = threading.active_count()
    with pytest.raises(CameraError, match=r"camera wrist .*broken\.mp4 cannot be opened"):
        Cameras({"top": CameraConfig(server.url + ".mjpg", timeout=0.2), "wrist": broken}, SIZE)
    server.close()
    until(lambda: threading.active_count() <= before)


def test_the_module_loads_without_opencv():
    code = "import sys, robolearn.hardware.camera; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
