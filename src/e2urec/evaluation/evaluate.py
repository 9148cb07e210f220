"""One evaluation for every model: memory of D_f, utility on test rows, distances to retrained models, placebos.

Models answer one after another and leave `Answers`; everything here is computed from those, so no two models
need to be in memory at once, and a model may be evaluated before it is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from .. import metrics
from ..metrics import Interval
from ..models.batches import Examples
from ..models.recommender import Recommender
from ..predictions import Predictions, predict
from ..results import Results
from ..seeding import derive
from ..training import Precision

Answers = Mapping[str, Predictions]


@dataclass(frozen=True)
class EvaluationSets:
    """Rows that models are asked about: test, D_f, users unseen by all, validation (for the temperature)."""

    test: Examples
    forget: Examples
    unseen: Examples
    valid: Examples

    def ask(self, model: Recommender, *, precision: Precision = "auto", valid: bool = False) -> dict[str, Predictions]:
        """The model's answers to every set; to validation only where a temperature will be fitted on it."""
        names = [name for name in self.__dataclass_fields__ if valid or name != "valid"]
        return {name: predict(model, getattr(self, name), precision=precision) for name in names}


def softened(original: Answers) -> dict[str, Predictions]:
    """Placebo (i): the original with the temperature that fits validation. Its ranking is the original's.

    The two answers alone are softened, and so distances over {Yes, No} alone exist.
    """
    temperature = metrics.temperature(original["valid"].labels, original["valid"].odds)
    return {name: replace(rows, hidden=None, odds=rows.odds / temperature) for name, rows in original.items()}


def evaluate(
    original: Answers,
    retrained: Sequence[Answers],
    candidates: Mapping[str, Answers],
    *,
    seed: int,
    resamples: int = 2000,
) -> Results:
    """Measure `candidates` between the original (nothing forgotten) and the retrained models (all forgotten).

    Args:
        original: answers of the model before the request.
        retrained: answers of models tuned on D_r alone, each with its own seed; the first is `r1`.
            Without any, memory and distances are left out.
        candidates: answers of unlearned models and placebos by name.
        seed: of the user-clustered bootstrap.
        resamples: of the bootstrap, shared by all figures on the same rows.

    Returns:
        Utility and D_f figures of every model; memory, differences of test AUC to the original, distances to
        r1, their noise floor and the headroom, with 95% intervals.
    """
    models = {"original": original, **candidates}
    models |= {"retrained" if k == 0 else f"retrained_{k + 1}": answers for k, answers in enumerate(retrained)}
    results = Results(models={name: _figures(answers) for name, answers in models.items()})

    test, forget = original["test"], original["forget"]
    on_test = metrics.user_bootstrap(test.users, resamples=resamples, seed=derive(seed, "bootstrap", "test"))
    results.auc_difference = {
        name: metrics.paired_difference(test.labels, answers["test"].odds, test.odds, on_test)
        for name, answers in models.items()
        if name != "original"
    }
    if not retrained:
        return results

    on_forget = metrics.user_bootstrap(forget.users, resamples=resamples, seed=derive(seed, "bootstrap", "forget"))
    references = [answers["forget"].odds for answers in retrained]
    results.headroom = metrics.headroom(forget.labels, forget.odds, references, on_forget)
    results.memory = {
        name: metrics.memory(forget.labels, answers["forget"].odds, forget.odds, references, on_forget)
        for name, answers in candidates.items()
    }
    first = retrained[0]["forget"]
    named = {"original": original, **candidates}
    if len(retrained) > 1:
        named["retrained_again"] = retrained[1]
        pairs = [a["forget"].distances(b["forget"])["js"] for a, b in combinations(retrained, 2)]
        results.floor = float(np.mean([rows.mean() for rows in pairs]))
    results.distance = {
        name: {measure: float(rows.mean()) for measure, rows in answers["forget"].distances(first).items()}
        for name, answers in named.items()
    }
    return results


def _figures(answers: Answers) -> dict[str, float]:
    """Utility on test, and AUC and log loss on D_f and on the unseen users."""
    test = answers["test"]
    figures = metrics.utility(test.labels, test.odds, test.users)
    for name in ("forget", "unseen"):
        rows = answers[name]
        figures[f"{name}_auc"] = metrics.auc(rows.labels, rows.odds)
        figures[f"{name}_log_loss"] = metrics.log_loss(rows.labels, rows.odds)
    return figures


__all__ = ["Answers", "EvaluationSets", "Interval", "evaluate", "softened"]
