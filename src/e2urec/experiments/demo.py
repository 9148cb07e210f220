"""All of it, small, on real data: train, retrain, forget, evaluate, and a page that shows it."""

import time
from pathlib import Path
from typing import Any

from ..evaluation.evaluate import Answers, evaluate, softened
from ..evaluation.results import Demonstration, Results
from ..methods.retrain import Retrain
from ..models.recommender import Recommender
from ..report.page import write_page
from ..runs.folder import create_run
from ..runs.record import write_json, write_record
from ..training.costs import Costs
from ..training.loop import Progress, silent
from ..unlearning.task import Task
from .recipe import Recipe
from .workspace import RequestRows, Workspace, method_of, placebo, unlearning_seconds

UNLEARNING = ("cache", "augmented", "teachers", "warmup", "joint", "final")

RECIPE: dict[str, Any] = {
    "data": {"history": 5, "rows": 6000, "per_user": 40, "test_rows": 1500, "held_rows": 1000},
    "model": {"layers": 4},
    "tuning": {
        "embeddings": False,
        "schedule": {"epochs": 3, "learning_rate": 3e-4, "batch_size": 16},
    },
    "minutes": 19,
}


def demo(
    recipe: Recipe, out: Path, *, request: Path | None = None, progress: Progress = silent
) -> Demonstration:
    """Run the whole story of `recipe` into folder `out`: `original/`, `unlearned/`, results and a page.

    Raises:
        E2URecError: as `train` and `unlearn` do.
    """
    started = time.monotonic()
    method = method_of(recipe)
    with create_run(out) as partial:
        space = Workspace(recipe, progress)
        rows = space.rows(space.resolve(space.request(request)))
        sets, precision = rows.evaluation, recipe.tuning.schedule.precision
        untuned = Recommender(space.base.copy(), space.template, window=recipe.model.window)
        answers: dict[str, Answers] = {"untuned": sets.ask(untuned, precision=precision)}
        del untuned

        original, _ = space.train()
        original.save(partial / "original")
        with space.costs.phase("evaluation"):
            answers["original"] = sets.ask(original, precision=precision, valid=True)

        task = space.task(original.copy(), rows, method, scratch=partial)
        unlearned = method.unlearn(task)
        unlearned.save(partial / "unlearned")
        with space.costs.phase("evaluation"):
            answers["unlearned"] = sets.ask(unlearned, precision=precision)
        del unlearned
        with space.costs.phase("placebo_retain"):
            control = placebo(
                method, space.task(original, rows, method)
            )  # from here on, `original` is the placebo
        with space.costs.phase("evaluation"):
            answers["placebo_retain"] = sets.ask(control, precision=precision)
            answers["placebo_temperature"] = softened(answers["original"])

        retraining: list[Costs] = []
        for number in range(1, recipe.retrained + 1):
            if retraining and not _time_for_another(recipe, started, retraining):
                break
            again = space.task(original, rows, Retrain())
            retrained = Retrain(number=number).unlearn(again)
            retraining.append(again.costs)
            with space.costs.phase("evaluation"):
                answers[f"retrained_{number}"] = sets.ask(retrained, precision=precision)
            del retrained

        with space.costs.phase("evaluation"):
            results = _evaluate(answers, recipe, rows)
        found = Demonstration(
            results,
            answers,
            task.phase_logs,
            _seconds(space.costs, task, retraining),
            rows.counts(),
            task.costs.trainable,
            original.parameter_count(),
            recipe.seed,
            recipe.retrained - len(retraining),
        )
        write_json(partial / "results.json", found.as_dict())
        write_page(found, partial / "report.html")
        write_record(
            partial, {"kind": "demo", "recipe": recipe.model_dump(mode="json"), "seed": recipe.seed}
        )
    return found


def _evaluate(answers: dict[str, Answers], recipe: Recipe, rows: RequestRows) -> Results:
    candidates = {
        name: answers[name]
        for name in ("unlearned", "placebo_temperature", "placebo_retain", "untuned")
    }
    retrained = [rows for name, rows in answers.items() if name.startswith("retrained_")]
    return evaluate(
        answers["original"],
        retrained,
        candidates,
        seed=recipe.seed,
        margins=recipe.margins,
        slices=rows.slices,
    )


def _time_for_another(recipe: Recipe, started: float, retraining: list[Costs]) -> bool:
    """Whether one more retraining, as long as the last, still ends within the recipe's minutes."""
    expected = time.monotonic() - started + retraining[-1].seconds["retrain"]
    return recipe.minutes is None or expected < 60 * recipe.minutes


def _seconds(shared: Costs, task: Task, retraining: list[Costs]) -> dict[str, float]:
    retrained = [costs.seconds["retrain"] for costs in retraining]
    own = {phase: task.costs.seconds.get(phase, 0.0) for phase in (*UNLEARNING, "logging")}
    mean = sum(retrained) / len(retrained) if retrained else 0.0
    return shared.seconds | own | {"retrained": mean, "unlearning": unlearning_seconds(task.costs)}
