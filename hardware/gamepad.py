"""Driving the arm with a gamepad.

| control | while the right shoulder button is held |
|---|---|
| left stick | turns the base; up leans the upper arm forwards, down back |
| right stick | rolls the wrist; up stretches the elbow, down bends it |
| D-pad | wrist up, down |
| triggers | left opens the gripper, right closes it |
| left shoulder button | of a pair: drives the other arm from now on; the left one comes first |

Buttons set marks: A success, X failure, Y rerecord, Start end, B emergency stop. The names are
those of an Xbox pad; SDL knows which button sits there on others.
"""

import importlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from robolearn.contract import SIDES, SO101, ArmSpec
from robolearn.hardware.teleop import Jog, Teleop, TeleopError, TeleopSample, hands_of

DEADZONE: Final = 0.1  # of a stick's travel, in which it counts as centred
DEADMAN: Final = "right_shoulder"
OTHER: Final = "left_shoulder"
MARK_BUTTONS: Final = {
    "a": "success",
    "x": "failure",
    "y": "rerecord",
    "start": "end",
    "b": "estop",
}
# Sticks and buttons that move a joint, and in which direction; a stick is positive when it is
# pushed to the right or pulled back.
CONTROLS: Final = {
    "shoulder_pan": {"left_x": 1.0},
    "shoulder_lift": {"left_y": -1.0},
    "elbow_flex": {"right_y": 1.0},
    "wrist_flex": {"dpad_down": 1.0, "dpad_up": -1.0},
    "wrist_roll": {"right_x": 1.0},
    "gripper": {"left_trigger": 1.0, "right_trigger": -1.0},
}
# Our names -> the end of SDL's, as in CONTROLLER_AXIS_LEFTX and CONTROLLER_BUTTON_A.
STICKS: Final = {
    "left_x": "LEFTX",
    "left_y": "LEFTY",
    "right_x": "RIGHTX",
    "right_y": "RIGHTY",
    "left_trigger": "TRIGGERLEFT",
    "right_trigger": "TRIGGERRIGHT",
}
BUTTONS: Final = {
    "a": "A",
    "b": "B",
    "x": "X",
    "y": "Y",
    "start": "START",
    "dpad_up": "DPAD_UP",
    "dpad_down": "DPAD_DOWN",
    DEADMAN: "RIGHTSHOULDER",
    OTHER: "LEFTSHOULDER",
}
FULL: Final = 32767.0  # SDL's value of a stick or trigger at its end


class PadState(NamedTuple):
    """What is pressed."""

    sticks: Mapping[str, float]  # those of `STICKS`: -1..1, right and down positive; triggers 0..1
    buttons: frozenset[str]  # some of `BUTTONS`


class Pad(Protocol):
    """A gamepad."""

    def read(self) -> PadState | None:
        """What is pressed now; None if the pad is gone."""

    def close(self) -> None:
        """Lets go of it; doing it twice is no error."""


class PygamePad:
    """A gamepad through pygame (SDL), which knows the layout of most. Once gone it stays gone.

    Args:
        index: which of the gamepads.

    Raises:
        TeleopError: pygame is missing, or there is no such gamepad.
    """

    def __init__(self, index: int = 0) -> None:
        self._pygame, controllers = _start_pygame()
        count = controllers.get_count()
        if index >= count or not controllers.is_controller(index):
            raise TeleopError(
                f"there is no gamepad number {index}; connect one, and check that you may read "
                "/dev/input (group input)"
            )
        self._pad = controllers.Controller(index)

    def read(self) -> PadState | None:
        """See `Pad.read`."""
        self._pygame.event.pump()
        if not self._pad.attached():
            return None
        sticks = {name: self._stick(end) for name, end in STICKS.items()}
        buttons = frozenset(name for name, end in BUTTONS.items() if self._button(end))
        return PadState(sticks, buttons)

    def _stick(self, end: str) -> float:
        return self._pad.get_axis(getattr(self._pygame, f"CONTROLLER_AXIS_{end}")) / FULL

    def _button(self, end: str) -> bool:
        return self._pad.get_button(getattr(self._pygame, f"CONTROLLER_BUTTON_{end}"))

    def close(self) -> None:
        """See `Pad.close`."""
        self._pad.quit()


def _start_pygame() -> tuple[Any, Any]:
    """The modules pygame and its controllers, ready for use without a window."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # works over SSH too
    os.environ.setdefault("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")  # no window, so no focus
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # SIGTERM must end the program
    try:
        pygame = importlib.import_module("pygame")
        controllers = importlib.import_module("pygame._sdl2.controller")
    except ImportError as error:
        raise TeleopError(
            f"a gamepad needs pygame, which does not load ({error}); run `pip install pygame`"
        ) from error
    pygame.display.init()  # events need it
    controllers.init()
    return pygame, controllers


class GamepadTeleop(Teleop):
    """Jogs several joints at once; see the table above.

    Args:
        pad: by default the first gamepad.
        arm: joints that `CONTROLS` does not name stand still, and one of two arms.
        speed: rad/s with a stick at its end.
        gripper_speed: fractions of the opening per second, likewise.
        clock: s.

    Raises:
        TeleopError: there is no gamepad, or pygame is missing.
    """

    def __init__(
        self,
        pad: Pad | None = None,
        arm: ArmSpec = SO101,
        speed: float = 0.8,
        gripper_speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pad = PygamePad() if pad is None else pad
        self._speed = np.full(arm.size, speed)
        self._speed[list(arm.grippers)] = gripper_speed
        self._hands = [_controls(arm, hand) for hand in hands_of(arm)]
        self._hand = 0
        self._jog, self._clock = Jog(arm), clock
        self._pressed: frozenset[str] = frozenset()

    def read(self, position: np.ndarray) -> TeleopSample:
        """See `Teleop.read`."""
        now, state = self._clock(), self._pad.read()
        if state is None:
            self._jog.release()
            return TeleopSample.lost(now)
        fresh, self._pressed = state.buttons - self._pressed, state.buttons
        marks = frozenset(MARK_BUTTONS[button] for button in fresh & MARK_BUTTONS.keys())
        self._hand = (self._hand + (OTHER in fresh)) % len(self._hands)
        if DEADMAN not in state.buttons:
            self._jog.release()
            return TeleopSample.of(now, None, marks)
        return TeleopSample.of(now, self._jog.follow(self._velocity(state), position, now), marks)

    def _velocity(self, state: PadState) -> np.ndarray:
        """Contract units per second, (J,)."""
        pushed = {name: _without_deadzone(value) for name, value in state.sticks.items()}
        pushed |= dict.fromkeys(state.buttons, 1.0)
        pushes = [
            sum(sign * pushed.get(name, 0.0) for name, sign in control.items())
            for control in self._hands[self._hand]
        ]
        return self._speed * pushes

    def close(self) -> None:
        """See `Pad.close`."""
        self._pad.close()


def _controls(arm: ArmSpec, hand: range) -> list[Mapping[str, float]]:
    """What moves each joint of the arm while these are driven; of a pair they begin with a side."""
    names = [re.sub(f"^({'|'.join(SIDES)})_", "", joint) for joint in arm.joints]
    return [CONTROLS.get(name, {}) if k in hand else {} for k, name in enumerate(names)]


def _without_deadzone(value: float) -> float:
    """0 within `DEADZONE`, and from there on steadily up to 1."""
    beyond = max(abs(value) - DEADZONE, 0.0) / (1.0 - DEADZONE)
    return math.copysign(min(beyond, 1.0), value)
