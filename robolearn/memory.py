"""Whether a decision among many candidates fits into memory: tried before the first episode.

Linux promises more memory than there is, and ends the process that uses it. So the trial has a
limit: beyond what is left now, memory is refused at once, and that can be told.
"""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from typing import Final

import psutil
import torch

SHARE: Final = 0.5  # of what is left: another worker may want as much
PATIENCE: Final = 1.0  # s; slower decisions are not tried in search of a number that fits


def check_candidates(decide: Callable[[int], object], candidates: int) -> None:
    """Refuses more candidates than memory allows.

    Args:
        decide: decides among so many candidates.
        candidates: how many are wanted.

    Raises:
        ValueError: they do not fit; the error says how many do.
    """
    if _fits(decide, candidates):
        return
    most = 0
    for trial in takewhile(candidates.__gt__, (2**k for k in count())):
        begin = time.perf_counter()
        if not _fits(decide, trial):
            break
        most = trial
        if time.perf_counter() - begin > PATIENCE:
            break
    fit = f"{most} fit" if most else "not even one fits"
    raise ValueError(
        f"candidates is {candidates}, and a decision among so many needs more memory than is left "
        f"here; {fit}"
    )


def _fits(decide: Callable[[int], object], candidates: int) -> bool:
    try:
        with _limited():
            decide(candidates)
    except (MemoryError, torch.OutOfMemoryError):  # numpy's; a GPU's
        return False
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # as torch says on a CPU
            raise
        return False
    return True


@contextmanager
def _limited() -> Iterator[None]:
    """Within it, memory that is not there is refused."""
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = psutil.Process().memory_info().data + int(SHARE * available())
    limits = [limit for limit in (before, hard, most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def available() -> int:
    """Bytes of memory that are left on this machine."""
    return psutil.virtual_memory().available
