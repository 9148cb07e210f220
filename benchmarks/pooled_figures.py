"""Figures of `requests.py`: all that its JSON of a seed says, from the answers in its folder.

`M_auc = (AUC_∪(p) − AUC_∪(R)) / (AUC_∪(o) − AUC_∪(R))` over the union of the rows of all requests
of a size, with users drawn whole. R are models that were retrained without the row's fold.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from e2urec.core.seeding import derive
from e2urec.evaluation.evidence import mean_figures
from e2urec.evaluation.pooled import Figures, ForgottenRows, mean_figure, retained_share
from e2urec.evaluation.verdict import LEVEL, Controls, Verdict, judge
from e2urec.experiments.recipe import Recipe
from e2urec.metrics.bootstrap import Bootstrap, user_bootstrap
from pooled_answers import PooledAnswers
from pooled_files import (
    DATA,
    MACHINES,
    RECORD,
    SETTINGS,
    VARIANTS,
    hours_in,
    read_arrays,
    read_record,
    retrained_key,
)
from pooled_plan import PooledRequest, Size, fold_key, folds_of


@dataclass(frozen=True)
class Scope:
    """What a report is about.

    Attributes:
        sizes: of requests.
        single: requests of a single user in each fold.
        retrained: retrained models of each fold.
    """

    sizes: Sequence[Size] = tuple(Size)
    single: int = 20
    retrained: int = 2


# --- a seed


def seed_report(folder: Path, scope: Scope) -> dict[str, Any]:
    """The figures of all variants of a seed, as far as they are finished."""
    settings = read_record(folder, SETTINGS)
    recipe = Recipe.build(settings, place=str(folder / SETTINGS))
    seed = recipe.seed
    folds = folds_of(
        read_arrays(folder / DATA)["train.users"],
        seed=recipe.data_seed,
        single=scope.single,
        sizes=scope.sizes,
    )
    answers = PooledAnswers(folder, seed, folds, scope.retrained)
    retraining = _retraining(answers)
    variants = {}
    for path in sorted((folder / VARIANTS).glob("*.json")):
        sizes = _variant_sizes(answers, path.stem, scope, retraining)
        variants[path.stem] = read_record(path.parent, path.name) | {"sizes": sizes}
    counts = [size for variant in variants.values() for size in variant["sizes"].values()]
    return {
        "seed": seed,
        "recipe": settings,
        "scope": {
            "sizes": list(scope.sizes),
            "single": scope.single,
            "retrained": scope.retrained,
        },
        "complete": all(size["requests"] == size["planned"] for size in counts),
        "machines": read_record(folder, MACHINES),
        "hours": hours_in(folder),
        "rows": {name: len(answers.data[f"{name}.labels"]) for name in answers.original},
        "users": len(np.unique(answers.data["train.users"])),
        "original": {"test_auc": _original_auc(answers)},
        "retraining": retraining,
        "variants": variants,
    }


def _original_auc(answers: PooledAnswers) -> dict[str, Any]:
    """AUC of the original on all test rows."""
    figure = answers.auc("test", answers.original["test"])
    return answers.bootstrap("test").interval(figure).as_dict()


def _retraining(answers: PooledAnswers) -> dict[str, Any]:
    """What a retrained model costs, and how it differs from the original."""
    seconds = []
    differences = []
    retain = []
    for fold in answers.folds:
        keys = [
            f"{fold_key(fold.number)}/{retrained_key(number)}"
            for number in range(1, answers.retrained + 1)
        ]
        if not all((answers.folder / key / RECORD).is_file() for key in keys):
            continue
        seconds += [read_record(answers.folder / key)["seconds"] for key in keys]
        original, retrained = answers.fold_references("test", fold.number)
        differences.append(retrained - original)
        before, never = answers.retain_references(fold.whole)
        models = answers.retrained_answers(fold.number)
        aucs = [answers.retain_auc(fold.whole, model["retain"]) for model in models]
        retain.append(
            {"retain_auc": mean_figure(aucs), "retain_auc_original": before, "never": never}
        )
    if not seconds:
        return {"models": 0}
    share = retained_share(mean_figures(retain))
    return {
        "models": len(seconds),
        "seconds": statistics.median(seconds),
        "test_auc_to_original": answers.bootstrap("test")
        .interval(mean_figure(differences))
        .as_dict(),
        "retained_memory": answers.bootstrap("train").interval(share).as_dict(),
    }


def _variant_sizes(
    answers: PooledAnswers, variant: str, scope: Scope, retraining: Mapping[str, Any]
) -> dict[str, Any]:
    """Figures of a variant by size of the requests."""
    sizes: dict[str, Any] = {}
    for size in scope.sizes:
        requests = []
        for fold in answers.folds:
            requests += [request for request in fold.requests if request.size is size]
        finished = [request for request in requests if answers.is_finished(request, variant)]
        sizes[size] = {"planned": len(requests), "requests": len(finished)}
        if finished:
            figures = SizeFigures(answers, variant, finished)
            sizes[size] |= figures.as_dict(retraining["seconds"])
    return sizes


# --- a variant


@dataclass
class SizeFigures:
    """Figures of one variant on all finished requests of a size.

    Attributes:
        answers: of the seed.
        variant: its name.
        requests: of the size, those that are finished.
    """

    answers: PooledAnswers
    variant: str
    requests: Sequence[PooledRequest]

    @cached_property
    def union(self) -> ForgottenRows:
        """The rows of all requests."""
        parts = [self.answers.forgotten_rows(request, self.variant) for request in self.requests]
        return ForgottenRows.union(parts)

    def as_dict(self, retraining_seconds: float) -> dict[str, Any]:
        """Pooled figures with intervals, seconds, and a point for each request."""
        rows = self.union
        bootstrap = self.answers.union_bootstrap(rows)
        seed = derive(self.answers.seed, "seeds")
        pooled = rows.figures(bootstrap, seed=seed) | rows.within_figures(bootstrap, seed=seed)
        figures = {name: bootstrap.interval(figure).as_dict() for name, figure in pooled.items()}
        others = [self._other_figures(request) for request in self.requests]
        other_figures = self._pooled_others(others)
        for name, figure in other_figures.items():
            figures[name] = self._bootstrap_of(name).interval(figure).as_dict()
        return {
            "users": len(np.unique(rows.users)),
            "rows": len(rows.labels),
            "figures": figures,
            "verdict": self._verdict(pooled | other_figures, bootstrap).as_dict(),
            "seconds": self._seconds(retraining_seconds),
            "points": [
                self._point(request, figures_of_request)
                for request, figures_of_request in zip(self.requests, others, strict=True)
            ],
        }

    def _other_figures(self, request: PooledRequest) -> Figures:
        """AUC on test and validation rows and on D_r, less or beside that of references."""
        answers = self.answers
        odds = answers.answers(request, self.variant)
        test = answers.fold_auc("test", request.fold, odds["test"])
        valid = answers.fold_auc("valid", request.fold, odds["valid"])
        original_test, retrained_test = answers.fold_references("test", request.fold)
        original_valid, _ = answers.fold_references("valid", request.fold)
        before, never = answers.retain_references(request)
        return {
            "test_auc_to_original": test - original_test,
            "test_auc_to_retrained": test - retrained_test,
            "valid_auc_to_original": valid - original_valid,
            "retain_auc": answers.retain_auc(request, odds["retain"]),
            "retain_auc_original": before,
            "never": never,
        }

    def _pooled_others(self, others: list[Figures]) -> Figures:
        """Figures over the requests; retained memory is a ratio of such means."""
        means = mean_figures(others)
        means["retained_memory"] = retained_share(means)
        return means

    def _bootstrap_of(self, name: str) -> Bootstrap:
        """The rows of a figure that is not of D_f, by its name."""
        part = name.partition("_")[0]
        return self.answers.bootstrap(part if part in ("test", "valid") else "train")

    def _verdict(self, figures: Figures, bootstrap: Bootstrap) -> Verdict:
        """The verdict on the pooled requests, by the margins of the recipe.

        Args:
            figures: of all requests together.
            bootstrap: of their rows.
        """
        memory = bootstrap.interval(figures["memory_auc"], LEVEL)
        drop = self._bootstrap_of("test").interval(-figures["test_auc_to_original"], LEVEL)
        controls = Controls(
            headroom=bootstrap.interval(figures["headroom"]),
            # No attack is made here: the headroom says whether D_f can be told at all.
            attack=None,
            basis="retrained",
            users=len(np.unique(self.union.users)),
            retrained=self.answers.retrained,
        )
        recipe = Recipe.build(read_record(self.answers.folder, SETTINGS), place=SETTINGS)
        return judge(memory, drop, controls, recipe.margins)

    def _seconds(self, retraining_seconds: float) -> dict[str, Any]:
        """The median request's, in all and by phase, and as a share of a retraining."""
        records = [self.answers.record(request, self.variant) for request in self.requests]
        median = statistics.median(record["seconds"] for record in records)
        phases: dict[str, float] = {}
        for phase in records[0]["phases"]:
            values = [record["phases"].get(phase, 0.0) for record in records]
            phases[phase] = statistics.median(values)
        return {"median": median, "share": median / retraining_seconds, "phases": phases}

    def _point(self, request: PooledRequest, others: Figures) -> dict[str, Any]:
        """The same figures of one request, without intervals."""
        rows = self.answers.forgotten_rows(request, self.variant)
        # No resample: a single user's figure has no interval, and few requests' say anything.
        bootstrap = user_bootstrap(rows.users, resamples=0, seed=0)
        figures = rows.figures(bootstrap, seed=0) | others
        figures["retained_memory"] = retained_share(others)
        point: dict[str, Any] = {name: float(figure[0]) for name, figure in figures.items()}
        record = self.answers.record(request, self.variant)
        return {
            "fold": request.fold,
            "number": request.number,
            "users": len(request.users),
            "rows": len(rows.labels),
            "seconds": record["seconds"],
            # What the method itself says of how far it came; a retrained model says nothing.
            "outcome": record.get("outcome", {}),
            **point,
        }
