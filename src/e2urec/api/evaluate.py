"""Measure an unlearned run."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import ConfigError, DataError, RunError
from ..core.locks import SharedFolder
from ..evaluation.relearning import Relearner, require_int8, reshaped
from ..evaluation.results import Results
from ..evaluation.roles import ORIGINAL, PLACEBO_RETAIN, UNLEARNED, Role, retrained
from ..evaluation.shadow_folder import shared_shadows
from ..evaluation.shadows import ShadowScores
from ..evaluation.verdict import MIN_USERS
from ..experiments.study import Study
from ..methods import rebuild
from ..models.fsdp import refuse_split
from ..models.quantisation import refuse_quantised
from ..models.recommender import Recommender
from ..runs.folder import Run, open_run
from ..runs.keys import controller_key
from ..training.loop import Progress, silent
from ..unlearning.method import Method
from .basis import rehearsed_basis
from .request import RequestCase, RequestOptions, erased_rows_of, time_clause
from .stale_shadows import SHADOWS

GATE_SHADOWS = 8
"""Shadow models behind a gate without retrained runs: the recipe's own number."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation does beyond the measures that cost little.

    Attributes:
        shadows: models to train for membership inference by likelihood ratio. Their adapters, which
            never saw D_f, stay in the run folder for the next time. Without retrained runs the
            verdict rests on them. None: no more than `gate` needs.
        robustness: also ask whether D_f comes back by relearning, by merging the adapter, or by
            rounding to int8.
        gate: have a verdict: without retrained runs, and without a rehearsal of requests like this
            one, eight shadows are trained.
        say: told what the shadows will cost, before they are trained.
    """

    shadows: int | None = None
    robustness: bool = False
    gate: bool = False
    say: Callable[[str], object] = lambda text: None


def evaluate(
    run: Run,
    against: Sequence[Run] = (),
    request: RequestOptions | None = None,
    options: EvaluationOptions | None = None,
    *,
    progress: Progress = silent,
) -> Results:
    """Measure an unlearned run against its original, retrained runs and both placebos.

    Args:
        run: made by `unlearn`.
        against: retrained runs of the same request, each with its own seed.
        request: the one that `run` honoured.
        options: shadow models and robustness.
        progress: told of each step.

    Raises:
        RunError: the run was not made by `unlearn`, its original has moved or changed, the request
            is not the one that was honoured, or concerned no training row; or one of `against` was
            not retrained without just the same rows.
        ConfigError: an odd number of shadows; `robustness` without torchao, or of a base that is
            split among processes; a gate with nothing to judge by.
    """
    request = request or RequestOptions()
    options = options or EvaluationOptions()
    if options.robustness:
        require_int8()
    with contextlib.ExitStack() as resources:
        shadow_folder = None
        # A run that nobody may write to can still be measured without shadows.
        if options.shadows or (options.gate and not against):
            shadow_folder = resources.enter_context(shared_shadows(run.path / SHADOWS))
        return _evaluate(run, against, request, options, progress, shadow_folder)


def _evaluate(
    run: Run,
    against: Sequence[Run],
    request: RequestOptions,
    options: EvaluationOptions,
    progress: Progress,
    shadow_folder: SharedFolder | None,
) -> Results:
    case = _open_case(run, against, request, progress)
    if options.robustness:
        _refuse_packed_or_split(case)
    study = case.study()
    basis = rehearsed_basis(run, case, options.say if options.gate else None)
    too_small = study.rows.forget_users < MIN_USERS
    count = _shadow_count(options, bool(against) or (basis is not None and too_small))
    shadows = None
    if count:
        shadows = _shadow_scores(shadow_folder, study, case, count, options.say)
    # Shadows are adapters on the base, which no fully tuned model needs beside itself.
    if not run.adapted:
        study.space.release_base()
    _ask_original(study, case.take_original(), _method_of(run))
    _let_go(study, case.parent)
    relearner = _relearner(study, progress) if options.robustness else None
    _ask_runs(study, run, against, relearner)
    study.soften()
    # Tables name models in the order in which they were asked, and placebos last.
    study.answers[PLACEBO_RETAIN] = study.answers.pop(PLACEBO_RETAIN)
    relearning = {} if relearner is None else relearner.steps
    return study.measure(shadows=shadows, relearning=relearning, rehearsal=basis)


def _shadow_count(options: EvaluationOptions, has_basis: bool) -> int:
    """Shadows to train; `has_basis`: retrained runs or a rehearsal can judge the request."""
    # Shadows are cheaper than a retrained model, so a gate takes them where it has nothing.
    if options.shadows is None:
        return GATE_SHADOWS if options.gate and not has_basis else 0
    if options.gate and not options.shadows and not has_basis:
        raise ConfigError(
            "--gate: has nothing to judge by; give retrained runs with --against, or --shadows 8"
        )
    return options.shadows


def _refuse_packed_or_split(case: RequestCase) -> None:
    """Raise ConfigError where the original cannot be copied and rounded."""
    assert case.original is not None, "nobody has taken the original yet"
    refuse_quantised(case.original.lm, "--robustness")
    refuse_split(case.original.lm, "--robustness")


def _open_case(
    run: Run, against: Sequence[Run], request: RequestOptions, progress: Progress
) -> RequestCase:
    """The request that `run` honoured, put to its parent again; other runs are refused."""
    parent = _parent(run, request.key)
    refuse_same_models(against)
    for other in against:
        _refuse_other_rows(run, other, request.key)
    case = RequestCase.open(parent, request, progress)
    if run.record.note is not None:
        raise RunError(
            f"'{run.path}': {run.record.note}, so there is nothing to measure; what was measured "
            f"of '{parent.path}' holds"
        )
    if case.digest != run.record.request_hmac:
        raise RunError(
            f"'{run.path}': was made for another request, or under another key; name the one it "
            "honoured"
        )
    if not len(case.parts.valid):
        raise DataError(
            "request: no validation rows are left beside it, by which a placebo is fitted; train "
            "anew without those whom it names"
        )
    return case


# No two models are in memory at once: each is gone when the function that asks it returns.
def _ask_original(study: Study, original: Recommender, method: Method) -> None:
    """Ask the original, and the placebo that is made of it."""
    study.ask(ORIGINAL, original, valid=True)
    placebo = study.placebo(original, method)
    study.ask(PLACEBO_RETAIN, placebo)


def _ask_runs(study: Study, run: Run, against: Sequence[Run], relearner: Relearner | None) -> None:
    """Ask the unlearned model and the retrained ones, one after another."""
    _ask_run(study, UNLEARNED, run, relearner)
    _let_go(study, run)
    for number, other in enumerate(against, start=1):
        _ask_run(study, retrained(number), other, relearner)
        _let_go(study, other)


def _let_go(study: Study, run: Run) -> None:
    """Keep no weights of the model of a run that was asked."""
    # The base that adapters are on stays, and so may answers that are given with its head.
    if not run.adapted:
        study.keep_own_heads()


def _ask_run(study: Study, role: Role, run: Run, relearner: Relearner | None) -> None:
    """Ask the model of a run."""
    model = study.space.load(run)
    study.ask(role, model)
    if relearner is None:
        return
    relearner.try_on(role, model)
    if role == UNLEARNED:
        _ask_reshaped(study, role, model)


def _method_of(run: Run) -> Method:
    """The method that made an unlearned run, as it was set."""
    method = run.record.method
    assert method is not None, "an unlearned run says how it was made"
    return rebuild(method.name, method.settings)


def _relearner(study: Study, progress: Progress) -> Relearner:
    # The goal is the original's own loss: a model that reaches it knows D_f again.
    recipe = study.space.recipe
    return Relearner(
        forget=study.rows.forget,
        before=study.answers[ORIGINAL].forget,
        settings=recipe.relearning,
        seed=recipe.seed,
        precision=recipe.tuning.schedule.precision,
        step_settings=recipe.tuning.schedule.step_settings,
        progress=progress,
    )


def _ask_reshaped(study: Study, role: Role, model: Recommender) -> None:
    """Ask the model as it may be deployed: merged, and rounded to int8."""
    for form, deployed in reshaped(model):
        form_role = role.as_form(form)
        study.ask(form_role, deployed)


def _refuse_other_rows(run: Run, other: Run, key: Path | None) -> None:
    """Raise RunError unless `other` was retrained without just the rows that `run` erased."""
    refuse_inexact(other)
    if erased_rows_of(run, key) != erased_rows_of(other, key):
        raise RunError(
            f"'{other.path}': was retrained without other rows than '{run.path}' forgot; retrain "
            "from the same parent"
        )


def refuse_inexact(other: Run) -> None:
    """Raise RunError unless a run was retrained, or made by another exact method."""
    method = other.record.method
    if method is None or not rebuild(method.name, method.settings).exact:
        raise RunError(f"'{other.path}': was not retrained; name runs of unlearn --method retrain")


def refuse_same_models(against: Sequence[Run]) -> None:
    """Raise RunError where two retrained runs are one model: they would hide how models differ."""
    models = []
    for run in against:
        record = run.record
        model = (record.seed, record.method)
        if model in models:
            raise RunError(
                f"'{run.path}': is a model that --against has already; retrain another with "
                "--set number=2"
            )
        models.append(model)


def _parent(run: Run, key: Path | None) -> Run:
    """The run that a request was put to, checked to be the one it was."""
    record = run.record.parent
    if record is None:
        raise RunError(f"'{run.path}': is no unlearned run; name a folder made by e2urec unlearn")
    place = Path(record.path)
    # No option names another folder: the record's own is asked for.
    if not place.is_dir():
        raise RunError(f"'{place}': is not there; put it back, since '{run.path}' was made from it")
    # Measured against any other model, memory would be that of somebody else.
    parent = open_run(place, key=controller_key(key))
    if parent.sha256 != record.sha256:
        raise RunError(
            f"'{parent.path}': has changed since '{run.path}' was made from it; restore it"
        )
    return parent


def _shadow_scores(
    shadow_folder: SharedFolder | None,
    study: Study,
    case: RequestCase,
    count: int,
    say: Callable[[str], object],
) -> ShadowScores:
    """Train the shadows, or take those that are there, after saying what they cost."""
    space = study.space
    space.recipe = space.recipe.updated([f"shadows.count={count}"])
    rows = space.recipe.shadows.row_count(
        len(study.rows.retain), len(study.rows.unseen), space.recipe.tuning
    )
    assert shadow_folder is not None, "the folder is open wherever shadows may be trained"
    say(
        f"{count} shadow models read {rows} rows{time_clause(case.parent, rows)}; those already in "
        f"'{shadow_folder.path.parent}' are taken from there"
    )
    return study.shadow_scores(shadow_folder, case.controller_key, say)
