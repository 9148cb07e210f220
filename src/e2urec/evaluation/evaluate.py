"""One evaluation for every model: memory of D_f, utility on test rows, distances to retrained models, placebos.

Models answer one after another and leave `Answers`; everything here is computed from those, so no two models
need to be in memory at once, and a model may be evaluated before it is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy import special

from ..core.arrays import Ints, Mask
from ..core.seeding import derive
from ..metrics.bootstrap import (
    Bootstrap,
    Figure,
    Interval,
    interval,
    over_seeds,
    remaining,
    user_bootstrap,
)
from ..metrics.classification import row_losses, temperature
from ..metrics.published import ks_tofu, priv_leak, residual_bota
from ..models.batches import Examples
from ..models.precision import Precision
from ..models.predictions import Predictions, predict
from ..models.recommender import Recommender
from .membership import Answers, ShadowScores, attacks
from .results import Results
from .verdict import LEVEL, Margins, Verdict, judge

Row = dict[str, Interval]
UTILITY = ("auc", "gauc", "accuracy", "log_loss", "ece")


@dataclass(frozen=True)
class EvaluationSets:
    """Rows that models are asked about: test, D_f, users unseen by all, validation (for the temperature)."""

    test: Examples
    forget: Examples
    unseen: Examples
    valid: Examples

    def ask(
        self, model: Recommender, *, precision: Precision = "auto", valid: bool = False
    ) -> dict[str, Predictions]:
        """The model's answers to every set; to validation only where a temperature will be fitted on it."""
        names = [name for name in self.__dataclass_fields__ if valid or name != "valid"]
        return {name: predict(model, getattr(self, name), precision=precision) for name in names}


def softened(original: Answers) -> dict[str, Predictions]:
    """Placebo (i): the original with the temperature that fits validation. Its ranking is the original's.

    The two answers alone are softened, and so distances over {Yes, No} alone exist.
    """
    fitted = temperature(original["valid"].labels, original["valid"].odds)
    return {
        name: replace(rows, hidden=None, odds=rows.odds / fitted) for name, rows in original.items()
    }


def evaluate(
    original: Answers,
    retrained: Sequence[Answers],
    candidates: Mapping[str, Answers],
    *,
    seed: int,
    twin: Answers | None = None,
    outside: ShadowScores | None = None,
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
        twin: answers of an original of another seed; with two retrained models the projection is then known.
        outside: answers of models that never saw D_f, for membership inference; without retrained models the
            verdict rests on them.
        margins: of the verdict.
        slices: masks over the test rows by name, for the collateral damage.
        resamples: of the bootstrap, shared by all figures on the same rows.

    Returns:
        Every figure with its 95% interval; see `Results`.
    """
    references = {
        "retrained" if k == 0 else f"retrained_{k + 1}": answers
        for k, answers in enumerate(retrained)
    }
    case = _Case(
        {"original": original, **candidates, **references},
        list(candidates),
        list(references),
        seed,
        resamples,
    )
    results = Results(
        case.measured(),
        auc_difference=case.auc_difference(),
        collateral=case.collateral(slices or {}),
    )
    if candidates:
        results.membership = case.membership(outside)
    if retrained:
        results.headroom, results.memory = case.headroom(), case.memory()
        results.distance, results.apart = case.distance(), case.apart()
        results.published = case.published(results.membership)
    if len(retrained) > 1:
        results.floor, results.excess = case.floor(), case.excess()
        results.projection = {} if twin is None else case.projection(twin["forget"])
    if candidates and (retrained or outside):
        control = results.membership["original"]["loss" if outside is None else "ratio"]["auc"]
        results.verdict = case.verdicts(outside, margins or Margins(), control)
    return results


@dataclass(frozen=True)
class _Case:
    """What all measures of one evaluation share; each method here is one measure.

    Attributes:
        models: answers by name: the original, the candidates, the retrained models.
        candidates, references: names of the candidates and of the retrained models.
    """

    models: Mapping[str, Answers]
    candidates: list[str]
    references: list[str]
    seed: int
    resamples: int

    @cached_property
    def boots(self) -> dict[str, Bootstrap]:
        """Resamples of users for each set of rows."""
        rows = self.models["original"]
        return {part: self._boot(part, rows[part].users) for part in ("test", "forget", "unseen")}

    def _boot(self, part: str, users: Ints) -> Bootstrap:
        return user_bootstrap(
            users, resamples=self.resamples, seed=derive(self.seed, "bootstrap", part)
        )

    # --- utility ---

    @cached_property
    def figures(self) -> dict[str, dict[str, Figure]]:
        """Model → utility on test, and AUC and log loss on D_f and on the unseen users."""
        return {name: self._figures(answers) for name, answers in self.models.items()}

    def _figures(self, answers: Answers) -> dict[str, Figure]:
        found = self.boots["test"].utility(answers["test"].labels, answers["test"].odds)
        for part in ("forget", "unseen"):
            rows, boot = answers[part], self.boots[part]
            found[f"{part}_auc"] = boot.auc(rows.labels, rows.odds)
            found[f"{part}_log_loss"] = boot.log_loss(rows.labels, rows.odds)
        return found

    def measured(self) -> dict[str, Row]:
        """All figures of all models."""
        where = {
            name: "test" if name in UTILITY else name.split("_")[0]
            for name in self.figures["original"]
        }
        return {
            m: {k: self.boots[where[k]].interval(v) for k, v in row.items()}
            for m, row in self.figures.items()
        }

    def auc_difference(self) -> Row:
        """Test AUC less the original's."""
        before, boot = self.figures["original"]["auc"], self.boots["test"]
        return {
            name: boot.interval(row["auc"] - before)
            for name, row in self.figures.items()
            if name != "original"
        }

    def collateral(self, slices: Mapping[str, Mask]) -> dict[str, dict[str, Row]]:
        """Model → slice of the test rows → `auc`, `log_loss` less the original's there."""
        test = self.models["original"]["test"]
        found: dict[str, dict[str, Row]] = {name: {} for name in self.models if name != "original"}
        for part, mask in slices.items():
            boot, figures = self._boot(part, test.users[mask]), {}
            for name, answers in self.models.items():
                y, d = test.labels[mask], answers["test"].odds[mask]
                figures[name] = {"auc": boot.auc(y, d), "log_loss": boot.log_loss(y, d)}
            for name, rows in found.items():
                rows[part] = {
                    k: boot.interval(v - figures["original"][k]) for k, v in figures[name].items()
                }
        return found

    # --- memory ---

    def _kept(self, measure: str) -> tuple[dict[str, Figure], Figure]:
        """What every model knows of D_f, by `auc` or by `loss` (sign turned: more is more), and the mean over R."""
        column, sign = {"auc": ("forget_auc", 1), "loss": ("forget_log_loss", -1)}[measure]
        kept = {name: sign * row[column] for name, row in self.figures.items()}
        return kept, over_seeds(
            [kept[name] for name in self.references], seed=derive(self.seed, "seeds")
        )

    def headroom(self) -> Row:
        """What there is to forget."""
        found = {measure: self._kept(measure) for measure in ("auc", "loss")}
        return {
            measure: self.boots["forget"].interval(kept["original"] - r)
            for measure, (kept, r) in found.items()
        }

    def memory(self) -> dict[str, Row]:
        """M of every candidate."""
        memory: dict[str, Row] = {name: {} for name in self.candidates}
        for measure in ("auc", "loss"):
            kept, after = self._kept(measure)
            for name, row in memory.items():
                row[measure] = self.boots["forget"].interval(
                    remaining(kept[name], kept["original"], after)
                )
        return memory

    def projection(self, twin: Predictions) -> Row:
        """The projection of every candidate; see `Bootstrap.projection`."""
        boot = self.boots["forget"]
        odds = {name: answers["forget"].odds for name, answers in self.models.items()}
        first, second = (odds[name] for name in self.references[:2])
        row = {}
        for name in self.candidates:
            figure = boot.projection(odds[name], first, twin.odds, second, odds["original"])
            row[name] = boot.interval(figure)
        return row

    # --- distances ---

    @cached_property
    def _pairs(self) -> dict[frozenset[str], dict[str, Figure]]:
        """Distances on D_f between every model and every retrained model but itself, each pair once."""
        names = [
            (name, other) for other in self.references for name in self.models if name != other
        ]
        return {
            key: {
                measure: self.boots["forget"].mean(values)
                for measure, values in self.models[one]["forget"]
                .distances(self.models[other]["forget"])
                .items()
            }
            for key, (one, other) in {frozenset(pair): pair for pair in names}.items()
        }

    def apart(self) -> dict[str, dict[str, Row]]:
        """Model → retrained model → distances."""
        boot = self.boots["forget"]
        return {
            name: {
                other: {
                    k: boot.interval(v) for k, v in self._pairs[frozenset((name, other))].items()
                }
                for other in self.references
                if other != name
            }
            for name in self.models
        }

    @cached_property
    def _distances(self) -> dict[str, dict[str, Figure]]:
        found = {
            name: [
                self._pairs[frozenset((name, other))] for other in self.references if other != name
            ]
            for name in self.models
        }
        return {name: _mean(rows) for name, rows in found.items() if rows}

    @cached_property
    def _floor(self) -> dict[str, Figure]:
        return _mean([self._pairs[frozenset(pair)] for pair in combinations(self.references, 2)])

    def distance(self) -> dict[str, Row]:
        """D(m, R): mean over the retrained models but m itself."""
        boot = self.boots["forget"]
        return {
            name: {k: boot.interval(v) for k, v in row.items()}
            for name, row in self._distances.items()
        }

    def floor(self) -> Row:
        """Mean distance between two retrained models."""
        return {
            measure: self.boots["forget"].interval(figure)
            for measure, figure in self._floor.items()
        }

    def excess(self) -> dict[str, Row]:
        """Distance beyond the floor as a share of the original's, where the original is beyond it."""
        before, found = self._distances["original"], {}
        for name in self.candidates:
            row = {
                measure: self.boots["forget"].interval(
                    remaining(figure, before[measure], self._floor[measure])
                )
                for measure, figure in self._distances[name].items()
            }
            found[name] = {measure: each for measure, each in row.items() if np.isfinite(each.low)}
        return found

    # --- attacks, and figures of other papers ---

    def membership(self, outside: ShadowScores | None) -> dict[str, dict[str, Row]]:
        """Model → attack → figures."""
        shared = {"seed": derive(self.seed, "attacks"), "resamples": self.resamples}
        control = self.models[self.references[0]] if self.references else None
        return {
            name: attacks(answers, outside, control, **shared)
            for name, answers in self.models.items()
        }

    def published(self, membership: Mapping[str, Mapping[str, Row]]) -> dict[str, Row]:
        """Figures that other papers report, against the first retrained model; nothing is gated on them."""
        original, retrained = (
            self.models[name]["forget"] for name in ("original", self.references[0])
        )
        found: dict[str, Row] = {}
        for name in self.candidates:
            rows, nan = self.models[name]["forget"], float("nan")
            losses = [row_losses(each.labels, each.odds) for each in (rows, retrained)]
            scores = [
                special.expit(each.odds.astype(np.float64)) for each in (rows, retrained, original)
            ]
            attacked = [
                membership[model]["loss"]["auc"].value for model in (name, self.references[0])
            ]
            values = {
                "residual_bota": residual_bota(*scores),
                "ks_tofu": ks_tofu(*losses),
                "priv_leak": priv_leak(*attacked),
            }
            found[name] = {
                key: Interval(value, nan, nan, len(rows.users)) for key, value in values.items()
            }
        return found

    # --- verdict ---

    def verdicts(
        self, outside: ShadowScores | None, margins: Margins, control: Interval
    ) -> dict[str, Verdict]:
        """Judge the original and every candidate.

        With retrained models M_auc is that of the table. Without, the AUC on D_f is taken beyond that on the unseen
        users, e = AUC_F − AUC_U, and e of the outsiders, who know neither, stands for the retrained model's: it holds
        what makes the forgotten users' rows easier or harder than others' by nature.
        """
        rows, n = self.models["original"], len(self.boots["forget"].user)
        if self.references:
            kept, after = self._kept("auc")
        else:
            assert outside is not None, "a verdict needs retrained models or outsiders"
            n += len(self.boots["unseen"].user)
            kept = {
                name: row["forget_auc"] - row["unseen_auc"] for name, row in self.figures.items()
            }
            told = {
                part: self.boots[part].auc(rows[part].labels, getattr(outside, part))
                for part in ("forget", "unseen")
            }
            after = told["forget"] - told["unseen"]
        before, auc = kept["original"], {name: row["auc"] for name, row in self.figures.items()}
        return {
            name: judge(
                interval(remaining(kept[name], before, after), n, LEVEL),
                self.boots["test"].interval(auc["original"] - auc[name], LEVEL),
                interval(before - after, n),
                margins,
                basis="retrained" if self.references else "shadows",
                control=control,
            )
            for name in ("original", *self.candidates)
        }


def _mean(found: Sequence[dict[str, Figure]]) -> dict[str, Figure]:
    """Mean of the measures that all have."""
    shared = [measure for measure in found[0] if all(measure in each for each in found)]
    return {measure: np.mean([each[measure] for each in found], axis=0) for measure in shared}


__all__ = ["Answers", "EvaluationSets", "evaluate", "softened"]
