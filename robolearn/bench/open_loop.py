"""How far a policy's chunks are from demonstrated ones, without letting it act.

A policy that has not learned enough to succeed can still have learned something, and one that is
fed wrong numbers has not: this tells the two apart where success is 0 %.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.dataset import EpisodeDataset
from robolearn.policies.base import Policy, as_tensors
from robolearn.seeding import stream
from robolearn.windows import OBSERVATIONS


def open_loop_error(
    policy: Policy, data: Path, *, steps: int, frames: int, seed: int
) -> dict[str, float]:
    """Compares with what was demonstrated.

    Args:
        policy: in eval mode.
        data: a dataset folder of the arm and cameras that it was trained on.
        steps: first steps of a chunk that are compared.
        frames: of the dataset that it is shown, drawn at random.
        seed: decides on these, and on the policy's noise.

    Returns:
        "open_loop_error", the mean distance from the demonstrated actions, rad, and
        "standing_still_error", that of the arm's present position.
    """
    dataset, rng = EpisodeDataset(data), stream(seed, "open loop")
    windows = dataset.windows(steps, tuple(policy.cameras), history=policy.history)
    shown = windows.get(rng.integers(len(windows), size=frames))
    errors, still = [], []
    for row in range(frames):
        actions = shown["action"][row][shown["mask"][row]]
        chunk = _chunk(policy, shown, row, stream(seed, f"open loop {row}"))
        position = shown["agent_pos"][row]
        now = position[-1] if policy.history > 1 else position
        errors.append(np.abs(chunk[: len(actions)] - actions).mean())
        still.append(np.abs(now - actions).mean())
    return {
        "open_loop_error": float(np.mean(errors)),
        "standing_still_error": float(np.mean(still)),
    }


@torch.inference_mode()
def _chunk(
    policy: Policy, shown: dict[str, Any], row: int, noise: np.random.Generator
) -> np.ndarray:
    """What the policy proposes, (H, J), for one row of what it is shown."""
    observation = as_tensors(_row(shown, row), policy.device)
    context = policy.encode(observation, [shown["instruction"][row]])
    return policy.sample(context, 1, [noise]).actions[0, 0].cpu().numpy()


def _row(window: dict[str, Any], row: int) -> dict[str, Any]:
    """One observation (1, ...) of windows."""
    known = {name: window[name][row : row + 1] for name in OBSERVATIONS if name in window}
    pictures = {name: x[row : row + 1] for name, x in window["pixels"].items()}
    return {**known, "pixels": pictures}
