"""The shared array types. No other file defines its own."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Scores, log-odds, probabilities, losses: of any precision."""
Ints = npt.NDArray[np.integer[Any]]
"""Codes, row numbers, counts, labels of 0 and 1: of any width."""
Mask = npt.NDArray[np.bool_]
"""True for the rows that are meant."""
Weights = Floats | Ints
"""Float32 or float16, or the bits of bf16 as uint16, since NumPy has no such type."""


class Head(NamedTuple):
    """A model's output head as arrays.

    Attributes:
        weight: (V, d), in the precision in which the model holds it.
        bias: (V,), or None.
        cap: c, if logits z become c·tanh(z / c).
        sets: of tokens that count as one token, the first of the set.
    """

    weight: Weights
    bias: Floats | None
    cap: float | None = None
    sets: tuple[tuple[int, ...], ...] = ()
