"""Named random streams.

Everything random depends on a seed and a name alone, never on what ran before it.
"""

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """The seed, of 63 bits, of the stream called `names` under `seed`.

    Streams of different names are independent.
    """
    parts = [str(part) for part in (seed, *names)]
    text = "/".join(parts)
    digest = hashlib.sha256(text.encode()).digest()
    # Torch takes seeds as signed 64-bit numbers, so the highest bit stays free.
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator of the stream called `names` under `seed`."""
    return np.random.default_rng(derive(seed, *names))
