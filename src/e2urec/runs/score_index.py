"""Out-of-fold scores of a recommender's rows, so that each request has them at hand.

A score is what half models say of a row that they never saw. It is found by the row's keyed hash,
as the row's part is. An erased row takes its score along, and those of the prompts that showed it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Mask
from ..core.errors import RunError
from ..core.reading import UNREADABLE
from ..core.sealing import seal, unseal
from ..data.interactions import Interactions
from ..data.requests import ForgetRetain
from ..data.samples import Samples
from ..data.splits import Split
from ..training.out_of_fold import RowScores
from ..unlearning.task import RequestScores
from .row_digests import Digests, RowKey, find, rehash, row_digests

FILE = "scores.npz"


@dataclass(frozen=True)
class ScoreIndex:
    """The score of each row, by the row's hash.

    Attributes:
        key: of the hashes, that of the run's split index.
        digests: (n,) hashes of the rows, sorted.
        scores: of these rows, in this order.
    """

    key: RowKey
    digests: Digests
    scores: RowScores

    @classmethod
    def of(cls, split: Split, scores: Mapping[str, RowScores], key: RowKey) -> "ScoreIndex":
        """The scores of parts of `split`, by the name of the part."""
        parts = [getattr(split, name) for name in scores]
        rows = np.concatenate([part.rows for part in parts])
        digests = row_digests(split.train.interactions, key, rows)
        mean = np.concatenate([part.mean for part in scores.values()])
        spread = np.concatenate([part.spread for part in scores.values()])
        order = np.argsort(digests, kind="stable")
        return cls(key, digests[order], RowScores(mean, spread).take(order))

    def __len__(self) -> int:
        return len(self.digests)

    def of_request(self, parts: ForgetRetain) -> RequestScores:
        """The scores of a request's rows."""
        # D_f has its old prompts, which its scores are of. A calibration row whose prompt is
        # written anew has no score until scores are made again.
        current = self.without(parts.forget.interactions, parts.changed)
        return RequestScores(
            forget=self.scores_of(parts.forget),
            calibration=current.scores_of(parts.calibration),
        )

    def scores_of(self, samples: Samples) -> RowScores:
        """The scores of the samples' own rows, in their order; NaN for rows that have none."""
        digests = row_digests(samples.interactions, self.key, samples.rows)
        is_scored, position = find(digests, self.digests)
        mean = np.full(len(samples), np.nan, dtype=np.float32)
        spread = np.full(len(samples), np.nan, dtype=np.float32)
        scores = self.scores.take(position[is_scored])
        mean[is_scored] = scores.mean
        spread[is_scored] = scores.spread
        return RowScores(mean, spread)

    def without(self, data: Interactions, changed: Mask) -> "ScoreIndex":
        """The scores without those of the rows of `data` that `changed` (n,) marks.

        A request changes more rows than it erases; see `Split.changed_rows`.
        """
        digests = row_digests(data, self.key, np.flatnonzero(changed))
        stays = np.flatnonzero(~np.isin(self.digests, digests))
        return ScoreIndex(self.key, self.digests[stays], self.scores.take(stays))

    def under(self, key: RowKey, data: Interactions) -> "ScoreIndex":
        """The same scores, of rows of `data`, under another key."""
        digests, position = rehash(self.digests, data, self.key, key)
        return ScoreIndex(key, digests, self.scores.take(position))

    def save(self, folder: Path) -> None:
        """Write the scores."""
        columns: dict[str, Any] = dict(self.key.columns())
        # Scores stay the same from run to run: in plain they would show which hashes went.
        scores = np.stack([self.scores.mean, self.scores.spread]).astype(np.float32)
        sealed = np.frombuffer(seal(scores.tobytes(), self.key.secret), np.uint8)
        np.savez(folder / FILE, **columns, digests=self.digests, scores=sealed)

    @classmethod
    def load(cls, folder: Path, controller_key: bytes) -> "ScoreIndex | None":
        """The scores of run `folder`; None where it was made without.

        Raises:
            RunError: the file is damaged, or was made under another key.
        """
        file = folder / FILE
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as archive:
                columns = dict(archive)
            key = RowKey.of_file(columns, controller_key, file)
            digests = columns["digests"]
            content = unseal(columns["scores"].tobytes(), key.secret)
            # Scores of other rows would teach the wrong thing, and nobody would notice.
            mean, spread = np.frombuffer(content, np.float32).reshape(2, len(digests))
        except UNREADABLE as error:
            raise _damaged(file) from error
        return cls(key, digests, RowScores(mean, spread))


def _damaged(file: Path) -> RunError:
    return RunError(
        f"'{file}': is damaged; restore it, or make the scores anew with: e2urec prepare"
    )
