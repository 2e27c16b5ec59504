"""Starting the processes of a driver, away from whatever the client's process is."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def spawn(function: Callable[[Path, int], None], folder: Path) -> subprocess.Popen:
    """Runs a function in a process and a session of its own.

    No signal of a terminal reaches it, and a script that starts one needs no main guard.

    Args:
        function: of a module that can be imported; it gets the folder and this process's id, by
            which it can tell that this process has died.
        folder: for the function.
    """
    module, name = function.__module__, function.__name__
    call = f"{name}(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    code = f"import pathlib, sys; from {module} import {name}; {call}"
    command = [sys.executable, "-c", code, str(folder), str(os.getpid())]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
