"""The answers in the working folder of `requests.py`, and the figures of rows that they give."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from e2urec.core.arrays import Floats, Ints, Mask
from e2urec.core.seeding import derive
from e2urec.data.difficulty import COEFFICIENT
from e2urec.evaluation.pooled import ForgottenRows, mean_figure
from e2urec.metrics.bootstrap import Bootstrap, Figure, user_bootstrap
from pooled_files import (
    DATA,
    ORIGINAL_ANSWERS,
    RECORD,
    ROWS,
    read_arrays,
    read_record,
    retrained_key,
)
from pooled_plan import Fold, PooledRequest, fold_key


@dataclass
class PooledAnswers:
    """The answers in the folder of a seed.

    Attributes:
        folder: of the seed.
        seed: of the models and of the bootstrap.
        folds: the folds and their requests.
        retrained: retrained models of each fold.
        resamples: of users.
    """

    folder: Path
    seed: int
    folds: Sequence[Fold]
    retrained: int
    resamples: int = 2000
    _memory: dict[tuple[str, ...], Any] = field(default_factory=dict)

    @cached_property
    def data(self) -> dict[str, Any]:
        """Labels and users of each part of the split."""
        return read_arrays(self.folder / DATA)

    @cached_property
    def original(self) -> dict[str, Any]:
        """The original's log-odds by part of the split."""
        return read_arrays(self.folder / ORIGINAL_ANSWERS)

    def is_finished(self, request: PooledRequest, variant: str) -> bool:
        """Whether a variant has forgotten a request, and there are models to measure it against."""
        keys = [f"{request.key}/{variant}"]
        for number in range(1, self.retrained + 1):
            keys.append(f"{fold_key(request.fold)}/{retrained_key(number)}")
        return all((self.folder / key / RECORD).is_file() for key in keys)

    def answers(self, request: PooledRequest, variant: str) -> dict[str, Any]:
        """A variant's log-odds after a request."""
        return read_arrays(self.folder / request.key / variant)

    def record(self, request: PooledRequest, variant: str) -> dict[str, Any]:
        """What it took."""
        record: dict[str, Any] = read_record(self.folder / request.key / variant)
        return record

    def rows(self, request: PooledRequest) -> dict[str, Any]:
        """Positions of the request's rows, and what the control model says of them."""
        return read_arrays(self.folder / request.key / ROWS)

    def retrained_answers(self, fold: int) -> list[dict[str, Any]]:
        """What the retrained models of a fold say."""
        numbers = range(1, self.retrained + 1)
        keys = [f"{fold_key(fold)}/{retrained_key(number)}" for number in numbers]
        return [read_arrays(self.folder / key) for key in keys]

    def forgotten_rows(self, request: PooledRequest, variant: str) -> ForgottenRows:
        """The rows of D_f, and what models say of them."""
        positions = self.rows(request)["forget"]
        # Retrained models answered the whole fold, of which the request names some users.
        whole = self.rows(self.folds[request.fold - 1].whole)["forget"]
        places = np.searchsorted(whole, positions)
        retrained = [answers["forget"][places] for answers in self.retrained_answers(request.fold)]
        return ForgottenRows(
            labels=self.data["train.labels"][positions],
            users=self.data["train.users"][positions],
            candidate=self.answers(request, variant)["forget"],
            original=self.original["train"][positions],
            retrained=np.stack(retrained),
            request=np.zeros(len(positions), int),
        )

    # --- figures of rows that are not forgotten

    def bootstrap(self, name: str, rows: Ints | Mask | None = None) -> Bootstrap:
        """Resamples of the users of a part, for some of its rows; paired whatever the rows are."""
        key = ("bootstrap", name)
        if key not in self._memory:
            self._memory[key] = self._new_bootstrap(self.data[f"{name}.users"], name)
        whole: Bootstrap = self._memory[key]
        return whole if rows is None else replace(whole, user=whole.user[rows])

    def _new_bootstrap(self, users: Ints, name: str) -> Bootstrap:
        seed = derive(self.seed, "bootstrap", name)
        return user_bootstrap(users, resamples=self.resamples, seed=seed)

    def union_bootstrap(self, rows: ForgottenRows) -> Bootstrap:
        """Resamples of the users of D_f alone."""
        return self._new_bootstrap(rows.users, "forget")

    def auc(self, name: str, odds: Floats, rows: Ints | Mask | None = None) -> Figure:
        """AUC of log-odds on some rows of a part."""
        labels = self.data[f"{name}.labels"]
        chosen = labels if rows is None else labels[rows]
        return self.bootstrap(name, rows).auc(chosen, odds)

    def fold_auc(self, name: str, fold: int, odds: Floats) -> Figure:
        """AUC on the test or validation rows of users who are not in a fold."""
        return self.auc(name, odds, self._outside(name, fold))

    def _outside(self, name: str, fold: int) -> Mask:
        return ~np.isin(self.data[f"{name}.users"], self.folds[fold - 1].users)

    def fold_references(self, name: str, fold: int) -> tuple[Figure, Figure]:
        """AUC there of the original, and the mean of the retrained models'."""
        key = ("references", name, str(fold))
        # All requests of a fold, and all variants, are held against the same two figures.
        if key not in self._memory:
            odds = self.original[name][self._outside(name, fold)]
            retrained = self.retrained_answers(fold)
            aucs = [self.fold_auc(name, fold, answers[name]) for answers in retrained]
            self._memory[key] = (self.fold_auc(name, fold, odds), mean_figure(aucs))
        references: tuple[Figure, Figure] = self._memory[key]
        return references

    def retain_auc(self, request: PooledRequest, odds: Floats) -> Figure:
        """AUC on the request's sample of D_r."""
        return self.auc("train", odds, self.rows(request)["retain"])

    def retain_references(self, request: PooledRequest) -> tuple[Figure, Figure]:
        """AUC on that sample of the original, and of a model that was never tuned on its users.

        The latter is estimated as `evaluation.measures.retained_memory` does.
        """
        key = ("retain", request.key)
        if key not in self._memory:
            rows = self.rows(request)
            before = self.retain_auc(request, self.original["train"][rows["retain"]])
            control = self.retain_auc(request, rows["control_retain"])
            easier = control - self.auc("unseen", rows["control_unseen"])
            never = self.auc("unseen", self.original["unseen"]) + COEFFICIENT * easier
            self._memory[key] = (before, never)
        references: tuple[Figure, Figure] = self._memory[key]
        return references
