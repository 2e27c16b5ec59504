"""A door in a process of its own, for packages whose versions exclude robolearn's.

This file is also the program of that process, in a virtual environment without robolearn:

    python -P foreign_worker.py

It reads one message a line and answers each with one: JSON, with arrays in base64. Closing its
input ends it, so it does not outlive who started it.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

PATIENCE: Final = 20.0  # s that a package may take to let go of its task


class Away:
    """A door that another Python opens; its methods are those of `foreign_doors.Door`.

    Args:
        python: the interpreter of a virtual environment.
        kind: the door, "module:class" among these modules.
        name: see `Door`, as are the others.
        cameras: which to draw.
        size: height and width, pixels.

    Raises:
        ValueError: as the door's class does.
        RuntimeError: the package failed.
    """

    def __init__(
        self,
        python: Path,
        kind: str,
        name: str,
        cameras: Sequence[str] | None,
        size: Sequence[int],
    ) -> None:
        self._process = subprocess.Popen(
            [str(python), "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": "", "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")},
        )
        try:
            self._call("open", kind, name, cameras and list(cameras), list(size))
        except BaseException:
            self.close()
            raise

    def describe(self) -> dict[str, Any]:
        """See `Door`."""
        return self._call("describe")

    def reset(self, seed: int, instruction: str) -> dict[str, Any]:
        """See `Door`."""
        return self._call("reset", seed, instruction)

    def step(self, action: np.ndarray) -> dict[str, Any]:
        """See `Door`."""
        return self._call("step", action)

    def expert(self) -> np.ndarray:
        """The next action of the script, (J,)."""
        return self._call("expert")

    def spare(self, draw_every: int) -> None:
        """See `Door`."""
        self._call("spare", draw_every)

    def film(self) -> np.ndarray:
        """See `Door`."""
        return self._call("film")

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what a process that has died never read
                pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # the package cannot let go
            self._process.kill()
            self._process.wait()

    def _call(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None
        assert sink is not None
        with suppress(BrokenPipeError):  # if it has ended, the next line finds that
            print(encode([name, *arguments]), file=sink, flush=True)
        if not (line := source.readline()):
            raise RuntimeError(f"the process of the task ended (exit code {self._process.wait()})")
        kind, value = decode(line)
        if kind != "value":
            raise (ValueError if kind == "ValueError" else RuntimeError)(value)
        return value


def encode(message: object) -> str:
    """A message as a line; numpy arrays travel as they are."""
    return json.dumps(message, default=_encode_array)


def decode(line: str) -> Any:  # noqa: ANN401
    """The message of a line."""
    return json.loads(line, object_hook=_decode_array)


def _encode_array(value: Any) -> object:  # noqa: ANN401
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{type(value).__name__} does not travel")
    data = base64.b64encode(array.tobytes()).decode()
    return {"array": data, "dtype": array.dtype.str, "shape": array.shape}


def _decode_array(entries: dict[str, Any]) -> object:
    if "array" not in entries:
        return entries
    data = bytearray(base64.b64decode(entries["array"]))  # an array that can be written
    return np.frombuffer(data, entries["dtype"]).reshape(entries["shape"])


def main() -> None:
    """Serves one door until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the package prints shall not mix with the answers
    door: Any = None
    for line in sys.stdin:
        name, *arguments = decode(line)
        try:
            if name == "open":
                kind, *arguments = arguments
                door, value = door_of(kind)(*arguments), None
            else:
                value = getattr(door, name)(*arguments)
            message = encode(["value", value])
        except ValueError as error:
            message = encode(["ValueError" if name in ("open", "reset") else "crash", str(error)])
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
            message = encode(["crash", f"{type(error).__name__}: {error}"])
        print(message, file=answers, flush=True)
    if door is not None:
        door.close()


def door_of(kind: str) -> Any:  # noqa: ANN401
    """The class of a door.

    Args:
        kind: "module:class" among these modules.
    """
    module, _, name = kind.partition(":")
    return getattr(import_module(f"robolearn.envs.{module}"), name)


def _pretend() -> None:
    """Makes the doors importable under their names, without what robolearn itself needs."""
    here = Path(__file__).parent
    for name, folder in (("robolearn", here.parent), ("robolearn.envs", here)):
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]


if __name__ == "__main__":
    _pretend()
    main()
