"""Out-of-fold scores of a recommender's rows, so that each request has them at hand.

A score is what half models say of a row that they never saw.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..data.requests import ForgetRetain
from ..data.samples import Samples
from ..data.splits import Split
from ..training.out_of_fold import RowScores
from ..unlearning.task import RequestScores
from .row_digests import RowKey
from .row_figures import RowFigures

FILE = "scores.npz"


@dataclass(frozen=True)
class ScoreIndex(RowFigures):
    """The score of each row, by the row's hash: mean and spread."""

    FILE: ClassVar[str] = FILE
    COLUMN: ClassVar[str] = "scores"
    COUNT: ClassVar[int] = 2
    REMEDY: ClassVar[str] = "make the scores anew with: e2urec prepare"

    @classmethod
    def of(cls, split: Split, scores: Mapping[str, RowScores], key: RowKey) -> "ScoreIndex":
        """The scores of parts of `split`, by the name of the part."""
        parts = [getattr(split, name) for name in scores]
        mean = np.concatenate([part.mean for part in scores.values()])
        spread = np.concatenate([part.spread for part in scores.values()])
        return cls.of_parts(parts, np.stack([mean, spread]), key)

    @property
    def scores(self) -> RowScores:
        """Of all rows, in the order of their hashes."""
        mean, spread = self.figures
        return RowScores(mean, spread)

    def of_request(self, parts: ForgetRetain, models: int) -> RequestScores:
        """The scores of a request's rows, each the mean of so many half models' answers."""
        # D_f has its old prompts, which its scores are of. Any other row whose prompt is written
        # anew has no score until scores are made again.
        current = self.without(parts.forget.interactions, parts.changed)
        return RequestScores(
            forget=self.scores_of(parts.forget),
            retain=current.scores_of(parts.retain),
            calibration=current.scores_of(parts.calibration),
            models=models,
        )

    def scores_of(self, samples: Samples) -> RowScores:
        """The scores of the samples' own rows, in their order; NaN for rows that have none."""
        mean, spread = self.figures_of(samples)
        return RowScores(mean, spread)
