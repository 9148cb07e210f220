"""One evaluation for every model: memory of D_f, utility on test rows, distances to retrained models, placebos.

Models answer one after another and leave `Answers`; everything here is computed from those, so no two models
need to be in memory at once, and a model may be evaluated before it is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import special

from .. import metrics
from ..intervals import Bootstrap, Figure, Interval, interval, over_seeds, remaining, user_bootstrap
from ..models.batches import Examples
from ..models.recommender import Recommender
from ..predictions import Predictions, predict
from ..results import Results
from ..seeding import derive
from ..training import Precision
from .membership import Outsiders, attacks
from .slices import Mask
from .verdict import LEVEL, Margins, judge

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
    outside: Outsiders | None = None,
    margins: Margins | None = None,
    slices: Mapping[str, Mask] | None = None,
    resamples: int = 2000,
) -> Results:
    """Measure `candidates` between the original (nothing forgotten) and the retrained models (all forgotten).

    Args:
        original: answers of the model before the request.
        retrained: answers of models tuned on D_r alone, each with its own seed.
            Without any, memory and distances are left out; with one, the noise floor is.
        candidates: answers of unlearned models and placebos by name.
        seed: of the user-clustered bootstrap.
        outside: answers of models that never saw D_f, for membership inference; without retrained models the
            verdict rests on them.
        margins: of the verdict.
        slices: masks over the test rows by name, for the collateral damage.
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
    results.collateral = _collateral(models, slices or {}, seed, resamples)
    if candidates:
        for name, answers in models.items():
            results.membership[name] = attacks(
                answers["forget"], answers["unseen"], outside, seed=derive(seed, "attacks"), resamples=resamples
            )
    if retrained:
        _add_memory(results, figures, list(candidates), list(references), boots["forget"], seed)
        _add_distances(results, models, list(references), boots["forget"])
        _add_published(results, models, list(candidates), boots["forget"])
    if candidates and (retrained or outside):
        _add_verdicts(results, models, figures, list(references), boots, outside, margins or Margins(), seed)
    return results


def _add_memory(
    results: Results,
    figures: Mapping[str, Mapping[str, Figure]],
    candidates: Sequence[str],
    references: Sequence[str],
    boot: Bootstrap,
    seed: int,
) -> None:
    """Headroom and M by AUC and by log loss, each signed so that a model that remembers has more of it."""
    for measure, column, sign in (("auc", "forget_auc", 1), ("loss", "forget_log_loss", -1)):
        kept = {name: sign * row[column] for name, row in figures.items()}
        before, after = kept["original"], over_seeds([kept[name] for name in references], seed=derive(seed, "seeds"))
        results.headroom[measure] = boot.interval(before - after)
        for name in candidates:
            left = boot.interval(remaining(kept[name], before, after))
            results.memory.setdefault(name, {})[measure] = left


def _add_verdicts(
    results: Results,
    models: Mapping[str, Answers],
    figures: Mapping[str, Mapping[str, Figure]],
    references: Sequence[str],
    boots: Mapping[str, Bootstrap],
    outside: Outsiders | None,
    margins: Margins,
    seed: int,
) -> None:
    """Judge the original and every candidate.

    With retrained models M_auc is that of the table. Without, the AUC on D_f is taken beyond that on the unseen
    users, e = AUC_F − AUC_U, and e of the outsiders, who know neither, stands for the retrained model's: it holds
    what makes the forgotten users' rows easier or harder than others' by nature.
    """
    n, original = len(boots["forget"].user), models["original"]
    if references:
        kept = {name: row["forget_auc"] for name, row in figures.items()}
        after = over_seeds([kept[name] for name in references], seed=derive(seed, "seeds"))
    else:
        assert outside is not None, "a verdict needs retrained models or outsiders"
        n += len(boots["unseen"].user)
        kept = {name: row["forget_auc"] - row["unseen_auc"] for name, row in figures.items()}
        forget, unseen = (
            boots[part].auc(original[part].labels, getattr(outside, part)) for part in ("forget", "unseen")
        )
        after = forget - unseen
    control = results.membership["original"]["loss" if outside is None else "ratio"]["auc"]
    for name in models:
        if name in references:
            continue
        results.verdict[name] = judge(
            interval(remaining(kept[name], kept["original"], after), n, LEVEL),
            boots["test"].interval(figures["original"]["auc"] - figures[name]["auc"], LEVEL),
            interval(kept["original"] - after, n),
            margins,
            basis="retrained" if references else "shadows",
            control=control,
        )


def _collateral(
    models: Mapping[str, Answers], slices: Mapping[str, Mask], seed: int, resamples: int
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Model → slice of the test rows → `auc`, `log_loss` less the original's there."""
    test = models["original"]["test"]
    found: dict[str, dict[str, dict[str, Interval]]] = {name: {} for name in models if name != "original"}
    for part, mask in slices.items():
        boot = user_bootstrap(test.users[mask], resamples=resamples, seed=derive(seed, "bootstrap", part))
        figures = {}
        for name, answers in models.items():
            y, d = test.labels[mask], answers["test"].odds[mask]
            figures[name] = {"auc": boot.auc(y, d), "log_loss": boot.log_loss(y, d)}
        for name, rows in found.items():
            rows[part] = {k: boot.interval(v - figures["original"][k]) for k, v in figures[name].items()}
    return found


def _add_published(results: Results, models: Mapping[str, Answers], candidates: Sequence[str], boot: Bootstrap) -> None:
    """Figures that other papers report, against the first retrained model; nothing is gated on them."""
    original, retrained = models["original"]["forget"], models["retrained"]["forget"]
    attacked = results.membership["retrained"]["loss"]["auc"].value
    for name in candidates:
        rows = models[name]["forget"]
        leak = metrics.priv_leak(results.membership[name]["loss"]["auc"].value, attacked)
        losses = [metrics.row_losses(each.labels, each.odds) for each in (rows, retrained)]
        scores = [special.expit(each.odds.astype(np.float64)) for each in (rows, retrained, original)]
        found = {
            "residual_bota": metrics.residual_bota(*scores),
            "ks_tofu": metrics.ks_tofu(*losses),
            "priv_leak": leak,
        }
        nan = float("nan")
        results.published[name] = {key: Interval(value, nan, nan, len(boot.user)) for key, value in found.items()}


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
    for name in [name for name in models if name not in ("original", *references)]:
        excess = {
            measure: boot.interval(remaining(figure, figures["original"][measure], floor[measure]))
            for measure, figure in figures[name].items()
        }
        results.excess[name] = {k: found for k, found in excess.items() if np.isfinite(found.low)}


__all__ = ["Answers", "EvaluationSets", "evaluate", "softened"]
