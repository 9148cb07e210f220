"""Out-of-fold scores of a recommender's rows, so that each request has them at hand.

A score is what half models say of a row that they never saw. It is of one prompt: where an item has
got another title since, the prompts that show it have no score.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..core.arrays import Floats
from ..data.prompts import PromptTemplate
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
    """The score of each row, by the row's hash: mean, spread, and the prompt that they are of."""

    FILE: ClassVar[str] = FILE
    COLUMN: ClassVar[str] = "scores"
    COUNT: ClassVar[int] = 3
    REMEDY: ClassVar[str] = "make the scores anew with: e2urec prepare"

    @classmethod
    def of(
        cls,
        split: Split,
        scores: Mapping[str, RowScores],
        template: PromptTemplate,
        key: RowKey,
    ) -> "ScoreIndex":
        """The scores of parts of `split`, by the name of the part; `template` wrote the prompts."""
        parts = [getattr(split, name) for name in scores]
        mean = np.concatenate([part.mean for part in scores.values()])
        spread = np.concatenate([part.spread for part in scores.values()])
        checksums = np.concatenate([_checksums(part, template) for part in parts])
        return cls.of_parts(parts, np.stack([mean, spread, checksums]), key)

    @property
    def scores(self) -> RowScores:
        """Of all rows, in the order of their hashes."""
        mean, spread, _ = self.figures
        return RowScores(mean, spread)

    def of_request(
        self, parts: ForgetRetain, template: PromptTemplate, models: int
    ) -> RequestScores:
        """The scores of a request's rows, whose prompts `template` writes.

        Each is the mean of so many half models' answers.
        """
        # D_f has its old prompts, which its scores are of. Any other row whose prompt is written
        # anew has no score until scores are made again.
        current = self.without(parts.forget.interactions, parts.changed)
        forget, stale_forget = self._fresh(parts.forget, template)
        # Those of D_r tell the noise alone, for which a few prompts of another title do not matter;
        # to write them all would take a small request longer than the rest.
        retain_mean, retain_spread, _ = current.figures_of(parts.retain)
        calibration, stale_calibration = current._fresh(parts.calibration, template)
        return RequestScores(
            forget=forget,
            retain=RowScores(retain_mean, retain_spread),
            calibration=calibration,
            models=models,
            stale=stale_forget + stale_calibration,
        )

    def scores_of(self, samples: Samples, template: PromptTemplate) -> RowScores:
        """The scores of the samples' own rows, in their order; NaN where this prompt has none."""
        scores, _ = self._fresh(samples, template)
        return scores

    def _fresh(self, samples: Samples, template: PromptTemplate) -> tuple[RowScores, int]:
        """The same, and how many rows have scores of another prompt, which are left out."""
        mean, spread, scored_checksums = self.figures_of(samples)
        # A row's hash does not have all that its prompt shows.
        is_other = scored_checksums != _checksums(samples, template)
        stale_count = int((is_other & np.isfinite(mean)).sum())
        mean[is_other] = np.nan
        spread[is_other] = np.nan
        return RowScores(mean, spread), stale_count


def _checksums(samples: Samples, template: PromptTemplate) -> Floats:
    """(n,) CRC-32 of the text of each prompt, cut to 24 bits: a float32 holds these exactly."""
    # Text and not tokens: a piece that is tokenised by itself may have others in one row of many.
    pieces = template.pieces_of(samples)
    checksums = [zlib.crc32("".join(prompt).encode()) & 0xFFFFFF for prompt in pieces]
    return np.array(checksums, dtype=np.float32)
