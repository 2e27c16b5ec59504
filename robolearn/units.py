"""The units of recorded joint values, and their way to SI.

LeRobot datasets do not say their units. With low and high the limits of the arm's joint, and the
middle of the calibrated range taken as the middle of the joint's range:

| units | joint | gripper |
|---|---|---|
| `"si"` | rad | opening fraction, 0..1 |
| `"percent"` | -100..100 is low..high, linearly | 0..100 is 0..1 |
| `"degrees"` | (low + high) / 2 + deg2rad(value) | 0..100 is 0..1 |

Source: lerobot's `RANGE_M100_100`, `DEGREES` and `RANGE_0_100`; its degrees count from the middle
of the calibrated range, and its gripper is in percent in both modes.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from robolearn.contract import ArmSpec

Units = Literal["si", "percent", "degrees"]
UNITS: tuple[Units, ...] = get_args(Units)


def unit_map(arm: ArmSpec, units: Units) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, float64 (J,) each: SI value = scale * value + offset."""
    low, high = np.array(arm.low), np.array(arm.high)
    if units == "si":
        return np.ones(arm.size), np.zeros(arm.size)
    offset = (low + high) / 2
    scale = (high - low) / 200 if units == "percent" else np.full(arm.size, np.pi / 180)
    grippers = list(arm.grippers)
    scale[grippers], offset[grippers] = 0.01, 0.0
    return scale, offset


def to_si(columns: Mapping[str, np.ndarray], arm: ArmSpec, units: Units) -> dict[str, np.ndarray]:
    """The columns with positions, actions and velocities (F, J) in SI units, float32.

    Measured effort keeps its unit, `ArmSpec.effort_unit`.
    """
    if units == "si":
        return dict(columns)
    scale, offset = unit_map(arm, units)
    converted = {
        name: (columns[name] * scale + shift).astype(np.float32)
        for name, shift in (
            ("agent_pos", offset),
            ("action", offset),
            ("action_requested", offset),
            ("agent_vel", 0.0),
        )
        if name in columns
    }
    return {**columns, **converted}
