"""The models of one seed of a comparison: one original, and what every method makes of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.reading import read_object
from ..data.requests import ForgetRetain
from ..data.samples import Samples
from ..evaluation.comparison import CellRecord
from ..evaluation.disclosure import outcome_record, phase_records
from ..evaluation.roles import ORIGINAL, PLACEBO_RETAIN, Kind, Role
from ..methods import build
from ..methods.retrain import Retrain
from ..models.recommender import Recommender
from ..runs.files import write_json
from ..runs.keys import controller_key
from ..runs.row_digests import RowKey
from ..runs.score_index import ScoreIndex
from ..training.loop import Progress
from ..training.out_of_fold import PHASE as SCORES
from ..unlearning.method import Method
from .grid import REMEDY, FinishedCell, Grid
from .plan import PLACEBO, Cell, seed_folder
from .recipe import Recipe, RequestRecipe
from .study import Study, unlearning_seconds
from .workspace import Workspace

Methods = Mapping[str, Method]

SECONDS = "seconds.json"
"""File beside an original: what it took, by phase."""


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
        return f"{self.folder}/model"

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

    def parts(self, request: RequestRecipe, among: Samples | None = None) -> ForgetRetain:
        """Samples of a request that is drawn from `among` (all training samples)."""
        erasure = self.space.draw(request, among)
        return self.space.resolve(erasure)

    def study(self, request: RequestRecipe, among: Samples | None = None) -> Study:
        """The study of such a request."""
        parts = self.parts(request, among)
        if self.recipe.scores.pairs:
            self.space.score_index = ScoreIndex.load(self.original_folder, controller_key())
        return Study(self.space, self.space.rows(parts))

    # --- cells

    def finish(self, cell: Cell, study: Study, methods: Methods) -> FinishedCell | None:
        """The model of a cell; None where its method failed.

        A reference that cannot be made is an error: nothing can be measured without it.
        """
        make = self._maker(cell.role, study, methods)
        if cell.role.kind in (Kind.ORIGINAL, Kind.RETRAINED):
            return self.grid.cell(cell.key, make)
        return self.grid.try_cell(cell.key, make)

    def _maker(self, role: Role, study: Study, methods: Methods) -> Callable[[Path], FinishedCell]:
        if role == ORIGINAL:
            return lambda folder: self._cell(study, self.original, self._original_record())
        if role == PLACEBO_RETAIN:
            return lambda folder: self._placebo(study, methods)
        if role.kind is Kind.RETRAINED:
            method: Method = Retrain(number=role.number)
        else:
            method = methods[role.name]
        return lambda folder: self._unlearned(study, method, folder)

    def _cell(self, study: Study, model: Recommender, record: CellRecord) -> FinishedCell:
        return FinishedCell(study.answers_of(model, valid=True), record)

    def _unlearned(self, study: Study, method: Method, folder: Path) -> FinishedCell:
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
        return self._cell(study, unlearned.model, record)

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

    def _placebo(self, study: Study, methods: Methods) -> FinishedCell:
        """The original tuned on D_r for as many steps as the longest approximate method."""
        # Exact methods train from the base for thousands of steps: no placebo for an adapter.
        approximate = [method for method in methods.values() if not method.exact]
        longest = max(approximate, key=study.steps, default=build(PLACEBO))
        original = self.original.copy_adapters()
        started = time.perf_counter()
        model = study.placebo(original, longest)
        seconds = {"total": time.perf_counter() - started}
        settings: dict[str, Any] = {"steps": study.steps(longest)}
        record = CellRecord(settings=settings, seconds=seconds)
        return self._cell(study, model, record)
