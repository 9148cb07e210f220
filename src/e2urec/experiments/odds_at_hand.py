"""What an original answered before: which rows of a request need not be asked about again."""

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.seeding import stream
from ..data.requests import ForgetRetain
from ..data.samples import Samples
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


def odds_at_hand(index: AnswerIndex | None, parts: ForgetRetain) -> dict[str, Floats]:
    """Log-odds of the original on the rows of `PARTS`, NaN where its run keeps none.

    Of a prompt that is written anew there is none.

    Args:
        index: of the original's answers; None: no row has one.
        parts: the rows of the request.
    """
    if index is None:
        return {}
    current = index.without(parts.forget.interactions, parts.changed)
    return {name: current.log_odds_of(getattr(parts, name)) for name in PARTS}


def retain_sample(parts: ForgetRetain, odds: dict[str, Floats], *, seed: int) -> Ints:
    """Positions of the rows of D_r that models are asked about, sorted."""
    order = stream(seed, "retain sample").permutation(len(parts.retain))
    if "retain" in odds:
        # Those that were answered before come first. They were drawn at random as well.
        is_answered = np.isfinite(odds["retain"][order])
        order = np.concatenate([order[is_answered], order[~is_answered]])
    return np.sort(order[:RETAIN_SAMPLE_ROWS])


def answered_sample(samples: Samples, part: str, *, seed: int) -> Samples:
    """Rows of a part that its run keeps answers to."""
    order = stream(seed, "answered", part).permutation(len(samples))
    return samples.take(np.sort(order[:ANSWERED_ROWS]))
