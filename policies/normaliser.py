"""Statistics of numbers, by which policies see them with mean 0 and deviation 1."""

import numpy as np
import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """Shifts and scales a quantity to zero mean and unit variance; its numbers are weights.

    Until the statistics are given they are NaN, and a checkpoint with a NaN is refused: a policy
    never runs with a quantity that was silently left as it is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full(shape, torch.nan))
        self.register_buffer("std", torch.full(shape, torch.nan))

    def fit(self, values: np.ndarray, alike: np.ndarray | None = None) -> None:
        """Takes the statistics of (N, *shape) values without the NaNs among them.

        A value that never moves is only shifted.

        Args:
            values: (N, *shape).
            alike: bool (J,), of the J columns of chunks, those that have one scale for all steps of
                a chunk: the largest.
        """
        columns = values.reshape(len(values), -1).T
        found = np.array([_moments(column) for column in columns]).T
        mean, std = found.reshape(2, *values.shape[1:])
        if alike is not None:
            std[:, alike] = std[:, alike].max(0)
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(np.where(std < 1e-4, 1.0, std)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalises (..., *shape)."""
        return (x - self.mean) / self.std

    def inverse(self, x: Tensor) -> Tensor:
        """Back to physical units."""
        return x * self.std + self.mean


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of numbers (N,), without the NaNs among them.

    In double precision: summed in single, a long column of equal numbers seems to vary.
    """
    known = values[~np.isnan(values)].astype(np.float64)
    return float(known.mean()), float(known.std())
