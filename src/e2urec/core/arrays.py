"""The shared array types."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Head = tuple[Floats, Floats | None]
"""A model's output head as arrays: weight (V, d) and bias (V,) or None."""
