"""The models of one seed of a comparison: one original, and what every method makes of it."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...core.reading import read_object
from ...data.difficulty import control_log_odds, difficulty
from ...data.requests import ErasureRequest, ForgetRetain
from ...data.samples import Samples
from ...evaluation.comparison import CellRecord
from ...evaluation.disclosure import outcome_record, phase_records
from ...evaluation.roles import ORIGINAL, PLACEBO_RETAIN, RoleKind
from ...evaluation.shadow_folder import shared_shadows
from ...evaluation.shadows import ShadowScores
from ...methods import build
from ...methods.retrain import Retrain
from ...metrics.classification import auc
from ...models.predictions import predict
from ...models.recommender import Recommender
from ...runs.files import write_json
from ...runs.keys import controller_key
from ...runs.row_digests import RowKey
from ...runs.score_index import ScoreIndex
from ...training.loop import Progress
from ...training.out_of_fold import PHASE as SCORES
from ...unlearning.method import Method
from ..grid import REMEDY, FinishedCell, Grid
from ..recipe import DrawnRequest, Recipe, RequestRecipe
from ..study import Study, unlearning_seconds
from ..workspace import Workspace
from .memorised import as_share, most_memorised, read_users, write_users
from .plan import DEVELOPMENT, PLACEBO, Cell, model_key, seed_folder
from .singles import deal, gather, mean_record, require_rows

Methods = Mapping[str, Method]
Made = tuple[Recommender, CellRecord]
"""A model, and how it was made."""

USERS = "users.sealed"
"""File of the users who are remembered most; it goes with all other cells."""
SECONDS = "seconds.json"
"""File beside an original: what it took, by phase."""


def _remembered_key(ratio: float) -> str:
    """Name of the folder of that share of the users, those who are remembered most."""
    return f"remembered-{ratio:.6f}"


@dataclass(frozen=True)
class _Prepared:
    """The original of a method that prepares one of its own, and the seconds that it took."""

    method: Method
    model: Recommender
    seconds: float


@dataclass
class SeedModels:
    """Makes the cells of one seed.

    Attributes:
        recipe: with this seed; the data's own seed is the same for all.
        grid: of finished cells.
        progress: told of each step.
    """

    recipe: Recipe
    grid: Grid
    progress: Progress
    _prepared: dict[str, _Prepared] = field(default_factory=dict)
    _erasures: dict[str, ErasureRequest] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, seed: int, grid: Grid, progress: Progress) -> "SeedModels":
        """Those of `seed`. The data are split by one seed, so all originals know the same rows."""
        data = recipe.data
        if data.seed is None:
            data = data.model_copy(update={"seed": recipe.seed})
        return cls(recipe.model_copy(update={"seed": seed, "data": data}), grid, progress)

    @property
    def folder(self) -> str:
        """Name of the folder of all cells of this seed."""
        return seed_folder(self.recipe.seed)

    @property
    def model_key(self) -> str:
        """Name of the folder of this seed's original, in the grid."""
        return model_key(self.recipe.seed)

    @cached_property
    def space(self) -> Workspace:
        """Data and base."""
        space = Workspace(self.recipe, self.progress)
        # Only scores are found by it, and they stay where a comparison is interrupted.
        if self.recipe.scores.pairs:
            space.row_key = RowKey.under(controller_key())
        return space

    @cached_property
    def original_folder(self) -> Path:
        """The original and its out-of-fold scores, made once; deleted with all other cells."""

        def save(folder: Path) -> None:
            space = self.space
            model, _ = space.train()
            model.save(folder)
            space.make_scores(folder)
            if space.score_index is not None:
                space.score_index.save(folder)
            write_json(folder / SECONDS, space.costs.seconds)

        return self.grid.folder_of(self.model_key, save)

    @cached_property
    def original(self) -> Recommender:
        """The original, trained once on all training rows; callers change a copy."""
        # Read back from the disk: an interrupted comparison goes on from the very same model.
        base = None
        if self.recipe.tuning.lora:
            base = self.space.base.with_shared_weights()
        return Recommender.load(self.original_folder, base)

    def _original_record(self) -> CellRecord:
        """What was made once for all requests, and is in the seconds of none."""
        seconds = read_object(self.original_folder / SECONDS, REMEDY)
        once = {SCORES: seconds[SCORES]} if SCORES in seconds else {}
        return CellRecord(seconds=once)

    def leave(self) -> None:
        """Let go of data and models: the next seed needs the memory."""
        self._prepared.clear()
        for name in ("original", "original_folder", "space"):
            self.__dict__.pop(name, None)

    # --- requests

    def check_requests(self) -> None:
        """Raise ConfigError where single users are more than the data have, or have rows for."""
        for request in self.recipe.compare.requests:
            # Random users stand for those who are remembered most: no model is trained here.
            share = as_share(request, self.space.split.train)
            if request.singles is not None:
                parts = self.space.resolve(self.space.draw(share))
                require_rows(parts, request.singles)

    def parts(self, request: RequestRecipe, among: Samples | None = None) -> ForgetRetain:
        """Samples of a request that is drawn from `among` (all training samples)."""
        samples = self.space.split.train if among is None else among
        share = as_share(request, samples)
        if isinstance(request, DrawnRequest) and request.pick == "most memorised":
            return self.space.resolve(self._most_memorised(share.ratio))
        return self.space.resolve(self.space.draw(share, samples))

    def control_auc(self, request: RequestRecipe) -> float:
        """AUC of the control model of all training rows on the test rows of a request."""
        test = self.parts(request).test
        odds = control_log_odds(self.space.split.train, test, seed=self.recipe.data_seed)
        return auc(test.labels, odds)

    def remembered(self) -> dict[str, DrawnRequest]:
        """The requests for users who are remembered most, by the folder of whom they name."""
        requests = {}
        for request in self.recipe.compare.requests:
            if request.pick == "most memorised":
                share = as_share(request, self.space.split.train)
                requests[_remembered_key(share.ratio)] = request
        return requests

    def _most_memorised(self, ratio: float) -> ErasureRequest:
        """The users whom the first seed's original remembers most, found once and kept."""
        # All seeds forget the same users, so that their figures can be laid side by side.
        key = _remembered_key(ratio)
        if key not in self._erasures:
            path = self.grid.folder_of(key, lambda folder: self._save_memorised(folder, ratio))
            codes = read_users(path / USERS, self.grid.store.key, REMEDY)
            self._erasures[key] = ErasureRequest.of_users(self.space.split.train, codes)
        return self._erasures[key]

    def _save_memorised(self, folder: Path, ratio: float) -> None:
        assert self.recipe.seed == self.recipe.compare.seeds[0], "the first seed comes first"
        train = self.space.split.train
        rows = self.space.encode(train)
        precision = self.recipe.tuning.schedule.precision
        answers = predict(self.original, rows, precision=precision)
        if self.recipe.scores.pairs:
            index = ScoreIndex.load(self.original_folder, controller_key())
            assert index is not None, "the original was made with scores"
            outsider = index.scores_of(train, self.space.template).mean
        else:
            outsider = difficulty(train, {}, seed=self.recipe.data_seed).retain
        codes = most_memorised(train, answers.log_odds, outsider, ratio)
        write_users(folder / USERS, codes, self.grid.store.key)

    def _single_studies(self, number: int) -> Iterator[Study]:
        """The study of each user of a request of single users, in the order of their codes."""
        request = self.recipe.compare.requests[number - 1]
        train = self.space.split.train
        # One at a time: each holds all prompts of D_r, which is nearly all of D.
        for user in np.unique(self.parts(request).forget.users):
            erasure = ErasureRequest.of_users(train, np.array([user]))
            yield self._study(self.space.resolve(erasure))

    def study(self, request: RequestRecipe, among: Samples | None = None) -> Study:
        """The study of such a request."""
        return self._study(self.parts(request, among))

    def _study(self, parts: ForgetRetain) -> Study:
        if self.recipe.scores.pairs:
            self.space.score_index = ScoreIndex.load(self.original_folder, controller_key())
        return Study(self.space, self.space.rows(parts))

    def shadow_scores(self, study: Study, folder: Path) -> ShadowScores:
        """What shadow models say of the rows of a request; they are kept in `folder` by seed."""
        with shared_shadows(folder / self.folder) as shared:
            return study.shadow_scores(shared, controller_key(), self.grid.say)

    # --- cells

    def finish(self, cell: Cell, study: Study, methods: Methods) -> FinishedCell | None:
        """The model of a cell; None where its method failed.

        A reference that cannot be made is an error: nothing can be measured without it.
        """
        make = self._maker(cell, study, methods)
        if cell.role.kind in (RoleKind.ORIGINAL, RoleKind.RETRAINED):
            return self.grid.cell(cell.key, make)
        return self.grid.try_cell(cell.key, make)

    def _maker(self, cell: Cell, study: Study, methods: Methods) -> Callable[[Path], FinishedCell]:
        role = cell.role
        if role == ORIGINAL:
            return lambda folder: self._cell(study, self.original, self._original_record())
        if role == PLACEBO_RETAIN:

            def placebo(study: Study, folder: Path) -> Made:
                return self._placebo(study, methods)

            return lambda folder: self._pooled(cell, study, placebo, folder)
        if role.kind is RoleKind.RETRAINED:
            method: Method = Retrain(number=role.number)
        else:
            method = methods[role.name]

        def unlearned(study: Study, folder: Path) -> Made:
            return self._unlearned(study, method, folder)

        # All at once: an exact method keeps nothing of any of them.
        if method.exact:
            return lambda folder: self._cell(study, *unlearned(study, folder))
        return lambda folder: self._pooled(cell, study, unlearned, folder)

    def _pooled(
        self, cell: Cell, study: Study, make: Callable[[Study, Path], Made], folder: Path
    ) -> FinishedCell:
        """The cell of a model; of one model a user where each user is a request of her own."""
        if not self._is_of_singles(cell.request):
            return self._cell(study, *make(study, folder))
        users = np.unique(study.rows.forget.users)
        shares = deal(study.rows.evaluation, users)
        answers = []
        records = []
        for share, single in zip(shares, self._single_studies(cell.request), strict=True):
            model, record = make(single, folder)
            answers.append(single.answers_to(share.sets, model, valid=True))
            records.append(record)
        return FinishedCell(gather(shares, answers), mean_record(records))

    def _is_of_singles(self, number: int) -> bool:
        if number == DEVELOPMENT:
            return False
        return self.recipe.compare.requests[number - 1].singles is not None

    def _cell(self, study: Study, model: Recommender, record: CellRecord) -> FinishedCell:
        return FinishedCell(study.answers_of(model, valid=True), record)

    def _unlearned(self, study: Study, method: Method, folder: Path) -> Made:
        original, prepared = self._start(method)
        unlearned = study.unlearn(original, method, scratch=folder)
        costs = unlearned.costs
        forget_rows = len(study.rows.forget)
        record = CellRecord(
            settings=method.model_dump(mode="json"),
            seconds={
                "prepare": prepared,
                "request": unlearned.seconds,
                "total": prepared + unlearned.seconds,
            },
            phases=costs.seconds,
            rows_read=costs.rows,
            trainable_parameters=costs.trainable,
            phase_logs=phase_records(unlearned.phase_logs, forget_rows),
            outcome=outcome_record(unlearned.outcome, forget_rows),
        )
        return unlearned.model, record

    def _start(self, method: Method) -> tuple[Recommender, float]:
        """What a request is put to, and the seconds that it took beyond the shared original."""
        if not method.prepares:
            return self.original.copy_adapters(), 0.0
        prepared = self._prepared.get(method.name)
        # One a method stays in memory while the seed lasts: every request starts from the same
        # sharded model. Those of trials with other settings are let go of.
        if prepared is None or prepared.method != method:
            task = self.space.training_task()
            model = method.prepare(task)
            prepared = _Prepared(method, model, unlearning_seconds(task.costs))
            self._prepared[method.name] = prepared
        return prepared.model.copy_adapters(), prepared.seconds

    def _placebo(self, study: Study, methods: Methods) -> Made:
        """The original tuned on D_r for as many steps as the longest approximate method."""
        # Exact methods train from the base for thousands of steps: no placebo for an adapter.
        approximate = [method for method in methods.values() if not method.exact]
        longest = max(approximate, key=study.steps, default=build(PLACEBO))
        original = self.original.copy_adapters()
        started = time.perf_counter()
        model = study.placebo(original, longest)
        seconds = {"total": time.perf_counter() - started}
        settings: dict[str, Any] = {"steps": study.steps(longest)}
        return model, CellRecord(settings=settings, seconds=seconds)
