"""The cells of a table and request, seed by seed, and what they allow to say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from e2urec.core.errors import DataError
from e2urec.evaluation.verdict import MIN_USERS
from e2urec.experiments.recipe import Recipe
from report_parts import MISSING
from table_cells import OURS, request_name

RECIPES = Path("recipes")
SEEDS = (0, 1, 2)
"""Seeds that every table is to have."""
DIFFERENCES = {
    "memory_distance": ("farther from retraining", "nearer to retraining"),
    "test_auc": ("better test AUC", "worse test AUC"),
    "retained_memory": ("keeps more of D_r", "keeps less of D_r"),
}
"""Paired differences, and what one above and one below 0 means."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Cost:
    """What a model of one seed took.

    Attributes:
        seconds: of the request, with all that it needs but out-of-fold scores.
        scores: seconds of these, where the model learns from them; they are made once.
        retraining: seconds of one.
    """

    seconds: float
    scores: float
    retraining: float

    @classmethod
    def of(cls, cell: Values, name: str) -> "Cost | None":
        """That of a model of a cell; None where it took no time of its own."""
        cost = cell["models"][name]["cost"]
        seconds = cost["seconds"].get("total")
        if seconds is None:
            return None
        scores = 0.0
        if cost["settings"].get("forgetting") == "scores":
            scores = cell["models"]["original"]["cost"]["seconds"]["scores"]
        return cls(seconds, scores, retraining_seconds(cell))

    @property
    def share(self) -> float:
        """Of a retraining, without scores."""
        return self.seconds / self.retraining

    @property
    def whole_share(self) -> float:
        """The same with scores that are made for this request alone."""
        return (self.seconds + self.scores) / self.retraining


@dataclass(frozen=True)
class Group:
    """The cells of one table and request, by seed."""

    table: str
    request: str
    cells: Mapping[int, Values]

    @property
    def first(self) -> Values:
        """Of the lowest seed."""
        return self.cells[min(self.cells)]

    @property
    def users(self) -> int:
        """Who were forgotten."""
        return int(self.first["rows"]["forgotten_users"])

    @cached_property
    def methods(self) -> list[str]:
        """Methods by mean |M_auc|; exact ones, which are no rivals in that, come last."""
        names: dict[str, None] = {}
        for cell in self.cells.values():
            for name, model in cell["models"].items():
                if "chosen" in model:
                    names[name] = None
        return sorted(names, key=lambda name: (self.is_exact(name), abs(self.memory(name))))

    def models(self, name: str) -> dict[int, Values]:
        """A model by seed."""
        cells = self.cells.items()
        return {seed: cell["models"][name] for seed, cell in cells if name in cell["models"]}

    def is_exact(self, name: str) -> bool:
        """Whether a method leaves nothing by construction."""
        return any(model.get("exact", False) for model in self.models(name).values())

    def values(self, name: str, figure: str) -> list[float]:
        """A figure of a model, seed by seed, without those that lack it."""
        figures = [model["figures"].get(figure) for model in self.models(name).values()]
        return [found["value"] for found in figures if found and found["value"] is not None]

    def memory(self, name: str) -> float:
        """Mean M_auc; infinite where no seed has one."""
        values = self.values(name, "memory_auc")
        return mean(values) if values else float("inf")

    def costs(self, name: str) -> list[Cost]:
        """What a model took, seed by seed, without those that do not say."""
        costs = [Cost.of(self.cells[seed], name) for seed in self.models(name)]
        return [cost for cost in costs if cost is not None]

    def against_ours(self, name: str) -> str:
        """What the paired differences to e2urec allow to say."""
        if name == OURS:
            return MISSING
        claims = []
        for difference, words in DIFFERENCES.items():
            # An exact method's distance says how it is built; of few users intervals are too short.
            is_told = not self.is_exact(name) and self.users >= MIN_USERS
            if difference == "memory_distance" and not is_told:
                continue
            claims.append(self._claim(name, f"paired_difference_{difference}", words))
        told = [claim for claim in claims if claim]
        if told:
            return "; ".join(told)
        return MISSING if claims == [None] * len(claims) else "no difference shown"

    def _claim(self, name: str, figure: str, words: tuple[str, str]) -> str | None:
        """One word where all seeds agree for sure, "" where they do not; None: one lacks it."""
        models = self.models(name)
        if len(models) < len(self.cells):
            return None
        found = [model["figures"].get(figure) for model in models.values()]
        if any(entry is None or entry["low"] is None for entry in found):
            return None
        above, below = words
        if all(entry["low"] > 0 for entry in found):
            return above
        if all(entry["high"] < 0 for entry in found):
            return below
        return ""


def retraining_seconds(cell: Values) -> float:
    """The mean time of a retraining."""
    models = cell["models"].items()
    retrained = [model for name, model in models if name.startswith("retrained-")]
    return float(mean(model["cost"]["seconds"]["total"] for model in retrained))


def retraining_range(cell: Values) -> tuple[float, float]:
    """The shortest and the longest time of a retraining, the method's own among them.

    All do the same work, so by so much a second of the table can be off.
    """
    models = cell["models"].items()
    seconds = []
    for name, model in models:
        if name == "retrain" or name.startswith("retrained-"):
            seconds.append(model["cost"]["seconds"]["total"])
    return min(seconds), max(seconds)


def read_groups(folder: Path) -> list[Group]:
    """All cells under a folder; raises DataError for a file that is none."""
    groups: dict[tuple[str, str], dict[int, Values]] = {}
    for path in sorted(folder.glob("*/seed-*/*.json")):
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            key = cell["table"], request_name(cell["request"])
            groups.setdefault(key, {})[cell["seed"]] = cell
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"'{path}': is no file of table_cells.py; remove it") from error
    if not groups:
        raise DataError(f"'{folder}': has no cell yet; run benchmarks/table_cells.py first")
    found = []
    for (table, request), cells in groups.items():
        found.append(Group(table, request, dict(sorted(cells.items()))))
    return sorted(found, key=lambda group: (group.table, place(group)))


def place(group: Group) -> int:
    """Where the recipe has the request; last where it has not."""
    names = planned(group.table)
    return names.index(group.request) if group.request in names else len(names)


def planned(table: str) -> list[str]:
    """The requests of a table's recipe, by the names of their cells."""
    path = RECIPES / f"{table}.toml"
    if not path.is_file():
        return []
    requests = Recipe.load(path).compare.requests
    return [request_name(request.model_dump(mode="json")) for request in requests]


def missing(groups: Sequence[Group]) -> str:
    """The cells that are yet to be made, in one sentence."""
    there = {(group.table, group.request, seed) for group in groups for seed in group.cells}
    parts = []
    for path in sorted(RECIPES.glob("table-*.toml")):
        table = path.stem
        # Requests that lack the same seeds are told together.
        lacking: dict[str, list[str]] = {}
        for request in planned(table):
            seeds = [str(seed) for seed in SEEDS if (table, request, seed) not in there]
            if seeds:
                noun = "seed" if len(seeds) == 1 else "seeds"
                lacking.setdefault(f"{noun} {', '.join(seeds)}", []).append(request)
        for what, requests in lacking.items():
            which = "every request" if requests == planned(table) else ", ".join(requests)
            parts.append(f"{what} of {which} of {table}")
    if not parts:
        return "All planned cells are there."
    return f"Not measured yet: {'; '.join(parts)}."
