"""All of it, small, on real data: train, forget, retrain, evaluate, and a page that shows it."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..evaluation.demonstration import Demonstration
from ..evaluation.roles import ORIGINAL, PLACEBO_RETAIN, UNLEARNED, UNTUNED, retrained
from ..methods.retrain import Retrain
from ..models.recommender import Recommender
from ..report.page import write_page
from ..runs.files import write_json
from ..runs.folder import create_run
from ..runs.record import RunRecord, write_record
from ..training.loop import Progress, silent
from .recipe import Recipe, method_of
from .study import Study, unlearning_seconds
from .workspace import Workspace

RECIPE: dict[str, Any] = {
    "data": {"history": 5, "rows": 6000, "per_user": 40, "test_rows": 1500, "held_rows": 1000},
    "model": {"layers": 4},
    "tuning": {
        "embeddings": False,
        "schedule": {"epochs": 3, "learning_rate": 3e-4, "batch_size": 16},
    },
    "minutes": 19,
}
"""What fits into twenty minutes on two processor cores."""


def demo(
    recipe: Recipe, out: Path, *, request: Path | None = None, progress: Progress = silent
) -> Demonstration:
    """Run the whole story of `recipe` into folder `out`.

    The folder holds `original/`, `unlearned/`, the results and a page.

    Raises:
        E2URecError: as `train` and `unlearn` do.
    """
    clock = _Clock(recipe.minutes)
    method = method_of(recipe)
    with create_run(out) as partial:
        space = Workspace(recipe, progress)
        rows = space.rows(space.resolve(space.request(request)))
        study = Study(space, rows)
        # What the language model says before it has seen any user: the floor of all figures.
        study.ask(UNTUNED, space.untuned())

        original, _ = space.train()
        original.save(partial / "original")
        study.ask(ORIGINAL, original, valid=True)
        study.soften()

        # Each model that forgets is made from a copy: the original is needed once more.
        unlearned = study.unlearn(original.copy(), method, scratch=partial)
        unlearned.model.save(partial / "unlearned")
        study.ask(UNLEARNED, unlearned.model)
        costs = unlearned.costs
        phase_logs = unlearned.phase_logs
        # Let go of, as every model that was asked: there shall never be more than two beside it.
        del unlearned
        with space.costs.phase("placebo"):
            placebo = study.placebo(original.copy(), method)
        study.ask(PLACEBO_RETAIN, placebo)
        del placebo

        _retrain(study, original, recipe.retrained, clock)
        results = study.measure()
        demonstration = Demonstration(
            results=results,
            answers=study.answers,
            phase_logs=phase_logs,
            seconds=space.costs.seconds
            | {"unlearning": unlearning_seconds(costs), "retrained": clock.mean},
            phases=costs.seconds,
            rows=rows.counts(),
            trainable_parameters=costs.trainable,
            total_parameters=original.parameter_count(),
            seed=recipe.seed,
            skipped=recipe.retrained - len(clock.retrainings),
        )
        write_json(partial / "results.json", demonstration.as_dict())
        write_page(demonstration, partial / "report.html")
        settings = recipe.model_dump(mode="json")
        write_record(partial, RunRecord(kind="demo", recipe=settings, seed=recipe.seed))
    return demonstration


@dataclass
class _Clock:
    """Whether there is time for one more retraining.

    Attributes:
        minutes: in which the demo shall end; None: it takes as long as it takes.
        started: when it began, in seconds.
        retrainings: seconds of each so far.
    """

    minutes: float | None
    started: float = field(default_factory=time.monotonic)
    retrainings: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean seconds of a retraining; 0 where there was none."""
        if not self.retrainings:
            return 0.0
        return sum(self.retrainings) / len(self.retrainings)

    def has_time(self) -> bool:
        """Whether a retraining as long as the last still ends in time; the first always does."""
        if self.minutes is None or not self.retrainings:
            return True
        elapsed = time.monotonic() - self.started
        expected = elapsed + self.retrainings[-1]
        return expected < 60 * self.minutes


def _retrain(study: Study, original: Recommender, count: int, clock: _Clock) -> None:
    """Retrain `count` times, or as often as there is time for."""
    for number in range(1, count + 1):
        if not clock.has_time():
            return
        # The original itself is not tuned further: only its template and window are used.
        model = study.unlearn(original, Retrain(number=number))
        clock.retrainings.append(model.seconds)
        study.ask(retrained(number), model.model)
        del model
