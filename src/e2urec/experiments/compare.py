"""Methods × seeds × requests on the same footing: a grid of cells, each kept once it is finished.

Originals and retrained models are trained once a seed and serve every method. Settings are chosen on a development
request, the same number of trials for each method. All models answer the same rows; `evaluate` does the rest.
"""

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, RunError, did_you_mean
from ..core.seeding import stream
from ..data.interactions import Samples
from ..evaluation.evaluate import evaluate, softened
from ..evaluation.membership import Answers, ShadowScores
from ..evaluation.results import Comparison, Results
from ..methods import all_methods, build
from ..metrics.classification import auc
from ..models.recommender import Recommender
from ..report.comparison import write_comparison
from ..runs.folder import create_run
from ..runs.record import write_record
from ..training.loop import Phase, Progress, silent
from ..training.supervised import tune
from ..unlearning.method import Method
from .grid import Bench, Cell, Grid, Say
from .recipe import Recipe
from .workspace import RequestRows, Workspace, outsiders_of

DEVELOPMENT = "development"


def compare(
    recipe: Recipe, out: Path, *, progress: Progress = silent, say: Say = lambda text: None
) -> Comparison:
    """Run the comparison of `recipe` into folder `out`, going on where an interrupted one left off.

    Raises:
        ConfigError: an unknown method or setting, more trials than a method has settings, or several processes.
        RunError: `out` exists, or was begun with another recipe.
    """
    wanted = recipe.compare
    fixed = methods_of(recipe)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "compare: runs in one process, whose cells can be taken up again; start it without a launcher"
        )
    with create_run(out, keep="cells") as partial:
        _same(partial / "recipe.json", recipe)
        grid = Grid(partial / "cells", len(list(cells_of(recipe, fixed))), say)
        benches = [Bench(_with_seed(recipe, seed), grid, progress) for seed in wanted.seeds]
        settings, trials = choose(benches[0], fixed)
        methods = {name: build(name, each) for name, each in settings.items()}
        found: dict[tuple[int, int], dict[str, Cell]] = {}
        rows: dict[int, RequestRows] = {}
        outside: dict[tuple[int, int], ShadowScores] = {}
        for bench in benches:
            for number, request in enumerate(wanted.requests, start=1):
                rows[number] = bench.rows(request)
                found[bench.recipe.seed, number] = _request(bench, number, rows[number], methods)
                if wanted.shadows:
                    cache = partial / "shadows" / bench.place
                    outside[bench.recipe.seed, number] = outsiders_of(
                        bench.space, rows[number], cache
                    )
            bench.leave()
        comparison = Comparison(
            results={
                key: _evaluate(recipe, key, found, rows[key[1]], outside.get(key)) for key in found
            },
            records={
                key: {name: cell.record for name, cell in cells.items()}
                for key, cells in found.items()
            },
            odds={
                key: {m: cell.answers["forget"].odds for m, cell in cells.items()}
                for key, cells in found.items()
            },
            labels={number: each.forget.labels for number, each in rows.items()},
            settings=settings,
            trials=trials,
            failed=grid.failed,
            rows={number: each.counts() for number, each in rows.items()},
            exact=[name for name, method in methods.items() if method.exact],
        )
        write_comparison(comparison, partial)
        for leftover in ("cells", "shadows"):
            shutil.rmtree(partial / leftover, ignore_errors=True)
        (partial / "recipe.json").unlink()
        write_record(
            partial,
            {"kind": "comparison", "recipe": recipe.model_dump(mode="json"), "seed": recipe.seed},
        )
    return comparison


def methods_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Settings by name of the methods to compare, each checked; raises ConfigError."""
    known, wanted = all_methods(), recipe.compare
    names = wanted.methods or tuple(
        name for name in known if name != "finetune"
    )  # that is placebo (ii)
    fixed = {name: dict(wanted.settings.get(name, {})) for name in names}
    if "retrain" in fixed:  # one more than those it is measured against
        fixed["retrain"].setdefault("number", recipe.retrained + 1)
    if wanted.trials > 1 and not recipe.retrained:
        raise ConfigError(
            "compare.trials: settings are chosen against retrained models; set retrained to 1 or more"
        )
    for name in wanted.settings:
        if name not in known:
            raise ConfigError(
                f"compare.settings: unknown method '{name}'{did_you_mean(name, list(known))}"
            )
    for name, settings in fixed.items():
        for each in _trials(build(name, settings), settings, wanted.trials, recipe.seed):
            build(name, each)
    return fixed


def cells_of(recipe: Recipe, fixed: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Names of all cells of the grid."""
    wanted = recipe.compare
    trials = {
        name: _trials(build(name, each), each, wanted.trials, recipe.seed)
        for name, each in fixed.items()
    }
    references = ["original", *(f"retrained-{k}" for k in range(1, recipe.retrained + 1))]
    yield from (f"seed-{seed}/model" for seed in wanted.seeds)
    if wanted.trials > 1:
        yield from (f"{DEVELOPMENT}/{name}" for name in references)
        yield from (
            f"{DEVELOPMENT}/{name}-{k}"
            for name, each in trials.items()
            if len(each) > 1
            for k in range(len(each))
        )
    for seed, number in itertools.product(wanted.seeds, range(1, len(wanted.requests) + 1)):
        yield from (
            f"seed-{seed}/request-{number}/{name}"
            for name in (*references, *fixed, "placebo_retain")
        )


def _unnamed(bench: Bench) -> Samples:
    """Training rows of users or items (as the development request has it) that no reported request names."""
    wanted, train = bench.recipe.compare, bench.space.split.train
    data = train.interactions
    gone = np.logical_or.reduce([bench.parts(request).gone for request in wanted.requests])
    columns = {"users": data.user, "items": data.item, "interactions": np.arange(len(data))}
    of = columns[wanted.development.unit]
    free = train.take(~np.isin(of[train.rows], of[gone]))
    if not len(free):
        raise ConfigError(
            f"compare.development: every one of the {wanted.development.unit} is in a request that is reported; "
            "forget less, or set compare.trials = 1"
        )
    return free


def choose(
    bench: Bench, fixed: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Settings of each method: the trial with the least |M_auc| on the development request (method, section 5).

    Trials that cost more validation AUC than the recipe tolerates count only if all of them do. No test row is read.
    Returns the settings by method, and what every trial scored.
    """
    wanted, chosen = bench.recipe.compare, dict(fixed)
    trials: list[dict[str, Any]] = []
    if wanted.trials == 1:
        return chosen, trials
    rows = bench.rows(wanted.development, _unnamed(bench))
    before = bench.before(DEVELOPMENT, rows).answers
    after = [cell.answers for cell in bench.retrained(DEVELOPMENT, rows)]

    def known(answers: Answers, part: str = "forget") -> float:
        return auc(answers[part].labels, answers[part].odds)

    floor, least = (
        float(np.mean([known(each) for each in after])),
        known(before, "valid") - wanted.tolerance,
    )
    for name, settings in fixed.items():
        tried: list[tuple[bool, float, dict[str, Any]]] = []
        options = _trials(build(name, settings), settings, wanted.trials, bench.recipe.seed)
        for k, each in enumerate(options if len(options) > 1 else []):
            cell = bench.grid.try_cell(
                f"{DEVELOPMENT}/{name}-{k}", bench.make(build(name, each), rows)
            )
            if cell is None:
                continue
            left = (known(cell.answers) - floor) / (known(before) - floor)
            valid = known(cell.answers, "valid")
            trials.append(
                {
                    "method": name,
                    "trial": k,
                    "settings": each,
                    "memory_auc": left,
                    "valid_auc": valid,
                }
            )
            tried.append((valid < least, abs(left) if valid >= least else -valid, each))
        if tried:
            chosen[name] = min(tried, key=lambda trial: trial[:2])[2]
    return chosen, trials


def _trials(
    method: Method, settings: Mapping[str, Any], count: int, seed: int
) -> list[dict[str, Any]]:
    """`settings` as they are, then other points of the method's search space on top, drawn without repetition."""
    space = {name: values for name, values in method.search.items() if name not in settings}
    if count == 1 or method.exact or not space:
        return [dict(settings)]
    points = [
        dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
    ]
    points = [
        point
        for point in points
        if any(getattr(method, name) != value for name, value in point.items())
    ]
    if len(points) < count - 1:
        raise ConfigError(
            f"compare.trials = {count}: method '{method.name}' has {len(points) + 1} settings to try; ask for fewer"
        )
    order = stream(seed, "trials", method.name).permutation(len(points))
    return [dict(settings), *({**settings, **points[k]} for k in order[: count - 1])]


def _request(
    bench: Bench, number: int, rows: RequestRows, methods: Mapping[str, Method]
) -> dict[str, Cell]:
    """All cells of one request: original, retrained models, placebos, methods."""
    place = f"{bench.place}/request-{number}"
    before = bench.before(place, rows)
    cells: dict[str, Cell | None] = {"original": before}
    cells |= {
        f"retrained_{k}": cell for k, cell in enumerate(bench.retrained(place, rows), start=1)
    }
    for name, method in methods.items():
        cells[name] = bench.grid.try_cell(f"{place}/{name}", bench.make(method, rows))
    cells["placebo_temperature"] = Cell(softened(before.answers), {"seconds": {"total": 0.0}})
    cells["placebo_retain"] = bench.grid.try_cell(
        f"{place}/placebo_retain", bench.control(methods, rows)
    )
    return {name: cell for name, cell in cells.items() if cell is not None}


def _evaluate(
    recipe: Recipe,
    key: tuple[int, int],
    found: Mapping[tuple[int, int], Mapping[str, Cell]],
    rows: RequestRows,
    outside: ShadowScores | None,
) -> Results:
    """The figures of one seed and request. The twin is the original of the next seed."""
    (seed, number), seeds = key, recipe.compare.seeds
    answers = {name: cell.answers for name, cell in found[key].items()}
    original = answers.pop("original")
    retrained = [answers.pop(f"retrained_{k}") for k in range(1, recipe.retrained + 1)]
    other = seeds[(seeds.index(seed) + 1) % len(seeds)]
    twin = None if other == seed else found[other, number]["original"].answers
    return evaluate(
        original,
        retrained,
        answers,
        seed=recipe.seed,
        twin=twin,
        outside=outside,
        margins=recipe.margins,
        slices=rows.slices,
        resamples=recipe.compare.resamples,
    )


@dataclass(frozen=True)
class Estimate:
    """What a comparison will read, and about how long it takes here: part → rows, and hours in all."""

    rows: dict[str, int]
    hours: float
    cells: int


def estimate(recipe: Recipe) -> Estimate:
    """Count the rows of every cell and time a few training steps; nothing is written.

    Rows that are only answered count a third of rows that are tuned on.
    """
    fixed, wanted, space = methods_of(recipe), recipe.compare, Workspace(recipe)
    schedule, sizes = recipe.tuning.schedule, {}
    train, sets = space.encode(space.split.train), 0
    per_cell = {}
    for number, request in enumerate(wanted.requests, start=1):
        parts = space.resolve(space.drawn(request))
        sizes[number] = (len(parts.forget), len(parts.retain))
        sets = max(
            sets, len(parts.test) + len(parts.valid) + len(parts.forget) + len(space.split.unseen)
        )
    for name, settings in fixed.items():
        method = build(name, settings)
        per_cell[name] = sum(sum(method.plan(*size, schedule).values()) for size in sizes.values())
        trials = len(_trials(method, settings, wanted.trials, recipe.seed))
        once = schedule.epochs * len(train) if method.prepares else 0
        per_cell[name] = len(wanted.seeds) * (per_cell[name] + once)
        per_cell[name] += (
            sum(method.plan(*sizes[1], schedule).values()) * trials if trials > 1 else 0
        )
    retain = sum(size[1] for size in sizes.values())
    rows = {"originals": len(wanted.seeds) * schedule.epochs * len(train)}
    rows["retrained"] = len(wanted.seeds) * recipe.retrained * schedule.epochs * retain
    if wanted.trials > 1:
        rows["retrained"] += recipe.retrained * schedule.epochs * sizes[1][1]
    if wanted.shadows:
        shadow = recipe.shadows.rows(sizes[1][1], len(space.split.unseen), recipe.tuning)
        rows["shadows"] = len(wanted.seeds) * len(wanted.requests) * shadow
    cells = len(list(cells_of(recipe, fixed)))
    rows |= per_cell | {"answers": cells * sets}
    few = train.take(np.arange(min(len(train), 8 * schedule.batch_size)))
    quick = recipe.tuning.model_copy(
        update={"schedule": schedule.model_copy(update={"epochs": 1, "patience": None})}
    )
    untuned = Recommender(space.base, space.template, window=recipe.model.window)
    _, trace = tune(untuned, quick, few, None, Phase("original", recipe.seed))
    weighted = sum(count / 3 if part == "answers" else count for part, count in rows.items())
    return Estimate(rows, trace.seconds / max(1, trace.rows) * weighted / 3600, cells)


def _with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one seed; the data are split by one seed, so that all originals know the same rows."""
    data = (
        recipe.data
        if recipe.data.seed is not None
        else recipe.data.model_copy(update={"seed": recipe.seed})
    )
    return recipe.model_copy(update={"seed": seed, "data": data})


def _same(path: Path, recipe: Recipe) -> None:
    """Note the recipe of a new comparison; raise RunError where it is not that of the one to go on with."""
    told = recipe.model_dump_json()
    if not path.is_file():
        path.write_text(told, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != told:
        raise RunError(
            f"'{path.parent}': was begun with another recipe; go on with that one, or remove it with: "
            f"e2urec discard {path.parent.with_suffix('')}"
        )
