"""Episodes from several workers, in the order of their seeds.

Every episode depends on its seed alone, so what comes out does not depend on how many workers there
are, nor where. A worker that dies is never counted as a failed episode: what it had begun is played
again by another one.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import gymnasium

from robolearn.cluster import on_cluster
from robolearn.episodes import Episode
from robolearn.processes import in_processes
from robolearn.registry import env_versions, make_env
from robolearn.rollout import Actor, rollout

Opener = Callable[[gymnasium.vector.VectorEnv], Actor]
Play = Callable[[Iterable[Any]], Iterator[Any]]


def whole(episode: Episode) -> Episode:
    """Reduces nothing."""
    return episode


@dataclass(frozen=True)
class Job:
    """What a worker runs; it must be picklable, since workers are processes started afresh.

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

    def versions(self) -> dict[str, str]:
        """See `Opens`."""
        return env_versions(self.env_id)


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

    def versions(self) -> dict[str, str]:
        """Those of packages beside robolearn's own that it depends on, where this is asked.

        Raises:
            ValueError: one is not installed.
        """


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


def run_seeds(job: Job, seeds: Iterable[int], workers: int = 0, ray: str = "") -> Generator[Any]:
    """Yields the reduced episode of every seed, in order.

    Args:
        job: what to run.
        seeds: may be endless; only a few are taken ahead of what is consumed.
        workers: processes; see `crew`.
        ray: the address of a cluster; see `crew`.
    """
    with crew(job, workers, ray) as play:
        yield from play(seeds)


def crew(job: "Opens", workers: int = 0, ray: str = "") -> AbstractContextManager[Play]:
    """Workers that stay until the end of the block, for work of which more comes later.

    Args:
        job: what they open, and then run on whatever they get, a seed or more.
        workers: processes; 0 runs in this one.
        ray: a Ray cluster instead, see `robolearn.cluster`; "": none.

    Yields:
        A function from what is to be run to what comes out, in order.

    Raises:
        ChildProcessError: workers die again and again.
        OSError, ValueError: no such cluster.
    """
    if ray:
        return on_cluster(job, ray, workers)
    return in_processes(job, workers) if workers else _here(job)


@contextmanager
def _here(job: "Opens") -> Iterator[Play]:
    with one_thread(), closing(job.open()) as worker:
        yield partial(map, worker.run)


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
