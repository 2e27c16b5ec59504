"""Valid random input, for documentation, tests and smoke runs alike."""

from collections.abc import Mapping

import numpy as np

from robolearn.contract import SO101, ArmSpec
from robolearn.episodes import Episode


def example_episode(
    length: int = 12,
    seed: int = 0,
    *,
    arm: ArmSpec = SO101,
    cameras: Mapping[str, tuple[int, int]] | None = None,
    instruction: str = "put the red cube in the blue bin",
    success: bool = True,
    state_size: int = 0,
) -> Episode:
    """An episode with random numbers and smooth pictures that differ from frame to frame.

    Args:
        length: T, control steps.
        seed: of the numbers and the pictures.
        arm: the arm.
        cameras: height and width of each camera's pictures, pixels.
        instruction: the instruction.
        success: ends in success; otherwise at the time limit.
        state_size: length of `environment_state`; 0 leaves it out.
    """
    rng = np.random.default_rng(seed)

    def uniform(*shape: int) -> np.ndarray:
        return rng.random(shape, np.float32)

    low, high = np.array(arm.low, np.float32), np.array(arm.high, np.float32)
    positions = low + (high - low) * uniform(length, arm.size)
    observations = {
        "agent_pos": positions,
        "agent_vel": uniform(length, arm.size) - 0.5,
        "agent_effort": uniform(length, arm.size) - 0.5,
    }
    if state_size:
        observations["environment_state"] = uniform(length, state_size)
    for camera, size in (cameras or {}).items():
        observations[f"pixels/{camera}"] = _pictures(length, *size, rng)
    requested = positions + 0.1 * uniform(length, arm.size)
    return Episode(
        env_id="robolearn/Example-v0",
        arm=arm,
        seed=seed,
        instruction=instruction,
        observations=observations,
        action=np.clip(requested, low, high),
        action_requested=requested,
        reward=uniform(length),
        success=np.arange(length) == (length - 1 if success else length),
        progress=np.linspace(0, 1, length, dtype=np.float32),
        intervention=rng.random(length) < 0.2,
        wall_time=1.7e9 + np.cumsum(rng.random(length)),
        terminated=success,
        truncated=not success,
    )


def _pictures(length: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A colour gradient that brightens over time, uint8 (T, H, W, 3)."""
    time, row, column = np.meshgrid(
        np.linspace(0, 1, length),
        np.linspace(0, 1, height),
        np.linspace(0, 1, width),
        indexing="ij",
    )
    weights = rng.random((3, 3))
    light = np.stack([time, row, column], -1) @ weights / weights.sum(0)
    return (30 + 195 * light).astype(np.uint8)
