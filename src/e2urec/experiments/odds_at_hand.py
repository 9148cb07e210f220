"""What an original answered before: which rows of a request need not be asked about again."""

from collections.abc import Mapping

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.seeding import derive
from ..data.requests import ForgetRetain
from ..data.row_hashes import hashes
from ..data.samples import Samples
from ..models.batches import Examples
from ..runs.answer_index import AnswerIndex

# An AUC of so many rows of D_r, which has all users, is no less sure than that of the unseen users.
RETAIN_SAMPLE_ROWS = 1000
"""Rows of D_r, at most, that models are asked about."""
ANSWERED_ROWS = 1250
"""Rows of D, and of the calibration users, that a run keeps answers to.

A request for a fifth of the users leaves `RETAIN_SAMPLE_ROWS` of them in D_r.
"""
PARTS = ("retain", "calibration", "unseen", "test")
"""The parts of a request that its original may have answered before."""
HASH_BYTES = 8


def odds_at_hand(
    index: AnswerIndex | None, parts: ForgetRetain, prompts: Mapping[str, Examples]
) -> dict[str, Floats]:
    """Log-odds of the original on the rows of `PARTS`, NaN where its run keeps none.

    Of a prompt that is written anew there is none.

    Args:
        index: of the original's answers; None: no row has one.
        parts: the rows of the request.
        prompts: of these, by name of the part.
    """
    if index is None:
        return {}
    current = index.without(parts.forget.interactions, parts.changed)
    return {name: current.log_odds_of(getattr(parts, name), prompts[name]) for name in PARTS}


def retain_sample(retain: Samples, *, seed: int) -> Ints:
    """Positions of the rows of D_r that models are asked about, sorted.

    Whether answers are at hand has no say in it: rows with a prompt that is written anew have none,
    and figures on the others alone would be too good.
    """
    return _sample(retain, RETAIN_SAMPLE_ROWS, seed)


def answered_sample(samples: Samples, *, seed: int) -> Samples:
    """Rows of a part that its run keeps answers to; of D the first that `retain_sample` takes."""
    return samples.take(_sample(samples, ANSWERED_ROWS, seed))


def _sample(samples: Samples, count: int, seed: int) -> Ints:
    """Positions of `count` rows, sorted: those with the smallest hashes under `seed`.

    A row's hash says nothing of its content, so this is a random sample. When rows go, the others
    keep their order: the sample of D_r is, but for the rows that went, among that of D.
    """
    key = derive(seed, "row sample").to_bytes(8, "big")
    digests = hashes(samples.interactions, samples.rows, key, HASH_BYTES)
    order = np.argsort(np.frombuffer(b"".join(digests), dtype=">u8"), kind="stable")
    positions: Ints = np.sort(order[:count])
    return positions
