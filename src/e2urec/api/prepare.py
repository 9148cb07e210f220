"""Make out-of-fold scores for a run that lacks them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..core.disk import require_room
from ..core.errors import ConfigError
from ..experiments.recipe import Recipe
from ..experiments.workspace import Workspace
from ..runs.copying import copy_files
from ..runs.folder import Run, create_run, open_run
from ..runs.keys import controller_key
from ..runs.record import ParentRecord, RunRecord, is_vouched, write_record
from ..runs.score_index import FILE
from ..runs.split_index import SplitIndex
from ..training.loop import Progress, silent
from ..training.out_of_fold import PHASE, OutOfFold
from .request import minutes_for, require_recommender


@dataclass(frozen=True)
class Preparation:
    """What making the scores takes.

    Attributes:
        models: half models.
        rows: that they read.
        minutes: estimated from the original's training; None if that is not known.
    """

    models: int
    rows: int
    minutes: float | None


def prepare(
    run: Run,
    out: Path | str,
    settings: Iterable[str] = (),
    *,
    key: Path | None = None,
    progress: Progress = silent,
) -> Run:
    """Write the same run with out-of-fold scores into folder `out`; `run` is only read.

    Scores that the run has are made anew. After a request, no erased row helps with them.

    Args:
        run: made by `train` or `unlearn`.
        out: folder to make.
        settings: of the scores, such as `scores.pairs=2`, on top of the run's own.
        key: file of the controller's key; see `train`.
        progress: told of each step.

    Raises:
        RunError: `out` exists, `run` is damaged, holds no recommender or was recorded under another
            key, or the disk is full.
        ConfigError: a setting of something else, or no half models.
        DataError: rows that the recommender was tuned on are no longer in the data.
    """
    out = Path(out)
    recipe = _recipe_with_scores(run, settings)
    secret = controller_key(key)
    vouched = is_vouched(run.path, run.record, secret)
    with create_run(out) as partial:
        require_room(partial, run.record.size)
        space = _open_space(run, recipe, secret, progress)
        # The run's own template and tokenizer, whatever the recipe's file says by now.
        space.prompt_reader = space.load(run).prompt_reader
        space.make_scores(partial)
        assert space.score_index is not None, "a recipe without half models was refused"
        copy_files(run, partial, lambda name: name != FILE)
        space.score_index.save(partial)
        write_record(partial, _record(run, space), secret if vouched else None)
    return open_run(out)


def plan_preparation(
    run: Run, settings: Iterable[str] = (), *, key: Path | None = None
) -> Preparation:
    """Say what `prepare` would read, and about how long it would take; raises as `prepare` does.

    The estimate is for the machine that trained the original. By adapters on the upper blocks it is
    rather too high: most of a half model is computed once a row.
    """
    recipe = _recipe_with_scores(run, settings)
    space = _open_space(run, recipe, controller_key(key), silent)
    rows = space.scores_row_count()
    return Preparation(2 * recipe.scores.pairs, rows, minutes_for(run, rows))


def _recipe_with_scores(run: Run, settings: Iterable[str]) -> Recipe:
    require_recommender(run)
    recipe = Recipe.build(run.record.recipe, place=str(run.path))
    # A run that was to have none gets the usual number now.
    own = recipe if recipe.scores.pairs else recipe.updated([f"scores.pairs={OutOfFold().pairs}"])
    updated = own.updated(settings)
    # Any other setting would make the record say of the recommender what is not true of it.
    if updated.model_copy(update={"scores": own.scores}) != own:
        raise ConfigError(
            "prepare: only the scores of a run can be set, such as scores.pairs=2; train anew to "
            "change the rest"
        )
    if not updated.scores.pairs:
        raise ConfigError("prepare: scores.pairs = 0 makes no scores; set it to 1 or more")
    return updated


def _open_space(run: Run, recipe: Recipe, secret: bytes, progress: Progress) -> Workspace:
    index = SplitIndex.load(run.path, secret)
    return Workspace(recipe, progress, split_index=index, record=run.record)


def _record(run: Run, space: Workspace) -> RunRecord:
    """The run's own record, with the scores and what they took."""
    record = run.record
    index = space.score_index
    assert index is not None
    rows = record.rows | {"scores": len(index)}
    rows.pop("scores_made_with_erased_rows", None)
    changes = {
        "recipe": space.recipe.model_dump(mode="json"),
        "seconds": record.seconds | {PHASE: space.costs.seconds[PHASE]},
        "rows": rows,
        # Shadow models of it are to be found when a row of theirs is erased.
        "prepared_from": ParentRecord(path=str(run.path.resolve()), sha256=run.sha256),
    }
    return record.model_copy(update=changes)
