"""Episodes from several processes, in the order of their seeds.

Every episode depends on its seed alone, so what comes out does not depend on how many workers
there are. A worker that dies is an error: it is never counted as a failed episode.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from typing import Any, Protocol

import gymnasium

from robolearn.episodes import Episode
from robolearn.registry import make_env
from robolearn.rollout import Actor, rollout

Opener = Callable[[gymnasium.vector.VectorEnv], Actor]


def whole(episode: Episode) -> Episode:
    """Reduces nothing."""
    return episode


@dataclass(frozen=True)
class Job:
    """What a worker runs; it must be picklable, since workers are started afresh (spawn).

    Attributes:
        env_id: the environment.
        actor: opens the actor for a vector environment.
        env_options: keyword arguments of the environment.
        reset_options: gives the reset options of a seed.
        wrap: puts something around the environment; it must be a module's function.
        reduce: what to send back of an episode; pixels are large.
    """

    env_id: str
    actor: Opener
    env_options: dict[str, Any] = field(default_factory=dict)
    reset_options: Callable[[int], dict[str, Any]] | None = None
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None = None
    reduce: Callable[[Episode], Any] = whole

    def open(self) -> "Worker":
        """Makes the environment and the actor."""
        return Worker(self)


class Runs(Protocol):
    """What is open in a worker."""

    def run(self, item: Any) -> Any:  # noqa: ANN401
        """Runs what it gets."""

    def close(self) -> None:
        """Lets go of everything."""


class Opens(Protocol):
    """What a worker opens: a `Job`, or something else that can be pickled."""

    def open(self) -> Runs:
        """Makes what runs."""


class Worker:
    """One environment and its actor, kept between episodes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.env = make_vector(job.env_id, 1, job.wrap, **job.env_options)
        self.actor = job.actor(self.env)

    def run(self, item: int) -> Any:  # noqa: ANN401 (whatever the job reduces to)
        """Runs one seed."""
        options = self.job.reset_options
        (episode,) = rollout(self.env, self.actor, [item], options=options)
        return self.job.reduce(episode)

    def close(self) -> None:
        """Lets go of the environment."""
        self.env.close()


def make_vector(
    env_id: str,
    count: int,
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None = None,
    **options: Any,  # noqa: ANN401
) -> gymnasium.vector.SyncVectorEnv:
    """`count` environments side by side, each perhaps wrapped, as `rollout` wants them.

    Raises:
        ValueError: no such environment.
    """
    return gymnasium.vector.SyncVectorEnv(
        [partial(_make, wrap, env_id, **options)] * count,
        copy=False,
        autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED,
    )


def _make(
    wrap: Callable[[gymnasium.Env], gymnasium.Env] | None,
    env_id: str,
    **options: Any,  # noqa: ANN401
) -> gymnasium.Env:
    env = make_env(env_id, **options)
    return wrap(env) if wrap else env


def run_seeds(job: Job, seeds: Iterable[int], workers: int) -> Generator[Any]:
    """Yields the reduced episode of every seed, in order.

    Args:
        job: what to run.
        seeds: may be endless; only a few are taken ahead of what is consumed.
        workers: processes; 0 runs in this one.
    """
    with crew(job, workers) as play:
        yield from play(seeds)


@contextmanager
def crew(job: "Opens", workers: int) -> Iterator[Callable[[Iterable[Any]], Iterator[Any]]]:
    """Workers that stay until the end of the block, for work of which more comes later.

    Args:
        job: what they open, and then run on whatever they get, a seed or more.
        workers: processes; 0 runs in this one.

    Yields:
        A function from what is to be run to what comes out, in order.
    """
    if workers == 0:
        with one_thread(), closing(job.open()) as worker:
            yield partial(map, worker.run)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (job,)) as pool:
        yield lambda items: _in_order(pool, iter(items), 2 * workers)


def _in_order(pool: ProcessPoolExecutor, items: Iterator[Any], ahead: int) -> Iterator[Any]:
    pending: list[Future] = [pool.submit(_run, item) for item in islice(items, ahead)]
    try:
        while pending:
            yield pending.pop(0).result()
            pending.extend(pool.submit(_run, item) for item in islice(items, 1))
    finally:
        for future in pending:
            future.cancel()


_job: Opens | None = None


def _start(job: Opens) -> None:
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
def _worker() -> Runs:
    """Opened by the first task, because an error there reaches the caller as it is."""
    assert _job is not None  # the pool ran _start first
    return _job.open()


def _run(item: Any) -> Any:  # noqa: ANN401
    return _worker().run(item)


@contextmanager
def one_thread() -> Iterator[None]:
    """More threads would change the last bits of the policy's results."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
