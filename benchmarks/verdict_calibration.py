"""How often the verdict errs: judge models of which the truth is known.

    python benchmarks/verdict_calibration.py [--models 20] [--references 5] [--left 0.25 0.5 0.75]
        [--left-alone] [--work FOLDER] [--base NAME] [--set KEY=VALUE]

The data are MovieLens-100K, the models tiny Llamas. Further retrained models have forgotten: none
may FAIL, most should PASS. Further originals have not: none may PASS. Partly forgotten ones were
tuned on a share of the forgotten users: that share of the memory is left. Where it is the margin
itself, one of twenty may PASS; beyond it, none. All are judged by retrained models and, as in
production, by shadows and unseen users alone. Prints a JSON object after each model judged; the
last one counts. Models are judged in rounds, one of each kind. With `--work` the reference, the
shadows and the verdicts stay there, and the same command goes on after an interrupt.

The base can recommend before it sees a user of the experiment: it was tuned on everybody else's
rows. So test AUC differs little from seed to seed, as it does for a large language model, and what
the verdict is asked about is memory.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from common import option_parser
from e2urec.core.locks import SharedFolder
from e2urec.core.seeding import stream
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.evaluate import evaluate
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.results import Results
from e2urec.evaluation.roles import ORIGINAL, UNLEARNED, Role, retrained
from e2urec.evaluation.shadows import ShadowScores
from e2urec.evaluation.verdict import VerdictOutcome
from e2urec.experiments.study import Study
from e2urec.models.batches import Examples
from e2urec.runs.files import write_json
from e2urec.runs.keys import controller_key
from kept_models import KeptModels, say
from pooled_files import RECORD, read_record

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
        models: in a working folder.
        study: of the request.
        train: all training rows.
        references: answers of the original and of the retrained models that are R.
        shadows: scores of the shadows.
    """

    models: KeptModels
    study: Study
    train: Examples
    references: dict[Role, Answers] = field(default_factory=dict)
    shadows: ShadowScores | None = None

    @classmethod
    def prepare(cls, models: KeptModels, reference_count: int) -> "Calibration":
        """Train the original, the models that are R, and the shadows, unless they are there."""
        space = models.space
        rows = space.rows(space.resolve(space.request()))
        calibration = cls(models, Study(space, rows), space.encode(space.split.train))
        calibration.add_reference(ORIGINAL, calibration.train, "original", 0)
        for number in range(reference_count):
            calibration.add_reference(retrained(number + 1), rows.retain, "retrained", number)
        with SharedFolder.open(models.grid.folder / "shadows") as folder:
            calibration.shadows = calibration.study.shadow_scores(folder, controller_key(), say)
        return calibration

    def add_reference(self, role: Role, rows: Examples, kind: str, number: int) -> None:
        """Ask a model of the reference, which stays in the working folder."""
        key = f"reference-{kind}-{number}"
        # Its answers hold states, which no step keeps: a model that is read back gives them again.
        self.models.make(key, lambda: self.models.tuned(rows, kind, number), {}, keep=True)
        self.references[role] = self.study.answers_of(self.models.original(key))

    def verdict_on(self, kind: str, share: float, number: int) -> Mapping[str, Any]:
        """The verdict on a further model of a kind, which saw a share of the users in D_f."""

        def save(folder: Path) -> None:
            start_time = time.perf_counter()
            rows = self.rows_with(share, number)
            model = self.models.tuned(rows, kind, FIRST_JUDGED + number)
            results = self.judge(self.study.answers_of(model))
            headroom = results["retrained"].figure("headroom", "auc")
            record = verdict_record(results) | {
                "headroom": headroom.as_dict(),
                "wall": time.perf_counter() - start_time,
            }
            write_json(folder / RECORD, record)

        key = f"{kind}-{number}".replace(" ", "-")
        record: Mapping[str, Any] = read_record(self.models.grid.folder_of(key, save))
        return record

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


def verdict_record(results: Mapping[str, Results]) -> dict[str, Any]:
    """What is counted of a verdict, as plain values.

    Memory and drop of test AUC are against retrained models, for which a recipe's margins were
    made.
    """
    verdict = results["retrained"].verdicts[UNLEARNED]
    memory = verdict.memory
    drop = verdict.auc_drop
    return {
        "outcomes": {basis: results[basis].verdicts[UNLEARNED].outcome for basis in BASES},
        "memory": [memory.value, memory.low, memory.high],
        "auc_drop": [drop.value, drop.high],
    }


# --- counting


@dataclass
class Tally:
    """The verdicts on the models of one kind.

    Attributes:
        outcomes: PASS, FAIL, … of each model, by what it was judged by.
        memory: M_auc of each model against retrained models: value, low, high.
        auc_drop: the drop of test AUC: value, high.
    """

    outcomes: dict[str, list[VerdictOutcome]] = field(
        default_factory=lambda: {basis: [] for basis in BASES}
    )
    memory: list[list[float]] = field(default_factory=list)
    auc_drop: list[list[float]] = field(default_factory=list)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one more `verdict_record`."""
        for basis in BASES:
            self.outcomes[basis].append(record["outcomes"][basis])
        self.memory.append(record["memory"])
        self.auc_drop.append(record["auc_drop"])

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


def outcome_shares(outcomes: Sequence[VerdictOutcome]) -> dict[str, list[float]]:
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


def kinds(left: Sequence[float], *, left_alone: bool = False) -> dict[str, float]:
    """The kinds of models that are judged, each with the share of the memory that is left."""
    others = {} if left_alone else KINDS
    return others | {f"left {share:g}": share for share in left}


def calibrate(
    calibration: Calibration, model_count: int, shares: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Judge models of each kind, round by round; yields the report so far after each."""
    report: dict[str, Any] = {"rows": calibration.study.rows.counts()}
    tallies = {kind: Tally() for kind in shares}
    for number in range(model_count):
        for kind, share in shares.items():
            record = calibration.verdict_on(kind, share, number)
            tallies[kind].add(record)
            report["headroom"] = record["headroom"]
            report[kind] = tallies[kind].as_dict()
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
        "--left-alone", action="store_true", help="judge no further retrained models and originals"
    )
    parser.add_argument("--work", type=Path, help="folder that is gone on with; by default none")
    parser.add_argument("--base", help="name or folder of a base; by default the tiny one is made")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe"
    )
    return parser.parse_args()


def run(arguments: argparse.Namespace, folder: Path) -> None:
    """Judge the models, and print the report so far after each."""
    models = KeptModels.open(folder, arguments.set, "calibration", arguments.base)
    shares = kinds(arguments.left, left_alone=arguments.left_alone)
    # The original is a reference as well; shadows are no steps.
    models.grid.total = 1 + arguments.references
    models.grid.total += arguments.models * len(shares)
    calibration = Calibration.prepare(models, arguments.references)
    for report in calibrate(calibration, arguments.models, shares):
        print(json.dumps(report), flush=True)


def main() -> None:
    """Read the arguments; judge in the working folder, or in one that goes."""
    arguments = options()
    if arguments.work is not None:
        run(arguments, arguments.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(arguments, Path(folder))


if __name__ == "__main__":
    main()
