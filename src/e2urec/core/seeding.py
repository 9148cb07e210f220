"""Named random streams: everything random is a function of (seed, names), never of what ran before it."""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream called `names` under `seed`; independent streams for other names."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of the stream called `names` under `seed`."""
    return np.random.default_rng(derive(seed, *names))
