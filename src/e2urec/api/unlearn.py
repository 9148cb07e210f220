"""Make a recommender forget a request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.disk import require_room
from ..core.process import first_process
from ..evaluation.disclosure import outcome_record, phase_records
from ..evaluation.roles import ORIGINAL, UNLEARNED
from ..experiments.request_rows import RequestRows
from ..experiments.study import MEASURED_PARTS, Unlearned, answers_alone, results_alone
from ..methods import build
from ..runs.copying import copy_files, is_of_model
from ..runs.files import write_json
from ..runs.folder import Run, open_run
from ..runs.keys import key_at_hand
from ..runs.record import RESULTS, CitationRecord, is_vouched, write_record
from ..runs.rehearsal import read_rehearsal
from ..runs.resumption import NEVER, CheckpointOptions, resumable_run
from ..training.loop import Progress, silent
from ..unlearning.method import Method
from .method_choice import method_for
from .original_answers import save_answers, save_remaining_answers
from .request import RequestCase, RequestOptions, minutes_for
from .stale_shadows import remove_stale_shadows


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


def unlearn(
    parent: Run,
    out: Path | str,
    method: Method | str = "e2urec",
    options: RequestOptions | None = None,
    *,
    progress: Progress = silent,
    checkpoints: CheckpointOptions = NEVER,
) -> Run:
    """Make the recommender of `parent` forget a request; the result is a run folder of its own.

    `parent` may itself have been made by `unlearn`: what it forgot stays out of what is retained
    now. It is only read, but shadow models that were tuned on rows which go now are removed from it
    and from the runs that it was made from. The request itself is written nowhere: the record holds
    its HMAC, and that of each row.

    Where no training prompt shows any of the rows that go (users who were held out, say), the model
    is the parent's own: the rows leave all that is recorded, and there is nothing to unlearn.

    `method` by its name alone is taken in what suits the run and the request: see
    `method_choice.method_for`; `options.say` is told.

    A checkpoint holds weights and optimizer state of what is tuned to forget, which rows of D_f
    have moved, encrypted under the controller's key. Teachers, caches and answers are in none.

    Raises:
        RunError: `out` exists, `parent` is damaged, the disk is full, or there is something else to
            go on with.
        DataError: the request names what is not in the data, nothing, or every training row; or
            rows that the recommender was tuned on are no longer in the data.
    """
    out = Path(out)
    options = options or RequestOptions()
    _require_method(method)
    # Read for the error alone: damage is told before hours of work, and not after.
    read_rehearsal(parent, key_at_hand(options.key))
    with resumable_run(out, checkpoints) as partial:
        require_room(partial, parent.record.size)
        case = RequestCase.open(parent, options, progress)
        method = _method(case, method)
        if checkpoints.is_on:
            case.space.checkpoints = case.begin_checkpoints(checkpoints, out, method)
        if case.has_training_rows:
            seconds = _forget(case, method, partial)
        else:
            seconds = {}
            _leave_as_it_is(case, partial)
        case.save_erased_rows(partial)
        write_record(partial, case.record(method, seconds), _mac_key(case))
        # Last: what a failed request leaves can still be measured.
        if first_process():
            remove_stale_shadows(case)
    return open_run(out)


def _require_method(method: Method | str) -> None:
    """Raise ConfigError for the name of no method, before anything is read."""
    if isinstance(method, str):
        build(method)


def _method(case: RequestCase, method: Method | str) -> Method:
    return method_for(case, method) if isinstance(method, str) else method


def _mac_key(case: RequestCase) -> bytes | None:
    """The key for the MAC of the result; None, which is told, where the parent has no such MAC."""
    parent = case.parent
    if is_vouched(parent.path, parent.record, case.controller_key):
        return case.controller_key
    case.options.say(
        f"'{parent.path}': has no MAC that holds under this controller key, so the new run gets "
        "none either"
    )
    return None


def _forget(case: RequestCase, method: Method, folder: Path) -> dict[str, float]:
    """Write the unlearned model and its figures; seconds by phase."""
    study = case.study()
    method.check_scores(study.rows.scores)
    # D_f will be gone later: what the models say of it is asked now, before and after.
    original = case.take_original()
    study.ask(ORIGINAL, original)
    unlearned = study.unlearn(original, method, scratch=folder)
    unlearned.model.save(folder)
    study.ask(UNLEARNED, unlearned.model)
    save_answers(case, folder, study.rows, study.answers[UNLEARNED])
    results = study.measure()
    write_json(folder / RESULTS, results.as_dict() | costs_of(unlearned, study.rows))
    return unlearned.costs.seconds


def _leave_as_it_is(case: RequestCase, folder: Path) -> None:
    """Write the parent's own model, and figures of the rows that stay.

    No training prompt showed anything of what goes, so the model knows nothing of it. The rows are
    gone from what is recorded and measured all the same.
    """
    parent = case.parent
    copy_files(parent, folder, is_of_model)
    save_remaining_answers(case, folder)
    all_rows = case.rows
    results: dict[str, Any] = {"rows": all_rows.counts()}
    rows = {name: getattr(all_rows, name) for name in MEASURED_PARTS}
    # Of no rows there are no figures.
    if all(len(part) for part in rows.values()):
        recipe = case.space.recipe
        answers = answers_alone(recipe, case.take_original(), rows)
        results |= results_alone(recipe, answers).as_dict()
    write_json(folder / RESULTS, results)


def dry_run(
    parent: Run, method: Method | str = "e2urec", options: RequestOptions | None = None
) -> DryRun:
    """Say what `unlearn` would do, and about how long it would take.

    The estimate is for the machine that trained the original.
    """
    # All checks of a real request are made, so that a dry run which ends well promises something.
    _require_method(method)
    case = RequestCase.open(parent, options or RequestOptions(), silent)
    method = _method(case, method)
    rows = case.rows
    if not case.has_training_rows:
        return DryRun(rows.counts(), phases={}, minutes=0.0)
    method.check_scores(rows.scores)
    schedule = case.space.recipe.tuning.schedule
    sizes = len(rows.forget), len(rows.retain)
    phases = method.suited(*sizes, case.take_original().lm).plan(*sizes, schedule)
    rows_read = sum(phases.values())
    minutes = minutes_for(parent, rows_read)
    return DryRun(rows.counts(), phases, minutes, case.citation(method))


def costs_of(unlearned: Unlearned, rows: RequestRows) -> dict[str, Any]:
    """What a request took, for results.json."""
    costs = unlearned.costs
    forget_rows = len(rows.forget)
    return {
        "seconds": costs.seconds | {"unlearning": unlearned.seconds},
        "rows": rows.counts(),
        "rows_read": costs.rows,
        "peak_bytes": costs.peak_bytes,
        "peak_gpu_bytes": costs.peak_gpu_bytes,
        "trainable_parameters": costs.trainable,
        "total_parameters": unlearned.model.parameter_count(),
        "phase_logs": phase_records(unlearned.phase_logs, forget_rows),
        "outcome": outcome_record(unlearned.outcome, forget_rows),
    }
