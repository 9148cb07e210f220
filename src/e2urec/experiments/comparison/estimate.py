"""How long a comparison would take: the rows of every cell, and a few timed training steps."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...evaluation.roles import ORIGINAL, PLACEBO_RETAIN, RoleKind
from ...models.devices import thread_limit
from ...training.loop import Phase
from ...training.supervised import tune
from ..odds_at_hand import RETAIN_SAMPLE_ROWS
from ..recipe import Recipe
from ..workspace import Workspace
from .jobs import ONE_JOB, JobOptions, core_count, visible_gpus
from .memorised import as_share
from .plan import DEVELOPMENT, Cell, ComparisonPlan, model_key
from .stages import dependent, independent, originals, shadows_key

TIMED_STEPS = 8
"""Training steps that are timed: enough for the first ones, which are slow, not to decide."""
ANSWER_COST = 1 / 3
"""Of tuning on a row: the forward pass without the backward pass, which takes twice as long."""


@dataclass(frozen=True)
class Estimate:
    """What a comparison will read, and about how long it takes on this machine.

    Attributes:
        rows: that are read, by part.
        hours: in all.
        cells: that there are.
        jobs: that share the work.
    """

    rows: dict[str, int]
    hours: float
    cells: int
    jobs: int = 1


def estimate(recipe: Recipe, jobs: JobOptions = ONE_JOB) -> Estimate:
    """Count the rows of every cell of the plan and time a few training steps; nothing is written.

    Args:
        recipe: what is compared.
        jobs: how many cells are made at once. The steps are timed with the threads of one job; the
            start of a job, and what it waits for on a cluster, are left out.

    Raises:
        ConfigError: as `ComparisonPlan.of` does.
    """
    plan = ComparisonPlan.of(recipe)
    space = Workspace(recipe)
    counter = _RowCounter.of(plan, space)
    rows = counter.originals()
    for cell in plan.cells():
        part, count = counter.cell(cell)
        rows[part] = rows.get(part, 0) + count
    rows |= counter.shadows()
    rows |= counter.scores(space)
    rows["answers"] = len(plan.cells()) * counter.answered
    weighted = _weighted_rows(counter, rows, _lanes(jobs))
    with thread_limit(jobs.threads):
        seconds = _seconds_per_row(recipe, space) * weighted
    return Estimate(rows, seconds / 3600, len(plan), jobs.count)


def _lanes(jobs: JobOptions) -> int:
    """Jobs that do not slow each other down; more of them on one machine take as long."""
    if not jobs.is_apart or jobs.cluster != "local":
        return jobs.count
    return min(jobs.count, len(visible_gpus()) or core_count())


def _weighted_rows(counter: "_RowCounter", rows: Mapping[str, int], jobs: int) -> float:
    """Rows that are read one after the other, in those of training: all, or those of a busy job."""
    if jobs == 1:
        answers = rows["answers"]
        return sum(rows.values()) - answers + ANSWER_COST * answers
    plan = counter.plan
    costs = counter.costs(rows)
    total = 0.0
    for stage in (originals(plan), independent(plan), dependent(plan)):
        ends = [0.0] * min(jobs, len(stage))
        for bundle in stage:
            cost = sum(costs[key] for key in bundle.keys)
            # The next bundle goes to the job that is free first.
            heapq.heapreplace(ends, ends[0] + cost)
        total += max(ends, default=0.0)
    return total


@dataclass(frozen=True)
class _RowCounter:
    """Counts the rows that cells read.

    Attributes:
        plan: of the comparison.
        train: training rows.
        unseen: rows of unseen users.
        sizes: rows of D_f and of D_r, by number of the request.
        answered: rows that each model is asked about.
    """

    plan: ComparisonPlan
    train: int
    unseen: int
    sizes: dict[int, tuple[int, int]]
    answered: int

    @classmethod
    def of(cls, plan: ComparisonPlan, space: Workspace) -> "_RowCounter":
        sizes = {}
        answered = 0
        unseen = len(space.split.unseen)
        for number, request in plan.requests.items():
            # Random users stand for those who are remembered most: no model is trained here.
            erasure = space.draw(as_share(request, space.split.train))
            parts = space.resolve(erasure)
            forget = len(parts.forget)
            retain = len(parts.retain)
            sizes[number] = (forget, retain)
            held_out = len(parts.test) + len(parts.valid) + unseen
            sample = min(retain, RETAIN_SAMPLE_ROWS)
            request_rows = forget + len(parts.old_prompts)
            answered = max(answered, held_out + request_rows + sample)
        # The development request is drawn among users whom no other request names, which takes
        # models of its own: the first request stands for its size.
        sizes[DEVELOPMENT] = sizes[1]
        return cls(plan, len(space.split.train), unseen, sizes, answered)

    def originals(self) -> dict[str, int]:
        """Rows that the originals are tuned on, those of sharded methods too."""
        compare = self.plan.recipe.compare
        seeds = len(compare.seeds)
        once = seeds * self._epochs * self.train
        rows = {"originals": once}
        for name, trials in self.plan.trials.items():
            if self.plan.method(name).prepares:
                # Every trial of the first seed prepares an original of its own.
                trial_rows = len(trials) * self._epochs * self.train if len(trials) > 1 else 0
                rows[name] = once + trial_rows
        return rows

    def costs(self, rows: Mapping[str, int]) -> dict[str, float]:
        """What each cell, original and set of shadow models takes, in rows of training."""
        compare = self.plan.recipe.compare
        seeds = len(compare.seeds)
        training = self._epochs * self.train
        costs: dict[str, float] = {}
        for seed in compare.seeds:
            costs[model_key(seed)] = training + rows.get("scores", 0) / seeds
        requests = list(self.plan.reported())
        for seed, number in requests:
            costs[shadows_key(seed, number)] = rows.get("shadows", 0) / len(requests)
        for cell in self.plan.cells():
            _, count = self.cell(cell)
            costs[cell.key] = count + ANSWER_COST * self.answered
            if self._prepares(cell):
                costs[cell.key] += training
        return costs

    def _prepares(self, cell: Cell) -> bool:
        """Whether a sharded original is made for a cell: for each trial, and once a seed."""
        if (
            cell.role.kind is not RoleKind.UNLEARNED
            or not self.plan.method(cell.role.name).prepares
        ):
            return False
        return cell.request <= 1

    def cell(self, cell: Cell) -> tuple[str, int]:
        """The part of the estimate that a cell belongs to, and the rows that its making reads."""
        forget, retain = self.sizes[cell.request]
        schedule = self.plan.recipe.tuning.schedule
        if cell.role == ORIGINAL:
            return "originals", 0
        if cell.role.kind is RoleKind.RETRAINED:
            return "retrained", self._epochs * retain
        if cell.role == PLACEBO_RETAIN:
            times = self._times(cell.request)
            return "placebo", times * self._placebo_rows(max(1, forget // times), retain)
        name = cell.role.name
        settings = self.plan.trials[name][cell.trial or 0]
        method = self.plan.method(name, settings)
        times = 1 if method.exact else self._times(cell.request)
        phases = method.plan(max(1, forget // times), retain, schedule)
        return name, times * sum(phases.values())

    def _times(self, number: int) -> int:
        """How often an approximate method is run for a request: once, or for each single user."""
        request = self.plan.requests.get(number)
        return 1 if request is None else request.singles or 1

    def _placebo_rows(self, forget: int, retain: int) -> int:
        """Rows of D_r in as many steps as the longest approximate method takes."""
        schedule = self.plan.recipe.tuning.schedule
        methods = [self.plan.method(name) for name in self.plan.trials]
        approximate = [method for method in methods if not method.exact]
        steps = [method.updates(forget, retain, schedule) for method in approximate]
        return max(steps, default=0) * schedule.batch_size

    def shadows(self) -> dict[str, int]:
        """Rows that shadow models are tuned on."""
        recipe = self.plan.recipe
        if not recipe.compare.shadows:
            return {}
        rows = 0
        for _, number in self.plan.reported():
            _, retain = self.sizes[number]
            rows += recipe.shadows.row_count(retain, self.unseen, recipe.tuning)
        return {"shadows": rows}

    def scores(self, space: Workspace) -> dict[str, int]:
        """Rows that the half models behind out-of-fold scores read, for the original of each seed.

        They cost less than as many rows of the original's training: most of each model is cached.
        """
        if not space.recipe.scores.pairs:
            return {}
        seeds = len(self.plan.recipe.compare.seeds)
        return {"scores": seeds * space.scores_row_count()}

    @property
    def _epochs(self) -> int:
        schedule = self.plan.recipe.tuning.schedule
        return schedule.epochs


def _seconds_per_row(recipe: Recipe, space: Workspace) -> float:
    """Time a few steps of the original's training."""
    schedule = recipe.tuning.schedule
    train = space.split.train
    count = min(len(train), TIMED_STEPS * schedule.batch_size)
    rows = space.encode(train.take(np.arange(count)))
    # Patience would read validation rows, and epochs repeat what one tells already.
    once = schedule.model_copy(update={"epochs": 1, "patience": None})
    tuning = recipe.tuning.model_copy(update={"schedule": once})
    phase = Phase("original", recipe.seed)
    _, trace = tune(space.untuned(), tuning, rows, None, phase)
    return trace.seconds / max(1, trace.rows)
