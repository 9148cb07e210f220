"""Makes the models of `requests.py` and asks them; of a model that was asked, answers alone stay.

Each step has a folder of its own, so that an interrupted run goes on. The original and the scores
are made first, then fold by fold what is retrained and what forgets.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from common import RequestCase
from e2urec.core.arrays import Floats, Mask
from e2urec.core.errors import ConfigError
from e2urec.data.requests import ErasureRequest
from e2urec.experiments.grid import Grid
from e2urec.experiments.request_rows import RequestRows
from e2urec.experiments.study import NOT_UNLEARNING, unlearning_seconds
from e2urec.experiments.workspace import Workspace
from e2urec.methods.retrain import Retrain
from e2urec.models.batches import Examples
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.runs.files import write_json
from e2urec.training.costs import Costs
from e2urec.training.out_of_fold import OutOfFold, RowScores
from e2urec.unlearning.method import Method
from e2urec.unlearning.task import RequestScores
from pooled_files import (
    ASKED_PARTS,
    DATA,
    ORIGINAL,
    ORIGINAL_ANSWERS,
    RECORD,
    ROWS,
    SCORES,
    VARIANTS,
    Arrays,
    flat_settings,
    read_arrays,
    read_record,
    retrained_key,
    save_step,
)
from pooled_plan import FOLDS, Fold, NamedMethod, PooledRequest, Size, fold_key, folds_of


@dataclass(frozen=True)
class PooledOptions:
    """What is made.

    Attributes:
        variants: methods that every request is put to.
        sizes: of the requests.
        folds: numbers of those that are made.
        single: requests of a single user in each fold.
        retrained: retrained models of each fold.
        scores: out-of-fold scores that methods may use; None: none.
    """

    variants: Sequence[NamedMethod]
    sizes: Sequence[Size] = tuple(Size)
    folds: Sequence[int] = tuple(range(1, FOLDS + 1))
    single: int = 20
    retrained: int = 2
    scores: OutOfFold | None = None


@dataclass
class OpenRequest:
    """A request whose rows are tokenised at their first use: a finished one needs none.

    Attributes:
        request: whom it names.
        space: data and base.
        load: the original.
    """

    request: PooledRequest
    space: Workspace
    load: Callable[[], Recommender]

    @cached_property
    def case(self) -> RequestCase:
        """The request, put to the original."""
        ids = self.space.data.user_ids
        users = [str(ids[code]) for code in self.request.users.tolist()]
        return RequestCase.of(self.space, self.load(), ErasureRequest(users=tuple(users)))

    @property
    def rows(self) -> RequestRows:
        """Its rows, tokenised."""
        return self.case.rows

    @property
    def is_named(self) -> Mask:
        """Which training rows are D_f: a request for users rewrites no prompt."""
        return np.isin(self.space.split.train.users, self.request.users)

    def row_arrays(self) -> Arrays:
        """Which training rows models are asked about, and what the control model says of them."""
        rows = self.rows
        control = rows.difficulty.take(rows.retain_sample)
        return {
            "forget": np.flatnonzero(self.is_named),
            "retain": np.flatnonzero(~self.is_named)[rows.retain_sample],
            "control_retain": control.retain,
            "control_unseen": control.outsiders["unseen"],
        }


@dataclass
class PooledModels:
    """Makes and asks all models of one seed.

    Attributes:
        space: data and base.
        grid: of finished steps.
        options: what is made.
        failed: steps that a method could not do, by folder.
    """

    space: Workspace
    grid: Grid
    options: PooledOptions
    failed: list[str] = field(default_factory=list)

    @cached_property
    def original(self) -> Recommender:
        """The original, as it was read back from its folder; callers change a copy."""
        base = None
        if self.space.recipe.tuning.lora:
            base = self.space.base.with_shared_weights()
        return Recommender.load(self.grid.folder / ORIGINAL, base)

    def folds(self) -> list[Fold]:
        """The folds that are made, and their requests."""
        folds = folds_of(
            self.space.split.train.users,
            seed=self.space.recipe.data_seed,
            single=self.options.single,
            sizes=self.options.sizes,
        )
        return [fold for fold in folds if fold.number in self.options.folds]

    def make(self) -> None:
        """Make all that is missing, fold by fold, so that a part of it can be reported.

        Raises:
            ConfigError: a variant of this name, or scores, were begun with other settings.
        """
        folds = self.folds()
        self.grid.total = self._step_count(folds)
        self.grid.folder_of(DATA, self._save_data)
        self.grid.folder_of(ORIGINAL, self._save_original)
        self.grid.folder_of(ORIGINAL_ANSWERS, self._save_original_answers)
        if self.options.scores is not None:
            self._check_scores(self.options.scores)
            self.grid.folder_of(SCORES, self._save_scores)
        scored_variants = {variant.name: self._begin(variant) for variant in self.options.variants}
        for fold in folds:
            self._make_fold(fold, scored_variants)

    def _step_count(self, folds: Sequence[Fold]) -> int:
        count = 3
        if self.options.scores is not None:
            count += 1
        for fold in folds:
            smaller = [request for request in fold.requests if request.size is not Size.FOLD]
            # The rows of the whole fold and of each smaller request are steps of their own.
            count += 1 + len(smaller) + self.options.retrained
            count += len(fold.requests) * len(self.options.variants)
        return count

    # --- what all requests share

    def _save_data(self, folder: Path) -> None:
        arrays = {}
        for name in ASKED_PARTS:
            part = getattr(self.space.split, name)
            arrays[f"{name}.labels"] = part.labels
            arrays[f"{name}.users"] = part.users
        save_step(folder, arrays, {})

    def _save_original(self, folder: Path) -> None:
        start_time = time.perf_counter()
        model, _ = self.space.train()
        model.save(folder)
        write_json(folder / RECORD, _record(self.space.costs, start_time))

    def _save_original_answers(self, folder: Path) -> None:
        start_time = time.perf_counter()
        parts = {name: getattr(self.space.split, name) for name in ASKED_PARTS}
        odds = {}
        for name, part in parts.items():
            odds[name] = self._ask(self.original, self.space.encode(part))
        save_step(folder, odds, _record(Costs(), start_time))

    def _ask(self, model: Recommender, rows: Examples) -> Floats:
        precision = self.space.recipe.tuning.schedule.precision
        return predict(model, rows, precision=precision).log_odds

    def _check_scores(self, settings: OutOfFold) -> None:
        folder = self.grid.folder / SCORES
        if not folder.is_dir():
            return
        before = flat_settings(read_record(folder)["settings"])
        for key, value in flat_settings(settings.model_dump(mode="json")).items():
            if before.get(key) != value:
                raise ConfigError(
                    f"'{folder}': was made with scores.{key}={before.get(key)}, not {value}; give "
                    "--work another folder"
                )

    def _save_scores(self, folder: Path) -> None:
        settings = self.options.scores
        assert settings is not None, "scores are made where there are settings"
        start_time = time.perf_counter()
        costs = Costs()
        scores = self.space.row_scores(settings, costs, folder)
        arrays = {}
        for name, part in scores.items():
            arrays[f"{name}.mean"] = part.mean
            arrays[f"{name}.spread"] = part.spread
        record = _record(costs, start_time) | {"settings": settings.model_dump(mode="json")}
        save_step(folder, arrays, record)

    @cached_property
    def scores(self) -> dict[str, RowScores]:
        """Out-of-fold scores by part, from the disk."""
        arrays = read_arrays(self.grid.folder / SCORES)
        names = dict.fromkeys(key.partition(".")[0] for key in arrays)
        return {name: RowScores(arrays[f"{name}.mean"], arrays[f"{name}.spread"]) for name in names}

    def _begin(self, variant: NamedMethod) -> bool:
        """Note a variant's settings at its first request; returns whether it is given scores."""
        path = self.grid.folder / VARIANTS / f"{variant.name}.json"
        scores = None
        if self.options.scores is not None:
            scores = self.options.scores.model_dump(mode="json")
        values = variant.as_dict()
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            write_json(path, values | {"scores": scores})
            return scores is not None
        before = read_record(path.parent, path.name)
        if {key: before[key] for key in values} != values:
            raise ConfigError(
                f"variant '{variant.name}': was begun with other settings (see '{path}'); give it "
                "another name"
            )
        # Its requests must be alike, or their union would say nothing of either.
        if before["scores"] != scores:
            fate = "with" if before["scores"] else "without"
            self.grid.say(f"variant '{variant.name}' goes on {fate} scores, as it was begun")
        return before["scores"] is not None

    # --- a fold

    def _make_fold(self, fold: Fold, scored_variants: Mapping[str, bool]) -> None:
        whole = self._open(fold.whole)
        for number in range(1, self.options.retrained + 1):
            key = f"{fold_key(fold.number)}/{retrained_key(number)}"
            method = Retrain(number=number)
            self.grid.folder_of(key, self._forgetter(whole, whole, method, scored=False))
        # Retraining alone needs it, and it takes the room of a model.
        self.space.__dict__.pop("base", None)
        for request in fold.requests:
            opened = whole if request.size is Size.FOLD else self._open(request)
            for variant in self.options.variants:
                scored = scored_variants[variant.name]
                save = self._forgetter(opened, whole, variant.method, scored=scored)
                self._try_step(f"{request.key}/{variant.name}", save)

    def _open(self, request: PooledRequest) -> OpenRequest:
        opened = OpenRequest(request, self.space, lambda: self.original)
        self.grid.folder_of(
            f"{request.key}/{ROWS}", lambda folder: save_step(folder, opened.row_arrays(), {})
        )
        return opened

    def _forgetter(
        self, opened: OpenRequest, whole: OpenRequest, method: Method, *, scored: bool
    ) -> Callable[[Path], None]:
        """What fills a step's folder: a method's answers after it has forgotten a request."""

        def save(folder: Path) -> None:
            start_time = time.perf_counter()
            # Retraining only reads the original's template, every other method changes its weights.
            original = (
                self.original if isinstance(method, Retrain) else self.original.copy_adapters()
            )
            task = replace(opened.case, original=original).task(method)
            task.scratch = folder
            if scored:
                task.scores = self._scores_of(opened)
            model = method.unlearn(task)
            rows = opened.rows
            odds = {
                "forget": self._ask(model, rows.forget),
                "retain": self._ask(model, rows.retain.take(rows.retain_sample)),
                # Those of the whole fold, so that retrained models have no row that others lack.
                "test": self._ask(model, whole.rows.test),
                "valid": self._ask(model, whole.rows.valid),
            }
            record = _record(task.costs, start_time) | {"outcome": task.outcome.as_dict()}
            save_step(folder, odds, record)

        return save

    def _scores_of(self, opened: OpenRequest) -> RequestScores:
        assert self.options.scores is not None, "a variant with scores has their settings"
        train = self.scores["train"]
        return RequestScores(
            forget=train.take(np.flatnonzero(opened.is_named)),
            retain=train.take(np.flatnonzero(~opened.is_named)),
            calibration=self.scores["calibration"],
            models=self.options.scores.pairs,
        )

    def _try_step(self, key: str, save: Callable[[Path], None]) -> None:
        """Do a step of a variant; a method that fails costs this step alone."""
        try:
            self.grid.folder_of(key, save)
        except OSError:  # the disk is at fault, and not the method
            raise
        except Exception:  # any bug of a method under test
            self.failed.append(key)
            self.grid.say(traceback.format_exc())
            self.grid.say(f"{key} FAILED; the same command tries it again")


def _record(costs: Costs, start_time: float) -> dict[str, Any]:
    """Seconds by phase, in all without loading, and on the clock with answers and files."""
    phases = {}
    for phase, seconds in costs.seconds.items():
        if phase not in NOT_UNLEARNING:
            phases[phase] = seconds
    return {
        "phases": phases,
        "seconds": unlearning_seconds(costs),
        "wall": time.perf_counter() - start_time,
    }
