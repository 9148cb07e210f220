"""Figures of `many_models.py`: all that its JSON says, from the answers in its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from e2urec.core.arrays import Floats, Ints
from e2urec.core.errors import ConfigError
from e2urec.metrics.bootstrap import Bootstrap, user_bootstrap
from e2urec.metrics.forgetting_quality import DELTA, epsilons, row_quality
from e2urec.metrics.klom import klom, margins
from e2urec.metrics.ranking import tpr_at_fpr
from e2urec.metrics.ulira import MIN_MODELS, AttackScores, attack
from kept_models import FLOOR, ORIGINAL, RETRAINED, ROWS, answers_in, variants_in
from pooled_files import MACHINES, RECORD, SETTINGS, hours_in, read_arrays, read_record

PARTS = ("forget", "retain", "test", "unseen")
ATTACKED = ("forget", "retain")
"""Parts whose rows are attacked: those that shall be forgotten, and those that stay."""
FPR = 0.01
"""False positive rate of all rows together; see `evaluation.attacks`."""
ROW_FPR = 0.05
"""The same of a single row, where twenty models know no smaller step."""
RESAMPLES = 1000


def step_key(kind: str, number: int) -> str:
    """The folder of a model, counted from 1."""
    return f"{kind}-{number}"


def work_report(folder: Path, planned: int) -> dict[str, Any]:
    """The figures of all kinds, of as many models as every kind has.

    Raises:
        ConfigError: fewer than three models of a kind are finished.
    """
    variants = variants_in(folder)
    kinds = (RETRAINED, FLOOR, ORIGINAL, *variants)
    count = finished_rounds(folder, kinds, planned)
    if count < MIN_MODELS:
        raise ConfigError(
            f"'{folder}': {count} models of each kind are finished, and figures take {MIN_MODELS}; "
            "run without --report-only first"
        )
    settings = read_record(folder, SETTINGS)
    figures = KindFigures(folder, count, settings["seed"])
    report = {}
    for kind in kinds[1:]:
        report[kind] = variants.get(kind, {}) | figures.of(kind)
    return {
        "models": count,
        "planned": planned,
        "rows": read_record(folder / ROWS)["counts"],
        "recipe": settings,
        "machines": read_record(folder, MACHINES),
        "hours": hours_in(folder),
        "fpr": FPR,
        "row_fpr": ROW_FPR,
        "delta": DELTA,
        "kinds": report,
    }


def finished_rounds(folder: Path, kinds: Sequence[str], most: int) -> int:
    """How many rounds have a model of each kind, at most `most`."""
    for number in range(1, most + 1):
        steps = [folder / step_key(kind, number) / RECORD for kind in kinds]
        if not all(step.is_file() for step in steps):
            return number - 1
    return most


@dataclass(frozen=True)
class KindFigures:
    """What the models of a kind differ in from the retrained ones.

    Attributes:
        folder: of the answers.
        count: models of each kind, N.
        seed: of the bootstrap.
    """

    folder: Path
    count: int
    seed: int

    def of(self, kind: str) -> dict[str, Any]:
        """The figures of a kind, by part of the rows."""
        rows = read_arrays(self.folder / ROWS)
        figures = {}
        for part in PARTS:
            labels = rows[f"{part}.labels"]
            unlearned = self._margins(kind, part, labels)
            retrained = self._margins(RETRAINED, part, labels)
            figures[part] = {"klom": shares(klom(unlearned, retrained))}
            if part in ATTACKED:
                users = rows[f"{part}.users"]
                figures[part] |= attack_figures(unlearned, retrained, users, self.seed)
        return figures

    def _margins(self, kind: str, part: str, labels: Ints) -> Floats:
        """(N, n) margins of the rows of a part."""
        odds = []
        for number in range(1, self.count + 1):
            answers = answers_in(self.folder, step_key(kind, number))
            assert answers is not None, "only finished rounds are read"
            odds.append(answers[part])
        return margins(labels, np.stack(odds))


def attack_figures(
    unlearned: Floats, retrained: Floats, users: Ints, seed: int
) -> dict[str, dict[str, Any]]:
    """U-LiRA and the (ε, δ) that it shows, with a variance for each row and with one for all.

    The first is what was published; the second is steadier where models are few.

    Args:
        unlearned: (N, n) margins.
        retrained: (N, n) margins.
        users: (n,) of the rows; intervals are over them.
        seed: of the bootstrap.
    """
    by_row = user_bootstrap(users, resamples=RESAMPLES, seed=seed)
    model_count = len(unlearned)
    # The same draws: users are the same, each with all of its rows in all models.
    by_margin = user_bootstrap(np.tile(users, 2 * model_count), resamples=RESAMPLES, seed=seed)
    scores = attack(unlearned, retrained)
    pooled_scores = attack(unlearned, retrained, pooled=True)
    return {
        "ulira": _ulira(scores, by_row, by_margin),
        "ulira_pooled": _ulira(pooled_scores, by_row, by_margin),
        "quality": _quality(scores, by_row),
        "quality_pooled": _quality(pooled_scores, by_row),
    }


def _ulira(scores: AttackScores, by_row: Bootstrap, by_margin: Bootstrap) -> dict[str, Any]:
    """Accuracy and TPR at a low FPR, by row and of all rows together."""
    accuracy = scores.accuracy()
    row_tpr = scores.tpr_at_fpr(ROW_FPR)
    is_unlearned = np.repeat([1, 0], scores.unlearned.size)
    ratios = np.concatenate([scores.unlearned.ravel(), scores.retrained.ravel()])
    tpr = by_margin.ranked(is_unlearned, ratios, tpr_at_fpr(FPR))
    return {
        "accuracy": by_row.interval(by_row.mean(accuracy)).as_dict(),
        "row_accuracy": shares(accuracy),
        "row_tpr": by_row.interval(by_row.mean(row_tpr)).as_dict(),
        "auc": by_margin.interval(by_margin.auc(is_unlearned, ratios)).as_dict(),
        "tpr": by_margin.interval(tpr).as_dict(),
    }


def _quality(scores: AttackScores, by_row: Bootstrap) -> dict[str, Any]:
    """ε by row, and forgetting quality: 1 where no row is known to have an ε of 0.5."""
    bounds = epsilons(scores)
    points = row_quality(bounds, len(scores.unlearned))
    return {
        "epsilon": shares(bounds),
        "quality": by_row.interval(by_row.mean(points)).as_dict(),
    }


def shares(values: Floats) -> Mapping[str, float]:
    """What most rows and the worst of them have."""
    return {
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "95%": float(np.percentile(values, 95)),
    }
