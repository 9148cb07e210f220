"""All of it, small, on real data: train, forget, retrain, evaluate, and a page that shows it."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from ..core.disk import require_room
from ..core.errors import DataError
from ..core.say import Say, no_words
from ..evaluation.demonstration import Demonstration
from ..evaluation.disclosure import is_told
from ..evaluation.roles import ORIGINAL, PLACEBO_RETAIN, UNLEARNED, UNTUNED, retrained
from ..methods.retrain import Retrain
from ..metrics.classification import auc
from ..models.predictions import Predictions
from ..models.recommender import Recommender
from ..models.sharing import is_true_for_all
from ..report.page import write_page
from ..report.tables import number
from ..runs.files import write_json
from ..runs.keys import controller_key, key_at_hand
from ..runs.record import RunRecord, write_record
from ..runs.resumption import NEVER, CheckpointOptions, resumable_run
from ..training.costs import Costs
from ..training.loop import Progress, silent
from .demo_size import size_in_time
from .dependencies import dependencies
from .recipe import Recipe, method_of
from .study import Study, Unlearned, unlearning_seconds
from .workspace import Workspace


def demo(
    recipe: Recipe,
    out: Path,
    *,
    request: Path | None = None,
    progress: Progress = silent,
    say: Say = no_words,
    checkpoints: CheckpointOptions = NEVER,
) -> Demonstration:
    """Run the whole story of `recipe` into folder `out`.

    The folder holds `original/`, `unlearned/`, the results and a page.

    Args:
        recipe: all settings; `size_in_time` may make it smaller where there are no checkpoints.
        out: folder to make.
        request: file of users; None: the share that the recipe draws.
        progress: told of each step.
        say: told a smaller size, and a first result as soon as the unlearned model has answered.
        checkpoints: whether it can go on after it was killed, and whether it does so now. Then the
            minutes of the recipe begin anew, so that there may be more retrained models.

    Raises:
        E2URecError: as `train` and `unlearn` do.
    """
    clock = _Clock(recipe.minutes)
    method = method_of(recipe)
    key = key_at_hand()
    with resumable_run(out, checkpoints) as partial:
        # One that goes on is as large as it was when it began, however fast the computer is now.
        if not checkpoints.is_on:
            recipe = size_in_time(recipe, say)
        space = Workspace(recipe, progress)
        space.check_before_training()
        # The original and the unlearned model.
        require_room(partial, 2 * space.model_bytes())
        erasure = space.request(request)
        parts = space.resolve(erasure)
        if not len(parts.forget):
            raise DataError(
                "request: concerns no training row, so there is nothing to show; name training "
                "users"
            )
        if checkpoints.is_on:
            settings = {"command": "demo", "request": sorted(erasure.lines())}
            space.checkpoints = checkpoints.begin(
                out, settings | dependencies(space), controller_key(), sealed=True
            )
        # The rows take their scores along. No score depends on the original.
        space.make_scores(partial)
        rows = space.rows(parts)
        study = Study(space, rows)
        # What the language model says before it has seen any user: the floor of all figures.
        study.ask(UNTUNED, space.untuned())

        original, _ = space.train()
        original.save(partial / "original")
        study.ask(ORIGINAL, original, valid=True)
        study.soften()

        # Each model that forgets is made from a copy: the original is needed once more.
        unlearned = study.unlearn(original.copy_adapters(), method, scratch=partial)
        unlearned.model.save(partial / "unlearned")
        study.ask(UNLEARNED, unlearned.model)
        for line in _first_result(study, unlearned, clock):
            say(line)
        costs = unlearned.costs
        phase_logs = unlearned.phase_logs
        outcome = unlearned.outcome
        # Let go of, as every model that was asked: there shall never be more than two beside it.
        del unlearned
        with space.costs.phase("placebo"):
            placebo = study.placebo(original.copy_adapters(), method)
        study.ask(PLACEBO_RETAIN, placebo)
        del placebo

        _retrain(study, original, recipe.retrained, clock)
        results = study.measure()
        demonstration = Demonstration(
            results=results,
            answers=study.answers,
            phase_logs=phase_logs,
            outcome=outcome,
            seconds=_seconds(study, costs, clock),
            phases=costs.seconds,
            rows=rows.counts(),
            trainable_parameters=costs.trainable,
            total_parameters=original.parameter_count(),
            seed=recipe.seed,
            retrainings=len(clock.retrainings),
            skipped=recipe.retrained - len(clock.retrainings),
        )
        write_json(partial / "results.json", demonstration.as_dict())
        write_page(demonstration, partial / "report.html")
        settings = recipe.model_dump(mode="json")
        write_record(partial, RunRecord(kind="demo", recipe=settings, seed=recipe.seed), key)
    return demonstration


@dataclass
class _Clock:
    """Whether there is time for one more retraining.

    Attributes:
        minutes: in which the demo shall end; None: it takes as long as it takes.
        started: when it began, in seconds.
        retrainings: seconds of each so far.
        last_round: of these, seconds of the last one with all that came with it.
    """

    minutes: float | None
    started: float = field(default_factory=time.monotonic)
    retrainings: list[float] = field(default_factory=list)
    last_round: float = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.started

    @property
    def mean(self) -> float:
        """Mean seconds of a retraining; 0 where there was none."""
        if not self.retrainings:
            return 0.0
        return sum(self.retrainings) / len(self.retrainings)

    def has_time(self) -> bool:
        """Whether a round as long as the last, and the end, are in time; the first always is."""
        if self.minutes is None or not self.retrainings:
            return True
        # At the end all models are measured and the page is written, which takes no longer than
        # asking one of them.
        end = self.last_round - self.retrainings[-1]
        expected = self.elapsed + self.last_round + end
        return expected < 60 * self.minutes


def _first_result(study: Study, unlearned: Unlearned, clock: _Clock) -> list[str]:
    """What can be said before anything was retrained, a line each."""
    before = study.answers[ORIGINAL]
    after = study.answers[UNLEARNED]
    training = study.space.costs.seconds["original"]
    lines = [
        f"First result after {clock.elapsed:.0f} s: training took {training:.0f} s, forgetting "
        f"{unlearned.seconds:.0f} s",
        f"  AUC on test rows: {_change(before.test, after.test)}",
    ]
    if is_told(len(study.rows.forget)):
        lines.insert(1, f"  AUC on the forgotten rows: {_change(before.forget, after.forget)}")
    count = study.space.recipe.retrained
    if count:
        lines.append(
            f"  Retraining ({count} times, if there is time) tells how much of it was memory"
        )
    return lines


def _seconds(study: Study, costs: Costs, clock: _Clock) -> dict[str, float]:
    """Where the time went so far; see `Demonstration.seconds`."""
    return {
        **study.space.costs.seconds,
        "unlearning": unlearning_seconds(costs),
        "retrained": clock.mean,
        "total": clock.elapsed,
    }


def _change(before: Predictions, after: Predictions) -> str:
    """`0.799 before, 0.701 after`: AUC of the same rows."""
    aucs = [number(auc(side.labels, side.log_odds), 3) for side in (before, after)]
    return f"{aucs[0]} before, {aucs[1]} after"


def _retrain(study: Study, original: Recommender, count: int, clock: _Clock) -> None:
    """Retrain `count` times, or as often as there is time for."""
    for turn in range(1, count + 1):
        # The clocks of several processes differ a little.
        if not is_true_for_all(clock.has_time()):
            return
        round_start = clock.elapsed
        # The original itself is not tuned further: only its template and window are used.
        model = study.unlearn(original, Retrain(number=turn))
        clock.retrainings.append(model.seconds)
        study.ask(retrained(turn), model.model)
        del model
        clock.last_round = clock.elapsed - round_start
