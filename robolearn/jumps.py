"""How far an arm is sent at once where a new chunk begins, beside steps inside of a chunk.

A policy that changes its mind between two chunks jumps at their border. Averaging chunks, or
telling a new one what is under way, shall lessen that.
"""

import numpy as np

from robolearn.episodes import Episode


def moves_of(episode: Episode) -> np.ndarray:
    """Share of its range by which the joint moves that moves most, from each action to the next.

    Returns:
        Float (T - 1,).
    """
    span = np.subtract(episode.arm.high, episode.arm.low)
    return np.abs(np.diff(episode.action, axis=0) / span).max(1)


def jumps(moves: list[np.ndarray], every: int, delay: int) -> dict[str, float]:
    """Median and 99th percentile of the moves at borders of chunks, and inside of chunks.

    Args:
        moves: of each episode, see `moves_of`.
        every: actions of a chunk until the next decision.
        delay: control steps that a decision takes.

    Returns:
        "border_p50", "border_p99", "inside_p50" and "inside_p99", shares of a joint's range; those
        without any such step are left out.
    """
    is_border = [_borders(len(some), every, delay) for some in moves]
    kinds = {"border": is_border, "inside": [~border for border in is_border]}
    found = {
        kind: np.concatenate([some[mask] for some, mask in zip(moves, masks, strict=True)])
        for kind, masks in kinds.items()
    }
    return {
        f"{kind}_p{q}": float(np.percentile(values, q))
        for kind, values in found.items()
        if values.size
        for q in (50, 99)
    }


def _borders(count: int, every: int, delay: int) -> np.ndarray:
    """Which moves, bool (count,), lead to the first action of a chunk.

    The second chunk is decided on at step `every`. While a decision is under way none begins, so
    slow ones follow each other as fast as they can.
    """
    steps = np.arange(1, count + 1) - (every + delay)
    return (steps >= 0) & (steps % max(every, delay + 1) == 0)
