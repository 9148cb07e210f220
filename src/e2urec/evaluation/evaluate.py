"""One evaluation for every model: memory of D_f, utility on test rows, distances to retrained models, placebos.

Models answer one after another and leave `Answers`; everything here is computed from those, so no two models
need to be in memory at once, and a model may be evaluated before it is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from .. import metrics
from ..intervals import Bootstrap, Figure, over_seeds, remaining, user_bootstrap
from ..models.batches import Examples
from ..models.recommender import Recommender
from ..predictions import Predictions, predict
from ..results import Results
from ..seeding import derive
from ..training import Precision

Answers = Mapping[str, Predictions]
UTILITY = ("auc", "user_auc", "accuracy", "log_loss", "ece")


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
        retrained: answers of models tuned on D_r alone, each with its own seed.
            Without any, memory and distances are left out; with one, the noise floor is.
        candidates: answers of unlearned models and placebos by name.
        seed: of the user-clustered bootstrap.
        resamples: of the bootstrap, shared by all figures on the same rows.

    Returns:
        Every figure with its 95% interval; see `Results`.
    """
    references = {"retrained" if k == 0 else f"retrained_{k + 1}": answers for k, answers in enumerate(retrained)}
    models = {"original": original, **candidates, **references}
    boots = {
        part: user_bootstrap(original[part].users, resamples=resamples, seed=derive(seed, "bootstrap", part))
        for part in ("test", "forget", "unseen")
    }
    figures = {name: _figures(answers, boots) for name, answers in models.items()}
    where = {name: "test" if name in UTILITY else name.split("_")[0] for name in figures["original"]}
    results = Results({m: {k: boots[where[k]].interval(v) for k, v in row.items()} for m, row in figures.items()})
    results.auc_difference = {
        name: boots["test"].interval(row["auc"] - figures["original"]["auc"])
        for name, row in figures.items()
        if name != "original"
    }
    if not retrained:
        return results

    boot = boots["forget"]
    kept = {name: {"auc": row["forget_auc"], "loss": -row["forget_log_loss"]} for name, row in figures.items()}
    for measure in ("auc", "loss"):  # each signed so that a model that remembers has more of it
        noise = derive(seed, "seeds", measure)
        o, r = kept["original"][measure], over_seeds([kept[name][measure] for name in references], seed=noise)
        results.headroom[measure] = boot.interval(o - r)
        for name in candidates:
            left = boot.interval(remaining(kept[name][measure], o, r))
            results.memory.setdefault(name, {})[measure] = left
    _add_distances(results, models, list(references), boot)
    return results


def _figures(answers: Answers, boots: Mapping[str, Bootstrap]) -> dict[str, Figure]:
    """Utility on test, and AUC and log loss on D_f and on the unseen users."""
    test = answers["test"]
    figures = boots["test"].utility(test.labels, test.odds)
    for name in ("forget", "unseen"):
        rows, boot = answers[name], boots[name]
        figures[f"{name}_auc"] = boot.auc(rows.labels, rows.odds)
        figures[f"{name}_log_loss"] = boot.log_loss(rows.labels, rows.odds)
    return figures


def _add_distances(results: Results, models: Mapping[str, Answers], references: Sequence[str], boot: Bootstrap) -> None:
    """D(m, R): mean over the retrained models but m itself; their own mean is the noise floor."""
    pairs: dict[frozenset[str], dict[str, Figure]] = {}

    def between(one: str, other: str) -> dict[str, Figure]:
        key = frozenset((one, other))
        if key not in pairs:
            rows = models[one]["forget"].distances(models[other]["forget"])
            pairs[key] = {measure: boot.mean(values) for measure, values in rows.items()}
        return pairs[key]

    def mean(found: Sequence[dict[str, Figure]]) -> dict[str, Figure]:
        return {measure: np.mean([each[measure] for each in found], axis=0) for measure in found[0]}

    figures = {
        name: mean([between(name, other) for other in references if other != name])
        for name in models
        if set(references) - {name}
    }
    results.distance = {name: {k: boot.interval(v) for k, v in row.items()} for name, row in figures.items()}
    if len(references) < 2:
        return
    floor = mean([between(*pair) for pair in combinations(references, 2)])
    results.floor = {measure: boot.interval(figure) for measure, figure in floor.items()}
    for name in set(models) - {"original", *references}:
        excess = {
            measure: boot.interval(remaining(figure, figures["original"][measure], floor[measure]))
            for measure, figure in figures[name].items()
        }
        results.excess[name] = {k: found for k, found in excess.items() if np.isfinite(found.low)}


__all__ = ["Answers", "EvaluationSets", "evaluate", "softened"]
