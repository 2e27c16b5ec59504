"""Starting the processes of a driver, away from whatever the client's process is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def spawn(function: Callable[[Path], None], folder: Path) -> subprocess.Popen:
    """Runs a function in a process and a session of its own.

    No signal of a terminal reaches it, and a script that starts one needs no main guard.

    Args:
        function: of a module that can be imported.
        folder: its one argument.
    """
    module, name = function.__module__, function.__name__
    code = f"import pathlib, sys; from {module} import {name}; {name}(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
