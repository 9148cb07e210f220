"""Plots are drawn of what there is."""

import numpy as np
import pytest

from e2urec.evaluation.roles import ORIGINAL
from e2urec.report import plots


@pytest.mark.parametrize("draw", [plots.score_spread, plots.score_distributions])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("error")
def test_forgotten_rows_of_one_class_are_drawn_without_the_other(draw, label):
    log_odds = {ORIGINAL: np.linspace(-1, 1, 6)}
    both = draw(log_odds, np.array([0, 1, 0, 1, 0, 1]))
    drawing = draw(log_odds, np.full(6, label))
    assert drawing.startswith("<svg")
    assert "nan" not in drawing.lower()
    assert drawing != both
