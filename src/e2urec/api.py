"""What a user does, from run folder to run folder: train, unlearn, evaluate, score."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .core.errors import ConfigError, DataError, ModelError, RunError
from .core.seeding import stream
from .data.overview import Overview, measure_prompts, overview
from .data.prompts import read_prompts
from .data.requests import ErasureRequest, ForgetRetain, Unit
from .evaluation.evaluate import Answers, EvaluationSets, evaluate, softened
from .evaluation.membership import ShadowScores
from .evaluation.relearning import Relearner, require_int8, reshaped
from .evaluation.results import Results
from .experiments.recipe import Recipe
from .experiments.workspace import RequestRows, Workspace, outsiders_of, placebo, unlearning_seconds
from .methods import build
from .models.recommender import Recommender
from .models.tokens import tokenise
from .runs.erased_rows import ErasedRows
from .runs.folder import Run, create_run, open_run
from .runs.keys import controller_key, request_digest
from .runs.record import hash_file, write_json, write_record
from .runs.split_index import SplitIndex
from .training.loop import Progress, silent
from .unlearning.method import Method
from .unlearning.task import Task

SEEN = 1000
"""Prompts whose length is measured by `inspect_data`."""


@dataclass(frozen=True)
class RequestOptions:
    """A request as it is put.

    Attributes:
        file: of users, interactions or items to forget; without one, a seeded share is chosen.
        ratio, unit, seed: of that choice; default: the recipe's.
        skip_unknown: go on when some of them are not in the training data.
        key: file of the controller's key, under which the request is recorded; see `controller_key`.
    """

    file: Path | str | None = None
    ratio: float | None = None
    unit: Unit | None = None
    seed: int | None = None
    skip_unknown: bool = False
    key: Path | None = None


@dataclass(frozen=True)
class DryRun:
    """What a request would do: rows by part, rows read by phase, minutes estimated from the original's training."""

    rows: dict[str, int]
    phases: dict[str, int]
    minutes: float | None


def train(recipe: Recipe, out: Path | str, *, progress: Progress = silent) -> Run:
    """Tune the original recommender of `recipe` into run folder `out`.

    Raises:
        RunError: `out` exists, or the disk is full.
        DataError, ConfigError, ModelError: the recipe cannot be followed.
    """
    out = Path(out)
    with create_run(out) as partial:
        space = Workspace(recipe, progress)
        model, trace = space.train()
        model.save(partial)
        answers = {
            name: space.encode(getattr(space.split, name)) for name in ("test", "valid", "unseen")
        }
        sets = EvaluationSets(forget=answers["unseen"], **answers)  # nobody is forgotten yet
        results = evaluate(
            sets.ask(model, precision=recipe.tuning.schedule.precision), [], {}, seed=recipe.seed
        )
        write_json(
            partial / "results.json",
            {"test": results.as_dict()["models"]["original"], "trace": vars(trace)},
        )
        data = space.split.train.interactions
        record = _record("original", recipe, space.costs.seconds)
        record["rows"] = {
            "train": trace.rows,
            "duplicates_dropped": data.duplicates,
            "unrated_dropped": data.unrated,
        }
        record["pace"] = space.costs.seconds["original"] / trace.rows
        SplitIndex.of(space.split).save(partial)
        write_record(partial, record | {"data": data.fingerprint()})
    return open_run(out)


def inspect_data(recipe: Recipe, *, examples: int = 3) -> Overview:
    """Say what the data of `recipe` hold, and what of them will hurt, before anything is trained on them.

    Raises:
        DataError, ConfigError: the data cannot be used, or not as the recipe says.
    """
    space = Workspace(recipe)
    train = space.split.train
    found = overview(train.interactions, space.split)
    some = train.take(stream(recipe.seed, "look").permutation(len(train))[:SEEN])
    answers = ("No", "Yes")
    found.examples = [
        f"{prompt} {answers[label]}"
        for prompt, label in zip(
            space.template.render(some.take(np.arange(examples))), some.labels, strict=False
        )
    ]
    try:
        base = space.base
    except (ModelError, DataError) as error:
        found.warnings.append(
            f"prompts were not measured, since the model cannot be loaded: {error}"
        )
        return found
    lengths = tokenise(
        some, space.template, base.tokenizer, seq2seq=base.seq2seq, window=sys.maxsize
    ).lengths
    measure_prompts(found, lengths, recipe.model.window)
    return found


def unlearn(
    parent: Run,
    out: Path | str,
    method: Method,
    asked: RequestOptions | None = None,
    *,
    progress: Progress = silent,
) -> Run:
    """Make the recommender of `parent` forget a request; the result is a run folder of its own.

    `parent` is only read; it may itself have been made by `unlearn`: what it forgot then stays out of what is
    retained now. The request itself is not written anywhere: the record holds its HMAC, and that of each row.

    Raises:
        RunError: `out` exists, `parent` is damaged, or the disk is full.
        DataError: the request names what is not in the training data, nothing, or everything; or rows that
            the recommender was tuned on are no longer in the data.
    """
    asked, out = asked or RequestOptions(), Path(out)
    with create_run(out) as partial:
        space, original, erasure, parts = _open(parent, asked, progress)
        rows = space.rows(parts)
        task = space.task(original, rows, method, scratch=partial)
        before = rows.evaluation.ask(original, precision=task.precision)
        model = method.unlearn(task)
        model.save(partial)
        after = rows.evaluation.ask(model, precision=task.precision)
        results = evaluate(before, [], {"unlearned": after}, seed=space.recipe.seed)
        write_json(partial / "results.json", results.as_dict() | summary(task, rows))
        record = _record("unlearned", space.recipe, task.costs.seconds)
        key = controller_key(asked.key)
        digest = request_digest(erasure.lines(), key)
        record |= {
            "method": {"name": method.name, "settings": method.model_dump()},
            "parent": {
                "path": str(parent.path.resolve()),
                "sha256": hash_file(parent.path / "run.json"),
            },
            "request_hmac": digest,
            "chain": [*parent.record.get("chain", []), digest],
            "pace": parent.record.get("pace"),
        }
        data, split_index = (
            parts.forget.interactions,
            space.split_index or SplitIndex.of(space.split),
        )
        (_erased(parent, asked.key) or ErasedRows.under(key)).and_these(data, parts.erased).save(
            partial
        )
        split_index.without(data, parts.erased).save(partial)
        write_record(partial, record)
    return open_run(out)


def dry_run(parent: Run, method: Method, asked: RequestOptions | None = None) -> DryRun:
    """Say what `unlearn` would do, and about how long it would take on the machine that trained the original."""
    space, _, _, parts = _open(parent, asked or RequestOptions(), silent)
    rows = space.rows(parts)
    phases = method.plan(len(rows.forget), len(rows.retain), space.recipe.tuning.schedule)
    return DryRun(rows.counts(), phases, _minutes(parent, sum(phases.values())))


def evaluate_run(
    run: Run,
    against: Sequence[Run] = (),
    asked: RequestOptions | None = None,
    *,
    shadows: int = 0,
    robustness: bool = False,
    progress: Progress = silent,
    say: Callable[[str], object] = lambda text: None,
) -> Results:
    """Measure an unlearned run against its original, retrained runs and both placebos.

    Args:
        run: made by `unlearn`.
        against: retrained runs of the same request, each with its own seed.
        asked: the request that `run` honoured.
        shadows: models to train for membership inference by likelihood ratio; their adapters, which never saw D_f,
            stay in the run folder for the next time. Without retrained runs the verdict rests on them.
        robustness: also ask whether D_f comes back by relearning, by merging the adapter, by rounding to int8.
        progress: told of each step.
        say: told what the shadows will cost, before they are trained.

    Raises:
        RunError: the run was not made by `unlearn`, its original has moved or changed, the request is not the one
            that was honoured, or one of `against` was not retrained without just the same rows.
        ConfigError: an odd number of shadows; `robustness` without torchao.
    """
    if robustness:
        require_int8()
    asked, parent = asked or RequestOptions(), _parent(run)
    for other in against:
        _same_rows(run, other, asked)
    space, original, erasure, parts = _open(parent, asked, progress)
    if request_digest(erasure.lines(), controller_key(asked.key)) != run.record["request_hmac"]:
        raise RunError(
            f"'{run.path}': was made for another request, or under another key; name the one it honoured"
        )
    rows = space.rows(parts)
    outside = _outsiders(run, parent, space, rows, shadows, say) if shadows else None
    recipe, sets = space.recipe, rows.evaluation
    precision = recipe.tuning.schedule.precision
    before = sets.ask(original, precision=precision, valid=True)
    relearner = Relearner(
        rows.forget, before["forget"], recipe.relearning, recipe.seed, precision, progress
    )

    answers: dict[str, Answers] = {}
    for name, each in {
        "unlearned": run,
        **{f"retrained_{k}": other for k, other in enumerate(against, 1)},
    }.items():
        model = _load(each, space)
        answers[name] = sets.ask(model, precision=precision)
        if robustness:
            relearner.try_on(name, model)
        if robustness and each is run:
            answers |= {
                f"{name}_{shape}": sets.ask(shaped, precision=precision)
                for shape, shaped in reshaped(model)
            }
    retrained = [answers.pop(f"retrained_{k}") for k in range(1, len(against) + 1)]

    method = build(run.record["method"]["name"], run.record["method"]["settings"])
    control = placebo(
        method, space.task(original, rows, method)
    )  # from here on, `original` is the placebo
    answers |= {
        "placebo_temperature": softened(before),
        "placebo_retain": sets.ask(control, precision=precision),
    }
    results = evaluate(
        before,
        retrained,
        answers,
        seed=recipe.seed,
        outside=outside,
        margins=recipe.margins,
        slices=rows.slices,
    )
    results.relearning = relearner.found()
    return results


def _same_rows(run: Run, other: Run, asked: RequestOptions) -> None:
    """Raise RunError unless `other` was retrained without just the rows that `run` and all before it erased."""
    made = other.record.get("method", {"name": None})
    if made["name"] is None or not build(made["name"], made["settings"]).exact:
        raise RunError(f"'{other.path}': was not retrained; name runs of unlearn --method retrain")
    ours, theirs = (_erased(each, asked.key) for each in (run, other))
    if ours != theirs:
        raise RunError(
            f"'{other.path}': was retrained without other rows than '{run.path}' forgot; retrain from the same parent"
        )


def _outsiders(
    run: Run,
    parent: Run,
    space: Workspace,
    rows: RequestRows,
    count: int,
    say: Callable[[str], object],
) -> ShadowScores:
    space.recipe = recipe = space.recipe.updated([f"shadows.count={count}"])
    read = recipe.shadows.rows(len(rows.retain), len(rows.unseen), recipe.tuning)
    minutes = _minutes(parent, read)
    told = (
        ""
        if minutes is None
        else f", about {minutes:.1f} minutes at the speed the original was trained"
    )
    say(
        f"{count} shadow models read {read} rows{told}; those already in '{run.path}' are taken from there"
    )
    return outsiders_of(space, rows, run.path / "shadows")


def _minutes(parent: Run, rows: int) -> float | None:
    """How long `rows` take at the speed at which `parent` was trained; None if it does not say."""
    pace = parent.record.get("pace")
    return None if pace is None else float(pace * rows / 60)


def score(run: Run, examples: Path) -> list[float]:
    """P(like) of each line of a JSON-lines file, `{"prompt": "…"}`, in its order.

    Raises:
        DataError: a line is not an object with a prompt.
    """
    prompts = read_prompts(examples)
    model = _load(run, Workspace(Recipe.build(run.record["recipe"], place=str(run.path))))
    return [float(p) for p in model.score(model.encode_texts(prompts))]


def summary(task: Task, rows: RequestRows) -> dict[str, Any]:
    """Costs and what was watched, for results.json."""
    spent = task.costs
    return {
        "seconds": spent.seconds | {"unlearning": unlearning_seconds(spent)},
        "rows": rows.counts(),
        "rows_read": spent.rows,
        "peak_bytes": spent.peak_bytes,
        "trainable_parameters": spent.trainable,
        "total_parameters": task.original.parameter_count(),
        "phases": [vars(log) for log in task.phase_logs],
    }


def _record(kind: str, recipe: Recipe, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "kind": kind,
        "recipe": json.loads(recipe.model_dump_json()),
        "seed": recipe.seed,
        "seconds": seconds,
    }


def _open(
    parent: Run, asked: RequestOptions, progress: Progress
) -> tuple[Workspace, Recommender, ErasureRequest, ForgetRetain]:
    """What a request to `parent` needs; a run of another key is told before the data are read."""
    if asked.file is not None and (asked.ratio is not None or asked.unit is not None):
        raise ConfigError(
            "--forget-ratio and --unit: draw a request; leave them out where --request names one"
        )
    _erased(parent, asked.key)
    changes = {"ratio": asked.ratio, "unit": asked.unit, "seed": asked.seed}
    values = json.loads(json.dumps(parent.record["recipe"]))
    values["request"] |= {name: value for name, value in changes.items() if value is not None}
    space = Workspace(
        Recipe.build(values, place=str(parent.path)),
        progress,
        split_index=SplitIndex.load(parent.path),
    )
    erasure = space.request(None if asked.file is None else Path(asked.file))
    parts = space.resolve(
        erasure, skip_unknown=asked.skip_unknown
    )  # a bad request is told before a model is loaded
    original = space.reader = _load(parent, space)
    return space, original, erasure, parts


def _erased(run: Run, key: Path | None) -> ErasedRows | None:
    """What `run` and all before it erased; an original needs no key for that."""
    return (
        None if run.record["kind"] == "original" else ErasedRows.load(run.path, controller_key(key))
    )


def _load(run: Run, space: Workspace) -> Recommender:
    adapted = (run.path / "adapter").is_dir()
    return Recommender.load(run.path, space.base.fresh() if adapted else None)


def _parent(run: Run) -> Run:
    if "parent" not in run.record:
        raise RunError(f"'{run.path}': is no unlearned run; name a folder made by e2urec unlearn")
    parent = open_run(Path(run.record["parent"]["path"]))
    if hash_file(parent.path / "run.json") != run.record["parent"]["sha256"]:
        raise RunError(
            f"'{parent.path}': has changed since '{run.path}' was made from it; restore it"
        )
    return parent
