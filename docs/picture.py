"""Draws docs/pickplace.png: one demonstration, and beneath it what a policy sees of it.

Usage: python docs/picture.py [FILE]
"""

import sys
from itertools import islice
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import robolearn.envs  # noqa: F401 (registers the task)
from robolearn.envs.render import Renderer
from robolearn.seeding import stream

ENV: Final = "robolearn/PickPlace-v0"
SEED: Final = 3
INSTRUCTION: Final = "put the red cube in the blue bin"
MOMENTS: Final = (0, 30, 48, 72)  # control steps: start, grasp, carry, released
CROP: Final = (300, 60, 1400, 1040)  # of the 1600 x 1200 pixels drawn: where things happen
SCENE: Final = (400, 356)  # pixels, width and height of a moment
GAP: Final = 6  # pixels
LINE: Final = 30  # pixels, height of a line of text
INK: Final = (70, 76, 84)
PAPER: Final = (255, 255, 255)


def main(path: Path) -> None:
    """Runs the expert and draws the picture."""
    env = gymnasium.make(ENV)
    task: Any = env.unwrapped
    observation, _ = env.reset(seed=SEED, options={"instruction": INSTRUCTION})
    camera = Renderer(task.model, (1200, 1600), "high")
    columns = []
    expert = task.expert(stream(SEED, "expert"))
    for step, action in enumerate(islice(expert, MOMENTS[-1] + 1)):
        if step in MOMENTS:
            columns.append(_column(camera.rgb(task.data, "video"), observation["pixels"]))
        observation, *_ = env.step(action)
    _sheet(columns).save(path, optimize=True)


def _column(scene: np.ndarray, views: dict[str, np.ndarray]) -> Image.Image:
    """The scene above the cameras' pictures, whose pixels stay visible."""
    width = (SCENE[0] - GAP) // 2
    height = round(width * views["top"].shape[0] / views["top"].shape[1])
    column = Image.new("RGB", (SCENE[0], SCENE[1] + GAP + height), PAPER)
    picture = Image.fromarray(scene).crop(CROP)
    column.paste(picture.resize(SCENE, Image.Resampling.LANCZOS), (0, 0))
    for place, camera in enumerate(("top", "wrist")):
        view = Image.fromarray(views[camera]).resize((width, height), Image.Resampling.NEAREST)
        column.paste(view, (place * (width + GAP), SCENE[1] + GAP))
    return column


def _sheet(columns: list[Image.Image]) -> Image.Image:
    width = len(columns) * (SCENE[0] + GAP) - GAP
    sheet = Image.new("RGB", (width, columns[0].height + 2 * LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=LINE * 0.62)
    for place, column in enumerate(columns):
        sheet.paste(column, (place * (SCENE[0] + GAP), LINE))
    middle = {"fill": INK, "font": font, "anchor": "mm"}
    draw.text((width / 2, LINE / 2), f"“{INSTRUCTION}”", **middle)
    text = "beneath: what the policy sees then, 84 x 48 pixels from the cameras top and wrist"
    draw.text((width / 2, sheet.height - LINE / 2), text, **middle)
    return sheet


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("pickplace.png"))
