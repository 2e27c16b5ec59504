"""Virtual environments for packages whose versions exclude ours."""

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

STAMP: Final = "installed"  # a file in a virtual environment that is complete


def python_of(folder: Path) -> Path | None:
    """The interpreter of a virtual environment; None if it is not complete."""
    return folder.absolute() / "bin" / "python" if (folder / STAMP).exists() else None


def install(folder: Path, requirements: Sequence[str]) -> Path:
    """Makes a virtual environment, unless it is complete already, and returns its interpreter.

    Raises:
        subprocess.CalledProcessError: pip fails; it says why in `stderr`.
    """
    if (python := python_of(folder)) is None:
        venv.create(folder, clear=True, with_pip=True)
        python = folder.absolute() / "bin" / "python"
        output_of(python, "-m", "pip", "install", "--quiet", *requirements)
        (folder / STAMP).touch()
    return python


def output_of(python: Path, *arguments: str) -> str:
    """What a command prints.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    environment = {**os.environ, "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl")}
    done = subprocess.run(
        [str(python), *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def last_line(error: subprocess.CalledProcessError) -> str:
    """What a command that failed says at last."""
    return ((error.stderr or "").strip().splitlines() or ["no message"])[-1]
