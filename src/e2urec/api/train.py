"""Train an original."""

from pathlib import Path

from ..evaluation.answers import EvaluationSets
from ..evaluation.evaluate import evaluate
from ..evaluation.evidence import Evidence
from ..evaluation.results import Results
from ..evaluation.roles import ORIGINAL
from ..experiments.recipe import Recipe
from ..experiments.workspace import Workspace
from ..models.recommender import Recommender
from ..runs.files import write_json
from ..runs.folder import Run, open_run
from ..runs.record import RESULTS, RunRecord, write_record
from ..runs.resumption import NEVER, CheckpointOptions, resumable_run
from ..runs.split_index import SplitIndex
from ..training.loop import Progress, Trace, silent


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    progress: Progress = silent,
    checkpoints: CheckpointOptions = NEVER,
) -> Run:
    """Tune the original recommender of `recipe` into run folder `out`.

    Args:
        recipe: all settings.
        out: run folder to make.
        progress: told of each step.
        checkpoints: whether it can go on after it was killed, and whether it does so now.

    Raises:
        RunError: `out` exists, the disk is full, or there is something else to go on with.
        DataError, ConfigError, ModelError: the recipe cannot be followed.
    """
    out = Path(out)
    with resumable_run(out, checkpoints) as partial:
        space = Workspace(recipe, progress)
        if checkpoints.is_on:
            settings = {
                "command": "train",
                "recipe": recipe.model_dump(mode="json"),
                "data": space.data.fingerprint(),
            }
            space.checkpoints = checkpoints.begin(out, settings)
        model, trace = space.train()
        model.save(partial)
        space.make_scores(partial)
        results = _first_results(space, model)
        # The trace shows whether tuning had ended when its epochs were over.
        write_json(partial / RESULTS, results.as_dict() | {"trace": vars(trace)})
        SplitIndex.of(space.split).save(partial)
        if space.score_index is not None:
            space.score_index.save(partial)
        write_record(partial, _original_record(space, trace))
    return open_run(out)


def _first_results(space: Workspace, model: Recommender) -> Results:
    """How an original scores before anybody asked to be forgotten."""
    parts = {}
    for name in ("test", "valid", "unseen"):
        parts[name] = space.encode(getattr(space.split, name))
    # Nobody is forgotten yet: the unseen users stand in for D_f, which must not be empty.
    sets = EvaluationSets(forget=parts["unseen"], **parts)
    recipe = space.recipe
    answers = sets.ask(model, precision=recipe.tuning.schedule.precision)
    evidence = Evidence({ORIGINAL: answers}, seed=recipe.seed)
    return evaluate(evidence)


def _original_record(space: Workspace, trace: Trace) -> RunRecord:
    # The fingerprint tells later whether rows are still the ones that were tuned on.
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
        data=data.fingerprint(),
    )
