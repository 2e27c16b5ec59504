"""An emergency stop on a wire: a pipe, or a serial device with a button."""

import os
import termios
import tty
from pathlib import Path


class StopButton:
    """A pipe or device: any byte from it is a press, and so is its loss.

    Args:
        path: is opened at once; a pipe may have no writer yet.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        # Without O_NOCTTY a serial device could end this process by hanging up.
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        self._alive = os.isatty(self._file)  # a pipe is when somebody has opened its other end
        if self._alive:
            tty.setraw(self._file)  # or bytes would wait for the end of a line
            termios.tcflush(self._file, termios.TCIFLUSH)

    def is_pressed(self) -> bool:
        """Whether a byte has come since the last call, or what sent them is gone."""
        try:
            pressed = bool(os.read(self._file, 64))
        except BlockingIOError:  # there, and silent
            self._alive = True
            return False
        except OSError:
            return True
        return pressed or self._alive  # nothing at all is the end of a pipe
