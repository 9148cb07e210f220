"""Train an original."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.disk import is_full, require_room
from ..core.errors import NoRoomError, ScoresError
from ..core.process import process_count, uninterrupted
from ..core.say import Say, no_words
from ..experiments.dependencies import dependencies
from ..experiments.recipe import Recipe
from ..experiments.study import MEASURED_PARTS, answers_alone, results_alone
from ..experiments.workspace import HELD_OUT_PARTS, Workspace
from ..models.adapted_layers import target_layers
from ..runs.files import write_json
from ..runs.folder import Run, open_run
from ..runs.keys import controller_key
from ..runs.record import RESULTS, RunRecord, write_record
from ..runs.resumption import NEVER, CheckpointOptions, resumable_run
from ..runs.row_digests import RowKey
from ..runs.split_index import SplitIndex
from ..training.loop import Progress, Trace, silent
from .original_answers import answers_of_original


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    key: Path | None = None,
    progress: Progress = silent,
    checkpoints: CheckpointOptions = NEVER,
    say: Say = no_words,
) -> Run:
    """Tune the original recommender of `recipe` into run folder `out`.

    Out-of-fold scores of its rows are made afterwards, unless the recipe has no pairs of half
    models. Where half models fail or are interrupted, the run is finished without scores, and `say`
    is told; an interrupt goes on once it is whole. With checkpoints an interrupt leaves what can be
    gone on with instead.

    Args:
        recipe: all settings.
        out: folder to make.
        key: file of the controller's key, under which it is recorded for what each row was used;
            see `runs.keys.controller_key`. No figure and no weight depends on it.
        progress: told of each step.
        checkpoints: whether it can go on after it was killed, and whether it does so now.
        say: told what the out-of-fold scores take, before anything is trained, and why there are
            none where half models fail.

    Raises:
        KeyboardInterrupt: interrupted; where the half models were, the run is there all the same.
        RunError: `out` exists, the key cannot be used, the disk is full, or there is something else
            to go on with.
        DataError, ConfigError, ModelError: the recipe cannot be followed.
    """
    out = Path(out)
    # Read first: a bad key is told before hours of work, and not after.
    secret = controller_key(key)
    lack = None
    with contextlib.ExitStack() as held:
        with resumable_run(out, checkpoints) as partial:
            space = Workspace(recipe, progress, row_key=RowKey.under(secret))
            space.check_before_training()
            if checkpoints.is_on:
                settings = {"command": "train"} | dependencies(space)
                space.checkpoints = checkpoints.begin(out, settings, secret)
            _check_half_models(space)
            # The model is there while the scores are made.
            require_room(partial, space.model_bytes() + _scores_bytes(space, checkpoints.is_on))
            if recipe.scores.pairs:
                say(_scores_sentence(space))
            model, trace = space.train()
            model.save(partial)
            rows = {name: space.encode(getattr(space.split, name)) for name in MEASURED_PARTS}
            answers = answers_alone(recipe, model, rows)
            results = results_alone(recipe, answers)
            # The trace shows whether tuning had ended when its epochs were over.
            write_json(partial / RESULTS, results.as_dict() | {"trace": vars(trace)})
            SplitIndex.of(space.split, space.row_key).save(partial)
            answers_of_original(space, partial, model, rows, answers).save(partial)
            # Half models need the room of the original.
            del model, answers
            lack = _make_scores(space, partial, can_resume=checkpoints.is_on)
            if lack is not None and lack.interrupt is not None:
                # A second one would take what is all but finished.
                held.enter_context(uninterrupted())
            write_record(partial, _original_record(space, trace), secret)
        if lack is not None:
            # Whoever closed the terminal hears nothing.
            with contextlib.suppress(OSError):
                say(lack.sentence)
    if lack is not None and lack.interrupt is not None:
        raise lack.interrupt
    return open_run(out)


@dataclass(frozen=True)
class _NoScores:
    """Why a run is finished without out-of-fold scores.

    Attributes:
        reason: in words.
        interrupt: that ended the half models, to be raised once the run is whole.
    """

    reason: str
    interrupt: KeyboardInterrupt | None

    @property
    def sentence(self) -> str:
        """What to say once the run is there."""
        return (
            f"{self.reason}. The run is finished all the same, without out-of-fold scores; e2urec "
            "prepare makes them later, also with other settings"
        )


def _check_half_models(space: Workspace) -> None:
    """Raise ModelError for layers of half models that are not there, before hours of work."""
    settings = space.recipe.scores
    if settings.pairs and settings.tuning == "adapter":
        lm = space.untuned().lm
        target_layers(lm, settings.lora.targets, settings.lora.first_block(lm))


def _make_scores(space: Workspace, folder: Path, *, can_resume: bool) -> _NoScores | None:
    """Add scores to a run that is finished but for them; why there are none, if there are none."""
    try:
        space.make_scores(folder)
    except (
        ScoresError,
        NoRoomError,
        MemoryError,
        torch.OutOfMemoryError,
        OSError,
        KeyboardInterrupt,
    ) as error:
        reason = _reason_without_scores(error, can_resume=can_resume)
        if reason is None:
            raise
        return _NoScores(reason, error if isinstance(error, KeyboardInterrupt) else None)
    if space.score_index is not None:
        space.score_index.save(folder)
    return None


def _reason_without_scores(error: BaseException, *, can_resume: bool) -> str | None:
    """Why a run is finished without scores; None where the error shall end it."""
    if isinstance(error, ScoresError):
        return str(error)
    # Of several processes the others do not know that one has no memory left, or was stopped.
    if process_count() > 1:
        return None
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "scores: out of memory"
    # The same command with --resume goes on in the midst of a half model.
    if can_resume:
        return None
    if isinstance(error, KeyboardInterrupt):
        return "scores: interrupted"
    is_no_room = isinstance(error, NoRoomError) or is_full(error)
    return "scores: no space left on the disk" if is_no_room else None


def _scores_sentence(space: Workspace) -> str:
    """What the half models take, in rows: their seconds depend on how they are tuned."""
    recipe = space.recipe
    original_rows = recipe.tuning.schedule.epochs * len(space.split.train)
    return (
        f"after the original, which reads at most {original_rows:,} rows, "
        f"{2 * recipe.scores.pairs} half models read up to {space.scores_row_count():,}, so that "
        "small requests forget more; scores.pairs=0 leaves them out"
    )


def _scores_bytes(space: Workspace, has_checkpoints: bool) -> int:
    """Bytes on the disk for as long as the out-of-fold scores are made."""
    settings = space.recipe.scores
    if not settings.pairs:
        return 0
    if settings.tuning_of_halves(space.recipe.tuning).lora is None:
        # A checkpoint of each half model that is finished.
        return 2 * settings.pairs * space.model_bytes() if has_checkpoints else 0
    parts = [getattr(space.split, name) for name in ("train", *HELD_OUT_PARTS)]
    token_count = sum(int(space.encode(part).lengths.sum()) for part in parts)
    return settings.cache_bytes(space.untuned(), token_count, space.recipe.tuning)


def _original_record(space: Workspace, trace: Trace) -> RunRecord:
    data = space.split.train.interactions
    seconds = space.costs.seconds
    rows = {
        "train": trace.rows,
        "duplicates_dropped": data.duplicates,
        "unrated_dropped": data.unrated,
    }
    if space.score_index is not None:
        rows["scores"] = len(space.score_index)
    return RunRecord(
        kind="original",
        recipe=space.recipe.model_dump(mode="json"),
        seed=space.recipe.seed,
        seconds=seconds,
        rows=rows,
        seconds_per_row=seconds["original"] / trace.rows,
        base=space.base_record(),
    )
