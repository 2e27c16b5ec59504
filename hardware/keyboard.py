"""Driving the arm from a terminal, also over SSH; nothing but the standard library is needed.

A terminal tells when a key is pressed and repeats the one that was pressed last; it never tells
that a key is released. So a key counts as held for a moment after its last repeat, and only one
key can be held at a time. Every key that moves a joint is therefore a deadman switch too:

| key | while it is held |
|---|---|
| q w e r t | joints 1 to 5 forwards; a tap is a small step |
| a s d f g | joints 1 to 5 backwards |
| u j | gripper open, close |
| c | the keys drive the other arm of a pair from now on |
| space | nothing moves, but the human has the arm (or drives with a leader arm) |

| key | mark |
|---|---|
| Enter | success |
| x | failure |
| Backspace | rerecord: throw the episode away and start it again |
| Tab | end of the episode, without a verdict |
| Esc | emergency stop; so is any key pressed together with Alt |
"""

import atexit
import os
import re
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Final, NoReturn, Protocol, Self

import numpy as np

from robolearn.contract import SO101, ArmSpec
from robolearn.hardware.teleop import Jog, Teleop, TeleopError, TeleopSample, hands_of

FORWARDS: Final = "qwert"
BACKWARDS: Final = "asdfg"
OPEN, CLOSE, DEADMAN, OTHER = "u", "j", " ", "c"
MARK_KEYS: Final = {
    "\n": "success",
    "\r": "success",
    "x": "failure",
    "\x7f": "rerecord",
    "\b": "rerecord",
    "\t": "end",
    "\x1b": "estop",
}
REPEAT: Final = 0.15  # s: longer than between two repeats of a key that is held
FIRST_REPEAT: Final = 0.7  # s: longer than until a key that is held is first repeated
# Arrows and function keys are sent as Esc and more; they must not count as Esc.
KEYS: Final = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class KeyReader:
    """The keys that are pressed in a terminal, without echo and without waiting for Enter.

    The terminal gets its own mode back on `close`, at the end of a `with` block, at the end of the
    program whatever exception ends it, and on SIGTERM and SIGHUP, which become SystemExit unless
    the program handles them itself. Ctrl-C stays what it is.

    Args:
        terminal: file descriptor; standard input by default.

    Attributes:
        alive: False once the terminal is gone.

    Raises:
        TeleopError: not a terminal.
    """

    def __init__(self, terminal: int | None = None) -> None:
        self._terminal = sys.stdin.fileno() if terminal is None else terminal
        if not os.isatty(self._terminal):
            raise TeleopError("the keyboard needs a terminal; do not redirect standard input")
        self.alive, self._open = True, True
        self._mode = termios.tcgetattr(self._terminal)
        atexit.register(self.close)
        self._signals = _end_in_order()
        termios.tcflush(self._terminal, termios.TCIFLUSH)  # what was typed before was not for us
        tty.setcbreak(self._terminal, termios.TCSANOW)  # the default waits for output, maybe long

    def pressed(self) -> list[str]:
        """The keys since the last call, in order and in lower case; never waits."""
        text = b""
        while self._readable():
            try:
                part = os.read(self._terminal, 1024)
            except OSError:
                part = b""
            self.alive = bool(part)
            text += part
        return [key.lower() for key in KEYS.findall(text.decode(errors="ignore"))]

    def _readable(self) -> bool:
        return self.alive and self._open and bool(select.select([self._terminal], [], [], 0.0)[0])

    def close(self) -> None:
        """Gives the terminal its mode back; doing it twice is no error."""
        if not self._open:
            return
        self._open = False
        with suppress(termios.error):  # the terminal is gone, and so is its mode
            termios.tcflush(self._terminal, termios.TCIFLUSH)
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._mode)
        with suppress(ValueError):  # not in the main thread
            for number in self._signals:
                signal.signal(number, signal.SIG_DFL)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        self.close()


def _end_in_order() -> list[signal.Signals]:
    """Lets signals that would kill the program at once end it in order; returns which."""
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _end)
    return numbers


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


class HeldKeys:
    """Which keys are held, as far as repeats tell."""

    def __init__(self) -> None:
        self._moving_until: dict[str, float] = {}
        self._held_until: dict[str, float] = {}

    def press(self, keys: Iterable[str], now: float) -> set[str]:
        """Takes note of keys and their repeats; returns those that were not held before."""
        pressed, repeating = set(keys), self.moving(now)
        fresh = pressed - self.held(now)
        for key in pressed:
            self._held_until[key] = now + (REPEAT if key in repeating else FIRST_REPEAT)
            self._moving_until[key] = now + REPEAT
        return fresh

    def moving(self, now: float) -> set[str]:
        """Keys that were pressed or repeated a moment ago."""
        return {key for key, until in self._moving_until.items() if now < until}

    def held(self, now: float) -> set[str]:
        """The same, and those that may only not have been repeated yet."""
        return {key for key, until in self._held_until.items() if now < until}


class Keys(Protocol):
    """Where `KeyboardTeleop` gets its keys: a `KeyReader`, or a stand-in."""

    alive: bool

    def pressed(self) -> list[str]:
        """See `KeyReader.pressed`."""

    def close(self) -> None:
        """See `KeyReader.close`."""


class KeyboardTeleop(Teleop):
    """Jogs joint by joint; see the table of keys above.

    Args:
        keys: by default those of the terminal that the program runs in.
        arm: five joints and a gripper have keys, of a pair those of one arm at a time.
        speed: rad/s.
        gripper_speed: fractions of the opening per second.
        clock: s.

    Raises:
        TeleopError: standard input is not a terminal.
    """

    def __init__(
        self,
        keys: Keys | None = None,
        arm: ArmSpec = SO101,
        speed: float = 0.3,
        gripper_speed: float = 0.6,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = KeyReader() if keys is None else keys
        hands = hands_of(arm)
        self._hands = [_key_velocities(arm, hand, speed, gripper_speed) for hand in hands]
        self._hand = 0
        self._jog, self._held, self._clock = Jog(arm), HeldKeys(), clock

    def read(self, position: np.ndarray) -> TeleopSample:
        """See `Teleop.read`."""
        now = self._clock()
        fresh = self._held.press(self._keys.pressed(), now)
        marks = frozenset(MARK_KEYS[key] for key in fresh & MARK_KEYS.keys())
        self._hand = (self._hand + (OTHER in fresh)) % len(self._hands)
        velocities = self._hands[self._hand]
        if not self._keys.alive:
            self._jog.release()
            return TeleopSample.lost(now, marks)
        if self._held.held(now).isdisjoint(velocities):
            self._jog.release()
            return TeleopSample.of(now, None, marks)
        moving = self._held.moving(now) & velocities.keys()
        velocity = sum((velocities[key] for key in moving), np.zeros_like(position))
        return TeleopSample.of(now, self._jog.follow(velocity, position, now), marks)

    def close(self) -> None:
        """See `KeyReader.close`."""
        self._keys.close()


def _key_velocities(
    arm: ArmSpec, hand: range, speed: float, gripper_speed: float
) -> dict[str, np.ndarray]:
    """The velocity (J,) that each key stands for while it drives these joints."""
    unit = np.eye(arm.size)
    velocities = {DEADMAN: np.zeros(arm.size)}
    joints = [joint for joint in hand if joint not in arm.grippers]
    for joint, forwards, backwards in zip(joints, FORWARDS, BACKWARDS, strict=False):
        velocities[forwards], velocities[backwards] = speed * unit[joint], -speed * unit[joint]
    for gripper in set(hand) & set(arm.grippers):
        motion = gripper_speed * unit[gripper]
        velocities[OPEN], velocities[CLOSE] = motion, -motion
    return velocities
