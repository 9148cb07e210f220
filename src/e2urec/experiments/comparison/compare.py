"""Methods × seeds × requests on the same footing.

Originals and retrained models are trained once a seed and serve every method. Settings are chosen
on a development request, by the same number of trials for each method. All models answer the same
rows, and one evaluation measures them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...core.disk import require_room
from ...core.durable import publish_folder, remove_tree
from ...core.errors import ConfigError, RunError
from ...core.locks import private_folder
from ...core.process import process_count
from ...core.say import Say, no_words
from ...evaluation.comparison import Comparison, Key
from ...evaluation.results import Results
from ...evaluation.roles import ORIGINAL, Role
from ...evaluation.shadows import ShadowScores
from ...report.comparison import write_comparison
from ...runs.folder import open_run, work_beside
from ...runs.keys import controller_key
from ...runs.record import RunRecord, write_record
from ...training.loop import Progress, silent
from ..dependencies import dependencies
from ..grid import FinishedCell, Grid, refuse_other_settings
from ..recipe import Recipe
from ..request_rows import RequestRows
from ..study import Study
from ..workspace import Workspace
from .cell_maker import CELLS, SHADOWS
from .choose import Trial, choose
from .jobs import ONE_JOB, JobOptions
from .plan import ComparisonPlan, Settings
from .seed_models import Methods, SeedModels
from .stages import dependent, independent, originals
from .team import Team

RESULT = "result"
FORMER = "former"


def compare(
    recipe: Recipe,
    out: Path,
    *,
    progress: Progress = silent,
    say: Say = no_words,
    jobs: JobOptions = ONE_JOB,
) -> Comparison:
    """Run the comparison of `recipe` into folder `out`, going on where an interrupted one stopped.

    Args:
        recipe: what is compared.
        out: folder to make.
        progress: told of each step; with several jobs, of each finished cell.
        say: told of each finished cell.
        jobs: how many cells are made at once, and where.

    Raises:
        ConfigError: an unknown method or setting, more trials than a method has settings, several
            processes of a launcher, or jobs that cannot be started.
        RunError: `out` exists and is no earlier result with failed cells, or was begun with
            another recipe; or a job ended without what nothing can be measured without.
    """
    plan = ComparisonPlan.of(recipe)
    if process_count() > 1:
        raise ConfigError(
            "compare: runs in one process, whose cells can be taken up again; start it without a "
            "launcher"
        )
    # Read first: a bad key is told before hours of work, and not after.
    secret = controller_key()
    # Answers to D_f are as sensitive as D_f itself: their folder goes once the result is on the
    # disk. Cells that failed leave it there, to be tried again by the same command.
    with work_beside(out, keep=CELLS) as work:
        _refuse_other_result(out, work.path, recipe, secret)
        grid = Grid(work.path / CELLS, len(plan), say, jobs=jobs.count)
        with Team.open(jobs, work.path, grid, progress) as team:
            run = _Run(plan, grid, work.path / SHADOWS, progress, team)
            comparison = run.finish(secret)
        settings = recipe.model_dump(mode="json")
        record = RunRecord(kind="comparison", recipe=settings, seed=recipe.seed)
        with private_folder(work.path / RESULT) as result:
            write_comparison(comparison, result)
            write_record(result, record, secret)
            _publish(result, work.path, out)
        work.stays = bool(comparison.failed)
    return comparison


def _refuse_other_result(out: Path, work: Path, recipe: Recipe, secret: bytes) -> None:
    """Raise RunError where `out` is anything but an earlier result of this comparison."""
    if not os.path.lexists(out):
        return
    # Without cells there is nothing to go on with: the comparison is finished.
    if (work / CELLS).is_dir():
        record = open_run(out, key=secret).record
        settings = recipe.model_dump(mode="json")
        if record.kind == "comparison" and record.recipe == settings:
            return
    raise RunError(f"'{out}': exists already; choose another folder or remove it")


def _publish(result: Path, work: Path, out: Path) -> None:
    """Give a result its name `out`, in place of one in which cells had failed."""
    if out.is_dir():
        # Killed between the two renames, the same command makes the result from its cells.
        remove_tree(work / FORMER)
        out.rename(work / FORMER)
    publish_folder(result, out)


@dataclass
class _Run:
    """A comparison on its way.

    Attributes:
        plan: every cell.
        grid: the finished ones.
        shadows: folder of the shadow models.
        progress: told of each step.
        team: jobs that make cells beforehand, so that they are only read here; None: there are
            none.
        cells: finished cells by seed and request.
        rows: of each request; they are the same for all seeds.
        shadow_scores: by seed and request.
        control_auc: of the control model on the test rows of each request.
    """

    plan: ComparisonPlan
    grid: Grid
    shadows: Path
    progress: Progress
    team: Team | None = None
    cells: dict[Key, dict[Role, FinishedCell]] = field(default_factory=dict)
    rows: dict[int, RequestRows] = field(default_factory=dict)
    shadow_scores: dict[Key, ShadowScores] = field(default_factory=dict)
    control_auc: dict[int, float] = field(default_factory=dict)

    def finish(self, key: bytes) -> Comparison:
        """Make all cells, and measure them; they are known again under the controller's key."""
        recipe = self.plan.recipe
        seeds = recipe.compare.seeds
        models = [SeedModels.of(recipe, seed, self.grid, self.progress) for seed in seeds]
        space = models[0].space
        space.check_before_training()
        models[0].check_requests()
        refuse_other_settings(self.grid.folder.parent, dependencies(space), key)
        # No other model than an original a seed stays on the disk.
        originals = sum(not self.grid.has(seed_models.model_key) for seed_models in models)
        require_room(self.grid.folder.parent, originals * space.model_bytes())
        settings, trials = self._choose(models[0])
        methods = {name: self.plan.method(name, values) for name, values in settings.items()}
        # Seed by seed, since an original and its sharded rivals fill the memory.
        for seed_models in models:
            self._make(seed_models, methods)
            seed_models.leave()
        return self._comparison(methods, settings, trials)

    def _choose(self, models: SeedModels) -> tuple[dict[str, Settings], list[Trial]]:
        """The settings of each method; jobs make what that takes before, and what waits for it."""
        if self.team is None:
            return choose(self.plan, models)
        plan = self.plan
        first = {name: trials[0] for name, trials in plan.trials.items()}
        self.team.brief(plan.recipe, first)
        remembered = models.remembered()
        # While others work, this process needs no model, and no room on a GPU.
        models.leave()
        self.team.make("originals", originals(plan, remembered))
        self.team.make("jobs on the originals", independent(plan))
        settings, trials = choose(plan, models)
        models.leave()
        self.team.brief(plan.recipe, settings)
        self.team.make("jobs with chosen settings", dependent(plan))
        return settings, trials

    def _make(self, models: SeedModels, methods: Methods) -> None:
        """All cells of one seed."""
        seed = models.recipe.seed
        for number, request in self.plan.requests.items():
            key = (seed, number)
            study = models.study(request)
            self.rows[number] = study.rows
            if number not in self.control_auc:
                self.control_auc[number] = models.control_auc(request)
            self.cells[key] = {}
            for cell in self.plan.report(seed, number):
                finished = models.finish(cell, study, methods)
                if finished is not None:
                    self.cells[key][cell.role] = finished
            if self.plan.recipe.compare.shadows:
                self.shadow_scores[key] = models.shadow_scores(study, self.shadows)

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
            requests={number: wish.in_words() for number, wish in self.plan.requests.items()},
            control_auc=self.control_auc,
            making=self.grid.making(),
            presets=self.plan.special_presets,
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
        singles = compare.requests[number - 1].singles
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
            is_of_singles=singles is not None,
        )
