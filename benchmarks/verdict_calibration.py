"""How often the verdict errs: judge models of which the truth is known.

    python benchmarks/verdict_calibration.py [--models 20] [--references 5] [--left 0.25 0.5 0.75]
        [--set KEY=VALUE]

The data are MovieLens-100K, the models tiny Llamas. Further retrained models have forgotten: none
may FAIL, most should PASS. Further originals have not: none may PASS. Partly forgotten ones were
tuned on a share of the forgotten users: that share of the memory is left. Where it is the margin
itself, one of twenty may PASS; beyond it, none. All are judged by retrained models and, as in
production, by shadows and unseen users alone. Prints a JSON object after each model judged; the
last one counts.

The base can recommend before it sees a user of the experiment: it was tuned on everybody else's
rows. So test AUC differs little from seed to seed, as it does for a large language model, and what
the verdict is asked about is memory.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from common import option_parser
from e2urec.core.seeding import derive, stream
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.evaluate import evaluate
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.results import Results
from e2urec.evaluation.roles import ORIGINAL, UNLEARNED, Role, retrained
from e2urec.evaluation.shadows import ShadowScores
from e2urec.evaluation.verdict import Outcome
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.study import Study
from e2urec.experiments.workspace import Workspace
from e2urec.models.batches import Examples
from e2urec.training.loop import Phase
from e2urec.training.supervised import tune
from tiny_base import RECIPE, write_base

# The truths about a model: the share of the users in D_f on whom it was tuned.
KINDS = {"retrained": 0.0, "original": 1.0}
# The margin of a recipe by default, and what no margin may pass.
LEFT = (0.25, 0.5, 0.75)
# What verdicts are judged by.
BASES = ("retrained", "shadows")
# Judged models are numbered from here on, so that none has the seed of a reference.
FIRST_JUDGED = 100


# --- measuring


@dataclass
class Calibration:
    """One request, the models it is judged by, and models of which the truth is known.

    Attributes:
        study: of the request.
        train: all training rows.
        references: answers of the original and of the retrained models that are R.
        shadows: scores of the shadows.
    """

    study: Study
    train: Examples
    references: dict[Role, Answers]
    shadows: ShadowScores

    @classmethod
    def prepare(cls, recipe: Recipe, reference_count: int) -> "Calibration":
        """Train the original, the models that are R, and the shadows."""
        space = Workspace(recipe)
        parts = space.resolve(space.request())
        rows = space.rows(parts)
        study = Study(space, rows)
        train = space.encode(space.split.train)
        references = {ORIGINAL: answers_of_new_model(study, train, "original", 0)}
        for number in range(reference_count):
            answers = answers_of_new_model(study, rows.retain, "retrained", number)
            references[retrained(number + 1)] = answers
        shadows = study.shadow_scores()
        return cls(study, train, references, shadows)

    def new_model(self, kind: str, share: float, number: int) -> Answers:
        """The answers of a further model of a kind, which saw a share of the users in D_f."""
        rows = self.rows_with(share, number)
        return answers_of_new_model(self.study, rows, kind, FIRST_JUDGED + number)

    def rows_with(self, share: float, number: int) -> Examples:
        """D_r, and the rows of a random share of the users in D_f, others for each number."""
        # Prompts of users show their own rows alone, so those of D_r are the same in both.
        users = np.unique(self.study.rows.forget.users)
        seed = self.study.space.recipe.seed
        order = stream(seed, "users left", number).permutation(users)
        forgotten = order[round(share * len(users)) :]
        is_left = ~np.isin(self.train.users, forgotten)
        return self.train.take(np.flatnonzero(is_left))

    def judge(self, answers: Answers) -> dict[str, Results]:
        """The evaluation of a model, by what it is judged by."""
        by_shadows_alone = {ORIGINAL: self.references[ORIGINAL]}
        return {
            "retrained": self._evaluate(self.references, answers),
            "shadows": self._evaluate(by_shadows_alone, answers),
        }

    def _evaluate(self, references: dict[Role, Answers], answers: Answers) -> Results:
        recipe = self.study.space.recipe
        evidence = Evidence(
            {**references, UNLEARNED: answers},
            seed=recipe.seed,
            shadows=self.shadows,
            margins=recipe.margins,
        )
        return evaluate(evidence)


def answers_of_new_model(study: Study, rows: Examples, kind: str, number: int) -> Answers:
    """Tune a model with a seed of its own, and ask it."""
    recipe = study.space.recipe
    seed = derive(recipe.seed, "calibration", kind, number)
    # One name for both kinds: they shall differ in their rows and seeds alone.
    phase = Phase("original", seed)
    model, _ = tune(study.space.untuned(), recipe.tuning, rows, None, phase)
    return study.answers_of(model)


# --- counting


@dataclass
class Tally:
    """The verdicts on the models of one kind.

    Attributes:
        outcomes: PASS, FAIL, … of each model, by what it was judged by.
        memory: M_auc of each model against retrained models: value, low, high.
        auc_drop: the drop of test AUC: value, high.
    """

    outcomes: dict[str, list[Outcome]] = field(
        default_factory=lambda: {basis: [] for basis in BASES}
    )
    memory: list[list[float]] = field(default_factory=list)
    auc_drop: list[list[float]] = field(default_factory=list)

    def add(self, results: Mapping[str, Results]) -> None:
        """Count the verdicts on one more model."""
        for basis in BASES:
            verdict = results[basis].verdicts[UNLEARNED]
            self.outcomes[basis].append(verdict.outcome)
        # Against retrained models, which is what a recipe's margins were made for.
        verdict = results["retrained"].verdicts[UNLEARNED]
        memory = verdict.memory
        self.memory.append([memory.value, memory.low, memory.high])
        drop = verdict.auc_drop
        self.auc_drop.append([drop.value, drop.high])

    def as_dict(self) -> dict[str, Any]:
        """Counts by outcome, how often both ways of judging agree, and the figures themselves."""
        report: dict[str, Any] = {}
        for basis, outcomes in self.outcomes.items():
            report[basis] = outcome_shares(outcomes)
        pairs = list(zip(*self.outcomes.values(), strict=True))
        agreeing = [first == second for first, second in pairs]
        report["agreement"] = share_with_limits(sum(agreeing), len(pairs))
        report["memory"] = self.memory
        report["auc_drop"] = self.auc_drop
        return report


def outcome_shares(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """The share of each outcome, with its limits."""
    total = len(outcomes)
    shares: dict[str, list[float]] = {}
    for outcome, count in Counter(outcomes).items():
        shares[outcome] = share_with_limits(count, total)
    return shares


def share_with_limits(count: int, total: int) -> list[float]:
    """The count, its share of the total, and Clopper–Pearson 95% limits."""
    test = binomtest(count, total)
    limits = test.proportion_ci(method="exact")
    return [count, count / total, limits.low, limits.high]


def kinds(left: Sequence[float]) -> dict[str, float]:
    """The kinds of models that are judged, each with the share of the memory that is left."""
    return KINDS | {f"left {share:g}": share for share in left}


def calibrate(
    recipe: Recipe, model_count: int, reference_count: int, left: Sequence[float] = ()
) -> Iterator[dict[str, Any]]:
    """Judge models of each kind; yields the report so far after each."""
    calibration = Calibration.prepare(recipe, reference_count)
    report: dict[str, Any] = {"rows": calibration.study.rows.counts()}
    for kind, share in kinds(left).items():
        tally = Tally()
        for number in range(model_count):
            answers = calibration.new_model(kind, share, number)
            results = calibration.judge(answers)
            tally.add(results)
            headroom = results["retrained"].figure("headroom", "auc")
            report["headroom"] = headroom.as_dict()
            report[kind] = tally.as_dict()
            yield report


# --- the command line


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("--models", type=int, default=20, help="models of each kind to judge")
    parser.add_argument("--references", type=int, default=5, help="retrained models that are R")
    parser.add_argument(
        "--left", type=float, nargs="*", default=LEFT, help="shares of the memory that are left"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe"
    )
    return parser.parse_args()


def main() -> None:
    """Read the arguments; make the base; judge and print."""
    arguments = options()
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"model.name={folder}", *arguments.set]
        recipe = Recipe.load(RECIPE).updated(settings)
        write_base(recipe, Path(folder))
        reports = calibrate(recipe, arguments.models, arguments.references, arguments.left)
        for report in reports:
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
