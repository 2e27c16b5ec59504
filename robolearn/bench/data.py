"""`robolearn bench --parts data`: random training batches, ours and LeRobot's.

Ours come from the frame cache, LeRobot's from its stock LeRobotDataset, which decodes video, with
a DataLoader. Both give the observation with all cameras and the next `HORIZON` actions, as tensors.
Decoding into the cache happens once for a dataset; its seconds are reported beside the rates.
"""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from robolearn.bench.speed import BenchConfig, demonstrations
from robolearn.dataset import EpisodeDataset
from robolearn.policies.base import Batch, as_tensors
from robolearn.seeding import stream

HORIZON: Final = 16  # actions of a sample


def measure(config: BenchConfig) -> dict[str, Any]:
    """The figures of this part."""
    data = demonstrations(config)
    with TemporaryDirectory(dir=config.out) as cache:
        begin = time.perf_counter()
        batches = cached_batches(data, Path(cache), config)
        next(batches)
        decoding = time.perf_counter() - begin
        ours = samples_per_s(batches, config)
    lerobot = {
        f"{workers} workers": samples_per_s(stock_batches(data, config, workers), config)
        for workers in sorted({0, config.loader_workers})
    }
    return {
        "sampling_speedup_over_lerobot": ours / max(lerobot.values()),
        "sampling_samples_per_s": {"ours": ours, "lerobot": lerobot},
        "sampling_decode_once_s": decoding,
        "sampling_batch_size": config.batch_size,
    }


def samples_per_s(batches: Iterator[Batch], config: BenchConfig) -> float:
    """The rate after a first batch, which starts processes and opens files."""
    next(batches)
    begin = time.perf_counter()
    count = sum(len(batch["action"]) for batch in islice(batches, config.batches))
    return count / (time.perf_counter() - begin)


def cached_batches(data: Path, cache: Path, config: BenchConfig) -> Iterator[Batch]:
    """Batches as `robolearn train` draws them, without end."""
    dataset = EpisodeDataset(data, cache=cache)
    windows = dataset.windows(HORIZON, cameras=tuple(dataset.cameras))
    rng = stream(config.seed, "bench")
    while True:
        yield as_tensors(windows.get(rng.integers(len(windows), size=config.batch_size)), "cpu")


def stock_batches(data: Path, config: BenchConfig, workers: int) -> Iterator[Batch]:
    """Batches of LeRobot's dataset at random frames, without end."""
    from lerobot.datasets import LeRobotDataset  # noqa: PLC0415 (slow to import)
    from torch.utils.data import DataLoader  # noqa: PLC0415

    fps = EpisodeDataset(data).fps
    chunk = {"action": [k / fps for k in range(HORIZON)]}
    dataset = LeRobotDataset("robolearn/bench", root=data, delta_timestamps=chunk)
    order = stream(config.seed, "bench").integers(
        len(dataset), size=config.batch_size * (config.batches + 2 * workers + 1)
    )
    loader = DataLoader(
        dataset,
        batch_size=config.batch_size,
        sampler=np.asarray(order).tolist(),
        num_workers=workers,
        # As lerobot-train does: forked copies of its video decoders are not safe.
        multiprocessing_context="spawn" if workers else None,
    )
    while True:
        yield from loader
