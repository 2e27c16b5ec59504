"""The digital twin of the arm: a process with a serial port that behaves like an SO-101's.

Whoever opens `twin.port` talks to six servos, byte by byte as on the real bus, and they move a
MuJoCo arm among a task's objects. A second way in, HTTP on the loopback interface, tells the truth
about what happens (`state`), sets tasks up (`reset`), breaks things (`fault`), pushes the arm like
a hand (`push`), and serves what the cameras see.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np

from robolearn.config import to_json

REST: Final = (0.0, -1.745, 1.627, 1.051, 0.05, 0.1)  # folded, lying on itself


@dataclass(frozen=True)
class TwinConfig:
    """A simulated SO-101 behind a serial port, for trying things without an arm."""

    env: str | None = None  # simulated task to stand in, e.g. robolearn/PickPlace-v0; none: a table
    seed: int = 0  # of the first episode, and of random faults
    pose: tuple[float, ...] = REST  # where the joints start: rad, the gripper as fraction
    lockstep: bool = False  # time passes only with each reading of the state, for exact repetition
    lockstep_dt: float = 0.02  # s that pass with each
    image_size: tuple[int, int] = (48, 84)  # height and width of the pictures, pixels
    camera_fps: float = 30.0  # of the camera streams
    http_port: int = 0  # of the loopback interface; 0 takes a free one
    voltage: float = 7.4  # V, of the power supply
    backlash: float = 0.0  # rad to each side; real gears have about 0.0087
    calibration: Path | None = None  # LeRobot's calibration file; none: mid range is tick 2047
    calibrated: bool = True  # false: the servos' registers do not know the calibration yet
    servo: Path | None = None  # what `robolearn identify` wrote; none: the simulated tasks' servos
    registers: dict[str, int] = field(default_factory=dict)  # of every servo, e.g. P_GAIN 16


class Twin:
    """Runs a twin in a process of its own, until `close` or the end of this process.

    Args:
        config: what to simulate.
        options: fields of it that differ: `Twin(lockstep=True)`.

    Raises:
        ValueError: a config that cannot be simulated.
    """

    def __init__(self, config: TwinConfig | None = None, **options: Any) -> None:  # noqa: ANN401
        self.config = replace(config or TwinConfig(), **options)
        command = [sys.executable, "-m", "robolearn.hardware.twin_server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stdin, self._stdout = _pipes(self._process)
        self._stdin.write(f"{json.dumps(to_json(self.config))}\n".encode())
        self._stdin.flush()  # and stays open: the process ends when it is closed
        told = json.loads(self._stdout.readline() or "{}")
        if "http_port" not in told:
            self.close()
            raise ValueError(told.get("error", "the twin's process has died; see its output above"))
        self._http_port = told["http_port"]

    @property
    def url(self) -> str:
        """Of the HTTP interface."""
        return f"http://127.0.0.1:{self._http_port}"

    @property
    def port(self) -> str:
        """The serial port; another one each time it is plugged in again."""
        return self.state()["port"]

    @property
    def cameras(self) -> dict[str, str]:
        """Camera names and the URLs of their MJPEG streams."""
        return self._ask("GET", "/cameras")

    def state(self) -> dict[str, Any]:
        """The truth: `servos` by joint, `time`, `task`, `success`, `progress`, `faults`, `port`.

        Of a servo: every register by its name in lower case; and of the simulation `position` and
        `velocity` (contract units), `torque` (N m), `setpoint` (ticks) and `powered`.
        """
        return self._ask("GET", "/state")

    def calibration(self) -> dict[str, dict[str, int]]:
        """What a perfect calibration of this arm finds, in the form of LeRobot's file."""
        return self._ask("GET", "/calibration")

    def reset(self, seed: int, instruction: str | None = None, arm: str = "stay") -> dict[str, Any]:
        """Places the objects of an episode; the clock goes on.

        Args:
            seed: the episode's.
            instruction: asks for a certain goal; None draws one.
            arm: "stay" leaves the arm alone; "home" puts it where the episode begins, at once, and
                makes that its servos' goal.

        Returns:
            The new state.

        Raises:
            ValueError: an instruction that the task does not know.
        """
        body = {"seed": seed, "instruction": instruction, "arm": arm}
        return self._ask("POST", "/reset", body)

    def picture(self, camera: str) -> np.ndarray:
        """What a camera sees now, uint8 (H, W, 3); "video" is the large one for films.

        Raises:
            ValueError: no such camera.
        """
        headers, data = self._request("GET", f"/camera/{camera}.rgb")
        shape = [int(size) for size in headers["X-Shape"].split(",")]
        return np.frombuffer(data, np.uint8).reshape(shape)

    def fault(self, name: str, **options: Any) -> None:  # noqa: ANN401 (the fault's own)
        """Switches a fault on; see `robolearn.hardware.twin_faults`.

        Raises:
            ValueError: no such fault, or not with these options.
        """
        self._ask("POST", "/fault", {"name": name, **options})

    def mend(self, name: str | None = None) -> None:
        """Switches off all faults of this name, or all there are."""
        self._ask("DELETE", "/fault", {"name": name})

    def push(
        self,
        positions: Mapping[str, float] | None = None,
        torques: Mapping[str, float] | None = None,
    ) -> None:
        """A hand pulls joints softly to positions (contract units), pushes others (N m), lets go.

        What is not named is let go. A limp arm follows at up to 2 rad/s.

        Raises:
            ValueError: no such joint.
        """
        self._ask("POST", "/hand", {"positions": positions or {}, "torques": torques or {}})

    def advance(self, seconds: float) -> None:
        """Lets time pass in lockstep mode.

        Raises:
            ValueError: the twin follows the clock on the wall.
        """
        self._ask("POST", "/advance", {"seconds": seconds})

    def _ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401
        return json.loads(self._request(method, path, json.dumps(body or {}))[1])

    def _request(
        self, method: str, path: str, body: str | None = None
    ) -> tuple[HTTPMessage, bytes]:
        connection = HTTPConnection("127.0.0.1", self._http_port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(json.loads(data)["error"])
        return response.headers, data

    def close(self) -> None:
        """Ends the process."""
        self._stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None  # since it was asked for
    assert process.stdout is not None
    return process.stdin, process.stdout


def main(config: TwinConfig) -> int:
    """Runs the command: a twin in this process, until Ctrl-C."""
    from robolearn.hardware.twin_server import serve  # MuJoCo; `--help` does without

    def announce(port: str, url: str, cameras: Mapping[str, str]) -> None:
        print(f"serial port  {port}\nstate        {url}/state")
        for name, stream in cameras.items():
            print(f"camera       {name}: {stream}")
        print("Ctrl-C ends it", flush=True)

    try:
        serve(config, announce)
    except KeyboardInterrupt:
        print()
    return 0
