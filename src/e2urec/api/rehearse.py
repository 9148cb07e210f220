"""Rehearse requests before a model goes live, and choose a method's settings by it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Ints
from ..core.errors import ConfigError, RunError
from ..core.process import first_process
from ..core.say import Say, no_words
from ..data.requests import ErasureRequest, ForgetRetain, Unit
from ..evaluation.verdict import MIN_RETRAINED, MIN_USERS
from ..experiments.grid import FinishedCell, Grid, refuse_other_settings
from ..experiments.recipe import Recipe
from ..experiments.rehearsal import (
    SECONDS,
    RehearsalFigures,
    RehearsalModels,
    choose_trial,
    draw_groups,
)
from ..experiments.workspace import Workspace
from ..methods import build
from ..runs.erased_rows import ErasedRows
from ..runs.folder import Run, work_beside
from ..runs.keys import controller_key
from ..runs.record import requests_text, versions
from ..runs.rehearsal import Rehearsal
from ..runs.resumption import NEVER, CheckpointOptions
from ..training.loop import Progress, silent
from ..unlearning.method import Method, unread_differences
from .evaluate import refuse_inexact, refuse_same_models
from .request import erased_rows_of, open_space, require_recommender, time_clause

# Its presence is what lets an interrupted rehearsal go on.
CELLS = "cells"
LARGE_SHARE = 0.25
"""Share of the training users beyond which the retrained models lack much that a request leaves."""


@dataclass(frozen=True)
class RehearsalOptions:
    """What a rehearsal erases, and what it is measured against.

    Attributes:
        size: users of a request.
        times: requests, of disjoint users.
        unit: of the size; users, since interactions and items share their prompts.
        seed: of the draw of the users; default: the run's.
        retrained: models to retrain without all of these users, unless runs are given.
        tolerance: test AUC that a chosen setting may lose to a retrained model.
        key: file of the controller's key; see `RequestOptions`.
        checkpoints: how often the model that is being made is written down, so that an interrupted
            rehearsal goes on inside of it. What is finished is kept in any case.
    """

    size: int = 1
    times: int = 20
    unit: Unit = "users"
    seed: int | None = None
    retrained: int = 1
    tolerance: float = 0.005
    key: Path | None = None
    checkpoints: CheckpointOptions = NEVER


def rehearse(
    run: Run,
    candidates: Sequence[Method],
    options: RehearsalOptions | None = None,
    against: Sequence[Run] = (),
    *,
    progress: Progress = silent,
    say: Say = no_words,
) -> Rehearsal:
    """Erase groups of training users, each from the original of `run`, and measure all as one.

    What was measured is kept in the run, in place of an older rehearsal. An interrupted rehearsal
    goes on when it is asked for again in the same way.

    Args:
        run: made by `train` or `unlearn`.
        candidates: one method, in each of the settings to choose among.
        options: how many requests of what size.
        against: runs retrained from `run` without all these users, and nobody else; without them,
            `options.retrained` models are retrained.
        progress: told of each step.
        say: told what it will cost, and of each finished model.

    Raises:
        ConfigError: too many users, several methods, or requests that cannot be rehearsed.
        RunError: `run` holds no recommender, another rehearsal was begun, or one of `against` was
            not retrained without just these users.
    """
    options = options or RehearsalOptions()
    _refuse_what_cannot_be_rehearsed(run, candidates, options)
    space = _open_space(run, options, progress, say)
    groups = _groups(run, space, options)
    union = space.resolve(ErasureRequest.of_users(space.split.train, np.concatenate(groups)))
    if against:
        refuse_same_models(against)
        erased = _erased_by_all(run, union, options.key)
        for other in against:
            _refuse_other_users(run, other, erased, options.key)
    # Told before models are retrained, and not after.
    if space.score_index is not None:
        # Scores are of the prompts that the run's own template writes.
        space.prompt_reader = space.load(run).prompt_reader
    scores = space.request_scores(union)
    for method in candidates:
        method.check_scores(scores)
    plan = _Plan(run, space, groups, candidates, options, against)
    plan.announce(say)
    with work_beside(run.path, keep=CELLS) as work:
        key = controller_key(options.key)
        refuse_other_settings(work.path, plan.settings(), key)
        space.checkpoints = options.checkpoints.within(work.path, key)
        grid = Grid(work.path / CELLS, plan.cell_count, say, options.key)
        rehearsal = plan.carry_out(grid)
        if first_process():
            rehearsal.save(run, work.path, key)
    return rehearsal


def rehearsal_request(run: Run, options: RehearsalOptions | None = None) -> ErasureRequest:
    """All users whom a rehearsal erases, as one request: what `against` must be retrained without.

    Raises:
        ConfigError, RunError: as `rehearse` does.
    """
    options = options or RehearsalOptions()
    _refuse_what_cannot_be_rehearsed(run, [build("retrain")], options)
    space = _open_space(run, options, silent)
    users = np.concatenate(_groups(run, space, options))
    return ErasureRequest.of_users(space.split.train, users)


def _refuse_what_cannot_be_rehearsed(
    run: Run, candidates: Sequence[Method], options: RehearsalOptions
) -> None:
    require_recommender(run)
    # Their rows overlap: an erased row also rewrites prompts of rows that other requests erase, and
    # no model retrained without all of them says what each of these prompts should be answered.
    if options.unit != "users":
        raise ConfigError(
            f"rehearse: --unit {options.unit}: such requests share prompts, so that no retrained "
            "model serves them all; rehearse users"
        )
    names = {method.name for method in candidates}
    if len(names) != 1:
        raise ConfigError(
            f"rehearse: {len(names)} methods as candidates; give settings of one method"
        )
    if candidates[0].prepares:
        raise ConfigError(
            f"rehearse: method '{candidates[0].name}' trains an original of its own; measure it "
            "with e2urec compare"
        )


def _open_space(
    run: Run, options: RehearsalOptions, progress: Progress, say: Say = no_words
) -> Workspace:
    recipe = Recipe.build(run.record.recipe, place=str(run.path))
    return open_space(run, recipe, options.key, progress, say)


def _groups(run: Run, space: Workspace, options: RehearsalOptions) -> list[Ints]:
    seed = _seed_of(run, options)
    return draw_groups(space.split.train, size=options.size, times=options.times, seed=seed)


def _seed_of(run: Run, options: RehearsalOptions) -> int:
    return run.record.seed if options.seed is None else options.seed


def _erased_by_all(run: Run, union: ForgetRetain, key: Path | None) -> ErasedRows:
    """What is erased once all requests are, and whatever the run erased before."""
    before = erased_rows_of(run, key) or ErasedRows.under(controller_key(key))
    return before.with_rows(union.forget.interactions, union.erased)


def _refuse_other_users(run: Run, other: Run, erased: ErasedRows, key: Path | None) -> None:
    """Raise RunError unless `other` was retrained from `run` without just these rows."""
    refuse_inexact(other)
    parent = other.record.parent
    if parent is None or parent.sha256 != run.sha256:
        raise RunError(f"'{other.path}': was not retrained from '{run.path}'; retrain from that")
    if erased_rows_of(other, key) != erased:
        raise RunError(
            f"'{other.path}': was retrained without other users than are rehearsed; write their "
            "request with --write-request and retrain"
        )


@dataclass(frozen=True)
class _Plan:
    """A rehearsal that can be carried out.

    Attributes:
        run: whose original forgets.
        space: its data and base.
        groups: user codes of each request.
        candidates: one method, in each of its settings.
        options: as they were given.
        against: retrained runs; none: models are retrained here.
    """

    run: Run
    space: Workspace
    groups: Sequence[Ints]
    candidates: Sequence[Method]
    options: RehearsalOptions
    against: Sequence[Run]

    @property
    def reference_count(self) -> int:
        """Number of retrained models."""
        return len(self.against) or self.options.retrained

    @property
    def cell_count(self) -> int:
        """Number of models that are asked."""
        return 1 + self.reference_count + len(self.candidates) * len(self.groups)

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, by which an interrupted rehearsal is known again."""
        return {
            "data": self.space.data.fingerprint(),
            "run": self.run.sha256,
            "method": self.candidates[0].name,
            "candidates": [method.model_dump(mode="json") for method in self.candidates],
            "size": self.options.size,
            "times": self.options.times,
            "seed": _seed_of(self.run, self.options),
            "retrained": self.options.retrained,
            "against": [other.sha256 for other in self.against],
        }

    def announce(self, say: Say) -> None:
        """Say what will be done, and what the dearest part of it costs."""
        train = self.space.split.train
        is_rehearsed = np.isin(train.users, np.concatenate(self.groups))
        rehearsed_rows = int(is_rehearsed.sum())
        requests = requests_text(self.options.times, self.options.size, self.options.unit)
        count = len(self.candidates)
        choices = "1 setting" if count == 1 else f"{count} settings"
        say(
            f"{requests}, {rehearsed_rows} training rows, in {choices}; they "
            f"read about {self._rows_read(rehearsed_rows, len(train))} rows"
        )
        if not self.against:
            self._announce_retraining(say, len(train) - rehearsed_rows)
        self._warn(say)

    def _warn(self, say: Say) -> None:
        """Say where too much or too little is rehearsed."""
        users = self.options.size * self.options.times
        share = users / len(np.unique(self.space.split.train.users))
        if share > LARGE_SHARE:
            say(
                f"the retrained models lack {share:.0%} of the users, and a model that forgot one "
                "request has all but a few; lower --times or --size"
            )
        self._warn_of_unread(say)
        if users < MIN_USERS:
            say(
                f"fewer than {MIN_USERS} users make intervals that are too short, and no gate "
                "passes by them; raise --times"
            )
        if self.reference_count < MIN_RETRAINED:
            say(
                f"a gate passes by a rehearsal with {MIN_RETRAINED} retrained models or more: "
                f"--retrained {MIN_RETRAINED}"
            )

    def _warn_of_unread(self, say: Say) -> None:
        """Say where the candidates differ in what requests of so few rows do not read."""
        train = self.space.split.train
        names: dict[str, None] = {}
        count = 0
        for group in self.groups:
            unread = unread_differences(self.candidates, int(np.isin(train.users, group).sum()))
            names |= dict.fromkeys(unread)
            count += bool(unread)
        if names:
            say(
                f"{count} of {len(self.groups)} requests have too few rows to read "
                f"{', '.join(names)}, in which the candidates differ; let them differ in others"
            )

    def _rows_read(self, rehearsed_rows: int, rows: int) -> int:
        """What all requests in all settings read, if their users have equally many rows."""
        schedule = self.space.recipe.tuning.schedule
        forget = rehearsed_rows // self.options.times
        plans = [method.plan(forget, rows - forget, schedule) for method in self.candidates]
        return self.options.times * sum(sum(plan.values()) for plan in plans)

    def _announce_retraining(self, say: Say, rows: int) -> None:
        read = rows * self.space.recipe.tuning.schedule.epochs * self.options.retrained
        say(f"retraining reads {read} rows{time_clause(self.run, read)}")

    def carry_out(self, grid: Grid) -> Rehearsal:
        """Make all models, and measure them."""
        models = RehearsalModels(self.run, self.space, self.groups, grid)
        original = models.original()
        references = self._references(models)
        figures = RehearsalFigures.of(models, original, references)
        trials = []
        for place, method in enumerate(self.candidates):
            numbers = range(len(self.groups))
            cells = [models.forgotten(place, method, number) for number in numbers]
            trials.append(figures.trial(method, cells))
        seconds = [cell.record.seconds[SECONDS] for cell in references]
        return Rehearsal(
            run=self.run.sha256,
            method=self.candidates[0].name,
            unit=self.options.unit,
            size=self.options.size,
            times=self.options.times,
            users=figures.users,
            rows=figures.rows,
            seed=_seed_of(self.run, self.options),
            retrained=len(references),
            retraining_seconds=float(np.mean(seconds)),
            headroom=figures.headroom(),
            attack=figures.attack(),
            tolerance=self.options.tolerance,
            trials=tuple(trials),
            chosen=choose_trial(trials, self.options.tolerance),
            versions=versions(),
        )

    def _references(self, models: RehearsalModels) -> list[FinishedCell]:
        if self.against:
            return [models.given(number, run) for number, run in enumerate(self.against, start=1)]
        return [models.retrained(number) for number in range(1, self.options.retrained + 1)]
