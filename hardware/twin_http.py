"""The twin's second way in: JSON and pictures over HTTP, on the loopback interface only.

| request | does |
|---|---|
| `GET /state` | the truth about arm, task and faults; see `Twin.state` |
| `GET /calibration` | what a perfect calibration finds |
| `GET /cameras` | names and URLs of the camera streams |
| `GET /camera/NAME.mjpg` | what the camera sees, for ever, at a fixed rate |
| `GET /camera/NAME.rgb` | what it sees now: raw uint8; headers X-Shape and X-Time |
| `POST /reset {"seed", "instruction", "arm"}` | places the objects of an episode |
| `POST /fault {"name", ...}` | switches a fault on |
| `DELETE /fault {"name"}` | switches the faults of this name off, or all |
| `POST /hand {"positions", "torques"}` | a hand pulls and pushes joints |
| `POST /advance {"seconds"}` | lets time pass, in lockstep mode |

What cannot be done is answered with status 400 and `{"error": a sentence}`.
"""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

import cv2
import mujoco
import numpy as np

from robolearn.envs.base import ManipulationEnv
from robolearn.envs.render import Renderer
from robolearn.hardware.twin import TwinConfig
from robolearn.hardware.twin_physics import Snapshot

if TYPE_CHECKING:
    from robolearn.hardware.twin_server import TwinServer

HOST: Final = "127.0.0.1"
# A real camera's pictures are large when they are compressed, and scaled down afterwards, so that a
# policy never sees what that did to them. These are small already: they keep every pixel's colour.
JPEG: Final = (
    *(cv2.IMWRITE_JPEG_QUALITY, 98),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
BOUNDARY: Final = "frame"
VIDEO: Final = "video"  # the camera of films, large and beautiful


class Studio:
    """Draws the twin's cameras, in one thread, which owns the GL context.

    Args:
        server: gives what there is to see.
        task: whose model and cameras to draw.
    """

    def __init__(self, server: "TwinServer", task: ManipulationEnv) -> None:
        self.cameras = (*task.cameras, VIDEO)
        self._server, self._task = server, task
        self._thread = ThreadPoolExecutor(1)
        self._renderers: dict[bool, Renderer] = {}  # of films, and of what policies see
        self._data = mujoco.MjData(task.model)  # the simulation's own is busy

    def rgb(self, camera: str) -> tuple[np.ndarray, float]:
        """The picture now, uint8 (H, W, 3), and the simulated time, s."""
        snapshot = self._server.call(lambda arm: arm.physics.snapshot())
        return self._thread.submit(self._draw, snapshot, camera).result(), snapshot.time

    def fault(self, camera: str) -> str:
        """What is wrong with the camera's stream; nothing: ""."""
        return self._server.call(lambda arm: arm.camera_faults.get(camera, ""))

    def jpeg(self, camera: str) -> bytes:
        """The picture now, compressed."""
        bgr = self.rgb(camera)[0][..., ::-1]
        return cv2.imencode(".jpg", bgr, JPEG)[1].tobytes()

    def _draw(self, snapshot: Snapshot, camera: str) -> np.ndarray:
        model, data = self._task.model, self._data
        data.qpos[:] = snapshot.qpos
        data.mocap_pos[:], data.mocap_quat[:] = snapshot.mocap_pos, snapshot.mocap_quat
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        return self._renderer(camera).rgb(data, camera)

    def _renderer(self, camera: str) -> Renderer:
        film, task = camera == VIDEO, self._task
        if film not in self._renderers:
            size = task.video_size if film else task.image_size
            self._renderers[film] = Renderer(task.model, size, "high" if film else "fast")
        return self._renderers[film]


class Gateway(ThreadingHTTPServer):
    """Answers HTTP requests in threads of its own.

    Args:
        server: owns the arm.
        config: gives the port and the frame rate.
        task: what the cameras see.

    Attributes:
        url: where it is.
        cameras: names and URLs of the camera streams.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, server: "TwinServer", config: TwinConfig, task: ManipulationEnv) -> None:
        super().__init__((HOST, config.http_port), _Handler)
        self.url = f"http://{HOST}:{self.server_port}"
        self.cameras = {name: f"{self.url}/camera/{name}.mjpg" for name in task.cameras}
        self.period = 1 / config.camera_fps
        self.studio = Studio(server, task)
        self._server = server
        self._lockstep = config.lockstep
        self._routes: dict[str, Callable[..., Any]] = {
            "GET /state": self._state,
            "GET /calibration": lambda: server.call(lambda arm: arm.calibration.to_dict()),
            "GET /cameras": lambda: self.cameras,
            "POST /reset": self._reset,
            "POST /fault": self._begin_fault,
            "DELETE /fault": self._end_fault,
            "POST /hand": self._push,
            "POST /advance": self._advance,
        }
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def ask(self, request: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 (a JSON value)
        """Does what was requested.

        Raises:
            ValueError: it cannot be done.
        """
        if request not in self._routes:
            raise ValueError(f"no {request!r}; there are {', '.join(self._routes)}")
        route = self._routes[request]
        try:
            signature(route).bind(**body)
        except TypeError as error:
            raise ValueError(f"{request} takes {signature(route)}: {error}") from None
        return route(**body)

    def _state(self) -> dict[str, Any]:
        state = self._server.call(lambda arm: arm.state())
        return {"port": self._server.port, **state}

    def _reset(
        self, seed: int, instruction: str | None = None, arm: str = "stay"
    ) -> dict[str, Any]:
        self._server.call(lambda twin: twin.reset(seed, instruction, arm))
        return self._state()

    def _begin_fault(self, name: str, **options: Any) -> None:  # noqa: ANN401
        self._server.call(lambda arm: arm.faults.begin(name, **options))

    def _end_fault(self, name: str | None = None) -> None:
        self._server.call(lambda arm: arm.faults.end(name))

    def _push(self, positions: dict[str, float], torques: dict[str, float]) -> None:
        self._server.call(lambda arm: arm.physics.push(positions, torques))

    def _advance(self, seconds: float) -> None:
        if not self._lockstep:
            raise ValueError("this twin follows the clock on the wall; it advances in lockstep")
        self._server.call(lambda arm: arm.advance(seconds))


class _Handler(BaseHTTPRequestHandler):
    server: Gateway
    disable_nagle_algorithm = True  # headers and body are two writes, and shall not wait

    def do_GET(self) -> None:  # noqa: N802 (the base class calls it so)
        """A picture, a stream, or JSON."""
        camera, _, form = self.path.removeprefix("/camera/").partition(".")
        if camera not in self.server.studio.cameras:
            self._answer(self._json)
        elif form == "rgb":
            self._answer(lambda: self._picture(camera))
        else:
            self._stream(camera)

    def do_POST(self) -> None:  # noqa: N802
        """JSON."""
        self._answer(self._json)

    def do_DELETE(self) -> None:  # noqa: N802
        """JSON."""
        self._answer(self._json)

    def _json(self) -> tuple[bytes, dict[str, str]]:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.ask(f"{self.command} {self.path}", json.loads(text or "{}"))
        return json.dumps(answer).encode(), {"Content-Type": "application/json"}

    def _picture(self, camera: str) -> tuple[bytes, dict[str, str]]:
        frame, now = self.server.studio.rgb(camera)
        shape = ",".join(map(str, frame.shape))
        kind = {"Content-Type": "application/octet-stream"}
        return frame.tobytes(), {**kind, "X-Shape": shape, "X-Time": repr(now)}

    def _answer(self, make: Callable[[], tuple[bytes, dict[str, str]]]) -> None:
        """Sends the body and the headers that `make` returns, or what went wrong with it."""
        status = 200
        try:
            body, headers = make()
        except (ValueError, TypeError, OSError) as error:  # OSError: nothing to draw with
            status, headers = 400, {"Content-Type": "application/json"}
            body = json.dumps({"error": str(error)}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, camera: str) -> None:
        """Sends a JPEG each period until the viewer leaves; what is missed is skipped."""
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.end_headers()
        due, jpeg = time.monotonic(), b""
        with suppress(ConnectionError):
            while (fault := self.server.studio.fault(camera)) != "end":
                if fault != "stall":
                    frozen = fault == "freeze" and jpeg
                    jpeg = frozen or self.server.studio.jpeg(camera)
                    self._send_frame(jpeg)
                due = max(due + self.server.period, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))

    def _send_frame(self, jpeg: bytes) -> None:
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        self.wfile.write(head.encode() + jpeg + b"\r\n")

    def log_message(self, *arguments: object) -> None:
        """Nothing: a line for each request helps nobody."""
