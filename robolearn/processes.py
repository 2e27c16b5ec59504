"""Work in processes of this machine, in order; one that dies is replaced, and its work done again.

What is run depends on nothing but what it gets, so doing it again gives the same.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from robolearn.workers import Opens, Play, Runs

DEATHS: Final = 3  # of workers, one after the other while nothing gets done, are too many


@contextmanager
def in_processes(job: "Opens", workers: int) -> Iterator["Play"]:
    """So many processes of this machine; see `robolearn.workers.crew`.

    Raises:
        ChildProcessError: workers die again and again.
    """
    processes = Processes(job, workers)
    try:
        yield processes.play
    finally:
        processes.close()


class _Task:
    """What one worker runs, and the pool that it is in."""

    def __init__(self, item: Any) -> None:  # noqa: ANN401 (whatever the job takes)
        self.item = item
        self.pool: ProcessPoolExecutor
        self.future: Future

    def begin(self, pool: ProcessPoolExecutor) -> None:
        self.pool, self.future = pool, pool.submit(_run, self.item)

    def is_lost(self) -> bool:
        return self.future.done() and isinstance(self.future.exception(), BrokenProcessPool)


class Processes:
    """A pool of workers that is opened anew when one of them dies: it takes all others along."""

    def __init__(self, job: "Opens", workers: int) -> None:
        self._job, self._workers = job, workers
        self._pool = self._open()

    def _open(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, context, _start, (self._job,))

    def close(self) -> None:
        """Ends the workers."""
        self._pool.shutdown()

    def play(self, items: Iterable[Any]) -> Iterator[Any]:
        """What comes out, in order; see `robolearn.workers.crew`."""
        items = iter(items)
        pending = deque(map(self._begun, islice(items, 2 * self._workers)))
        try:
            while pending:
                yield self._result(pending)
                pending.popleft()
                pending.extend(map(self._begun, islice(items, 1)))
        finally:
            for task in pending:
                task.future.cancel()

    def _begun(self, item: Any) -> _Task:  # noqa: ANN401
        task = _Task(item)
        try:
            task.begin(self._pool)
        except BrokenProcessPool:  # nobody has waited for what broke it yet
            self._pool = self._open()
            task.begin(self._pool)
        return task

    def _result(self, pending: deque[_Task]) -> Any:  # noqa: ANN401
        """Of the first; whatever was lost with a worker is begun again."""
        first = pending[0]
        for _ in range(DEATHS):
            try:
                return first.future.result()
            except BrokenProcessPool:
                if first.pool is self._pool:
                    self._pool = self._open()
                for task in filter(_Task.is_lost, pending):
                    task.begin(self._pool)
        raise ChildProcessError(
            f"{DEATHS} workers died one after the other, the last one at {first.item} or soon "
            "after: there is too little memory for so many workers, or the simulator crashes there"
        )


_job: "Opens | None" = None


def _start(job: "Opens") -> None:
    """Makes a fresh process a worker."""
    import torch

    global _job
    _job = job
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _worker() -> "Runs":
    """Opened by the first task, because an error there reaches the caller as it is."""
    assert _job is not None  # the pool ran _start first
    return _job.open()


def _run(item: Any) -> Any:  # noqa: ANN401
    return _worker().run(item)
