"""Figures as tables show them."""

import math

import pytest

from e2urec.metrics.bootstrap import Interval
from e2urec.report.tables import with_limits


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Interval(0.5, 0.25, 1.0, 9), "0.50 [0.25, 1.00]"),
        (Interval(0.5, -math.inf, math.inf, 9), "0.50 not bounded"),
        (Interval(math.nan, -math.inf, math.inf, 9), "– not bounded"),
        # Of another paper, which says no interval.
        (Interval(0.5, math.nan, math.nan, 9), "0.50"),
    ],
)
def test_interval_that_holds_every_value_is_told_in_words(figure, text):
    assert with_limits(figure, 2) == text
