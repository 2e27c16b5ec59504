"""Rounds of acting and learning, which go on where they were cut off.

A folder of rounds is a run like one of `robolearn train`, with a checkpoint for each round:

    checkpoints/0000002/model   the policy after round 2
    rounds/2/rollouts           what the policy before it did, a dataset
    rounds/2/figures.json       the row of the table

Every phase of a round is a function of what the phases before left on disk, and leaves something
whole or nothing. So a run that was cut off at any moment goes on there, and ends with the same
table.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track
from rich.table import Table

from robolearn import checkpoint
from robolearn.config import NAME
from robolearn.episodes import Episode, EpisodeWriter
from robolearn.options import worker_options
from robolearn.results import save_result
from robolearn.rollout import arm_of
from robolearn.units import Units
from robolearn.workers import Job, make_vector, run_seeds

FIGURES: Final = "figures"
# Where runs note what they were told, the demonstrations among it; a later one is told by the name.
NOTES: Final = ("improve.json", "adapt.json", NAME)
Row = dict[str, Any]
Seconds = dict[str, float]


class Rounds(ABC):
    """See the module's docstring.

    Args:
        config: of the command, with `out` and `workers`.
        base: the policy before the first round.
    """

    config: Any

    def __init__(self, config: Any, base: Path) -> None:  # noqa: ANN401 (the command's own)
        self.config, self._base = config, base

    @abstractmethod
    def phases(self, number: int, seconds: Seconds) -> Row:
        """What a round does and finds out, and how long each of its phases takes."""

    def round(self, number: int) -> Row:
        """One round, or what was found out in it before."""
        known = self.folder(number) / f"{FIGURES}.json"
        if known.exists():
            return json.loads(known.read_text())["row"]
        seconds: Seconds = {}
        row = {"round": number, **self.phases(number, seconds)}
        save_result(self.folder(number), FIGURES, self.config, {"row": row, "seconds": seconds})
        return row

    def seconds(self, number: int) -> Seconds:
        """How long the phases of a finished round took, without what was cut off."""
        return json.loads((self.folder(number) / f"{FIGURES}.json").read_text())["seconds"]

    def folder(self, number: int) -> Path:
        """The folder of a round."""
        return self.config.out / "rounds" / str(number)

    def checkpoint(self, number: int) -> Path:
        """The folder of what is left of a round."""
        return self.config.out / "checkpoints" / f"{number:07d}"

    def policy(self, number: int) -> Path:
        """The policy after a round; after none, the base."""
        return self.checkpoint(number) / "model" if number else self._base

    def rollouts(self, number: int) -> Path:
        """The dataset of a round."""
        return self.folder(number) / "rollouts"

    def record(
        self,
        number: int,
        job: Job,
        cameras: Mapping[str, tuple[int, int]],
        seeds: Sequence[int],
        look: Callable[[Episode], object] | None = None,
    ) -> None:
        """Runs the episodes that the dataset of a round lacks.

        Args:
            number: of the round.
            job: what runs an episode.
            cameras: height and width of their pictures.
            seeds: of all episodes of the round.
            look: sees each episode before it is recorded.
        """
        with closing(make_vector(job.env_id, 1, job.wrap, **job.env_options)) as env:
            arm = arm_of(env)
        with EpisodeWriter(
            self.rollouts(number), arm=arm, fps=arm.control_hz, cameras=cameras
        ) as writer:
            missing, console = seeds[len(writer) :], Console(stderr=True)
            with closing(run_seeds(job, missing, **worker_options(self.config))) as episodes:
                for episode in track(episodes, "acting", len(missing), console=console):
                    if look:
                        look(episode)
                    writer.append(episode)


@contextmanager
def timed(seconds: Seconds, name: str) -> Iterator[None]:
    """Adds the seconds that something takes."""
    begin = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin


def check_unused(out: Path, settings: str) -> None:
    """Refuses the folder of another run, whose checkpoints would count as newer or older ones.

    Args:
        out: where a run is to go on or to begin.
        settings: the file that a run of this kind begins with.

    Raises:
        ValueError: it is one.
    """
    if not (out / settings).exists() and checkpoint.checkpoints(out):
        raise ValueError(f"{out} holds another run; take another --out")


def demonstrations_of(run: Path) -> tuple[Path, Units | None]:
    """What a run was trained on, or improved or adapted with, and in which units that is.

    Raises:
        ValueError: it does not say.
    """
    found = next((run / name for name in NOTES if (run / name).exists()), run / NAME)
    try:
        told = json.loads(found.read_text())
        return Path(told["data"]), told.get("units")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{run} does not say what it was trained on; give --data FOLDER"
        ) from error


Columns = Mapping[str, tuple[str, str]]  # what a row may have, its name and form


def columns_of(rows: Sequence[Mapping[str, Any]], among: Columns) -> dict[str, tuple[str, str]]:
    """The columns that some row has."""
    return {
        key: column
        for key, column in among.items()
        if any(row.get(key) is not None for row in rows)
    }


def show(rows: Sequence[Row], among: Columns) -> None:
    """Prints the table of the rounds so far."""
    columns = columns_of(rows, among)
    table = Table(*[label for label, _ in columns.values()])
    for row in rows:
        known = {key: form for key, (_, form) in columns.items()}
        table.add_row(*[_cell(row.get(key), form) for key, form in known.items()])
    Console(stderr=True).print(table)


def _cell(value: Any, form: str) -> str:  # noqa: ANN401 (whatever a column holds)
    return "" if value is None else form.format(value)
