"""One seed per episode; every random stream of the episode derives from it.

A stream is named, so that policy noise does not move when the environment draws one number more,
and a result does not depend on batch size, worker count or order.
"""

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The random generator called `name` of the episode (or training step) with this seed."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
