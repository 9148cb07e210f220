"""Make some cells of a comparison in a process of their own."""

import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from ...core.disk import is_full
from ...core.errors import E2URecError
from ...core.reading import read_object
from ...runs.files import write_json
from ...runs.keys import controller_key
from ...training.loop import silent
from ..dependencies import dependencies
from ..grid import REMEDY, Grid, refuse_other_settings
from ..recipe import Recipe
from ..study import Study
from .cell_report import CellReport
from .choose import development_study
from .plan import DEVELOPMENT, Cell, ComparisonPlan, Settings
from .seed_models import Methods, SeedModels
from .stages import shadows_key

CELLS = "cells"
"""Folder of finished cells; its presence is what lets an interrupted comparison go on."""
SHADOWS = "shadows"
ORDER = "order.json"
"""File of the jobs' folder that says what is compared."""


def write_order(folder: Path, recipe: Recipe, settings: dict[str, Settings], *, jobs: int) -> None:
    """Write what workers have to know into the jobs' folder."""
    order = {"recipe": recipe.model_dump(mode="json"), "settings": settings, "jobs": jobs}
    write_json(folder / ORDER, order)


def make_cells(folder: Path, seed: int, keys: tuple[str, ...]) -> list[CellReport]:
    """Make the cells `keys` of one seed; after an error that ends the comparison, no more.

    Args:
        folder: of the jobs, in which `write_order` wrote; the cells lie beside it.
        seed: of the original.
        keys: names of cells.
    """
    reports = []
    maker: _CellMaker | None = None
    for key in keys:
        report = CellReport(key)
        reports.append(report)
        started = time.perf_counter()
        try:
            # In here, since what it reads may be wrong as well.
            maker = maker or _CellMaker.of(folder, seed)
            maker.make(report)
        except E2URecError as error:
            report.error = type(error).__name__, str(error)
        except Exception as error:
            report.lines.append(traceback.format_exc())
            report.error = "RunError", _reason(key, error)
        report.seconds = time.perf_counter() - started
        if report.error is not None:
            break
    return reports


def _reason(key: str, error: Exception) -> str:
    if is_full(error):
        return f"{key}: no space left on the disk; free some and run again"
    text = " ".join(str(error).split())
    return f"{key}: {type(error).__name__}: {text}; {REMEDY}"


@dataclass
class _CellMaker:
    """Makes cells of one seed.

    Attributes:
        plan: every cell.
        models: of the seed.
        methods: with the settings that were chosen.
        shadows: folder of the shadow models.
        cells: of the plan, by name.
        studies: by number of the request.
    """

    plan: ComparisonPlan
    models: SeedModels
    methods: Methods
    shadows: Path
    cells: dict[str, Cell]
    studies: dict[int, Study] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, seed: int) -> "_CellMaker":
        work = folder.parent
        order = read_object(folder / ORDER, REMEDY)
        recipe = Recipe.build(order["recipe"], place=ORDER)
        plan = ComparisonPlan.of(recipe)
        grid = Grid(work / CELLS, 0, print, jobs=order["jobs"])
        models = SeedModels.of(recipe, seed, grid, silent)
        # Another machine may have other versions, data or keys: cells are not mixed. The command
        # noted them with the recipe of the first seed.
        first = SeedModels.of(recipe, recipe.compare.seeds[0], grid, silent)
        own = dependencies(models.space)
        own["recipe"] = first.recipe.model_dump(mode="json")
        refuse_other_settings(work, own, controller_key())
        methods = {}
        for name, settings in order["settings"].items():
            methods[name] = plan.method(name, settings)
        cells = {cell.key: cell for cell in plan.cells() if cell.seed == seed}
        return cls(plan, models, methods, work / SHADOWS, cells)

    def make(self, report: CellReport) -> None:
        """Make one cell; notes why its method could not."""
        grid = self.models.grid
        grid.say = report.lines.append
        key = report.key
        if key in self.cells:
            self._make(self.cells[key])
        elif key == self.models.model_key:
            _ = self.models.original_folder
        else:
            self._make_for_all(key)
        report.failure = grid.failed.get(key)

    def _make(self, cell: Cell) -> None:
        methods = self.plan.tried(cell) or self.methods
        self.models.finish(cell, self._study(cell.request), methods)

    def _make_for_all(self, key: str) -> None:
        """What is of no single model: remembered users, or shadow models."""
        remembered = self.models.remembered()
        if key in remembered:
            self.models.parts(remembered[key])
            return
        for number in self.plan.requests:
            if key == shadows_key(self.models.recipe.seed, number):
                self.models.shadow_scores(self._study(number), self.shadows)

    def _study(self, number: int) -> Study:
        if number not in self.studies:
            if number == DEVELOPMENT:
                self.studies[number] = development_study(self.plan, self.models)
            else:
                request = self.plan.requests[number]
                self.studies[number] = self.models.study(request)
        return self.studies[number]
