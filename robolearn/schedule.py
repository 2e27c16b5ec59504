"""How a learning rate changes in the course of a training."""

import math


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the peak: a linear warm-up, times a cosine that falls from one to zero.

    Args:
        step: from 0.
        steps: of the whole training.
        warmup: steps of the warm-up.
    """
    warm = min(1.0, (step + 1) / max(1, warmup))
    return warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))
