"""The study of one request: its models are made, asked and measured here, and nowhere else.

`api`, the demo and the comparison all go through it, so that a figure means the same everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arrays import Floats, Weights
from ..core.derived_keys import derived_key
from ..core.locks import SharedFolder
from ..evaluation.answers import Answers, EvaluationSets, softened
from ..evaluation.evaluate import evaluate
from ..evaluation.evidence import Evidence
from ..evaluation.results import Results
from ..evaluation.roles import ORIGINAL, PLACEBO_TEMPERATURE, Role
from ..evaluation.shadows import ShadowFactory, ShadowRows, ShadowScores
from ..methods.finetune import Finetune
from ..models.batches import Examples
from ..models.recommender import Recommender
from ..training.costs import Costs
from ..unlearning.method import Method
from ..unlearning.outcome import Outcome
from ..unlearning.task import PhaseLog
from .recipe import Recipe
from .request_rows import RequestRows
from .workspace import Workspace

SHARED_SETTINGS = ("batch_size", "learning_rate", "lora")
"""Settings of a method that its placebo takes over, where the method has them."""
MEASURED_PARTS = ("test", "valid", "unseen")
"""The parts of a split on which a model is measured that has nothing to forget."""
# Every method loads the same model, and nobody need look at the phases of a real request.
NOT_UNLEARNING = ("loading", "logging")
"""Phases that are not part of what a request costs."""


@dataclass(frozen=True)
class Unlearned:
    """A model that has forgotten, and what it took.

    Attributes:
        model: merged, or with one replacement adapter.
        costs: by phase.
        phase_logs: loss and AUC on D_f after each phase.
        outcome: what the method aimed at and how far it came, where it can tell.
    """

    model: Recommender
    costs: Costs
    phase_logs: list[PhaseLog]
    outcome: Outcome

    @property
    def seconds(self) -> float:
        """All phases together, augmented model and teachers too, without loading and logging."""
        return unlearning_seconds(self.costs)


def unlearning_seconds(costs: Costs) -> float:
    """What a request costs: all phases but loading, which every method needs, and logging."""
    total = 0.0
    for phase, seconds in costs.seconds.items():
        if phase not in NOT_UNLEARNING:
            total += seconds
    return total


def answers_alone(recipe: Recipe, model: Recommender, rows: Mapping[str, Examples]) -> Answers:
    """What a model says that has nothing to forget.

    Args:
        recipe: of the model.
        model: the original, or what a request left as it was.
        rows: those of `MEASURED_PARTS`, by name.
    """
    # D_f must not be empty: the unseen users stand in for it.
    sets = EvaluationSets(forget=rows["unseen"], **rows)
    return sets.ask(model, precision=recipe.tuning.schedule.precision)


def results_alone(recipe: Recipe, answers: Answers) -> Results:
    """How a model scores that has nothing to forget, by its `answers_alone`."""
    return evaluate(Evidence({ORIGINAL: answers}, seed=recipe.seed))


@dataclass
class Study:
    """The models of one request to one original.

    Attributes:
        space: data and base.
        rows: of the request.
        answers: of each model asked so far.
    """

    space: Workspace
    rows: RequestRows
    answers: dict[Role, Answers] = field(default_factory=dict)

    def ask(self, role: Role, model: Recommender, *, valid: bool = False) -> None:
        """Note what a model says; of validation rows too, where a temperature will be fitted."""
        # What the original's run keeps are the answers of no other model.
        log_odds = self.rows.evaluation_odds if role == ORIGINAL else {}
        self.answers[role] = self.answers_of(model, valid=valid, log_odds=log_odds)

    def keep_own_heads(self) -> None:
        """Copy output heads that are weights of a model, which may then go.

        Weights that were read from a file are pages of it, and each of them keeps all in memory.
        """
        copies: list[Weights] = []
        for role, answers in self.answers.items():
            head = answers.forget.head
            weight = head.weight
            # No adapter moves a head, so most models have that of the original.
            copy = next((other for other in copies if np.array_equal(other, weight)), None)
            if copy is None:
                copy = weight if weight.flags.owndata else weight.copy()
                copies.append(copy)
            self.answers[role] = answers.with_head(head._replace(weight=copy))

    def answers_of(
        self,
        model: Recommender,
        *,
        valid: bool = False,
        log_odds: Mapping[str, Floats] | None = None,
    ) -> Answers:
        """What a model says of the rows of the request; see `EvaluationSets.ask`."""
        return self.answers_to(self.rows.evaluation, model, valid=valid, log_odds=log_odds)

    def answers_to(
        self,
        sets: EvaluationSets,
        model: Recommender,
        *,
        valid: bool = False,
        log_odds: Mapping[str, Floats] | None = None,
    ) -> Answers:
        """What a model says of some rows; see `EvaluationSets.ask`."""
        precision = self.space.recipe.tuning.schedule.precision
        with self.space.costs.phase("evaluation"):
            return sets.ask(model, precision=precision, valid=valid, log_odds=log_odds)

    def unlearn(
        self, original: Recommender, method: Method, *, scratch: Path | None = None
    ) -> Unlearned:
        """Make the original forget. It is used up: the method may change its weights."""
        task = self.space.task(original, self.rows, method, scratch=scratch)
        model = method.unlearn(task)
        return Unlearned(model, task.costs, task.phase_logs, task.outcome)

    def placebo(self, original: Recommender, method: Method) -> Recommender:
        """Placebo (ii): the original tuned on D_r for as many steps, with no forget term.

        The original is used up.
        """
        # The same base and batches as the method's, so that only the forget term is missing.
        task = self.space.task(original, self.rows, method)
        return self._finetune(method).unlearn(task)

    def _finetune(self, method: Method) -> Finetune:
        settings = {}
        for name in SHARED_SETTINGS:
            if hasattr(method, name):
                settings[name] = getattr(method, name)
        return Finetune(steps=self.steps(method), **settings)

    def steps(self, method: Method) -> int:
        """Optimizer steps that move the recommender itself when `method` honours this request."""
        schedule = self.space.recipe.tuning.schedule
        forget = len(self.rows.forget)
        retain = len(self.rows.retain)
        return method.updates(forget, retain, schedule)

    def soften(self) -> None:
        """Note placebo (i): the original with its temperature fitted on validation rows."""
        original = self.answers[ORIGINAL]
        self.answers[PLACEBO_TEMPERATURE] = softened(original)

    def shadow_scores(
        self,
        folder: SharedFolder | None = None,
        controller: bytes = b"",
        say: Callable[[str], object] = lambda text: None,
    ) -> ShadowScores:
        """What models say of D_f and the unseen users that saw neither.

        Args:
            folder: where the models are kept, opened before the rows were read; None: nowhere.
            controller: the controller's key, under which they are found again.
            say: told of a model that was damaged, and is made anew.
        """
        recipe = self.space.recipe
        # The recipe's own tuning, so that shadows differ from the original by their rows alone.
        factory = ShadowFactory(
            untuned=self.space.untuned(),
            tuning=recipe.tuning,
            shadows=recipe.shadows,
            seed=recipe.seed,
            folder=folder,
            key=derived_key(controller, b"e2urec shadow models"),
            progress=self.space.progress,
            say=say,
        )
        rows = ShadowRows(self.rows.retain, self.rows.unseen, self.rows.forget)
        return factory.scores(rows)

    def measure(self, **evidence: Any) -> Results:
        """Measure all models that were asked; `evidence` is what else there is to go by."""
        recipe = self.space.recipe
        # Callers may override any of these: a comparison resamples less often.
        settings = {
            "seed": recipe.seed,
            "margins": recipe.margins,
            "slices": self.rows.slices,
            "difficulty": self.rows.difficulty.take(self.rows.retain_sample),
            **evidence,
        }
        with self.space.costs.phase("evaluation"):
            return evaluate(Evidence(self.answers, **settings))
