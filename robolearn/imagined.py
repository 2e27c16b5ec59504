"""What a policy imagined, above what then happened: one picture of an episode.

Two rows for each camera. On the left what was seen at the first decision, on the right the goal,
and between them the frames that the policy expected at its offsets, and those that came.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch

from robolearn.episodes import Episode
from robolearn.files import write_atomic
from robolearn.policies.base import Policy, as_tensors
from robolearn.policies.world_model import Imagined

SCALE: Final = 3  # times the size of what the policy sees
GAP: Final = 2  # pixels between pictures


def write_strip(policy: Policy, episode: Episode, path: Path) -> bool:
    """Writes the picture, a PNG file; False for a policy that imagines nothing."""
    import cv2

    imagined = _imagined(policy, episode)
    if imagined is None:
        return False
    strip = strip_of(imagined, episode)
    size = (SCALE * strip.shape[1], SCALE * strip.shape[0])
    large = cv2.resize(strip[:, :, ::-1], size, interpolation=cv2.INTER_NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, cv2.imencode(".png", large)[1].tobytes())
    return True


@torch.inference_mode()
def _imagined(policy: Policy, episode: Episode) -> Imagined | None:
    """What it imagines at the beginning of an episode."""
    first: dict[str, dict[str, np.ndarray] | np.ndarray] = {}
    for key, rows in episode.observations.items():
        kind, _, camera = key.partition("/")
        if camera:
            first.setdefault(kind, {})[camera] = rows[:1]
        else:
            first[kind] = rows[:1]
    return policy.imagine(as_tensors(first, policy.device))


def strip_of(imagined: Imagined, episode: Episode) -> np.ndarray:
    """The picture, uint8 (H, W, 3), of what was imagined at the beginning of an episode.

    What would have come after the end of the episode is grey.
    """
    rows = []
    offsets = imagined.offsets[0].tolist()
    for camera, frames in imagined.frames.items():
        seen = episode.observations[f"pixels/{camera}"]
        goal = episode.observations[f"goal_pixels/{camera}"][0]
        grey = np.full_like(seen[0], 128)
        came = [seen[k] if k < len(seen) else grey for k in offsets]
        rows.append(_row([seen[0], *frames[0].cpu().numpy(), goal]))
        rows.append(_row([seen[0], *came, goal]))
    return np.concatenate(rows)


def _row(pictures: list[np.ndarray]) -> np.ndarray:
    padded = [np.pad(x, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for x in pictures]
    return np.concatenate(padded, axis=1)
