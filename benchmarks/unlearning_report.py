"""What `unlearning.py` reports: times as fast, shares of memory, and what was forgotten."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import RequestCase, measure_only
from e2urec.core.arrays import Floats
from e2urec.evaluation.answers import Answers
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.measures.memory import Memory
from e2urec.evaluation.measures.utility import Utility
from e2urec.evaluation.roles import ORIGINAL, Role, retrained, unlearned_by
from e2urec.methods.e2urec import E2URec
from e2urec.runs.folder import open_run
from one_variant import LOADING, Measurement
from variants import (
    GAIN,
    PUBLISHED,
    RELEASED_PASSES,
    RETRAIN,
    SCORES,
    TWO_PASSES,
    VARIANTS,
    recipe_for,
)

# The recipe's own request, to which the retrained models belong, a request of few rows, and a share
# so small that one user is drawn.
LARGE = 0.2
SMALL = 0.03
SINGLE = 0.0001
OURS = ("same_precision", "all", GAIN, "default", SCORES)
"""Variants of ours that the headline compares with the published algorithm."""

Measurements = Mapping[tuple[str, float], Measurement]
"""By name of the variant and share of the users."""


class Quality:
    """M_auc and test AUC of what a variant answered, with intervals over users."""

    def __init__(self, original: Path, retrained_runs: Sequence[Path], ratio: float) -> None:
        """Ask the original and the retrained models."""
        recipe = recipe_for(original, "", ratio)
        case = RequestCase.open(open_run(original), recipe)
        evaluation = case.rows.evaluation
        self.seed = recipe.seed
        self.original = evaluation.ask(case.original)
        self.models: dict[Role, Answers] = {ORIGINAL: self.original}
        for number, run in enumerate(retrained_runs, start=1):
            model = case.space.load(open_run(run))
            self.models[retrained(number)] = evaluation.ask(model)

    def __call__(self, measurements: Mapping[str, Measurement]) -> dict[str, dict[str, Any]]:
        """`memory_auc` and `auc` by variant, and `auc` of the original: value, low and high."""
        models = dict(self.models)
        for name, measurement in measurements.items():
            models[unlearned_by(name)] = self._answers(measurement.odds)
        evidence = Evidence(models, seed=self.seed)
        results = measure_only(evidence, [Utility(), Memory()])
        original_auc = results.figure("utility", "auc", ORIGINAL)
        figures = {ORIGINAL.key: {"auc": original_auc.as_dict()}}
        for name in measurements:
            role = unlearned_by(name)
            figures[name] = {
                "memory_auc": results.figure("memory", "auc", role).as_dict(),
                "auc": results.figure("utility", "auc", role).as_dict(),
            }
        return figures

    def _answers(self, odds: Mapping[str, Floats]) -> Answers:
        """A model's answers, of which a process has left the log-odds alone."""
        original = self.original
        return Answers(
            test=replace(original.test, hidden=None, log_odds=odds["test"]),
            forget=replace(original.forget, hidden=None, log_odds=odds["forget"]),
            unseen=replace(original.unseen, hidden=None, log_odds=odds["unseen"]),
        )


def full_report(measurements: Measurements, quality: Quality | None) -> dict[str, Any]:
    """The figures that the README and docs/evidence/performance.md quote.

    The headline is against the published algorithm at its released passes, from this run alone.
    A comparison with a variant that was not measured is left out.
    """
    by_ratio = {ratio: of_ratio(measurements, ratio) for ratio in (LARGE, SMALL, SINGLE)}
    large = by_ratio[LARGE]
    figures = quality(large) if quality else {}
    return {
        "headline": comparisons(large, OURS, PUBLISHED),
        # Ours makes the released passes, so there is nothing to compare but preset `gain`.
        "two_passes": comparisons(large, [GAIN], TWO_PASSES),
        "retrain_speedup": retrain_speedups(by_ratio),
        "passes": compared_passes(figures),
        "variants": plain(measurements),
        "quality": figures,
    }


def of_ratio(measurements: Measurements, wanted_ratio: float) -> dict[str, Measurement]:
    """The measurements on one share of the users, by variant."""
    selection = {}
    for (name, ratio), measurement in measurements.items():
        if ratio == wanted_ratio:
            selection[name] = measurement
    return selection


def comparisons(
    measurements: Mapping[str, Measurement], names: Sequence[str], opponent: str
) -> dict[str, Any]:
    """`against` by name of the variant, for those that were measured."""
    if opponent not in measurements:
        return {}
    measured_names = [name for name in names if name in measurements]
    return {name: against(measurements[name], measurements[opponent]) for name in measured_names}


def against(measurement: Measurement, published: Measurement) -> dict[str, Any]:
    """How many times as fast as the published algorithm, and with which share of its memory.

    `phases` has the seconds that the totals are made of, `[published, ours]` each.
    """
    phases = {}
    for phase in dict(published.seconds) | dict(measurement.seconds):
        # Both load the same model, and it counts for neither.
        if phase == LOADING:
            continue
        seconds = [side.seconds.get(phase, 0.0) for side in (published, measurement)]
        phases[phase] = seconds
    return {
        "speedup": published.total / measurement.total,
        "memory_ratio": measurement.bytes / published.bytes,
        "phases": phases,
    }


def retrain_speedups(by_ratio: Mapping[float, Mapping[str, Measurement]]) -> dict[str, float]:
    """How many times as fast as retraining the default is, by share of the users."""
    speedups = {}
    for ratio, measurements in by_ratio.items():
        if RETRAIN in measurements and "default" in measurements:
            default = measurements["default"]
            retrain = measurements[RETRAIN]
            speedups[share_text(ratio)] = retrain.total / default.total
    return speedups


def compared_passes(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Passes over D_f: released, two joint ones, and those of `gain` where it forgets as much."""
    settings = E2URec(**VARIANTS[GAIN].settings)
    gain_passes: float | None = (
        settings.augment_passes + settings.warmup + settings.joint + settings.final
    )
    # Fewer passes say something only where they forget no less.
    if GAIN in figures and PUBLISHED in figures:
        memory = figures[GAIN]["memory_auc"]["value"]
        if memory > figures[PUBLISHED]["memory_auc"]["high"]:
            gain_passes = None
    return {
        PUBLISHED: sum(RELEASED_PASSES.values()),
        TWO_PASSES: sum(VARIANTS[TWO_PASSES].settings.values()),
        GAIN: gain_passes,
    }


def levers_report(measurements: Measurements, quality: Quality | None) -> dict[str, Any]:
    """How much slower, and larger, each variant is than the first."""
    # The first has every lever on.
    by_title = titled(measurements)
    first = next(iter(by_title.values()))
    levers = {}
    for title, measurement in by_title.items():
        levers[title] = {
            "slower": measurement.total / first.total,
            "larger": measurement.bytes / first.bytes,
        }
    # The retrained models belong to this request alone.
    large = {title: measurement for title, measurement in by_title.items() if "20%" in title}
    return {
        "levers": levers,
        "variants": plain(measurements),
        "quality": quality(large) if quality else {},
    }


def titled(measurements: Measurements) -> dict[str, Measurement]:
    """The measurements by titles such as `default, 20%`."""
    return {f"{name}, {share_text(ratio)}": value for (name, ratio), value in measurements.items()}


def share_text(ratio: float) -> str:
    """`20%`, or `one user`."""
    return "one user" if ratio == SINGLE else f"{ratio:.0%}"


def plain(measurements: Measurements) -> dict[str, Any]:
    """The measurements as plain JSON values."""
    return {title: value.as_dict() for title, value in titled(measurements).items()}
