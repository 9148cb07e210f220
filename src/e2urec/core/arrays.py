"""The shared array types. No other file defines its own."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Scores, log-odds, probabilities, losses: of any precision."""
Ints = npt.NDArray[np.integer[Any]]
"""Codes, row numbers, counts, labels of 0 and 1: of any width."""
Mask = npt.NDArray[np.bool_]
"""True for the rows that are meant."""
Head = tuple[Floats, Floats | None]
"""A model's output head as arrays: weight (V, d) and bias (V,) or None."""
