"""Methods × seeds × requests on the same footing.

Originals and retrained models are trained once a seed and serve every method. Settings are chosen
on a development request, by the same number of trials for each method. All models answer the same
rows, and one evaluation measures them.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import ConfigError
from ..core.say import Say, no_words
from ..evaluation.comparison import Comparison, Key
from ..evaluation.results import Results
from ..evaluation.roles import ORIGINAL, Role
from ..evaluation.shadows import ShadowScores
from ..methods import build
from ..report.comparison import write_comparison
from ..runs.folder import create_run
from ..runs.record import RunRecord, write_record
from ..training.loop import Progress, silent
from .choose import Trial, choose
from .grid import FinishedCell, Grid, refuse_other_settings
from .plan import Plan, Settings
from .recipe import Recipe
from .request_rows import RequestRows
from .seed_models import Methods, SeedModels
from .study import Study
from .workspace import Workspace

# Its presence is what lets an interrupted comparison go on.
CELLS = "cells"
SHADOWS = "shadows"
RECIPE = "recipe.json"


def compare(
    recipe: Recipe, out: Path, *, progress: Progress = silent, say: Say = no_words
) -> Comparison:
    """Run the comparison of `recipe` into folder `out`, going on where an interrupted one stopped.

    Raises:
        ConfigError: an unknown method or setting, more trials than a method has settings, or
            several processes.
        RunError: `out` exists, or was begun with another recipe.
    """
    plan = Plan.of(recipe)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "compare: runs in one process, whose cells can be taken up again; start it without a "
            "launcher"
        )
    with create_run(out, keep=CELLS) as partial:
        refuse_other_settings(partial, RECIPE, recipe.model_dump_json(), "another recipe")
        grid = Grid(partial / CELLS, len(plan), say)
        comparison = _Run(plan, grid, partial / SHADOWS, progress).finish()
        write_comparison(comparison, partial)
        # Answers to D_f are as sensitive as D_f itself: they go once the figures are written.
        for folder in (CELLS, SHADOWS):
            shutil.rmtree(partial / folder, ignore_errors=True)
        (partial / RECIPE).unlink()
        settings = recipe.model_dump(mode="json")
        write_record(partial, RunRecord(kind="comparison", recipe=settings, seed=recipe.seed))
    return comparison


@dataclass
class _Run:
    """A comparison on its way.

    Attributes:
        plan: every cell.
        grid: the finished ones.
        shadows: folder of the shadow models.
        progress: told of each step.
        cells: finished cells by seed and request.
        rows: of each request; they are the same for all seeds.
        shadow_scores: by seed and request.
    """

    plan: Plan
    grid: Grid
    shadows: Path
    progress: Progress
    cells: dict[Key, dict[Role, FinishedCell]] = field(default_factory=dict)
    rows: dict[int, RequestRows] = field(default_factory=dict)
    shadow_scores: dict[Key, ShadowScores] = field(default_factory=dict)

    def finish(self) -> Comparison:
        """Make all cells, and measure them."""
        recipe = self.plan.recipe
        seeds = recipe.compare.seeds
        models = [SeedModels.of(recipe, seed, self.grid, self.progress) for seed in seeds]
        settings, trials = choose(self.plan, models[0])
        methods = {name: build(name, values) for name, values in settings.items()}
        # Seed by seed, since an original and its sharded rivals fill the memory.
        for seed_models in models:
            self._make(seed_models, methods)
            seed_models.leave()
        return self._comparison(methods, settings, trials)

    def _make(self, models: SeedModels, methods: Methods) -> None:
        """All cells of one seed."""
        seed = models.recipe.seed
        for number, request in self.plan.requests.items():
            key = (seed, number)
            study = models.study(request)
            self.rows[number] = study.rows
            self.cells[key] = {}
            for cell in self.plan.report(seed, number):
                finished = models.finish(cell, study, methods)
                if finished is not None:
                    self.cells[key][cell.role] = finished
            if self.plan.recipe.compare.shadows:
                folder = self.shadows / models.folder
                self.shadow_scores[key] = study.shadow_scores(folder)

    def _comparison(
        self, methods: Methods, settings: Mapping[str, Settings], trials: list[Trial]
    ) -> Comparison:
        results = {}
        log_odds = {}
        for key in self.plan.reported():
            study = self._study(key)
            results[key] = self._measure(study, key)
            scores = {}
            for role, answers in study.answers.items():
                scores[role] = answers.forget.log_odds
            log_odds[key] = scores
        records = {}
        for key, cells in self.cells.items():
            records[key] = {role: cell.record for role, cell in cells.items()}
        return Comparison(
            results=results,
            records=records,
            log_odds=log_odds,
            labels={number: rows.forget.labels for number, rows in self.rows.items()},
            settings=settings,
            trials=[trial.as_dict() for trial in trials],
            failed=self.grid.failed,
            rows={number: rows.counts() for number, rows in self.rows.items()},
            exact=[name for name, method in methods.items() if method.exact],
        )

    def _study(self, key: Key) -> Study:
        """The answers of all models of one seed and request."""
        _, number = key
        answers = {role: cell.answers for role, cell in self.cells[key].items()}
        study = Study(Workspace(self.plan.recipe), self.rows[number], answers)
        study.soften()
        return study

    def _measure(self, study: Study, key: Key) -> Results:
        """The figures of one seed and request. The twin is the original of the next seed."""
        seed, number = key
        compare = self.plan.recipe.compare
        # An original of the next seed is at hand anyway, and its noise is independent.
        place = compare.seeds.index(seed)
        next_seed = compare.seeds[(place + 1) % len(compare.seeds)]
        twin = None
        if next_seed != seed:
            twin = self.cells[next_seed, number][ORIGINAL].answers
        return study.measure(
            twin=twin,
            shadows=self.shadow_scores.get(key),
            resamples=compare.resamples,
        )
