"""`robolearn goal-picture`: what a policy's cameras see now, to be its goal on an arm.

Put things where they shall be in the end, and the arm too: goals of demonstrations show it where it
has done its work. Cameras alone are opened; the arm may be limp, and moved by hand.
"""

from pathlib import Path

import numpy as np

from robolearn.files import write_atomic
from robolearn.hardware.camera import Cameras
from robolearn.options import GoalPictureConfig
from robolearn.sources import source_of


def take(config: GoalPictureConfig) -> dict[str, Path]:
    """Writes `<out>/<camera>.png` of each camera, as the policy sees it; the files, by camera.

    Raises:
        ValueError: a policy that is shown no goal, or other cameras than it looks through.
        OSError: a camera gives no picture, or the folder cannot be written.
    """
    source = source_of(config.policy)
    if not source.goals:
        raise ValueError(f"{config.policy} is told its goal and shown none; it needs no picture")
    if config.cameras.keys() != source.cameras.keys():
        wanted = " ".join(f"{camera} SOURCE" for camera in source.cameras)
        raise ValueError(
            f"the policy looks through {', '.join(source.cameras)}; give --cameras {wanted}"
        )
    with Cameras(config.cameras, source.picture_options()["image_size"]) as cameras:
        cameras.renew()  # the first picture of a camera may be an old one
        seen = cameras.read()
    return {camera: _written(config.out / f"{camera}.png", seen[camera]) for camera in seen}


def _written(path: Path, picture: np.ndarray) -> Path:
    import cv2

    write_atomic(path, cv2.imencode(".png", picture[..., ::-1])[1].tobytes())  # it takes BGR
    return path


def main(config: GoalPictureConfig) -> int:
    """Runs the command."""
    files = " ".join(f"{camera}={path}" for camera, path in take(config).items())
    print(f"written; look at them, and then:\n  robolearn deploy --policy {config.policy} ", end="")
    print(f"--goal {files}")
    return 0
