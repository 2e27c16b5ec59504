"""Statistics of episodes, as LeRobotDataset v3.0 stores them per episode and in total.

Only what a policy may read or predict gets statistics: those of seeds, indices and clocks mean
nothing, and would make the per-episode files four times larger.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Statistics = dict[str, dict[str, np.ndarray]]  # column -> "min", "max", ... -> values
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
COLUMNS = (
    "observation.state",
    "observation.velocity",
    "observation.effort",
    "action",
    "next.reward",
)


def episode_statistics(
    columns: Mapping[str, np.ndarray], pixels: Mapping[str, np.ndarray]
) -> Statistics:
    """Statistics of one episode.

    Args:
        columns: name -> (T,) or (T, J).
        pixels: name -> uint8 (T, H, W, 3).
    """
    return {
        **{key: column_statistics(columns[key]) for key in COLUMNS},
        **{key: image_statistics(frames) for key, frames in pixels.items()},
    }


def column_statistics(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of one column, (T,) or (T, J); every entry has shape (1,) or (J,)."""
    values = values.reshape(len(values), -1).astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def image_statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of pixels uint8 (T, H, W, 3), scaled to 0..1; every entry has shape (3, 1, 1).

    About a hundred frames at up to 150 pixels a side are read, as lerobot does. 256 counts per
    channel are enough to compute everything exactly.
    """
    step = max(1, min(frames.shape[1:3]) // 150)
    sample = frames[:: max(1, len(frames) // 100), ::step, ::step]
    level = np.arange(256) / 255
    channels = []
    for channel in range(3):
        share = np.bincount(sample[..., channel].ravel(), minlength=256) / sample[..., 0].size
        mean = share @ level
        seen = level[share > 0]
        ranks = np.searchsorted(np.cumsum(share), np.array(list(QUANTILES.values())) - 1e-12)
        spread = np.sqrt(share @ (level - mean) ** 2)
        channels.append([seen[0], seen[-1], mean, spread, *level[ranks]])
    names = ("min", "max", "mean", "std", *QUANTILES)
    values = np.array(channels).T[..., None, None]  # (statistic, 3, 1, 1)
    return {**dict(zip(names, values, strict=True)), "count": np.array([len(sample)])}


def merge_statistics(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of several episodes together; quantiles are averaged, as lerobot does."""

    def merge(key: str) -> dict[str, np.ndarray]:
        stacked = {name: np.stack([part[key][name] for part in parts]) for name in parts[0][key]}
        count = stacked.pop("count")  # (parts, 1)
        weight = count / count.sum()
        weight = weight.reshape(-1, *(1,) * (stacked["mean"].ndim - 1))
        result = {name: (weight * values).sum(axis=0) for name, values in stacked.items()}
        spread = stacked["std"] ** 2 + (stacked["mean"] - result["mean"]) ** 2
        result["std"] = np.sqrt((weight * spread).sum(axis=0))
        result["min"], result["max"] = stacked["min"].min(axis=0), stacked["max"].max(axis=0)
        return {**result, "count": count.sum(axis=0)}

    return {key: merge(key) for key in parts[0]}


def as_arrays(statistics: dict[str, Any]) -> Statistics:
    """The content of stats.json."""
    return {key: {n: np.array(v) for n, v in entry.items()} for key, entry in statistics.items()}
