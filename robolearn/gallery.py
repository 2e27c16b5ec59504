"""`robolearn envs --gallery FOLDER`: what every task looks like, and how its expert does it.

`tasks.png` has a row for each task: a demonstration's start, middle and end, and the goal picture.
`videos/<Task>.mp4` is the whole demonstration.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track

from robolearn.agent import ExpertAgent
from robolearn.envs.base import ManipulationEnv
from robolearn.envs.render import Renderer
from robolearn.film import annotate, write_video
from robolearn.filming import VIDEO_EVERY
from robolearn.rollout import rollout
from robolearn.workers import make_vector

TRIES: Final = 10  # seeds, of which the first that succeeds is shown
TILE: Final = (224, 168)  # width and height of a picture on the sheet, pixels
GAP, HEADING, COLUMNS = 4, 30, 2  # pixels; tasks side by side
PAPER, INK = (250, 250, 248), (40, 40, 44)


@dataclass(frozen=True)
class Demonstration:
    """What is shown of a task."""

    name: str
    instruction: str
    film: np.ndarray  # uint8 (T, H, W, 3)
    progress: np.ndarray  # (T,)
    success: np.ndarray  # bool (T,)
    goal: np.ndarray  # uint8 (H, W, 3)
    fps: float


def make_gallery(env_ids: Sequence[str], folder: Path) -> Path:
    """Writes the videos and the sheet, and returns the sheet's path.

    Args:
        env_ids: simulated tasks.
        folder: where to.

    Raises:
        OSError: it cannot be written.
    """
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    shown = []
    for env_id in track(env_ids, "filming", console=Console(stderr=True)):
        demonstration = demonstrate(env_id)
        film = annotate(
            demonstration.film,
            [demonstration.instruction],
            progress=demonstration.progress,
            success=demonstration.success,
        )
        write_video(folder / "videos" / f"{demonstration.name}.mp4", film, demonstration.fps)
        shown.append(demonstration)
    sheet = folder / "tasks.png"
    _sheet(shown).save(sheet, optimize=True)
    return sheet


def demonstrate(env_id: str) -> Demonstration:
    """The first demonstration that succeeds, else the last that was tried."""
    with closing(make_vector(env_id, 1, obs_type="state", render_mode="rgb_array")) as env:
        task = env.envs[0].unwrapped
        assert isinstance(task, ManipulationEnv)
        actor = ExpertAgent(env)
        for seed in range(TRIES):
            frames: list[np.ndarray] = []

            def watch(vector: gymnasium.vector.VectorEnv, kept: list = frames) -> None:
                pictures = vector.render()
                assert pictures is not None  # the mode is rgb_array
                kept.append(pictures[0])

            (episode,) = rollout(env, actor, [seed], watch=watch)
            if episode.success.any():
                break
        steps = np.arange(len(episode), 0, -VIDEO_EVERY)[::-1]  # the end is always shown
        drawn = Renderer(task.model, task.video_size, "high")
        return Demonstration(
            name=env_id.partition("/")[2].removesuffix("-v0"),
            instruction=episode.instruction,
            film=np.stack([frames[k] for k in [0, *steps]]),
            progress=np.array([0.0, *episode.progress[steps - 1]]),
            success=np.array([False, *episode.success[steps - 1]]),
            goal=task.draw_goal(drawn, cameras=("video",))["video"],
            fps=env.metadata["render_fps"] / VIDEO_EVERY,
        )


def _sheet(shown: Sequence[Demonstration]) -> Image.Image:
    """All tasks: name and instruction over start, middle, end and goal."""
    cell = (4 * (TILE[0] + GAP) + 2 * GAP, HEADING + TILE[1] + 2 * GAP)
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0], rows * cell[1]), PAPER)
    for k, demonstration in enumerate(shown):
        place = (k % COLUMNS * cell[0], k // COLUMNS * cell[1])
        sheet.paste(_row(demonstration, cell), place)
    return sheet


def _row(demonstration: Demonstration, size: tuple[int, int]) -> Image.Image:
    row = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(row)
    bold, plain = (ImageFont.load_default(size=points) for points in (15, 13))
    draw.text((GAP, 8), demonstration.name, fill=INK, font=bold)
    draw.text((120, 10), demonstration.instruction, fill=INK, font=plain)
    film = demonstration.film
    pictures = [film[0], film[len(film) // 2], film[-1], demonstration.goal]
    for k, picture in enumerate(pictures):
        tile = Image.fromarray(picture).resize(TILE, Image.Resampling.LANCZOS)
        row.paste(tile, (GAP + k * (TILE[0] + GAP) + GAP * (k == 3), HEADING))
    return row
