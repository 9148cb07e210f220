"""Make a recommender forget a request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation.roles import ORIGINAL, UNLEARNED
from ..experiments.request_rows import RequestRows
from ..experiments.study import Unlearned
from ..methods import build
from ..runs.files import write_json
from ..runs.folder import Run, open_run
from ..runs.record import RESULTS, CitationRecord, write_record
from ..runs.rehearsal import read_rehearsal
from ..runs.resumption import NEVER, CheckpointOptions, resumable_run
from ..training.loop import Progress, silent
from ..unlearning.method import Method
from .request import RequestCase, RequestOptions, minutes_for


@dataclass(frozen=True)
class DryRun:
    """What a request would do.

    Attributes:
        rows: by part.
        phases: rows read by phase.
        minutes: estimated from the original's training; None if that is not known.
        rehearsal: what the parent's rehearsal says of these settings; None where it says nothing.
    """

    rows: dict[str, int]
    phases: dict[str, int]
    minutes: float | None
    rehearsal: CitationRecord | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        cited = None if self.rehearsal is None else self.rehearsal.model_dump(mode="json")
        return vars(self) | {"rehearsal": cited}


def chosen_method(run: Run, name: str, options: RequestOptions) -> Method | None:
    """A method in the settings that the rehearsal of `run` chose; None where it chose none.

    It chose for requests of users, and for no others.

    Raises:
        RunError: the rehearsal is damaged, or another run's.
        DataError: the request cannot be read.
    """
    if not options.is_of_users(run):
        return None
    rehearsal = read_rehearsal(run)
    if rehearsal is None or rehearsal.chosen is None or rehearsal.method != name:
        return None
    return build(name, rehearsal.trials[rehearsal.chosen].settings)


def unlearn(
    parent: Run,
    out: Path | str,
    method: Method,
    options: RequestOptions | None = None,
    *,
    progress: Progress = silent,
    checkpoints: CheckpointOptions = NEVER,
) -> Run:
    """Make the recommender of `parent` forget a request; the result is a run folder of its own.

    `parent` is only read. It may itself have been made by `unlearn`: what it forgot stays out of
    what is retained now. The request itself is written nowhere: the record holds its HMAC, and that
    of each row.

    A checkpoint holds weights and optimizer state of what is tuned to forget, which rows of D_f
    have moved. Teachers, caches and answers are in none.

    Raises:
        RunError: `out` exists, `parent` is damaged, the disk is full, or there is something else to
            go on with.
        DataError: the request names what is not in the training data, nothing, or everything; or
            rows that the recommender was tuned on are no longer in the data.
    """
    out = Path(out)
    options = options or RequestOptions()
    # Read for the error alone: damage is told before hours of work, and not after.
    read_rehearsal(parent)
    with resumable_run(out, checkpoints) as partial:
        case = RequestCase.open(parent, options, progress)
        study = case.study()
        method.check_scores(study.rows.scores)
        if checkpoints.is_on:
            case.space.checkpoints = case.begin_checkpoints(checkpoints, out, method)
        # D_f will be gone later: what the models say of it is asked now, before and after.
        study.ask(ORIGINAL, case.original)
        unlearned = study.unlearn(case.original, method, scratch=partial)
        unlearned.model.save(partial)
        study.ask(UNLEARNED, unlearned.model)
        results = study.measure()
        write_json(partial / RESULTS, results.as_dict() | costs_of(unlearned, study.rows))
        case.save_erased_rows(partial)
        write_record(partial, case.record(method, unlearned))
    return open_run(out)


def dry_run(parent: Run, method: Method, options: RequestOptions | None = None) -> DryRun:
    """Say what `unlearn` would do, and about how long it would take.

    The estimate is for the machine that trained the original.
    """
    # All checks of a real request are made, so that a dry run which ends well promises something.
    case = RequestCase.open(parent, options or RequestOptions(), silent)
    rows = case.study().rows
    method.check_scores(rows.scores)
    schedule = case.space.recipe.tuning.schedule
    phases = method.plan(len(rows.forget), len(rows.retain), schedule)
    rows_read = sum(phases.values())
    minutes = minutes_for(parent, rows_read)
    return DryRun(rows.counts(), phases, minutes, case.citation(method))


def costs_of(unlearned: Unlearned, rows: RequestRows) -> dict[str, Any]:
    """What a request took, for results.json."""
    costs = unlearned.costs
    return {
        "seconds": costs.seconds | {"unlearning": unlearned.seconds},
        "rows": rows.counts(),
        "rows_read": costs.rows,
        "peak_bytes": costs.peak_bytes,
        "trainable_parameters": costs.trainable,
        "total_parameters": unlearned.model.parameter_count(),
        "phase_logs": [vars(log) for log in unlearned.phase_logs],
        "outcome": unlearned.outcome.as_dict(),
    }
