"""The grid of a comparison: one folder a finished cell, so that what was interrupted goes on where it stopped."""

import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.requests import ForgetRetain
from ..data.samples import Samples
from ..evaluation.answer_store import Kept
from ..evaluation.membership import Answers
from ..methods import build
from ..methods.retrain import Retrain
from ..models.recommender import Recommender
from ..runs.record import write_json
from ..training.loop import Progress
from ..unlearning.method import Method
from .recipe import Recipe, RequestRecipe
from .workspace import RequestRows, Workspace, placebo, unlearning_seconds

Say = Callable[[str], object]
Made = tuple[Answers, dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """A finished model of the grid: its answers, and what is told of its making."""

    answers: Answers
    record: dict[str, Any]


@dataclass
class Grid:
    """Finished cells in a folder, one folder a cell. What is asked for a second time is taken from there.

    Attributes:
        folder: of the cells.
        total: cells that there will be, for `say`.
        say: told of each finished cell.
        failed: cell → why it could not be made.
    """

    folder: Path
    total: int
    say: Say
    failed: dict[str, str] = field(default_factory=dict)
    done: int = 0

    @cached_property
    def kept(self) -> Kept:
        """The cells' answers."""
        return Kept(self.folder)

    def cell(self, key: str, make: Callable[[Path], Made]) -> Cell:
        """The cell `key`, made by `make` in a folder of its own unless it is there already.

        What comes back is always what was read from the disk, so a comparison that was interrupted ends as one that
        was not.
        """
        path, started = self.folder / key, time.perf_counter()
        if not path.is_dir():
            half = path.with_name(f"{path.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir(parents=True)
            answers, record = make(half)
            self.kept.save(half / "answers.safetensors", answers)
            write_json(half / "cell.json", record)
            half.rename(path)
        self._tell(key, time.perf_counter() - started)
        record = json.loads((path / "cell.json").read_text(encoding="utf-8"))
        return Cell(self.kept.load(path / "answers.safetensors"), record)

    def try_cell(self, key: str, make: Callable[[Path], Made]) -> Cell | None:
        """The same, or None where it could not be made: the others go on."""
        started = time.perf_counter()
        try:
            return self.cell(key, make)
        except OSError:  # the disk, not the method
            raise
        except Exception as error:  # any bug of a method, ours or another package's, costs one cell
            self.failed[key] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self.say(traceback.format_exc())
            self._tell(f"{key} FAILED", time.perf_counter() - started)
            return None

    def _tell(self, key: str, seconds: float) -> None:
        self.done += 1
        self.say(f"[{self.done} of {self.total}] {key}: {seconds:.1f} s")


@dataclass
class Bench:
    """One seed of a comparison: its original, and tasks for the methods.

    Attributes:
        recipe: with this seed; the data's own seed is the same for all.
        grid: of cells.
        progress: told of each step.
    """

    recipe: Recipe
    grid: Grid
    progress: Progress
    _prepared: dict[str, tuple[Recommender, float]] = field(
        default_factory=dict
    )  # originals of sharded methods

    def leave(self) -> None:
        """Let go of data and models: the next seed needs the memory."""
        self._prepared.clear()
        for name in ("original", "space"):
            self.__dict__.pop(name, None)

    @cached_property
    def space(self) -> Workspace:
        """Data and base."""
        return Workspace(self.recipe, self.progress)

    @property
    def place(self) -> str:
        """Where this seed's cells are."""
        return f"seed-{self.recipe.seed}"

    @cached_property
    def original(self) -> Recommender:
        """The original, trained on all training rows; callers change a copy."""

        def make(folder: Path) -> Made:
            model, _ = self.space.train()
            model.save(folder)
            return {}, {"seconds": self.space.costs.seconds}

        self.grid.cell(f"{self.place}/model", make)
        folder = self.grid.folder / self.place / "model"
        return Recommender.load(
            folder, self.space.base.fresh() if self.recipe.tuning.lora else None
        )

    def parts(self, wanted: RequestRecipe, among: Samples | None = None) -> ForgetRetain:
        """Samples of a request, drawn from `among` (all training samples)."""
        return self.space.resolve(self.space.drawn(wanted, among))

    def rows(self, wanted: RequestRecipe, among: Samples | None = None) -> RequestRows:
        """The same, tokenised."""
        return self.space.rows(self.parts(wanted, among))

    def _ask(self, model: Recommender, rows: RequestRows) -> Answers:
        return rows.evaluation.ask(
            model, precision=self.recipe.tuning.schedule.precision, valid=True
        )

    def before(self, place: str, rows: RequestRows) -> Cell:
        """What the original answers before a request."""
        return self.grid.cell(f"{place}/original", lambda _: (self._ask(self.original, rows), {}))

    def retrained(self, place: str, rows: RequestRows) -> list[Cell]:
        """As many retrained models as the recipe says."""
        numbers = range(1, self.recipe.retrained + 1)
        return [self.cell(f"{place}/retrained-{k}", Retrain(number=k), rows) for k in numbers]

    def cell(self, key: str, method: Method, rows: RequestRows) -> Cell:
        """A method's cell; raises what the method raises."""
        return self.grid.cell(key, self.make(method, rows))

    def make(self, method: Method, rows: RequestRows) -> Callable[[Path], Made]:
        """How to make a method's cell."""

        def made(folder: Path) -> Made:
            start, prepared = self._start(method)
            task = self.space.task(start, rows, method, scratch=folder)
            model = method.unlearn(task)
            seconds = unlearning_seconds(task.costs)
            record = {
                "settings": method.model_dump(mode="json"),
                "phases": task.costs.seconds,
                "seconds": {"prepare": prepared, "request": seconds, "total": prepared + seconds},
                "rows_read": task.costs.rows,
                "trainable_parameters": task.costs.trainable,
                "phase_logs": [vars(log) for log in task.phase_logs],
            }
            return self._ask(model, rows), record

        return made

    def _start(self, method: Method) -> tuple[Recommender, float]:
        """What a request is put to, and the seconds that making it took beyond the shared original."""
        if not method.prepares:
            return self.original.copy(), 0.0
        name = method.model_dump_json()
        if name not in self._prepared:
            ground = self.space.foundation()
            model = method.prepare(ground)
            self._prepared[name] = model, unlearning_seconds(ground.costs)
        model, seconds = self._prepared[name]
        return model.copy(), seconds

    def control(self, methods: Mapping[str, Method], rows: RequestRows) -> Callable[[Path], Made]:
        """How to make placebo (ii): the original tuned on D_r for as many steps as the longest approximate method."""
        sizes = (len(rows.forget), len(rows.retain), self.recipe.tuning.schedule)
        longest = max(
            (method for method in methods.values() if not method.exact),
            key=lambda method: method.updates(*sizes),
            default=build("finetune"),
        )

        def made(_: Path) -> Made:
            task = self.space.task(self.original.copy(), rows, longest)
            started = time.perf_counter()
            model = placebo(longest, task)
            return self._ask(model, rows), {
                "settings": {"steps": longest.updates(*sizes)},
                "seconds": {"total": time.perf_counter() - started},
            }

        return made
