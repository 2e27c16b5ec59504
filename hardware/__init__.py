"""The real arm: bus, safety, driver, twin, cameras and teleoperation.

Importing the package registers `robolearn/SO101-v0`.
"""

import gymnasium

from robolearn.contract import SO101

EPISODE_SECONDS = 10.0

gymnasium.register(
    id="robolearn/SO101-v0",
    entry_point="robolearn.hardware.env:SO101Env",
    max_episode_steps=round(EPISODE_SECONDS * SO101.control_hz),
)
