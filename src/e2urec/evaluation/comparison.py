"""What a comparison found: methods × seeds × requests, measured on the same rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.arrays import Floats, Ints
from ..metrics.bootstrap import Interval
from .results import Results
from .roles import Role

Key = tuple[int, int]
"""Seed, and number of the request, counted from 1."""


@dataclass(frozen=True)
class CellRecord:
    """How a model was made, and what it took.

    Attributes:
        settings: of its method.
        seconds: `request`, `prepare` (made once, before any request) and their `total`; of an
            original `scores`, which are made once for all requests and methods.
        phases: seconds by phase.
        rows_read: by phase.
        trainable_parameters: that the request moved.
        phase_logs: loss and AUC on D_f after each phase.
        outcome: what the method aimed at and how far it came by its own measure.
        jobs: cells that were made at once, as far as there were so many: seconds beside others are
            those of a busy machine.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    rows_read: Mapping[str, int] = field(default_factory=dict)
    trainable_parameters: int = 0
    phase_logs: list[dict[str, Any]] = field(default_factory=list)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return dict(vars(self))

    def cost(self) -> dict[str, Any]:
        """The same without the logs of its phases and its outcome."""
        values = self.as_dict()
        del values["phase_logs"]
        del values["outcome"]
        return values


@dataclass(frozen=True)
class Making:
    """What all cells of a comparison took together.

    Attributes:
        machines: processor (`cpu`), cores (`count`), `threads` and perhaps `gpu` of each.
        seconds: on the clock, of all that was made, trials and answers too; those of jobs at once
            are summed. None: a cell is from a version that did not note it.
    """

    machines: list[dict[str, Any]] = field(default_factory=list)
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All models of a comparison.

    Attributes:
        results: figures of all models, by seed and request.
        records: how each model was made.
        log_odds: on D_f, for a look at the scores.
        labels: of D_f, by number of the request.
        settings: by method: those that were chosen, on top of its defaults.
        trials: every setting that was tried on the development request, and what it scored.
        failed: why a cell could not be made.
        rows: rows in each part, by number of the request.
        exact: methods that leave nothing of D_f by construction. The sharded ones among them are
            other architectures: their distance to retrained models is that, and no memory.
        requests: whom each request names, in words, by its number.
        control_auc: AUC on the test rows of a control model that sees the means of items and users
            alone, by number of the request: what a cheap recommender reaches.
        making: what all of it took, and on which machines.
        presets: by method, those that were not the default.
    """

    results: Mapping[Key, Results]
    records: Mapping[Key, Mapping[Role, CellRecord]]
    log_odds: Mapping[Key, Mapping[Role, Floats]]
    labels: Mapping[int, Ints]
    settings: Mapping[str, Mapping[str, Any]]
    trials: list[dict[str, Any]]
    failed: Mapping[str, str]
    rows: Mapping[int, Mapping[str, int]]
    exact: list[str]
    requests: Mapping[int, str] = field(default_factory=dict)
    control_auc: Mapping[int, float] = field(default_factory=dict)
    making: Making = field(default_factory=Making)
    presets: Mapping[str, str] = field(default_factory=dict)

    def record(self, key: Key, role: Role) -> CellRecord:
        """How a model was made; an empty record for what was not made but computed."""
        records = self.records[key]
        return records.get(role, CellRecord())

    def as_dict(self) -> dict[str, Any]:
        """One entry a model × seed × request, and all else as plain JSON values."""
        # Flat on purpose: a list of alike entries is what data frames read.
        cells = []
        shared = []
        for (seed, request), results in self.results.items():
            figures = results.flat(None)
            shared.append({"seed": seed, "request": request, "figures": _plain(figures)})
            for role in results.roles:
                figures = results.flat(role)
                verdict = results.verdicts.get(role)
                cells.append(
                    {
                        "model": role.key,
                        "seed": seed,
                        "request": request,
                        "figures": _plain(figures),
                        "verdict": verdict.outcome if verdict else None,
                        "cost": self.record((seed, request), role).cost(),
                        "outcome": self.record((seed, request), role).outcome,
                    }
                )
        return {
            "cells": cells,
            "shared": shared,
            "settings": self.settings,
            "presets": self.presets,
            "trials": self.trials,
            "failed": self.failed,
            "rows": {str(number): counts for number, counts in self.rows.items()},
            "exact": self.exact,
            "requests": {str(number): text for number, text in self.requests.items()},
            "control_test_auc": {str(number): value for number, value in self.control_auc.items()},
            "machines": self.making.machines,
            "seconds": self.making.seconds,
        }


def _plain(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: figure.as_dict() for name, figure in figures.items()}
