"""What a training run shows and keeps: progress bar, JSONL, tensorboard; and how it is stopped."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from robolearn.files import write_atomic

if TYPE_CHECKING:
    from robolearn.options import TrainConfig

CONSOLE = Console(stderr=True)
LOG: Final = "log.jsonl"


def seconds_until(run: Path, step: int) -> float | None:
    """Wall-clock time that a run had trained for at a step; None if its log does not say.

    What is fitted before the first step, such as an autoencoder, does not count.
    """
    if not (run / LOG).exists():
        return None
    known: float | None = None
    for line in (run / LOG).read_text().splitlines():
        with suppress(ValueError, KeyError):  # a crash tears the last one, and old ones lack it
            row = json.loads(line)
            known = row["seconds"] if row["step"] <= step else known
    return known


class TrainingLog:
    """Shows a progress bar and writes the mean of every `log_every` steps.

    Lines of `log.jsonl` beyond the step that is resumed belong to steps that are run again, and a
    torn last line to a crash: both are dropped.
    """

    def __init__(self, config: "TrainConfig", step: int, processes: int = 1) -> None:
        self.config, self._first = config, step
        self._batch_size = config.batch_size * processes  # each draws its own
        self._path = config.out / LOG
        self._sums: dict[str, float] = {}
        self._count = 0
        self._seconds_before = 0.0  # what an interrupted run has trained already

    def __enter__(self) -> Self:
        """Opens the files and the bar."""
        from torch.utils.tensorboard import SummaryWriter  # slow

        self._drop_later_lines()
        self._file = self._path.open("a")
        board = str(self.config.out / "tensorboard")
        self._board = SummaryWriter(board, purge_step=self._first + 1)
        text = "{task.completed}/{task.total} loss {task.fields[loss]:.4f} "
        text += "{task.fields[rate]:.0f} samples/s"
        self._bar = Progress(BarColumn(), TextColumn(text), TimeRemainingColumn(), console=CONSOLE)
        self._task = self._bar.add_task("", total=self.config.steps, loss=float("nan"), rate=0.0)
        self._bar.start()
        self._last = time.perf_counter()
        self._begin = self._last - self._seconds_before
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes everything."""
        self._bar.stop()
        self._file.close()
        self._board.close()

    def add(self, step: int, info: dict[str, float]) -> None:
        """Takes the figures of one step."""
        for key, value in info.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        if step % self.config.log_every == 0 or step == self.config.steps:
            self._write(step)

    def _write(self, step: int) -> None:
        now = time.perf_counter()
        means = {k: v / self._count for k, v in self._sums.items()}
        rate = self._count * self._batch_size / (now - self._last)
        line = {"step": step, "samples": step * self._batch_size, "samples_per_s": rate}
        line |= {"seconds": now - self._begin, **means}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for key, value in means.items():
            self._board.add_scalar(key, value, step)
        self._bar.update(self._task, completed=step, loss=means["loss"], rate=rate)
        self._sums, self._count, self._last = {}, 0, now

    def _drop_later_lines(self) -> None:
        if not self._path.exists():
            return
        kept = [line for line in self._path.read_text().splitlines() if self._is_before(line)]
        write_atomic(self._path, "".join(line + "\n" for line in kept).encode())
        self._seconds_before = json.loads(kept[-1]).get("seconds", 0.0) if kept else 0.0

    def _is_before(self, line: str) -> bool:
        try:
            return json.loads(line)["step"] <= self._first
        except (ValueError, KeyError, TypeError):
            return False


class Interrupt:
    """Notes SIGTERM and Ctrl-C, so that a step is finished and saved before the run ends."""

    def __init__(self) -> None:
        self.seen = 0

    def __enter__(self) -> Self:
        """Starts to listen; a second Ctrl-C stops at once."""
        self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.seen:
            raise KeyboardInterrupt
        self.seen = number

    def leave(self, message: str) -> None:
        """Ends the program as one that was interrupted.

        Raises:
            SystemExit: always, with the shell's code for the signal.
        """
        CONSOLE.print(message, soft_wrap=True, markup=False)  # so that a command can be copied
        raise SystemExit(128 + self.seen)
