"""Work on a Ray cluster, in order; Ray runs again, elsewhere if need be, what dies with a node.

Every episode is a task of one CPU. A process of a node opens the job with its first task and keeps
it, as a worker of this machine does. A node has to have

- the same versions of what episodes depend on, which is checked;
- the folder in which the command runs, under the same path (a shared folder): policies,
  demonstrations and goal pictures are read from there.
"""

import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from robolearn.processes import DEATHS
from robolearn.results import versions

if TYPE_CHECKING:
    from robolearn.workers import Opens, Play, Runs

STORE: Final = 80 * 2**20  # bytes that a node of `nodes_here` has for objects; Ray takes no less
LOCAL: Final = "local"  # instead of an address: a cluster of this machine alone, for this process
# Variables that decide on what an episode looks like or where its parts are.
CARRIED: Final = ("MUJOCO_GL", "ROBOLEARN_FOREIGN", "ROBOLEARN_MODELS", "ROBOLEARN_TOKEN")
# Ray hides the GPU from tasks that ask for no part of it; ours share it, as processes here do.
SHARED_GPU: Final = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

# Of Ray's, for what is started here: it would tell its makers what it is used for, and its workers
# would give way to everything else on the machine.
SETTINGS: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


@contextmanager
def on_cluster(job: "Opens", address: str, workers: int) -> Iterator["Play"]:
    """All CPUs of a cluster; see `robolearn.workers.crew`.

    Args:
        job: what they open.
        address: of the cluster; "auto" finds the one of this machine, "local" starts one.
        workers: CPUs of a cluster that is started here.

    Raises:
        ValueError: Ray is not installed.
        OSError: no such cluster, or a node without what it takes.
        ChildProcessError: workers die again and again.
    """
    ray = connected(address, workers)
    work = _Work(uuid4().hex, [ray.put(job)], Path.cwd(), versions(), job.versions())
    variables = {name: os.environ[name] for name in CARRIED if name in os.environ}
    task = ray.remote(_run).options(
        num_cpus=1,
        max_retries=DEATHS,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": {**variables, **SHARED_GPU}},
    )
    ahead = 2 * max(1, int(ray.cluster_resources().get("CPU", 0)))
    yield lambda items: _in_order(lambda item: task.remote(work, item), items, ahead)


def connected(address: str, workers: int) -> Any:  # noqa: ANN401 (the module)
    """Ray, connected to one cluster for as long as this process lives: connecting takes seconds.

    Raises:
        ValueError: it is not installed.
        OSError: no such cluster.
    """
    ray = _imported()
    if not ray.is_initialized():
        own = {"num_cpus": max(1, workers), "include_dashboard": False} if address == LOCAL else {}
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            ray.init(address, **quiet, **own)
        except (OSError, RuntimeError, ValueError) as error:
            raise OSError(
                f"no Ray cluster answers at {address!r} ({str(error).strip().splitlines()[0]}); "
                f"start one with `ray start --head`, or take --ray {LOCAL}"
            ) from error
    return ray


def _imported() -> Any:  # noqa: ANN401
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ValueError("a cluster takes Ray: pip install 'robolearn[ray]'") from error
    return ray


@contextmanager
def nodes_here(count: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """A cluster of several nodes on this machine, of one CPU each, to measure and to test with.

    Yields:
        Its address, and a function that loses one node, as if its plug was pulled.

    Raises:
        ValueError: Ray is not installed.
    """
    ray = _imported()
    from ray.cluster_utils import Cluster

    handler = signal.getsignal(signal.SIGTERM)  # Ray puts its own there, and leaves it
    plain: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE}
    nodes = Cluster(initialize_head=True, head_node_args={**plain, "include_dashboard": False})
    try:
        others = [nodes.add_node(**plain) for _ in range(1, count)]
        nodes.wait_for_nodes()
        connected(nodes.address, count)
        yield nodes.address, lambda: nodes.remove_node(others.pop(), allow_graceful=False)
    finally:
        ray.shutdown()
        nodes.shutdown()
        signal.signal(signal.SIGTERM, handler)


def _in_order(begin: Callable[[Any], Any], items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Results in order. What is begun and no longer wanted ends by itself, at most `ahead` of it.

    It is not cancelled: Ray (2.60) ends the process that cancels, at times, where a task is done at
    that moment ("Tried to complete task that was not pending").
    """
    items = iter(items)
    pending = deque(map(begin, islice(items, ahead)))
    while pending:
        yield _result(pending.popleft())
        pending.extend(map(begin, islice(items, 1)))


def _result(reference: Any) -> Any:  # noqa: ANN401
    """What a task came to; its error as it was raised there."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause or error from error
    except RayError as error:
        raise ChildProcessError(
            f"{1 + DEATHS} workers died at the same task: there is too little memory for so many "
            f"workers, or the simulator crashes there ({str(error).strip().splitlines()[0]})"
        ) from error


@dataclass(frozen=True)
class _Work:
    """What a node has to know to run something."""

    name: str
    job: list[Any]  # the reference of it; in a list, Ray fetches it only where it is opened
    folder: Path  # where the command runs
    versions: dict[str, str]
    beside: dict[str, str]  # the versions of other packages

    def open(self) -> "Runs":
        """Opens the job.

        Raises:
            OSError: this node lacks what it takes.
            ValueError: it lacks a package of other tasks.
        """
        import ray
        import torch

        where = f"the node {ray.util.get_node_ip_address()}"
        _check(versions(), self.versions, where)
        if not self.folder.is_dir():
            raise OSError(
                f"{where} has no {self.folder}; run the command in a folder that all nodes share"
            )
        os.chdir(self.folder)
        torch.set_num_threads(1)
        job = ray.get(self.job[0])
        _check(job.versions(), self.beside, where)
        return job.open()


def _check(here: dict[str, str], wanted: dict[str, str], where: str) -> None:
    for name in sorted({*here, *wanted}):
        if here.get(name) != wanted.get(name):
            raise OSError(
                f"{where} has {name} {here.get(name)}, not {wanted.get(name)}; install the same "
                "versions on all nodes, or episodes would differ"
            )


_opened: "tuple[str, Runs] | None" = None  # what this process of a node has open


def _run(work: _Work, item: Any) -> Any:  # noqa: ANN401
    """What a node does."""
    global _opened
    if _opened is None or _opened[0] != work.name:
        _close()
        _opened = work.name, work.open()
    try:
        return _opened[1].run(item)
    except BaseException:
        _close()  # it was left in the middle of something
        raise


def _close() -> None:
    global _opened
    if _opened is not None:
        with closing(_opened[1]):
            _opened = None
