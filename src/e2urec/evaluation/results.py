"""What an evaluation found: values with intervals, ready for JSON, tables and pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.arrays import Floats, Ints
from ..metrics.bootstrap import Interval
from ..models.predictions import Predictions
from ..unlearning.task import PhaseLog
from .verdict import Verdict


@dataclass
class Results:
    """Figures by model, each with its 95% interval.

    Attributes:
        models: model → measure → figure: utility on test rows; AUC and log loss on D_f and on the unseen users.
        memory: candidate → `auc`, `loss` → M; 0 = retrained, 1 = nothing done.
        auc_difference: model → test AUC less the original's, on the same rows.
        headroom: `auc`, `loss` → what there is to forget.
        projection: candidate → M along the direction in which D_f moves originals, free of seed noise; only where an
            original of another seed was at hand.
        distance: model → measure → mean distance on D_f to the retrained models other than itself.
        apart: model → each retrained model → measure → distance on D_f between the two.
        floor: measure → mean distance between two retrained models; empty with fewer than two.
        excess: candidate → measure → distance beyond the floor as a share of the original's; only where the
            original is beyond it.
        collateral: model → slice of the test rows → `auc`, `log_loss` less the original's on it.
        membership: model → attack → measure → how well D_f is told from unseen users; 0.5 of AUC is chance, and
            `auc_beyond` is the AUC less a retrained model's.
        relearning: model → `steps` on D_f until its loss is the original's, `ratio` of them to the retrained models'.
        published: candidate → figures of other papers, for comparison only and without limits.
        verdict: model → PASS, FAIL, RETRAIN or UNMEASURABLE, and why.
    """

    models: dict[str, dict[str, Interval]]
    memory: dict[str, dict[str, Interval]] = field(default_factory=dict)
    auc_difference: dict[str, Interval] = field(default_factory=dict)
    headroom: dict[str, Interval] = field(default_factory=dict)
    projection: dict[str, Interval] = field(default_factory=dict)
    distance: dict[str, dict[str, Interval]] = field(default_factory=dict)
    apart: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    floor: dict[str, Interval] = field(default_factory=dict)
    excess: dict[str, dict[str, Interval]] = field(default_factory=dict)
    collateral: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    membership: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    relearning: dict[str, dict[str, Interval]] = field(default_factory=dict)
    published: dict[str, dict[str, Interval]] = field(default_factory=dict)
    verdict: dict[str, Verdict] = field(default_factory=dict)

    def at_chance(self, attack: str) -> bool:
        """Negative control: whether a retrained model shows `attack` nothing, or none is there to tell."""
        found = self.membership.get("retrained", {}).get(attack, {}).get("auc")
        return found is None or found.low <= 0.5 <= found.high

    def row(self, name: str) -> dict[str, Interval]:
        """All figures of one model under one name each: what a table of many models has as columns."""
        found = dict(self.models[name])
        for prefix, table in (
            ("memory", self.memory),
            ("distance", self.distance),
            ("excess", self.excess),
            ("published", self.published),
        ):
            found |= {f"{prefix}_{key}": figure for key, figure in table.get(name, {}).items()}
        for label, one in (
            ("auc_difference", self.auc_difference),
            ("projection", self.projection),
        ):
            if name in one:
                found[label] = one[name]
        for attack, figures in self.membership.get(name, {}).items():
            found |= {f"attack_{attack}_{key}": figure for key, figure in figures.items()}
        return found

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Demonstration:
    """What the demo found.

    Attributes:
        answers: of every model, by name and set.
        skipped: retrainings of the recipe for which there was no time.
    """

    results: Results
    answers: dict[str, Mapping[str, Predictions]]
    phase_logs: list[PhaseLog]
    seconds: dict[str, float]
    rows: dict[str, int]
    trainable_parameters: int
    total_parameters: int
    seed: int
    skipped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """One flat object, as `e2urec demo --json` prints it: figures and distances as plain values."""
        plain, results = self.results.as_dict(), self.results
        del plain["models"]
        kept = {"original": "original", "unlearned": "unlearned", "retrained_again": "retrained_2"}
        return {
            **{name: values(row) for name, row in results.models.items()},
            **plain,
            "distance": {
                name: values(results.distance[model]) if model in results.distance else None
                for name, model in kept.items()
            },
            "phases": [vars(log) for log in self.phase_logs],
            "seconds": self.seconds,
            "trainable_parameters": self.trainable_parameters,
            "total_parameters": self.total_parameters,
            "rows": self.rows,
            "seed": self.seed,
            "retrainings_skipped": self.skipped,
        }


@dataclass(frozen=True)
class Comparison:
    """Methods × seeds × requests, measured on the same rows. A key is (seed, number of the request).

    Attributes:
        results: key → figures of all models.
        records: key → model → settings, seconds (`prepare`, `request`, `total`) and rows read.
        odds: key → model → log-odds on D_f, for a look at the scores.
        labels: number of the request → labels of D_f.
        settings: method → settings that were chosen, on top of its defaults.
        trials: every setting that was tried on the development request, and what it scored.
        failed: cell → why it could not be made.
        rows: number of the request → rows in each part.
        exact: methods that leave nothing of D_f by construction. The sharded ones among them are other
            architectures: their distance to the retrained models is that, and no memory.
    """

    results: dict[tuple[int, int], Results]
    records: dict[tuple[int, int], dict[str, dict[str, Any]]]
    odds: dict[tuple[int, int], dict[str, Floats]]
    labels: dict[int, Ints]
    settings: dict[str, dict[str, Any]]
    trials: list[dict[str, Any]]
    failed: dict[str, str]
    rows: dict[int, dict[str, int]]
    exact: list[str]

    def cells(self) -> list[dict[str, Any]]:
        """One entry a model × seed × request: its figures, its verdict, what it cost."""
        return [
            {
                "method": name,
                "seed": seed,
                "request": number,
                "metrics": found.row(name),
                "verdict": found.verdict[name].outcome if name in found.verdict else None,
                "cost": self.cost((seed, number), name),
            }
            for (seed, number), found in self.results.items()
            for name in found.models
        ]

    def cost(self, key: tuple[int, int], name: str) -> dict[str, Any]:
        """What the making of a model took; `evaluate` calls the first retrained model `retrained`."""
        record = self.records[key].get("retrained_1" if name == "retrained" else name, {})
        return {told: value for told, value in record.items() if told != "phase_logs"}

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        cells = [cell | {"metrics": _plain(cell["metrics"])} for cell in self.cells()]
        return {
            "cells": cells,
            "settings": self.settings,
            "trials": self.trials,
            "failed": self.failed,
            "rows": {str(number): counts for number, counts in self.rows.items()},
            "exact": self.exact,
        }


def values(row: Mapping[str, Interval]) -> dict[str, float]:
    """The values of a row of figures, without their intervals."""
    return {name: found.value for name, found in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Interval | Verdict):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
