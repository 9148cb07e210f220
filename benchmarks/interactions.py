"""How much of single interactions is left, pooled over requests, on the tiny base.

    python benchmarks/interactions.py --seed 100 --variant default=e2urec \
        --variant scores=e2urec:preset=scores --variant ifru=ifru

A fold of the training rows (10%) is cut into disjoint requests (2% each). Each request is put to a
copy of one original, which had out-of-fold scores made. All are measured against models retrained
without the whole fold, on prompts as the original saw them.

Figures are on the rows that go, and beside them on the rewritten rows: those that stay, and whose
prompt showed a row that goes. *Moved* is the mean change of the log-odds since the original.
The tables are one JSON object on standard output. Models stay in memory alone.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import RequestCase, option_parser
from e2urec.core.arrays import Floats, Ints, Mask
from e2urec.core.seeding import stream
from e2urec.data.requests import ErasureRequest
from e2urec.data.samples import Samples
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.study import unlearning_seconds
from e2urec.experiments.workspace import Workspace
from e2urec.methods.retrain import Retrain
from e2urec.metrics.bootstrap import Bootstrap, Figure, remaining, user_bootstrap
from e2urec.metrics.classification import auc
from e2urec.models.batches import Examples
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from pooled_plan import NamedMethod, variants_of
from tiny_base import RECIPE, write_base

Odds = Mapping[str, Floats]
"""Log-odds of one model by set of rows: going, rewritten, test and retain."""


@dataclass(frozen=True)
class Part:
    """One request, and the rows that it is measured on.

    Attributes:
        request: the interactions that it names.
        going: training prompts of the rows that go, as the original saw them.
        rewritten: those of rows that stay, and whose prompt showed one that goes, likewise.
    """

    request: ErasureRequest
    going: Samples
    rewritten: Samples

    @classmethod
    def of(cls, train: Samples, is_named: Mask) -> "Part":
        """The request for the training rows that `is_named` (n,) marks."""
        data = train.interactions
        rows = train.rows[is_named]
        users = data.user_ids.gather(data.user[rows]).to_list()
        items = data.item_ids.gather(data.item[rows]).to_list()
        pairs = [(str(user), str(item)) for user, item in zip(users, items, strict=True)]
        erased = np.zeros(len(data), dtype=bool)
        erased[rows] = True
        is_rewritten = train.shows(erased) & ~is_named
        return cls(
            request=ErasureRequest(interactions=tuple(pairs)),
            going=train.take(is_named),
            rewritten=train.take(is_rewritten),
        )


def fold_of(train: Samples, ratio: float, count: int, seed: int) -> tuple[Part, list[Part]]:
    """`count` disjoint requests for `ratio` of the training rows each: all in one, and singly."""
    order = stream(seed, "interactions").permutation(len(train))
    size = round(ratio * len(train))
    parts = []
    for number in range(count):
        parts.append(_part(train, order[number * size : (number + 1) * size]))
    return _part(train, order[: count * size]), parts


def _part(train: Samples, positions: Ints) -> Part:
    is_named = np.zeros(len(train), dtype=bool)
    is_named[positions] = True
    return Part.of(train, is_named)


@dataclass
class Experiment:
    """The models of one seed.

    Attributes:
        space: data and base, with out-of-fold scores.
        original: trained on all rows; callers change a copy.
        whole: the fold as one request.
        parts: the requests.
        test: test rows without the fold's.
        retain: rows of D_r of the whole fold.
    """

    space: Workspace
    original: Recommender
    whole: RequestCase
    parts: Sequence[Part]
    test: Examples
    retain: Examples

    @classmethod
    def of(cls, space: Workspace, ratio: float, count: int) -> "Experiment":
        """Train the original, and draw the requests."""
        original, _ = space.train()
        space.make_scores()
        whole, parts = fold_of(space.split.train, ratio, count, space.recipe.data_seed)
        case = RequestCase.of(space, original, whole.request)
        rows = case.rows
        return cls(space, original, case, parts, rows.test, rows.retain.take(rows.retain_sample))

    def ask(self, model: Recommender, parts: Sequence[Part]) -> list[Odds]:
        """What a model says of the rows of requests, and of those that no request names."""
        others = self._answers(model, {"test": self.test, "retain": self.retain})
        odds: list[Odds] = []
        for part in parts:
            rows = {
                "going": self.space.encode(part.going),
                "rewritten": self.space.encode(part.rewritten),
            }
            odds.append(others | self._answers(model, rows))
        return odds

    def _answers(self, model: Recommender, sets: Mapping[str, Examples]) -> dict[str, Floats]:
        precision = self.space.recipe.tuning.schedule.precision
        answers = {}
        for name, rows in sets.items():
            answers[name] = predict(model, rows, precision=precision).log_odds
        return answers

    def retrained(self, number: int) -> list[Odds]:
        """What a model that was tuned without the whole fold says, request by request."""
        method = Retrain(number=number)
        model = method.unlearn(self.whole.task(method))
        return self.ask(model, self.parts)

    def unlearned(self, variant: NamedMethod, part: Part) -> tuple[Odds, dict[str, Any]]:
        """What a model that forgot one request says, and how it came about."""
        case = RequestCase.of(self.space, self.original.copy(), part.request)
        task = case.task(variant.method)
        model = variant.method.unlearn(task)
        about = {
            "seconds": unlearning_seconds(task.costs),
            "rows": len(case.rows.forget),
            "outcome": task.outcome.as_dict(),
        }
        (odds,) = self.ask(model, [part])
        return odds, about


@dataclass(frozen=True)
class Pool:
    """The union of the rows of all requests, each answered by the model of its own request.

    Attributes:
        parts: the requests.
        original: what the original says of each.
        retrained: what each retrained model says of each.
    """

    parts: Sequence[Part]
    original: Sequence[Odds]
    retrained: Sequence[Sequence[Odds]]

    def memory(self, name: str, answers: Sequence[Odds]) -> dict[str, Any]:
        """`M_auc` on the rows `name`, pooled, with all that it is made of."""
        bootstrap = self._bootstrap(name)
        labels = np.concatenate([getattr(part, name).labels for part in self.parts])

        def pooled_auc(odds: Sequence[Odds]) -> Figure:
            return bootstrap.auc(labels, np.concatenate([part[name] for part in odds]))

        before = pooled_auc(self.original)
        after = np.mean([pooled_auc(odds) for odds in self.retrained], axis=0)
        figure = pooled_auc(answers)
        return {
            "memory": bootstrap.interval(remaining(figure, before, after)).as_dict(),
            "auc": float(figure[0]),
            "auc_original": float(before[0]),
            "auc_retrained": float(after[0]),
            "headroom": bootstrap.interval(before - after).as_dict(),
        }

    def moved(self, name: str, answers: Sequence[Odds]) -> float:
        """Mean change of the log-odds since the original."""
        changes = []
        for odds, before in zip(answers, self.original, strict=True):
            changes.append(np.abs(odds[name] - before[name]))
        return float(np.concatenate(changes).mean())

    def single(self, number: int, odds: Odds) -> float:
        """`M_auc` of one request on its rows that go."""
        labels = self.parts[number].going.labels
        before = auc(labels, self.original[number]["going"])
        after = np.mean([auc(labels, model[number]["going"]) for model in self.retrained])
        return float((auc(labels, odds["going"]) - after) / (before - after))

    def _bootstrap(self, name: str) -> Bootstrap:
        users = np.concatenate([getattr(part, name).users for part in self.parts])
        return user_bootstrap(users, seed=0)


def report(experiment: Experiment, pool: Pool, answers: Sequence[Odds]) -> dict[str, Any]:
    """The figures of one model a request."""
    single = [pool.single(number, odds) for number, odds in enumerate(answers)]
    figures: dict[str, Any] = {
        "going": pool.memory("going", answers),
        "single": single,
        "mean_of_single": float(np.mean(single)),
    }
    for name in ("going", "rewritten"):
        figures[f"moved_{name}"] = pool.moved(name, answers)
    figures["auc_rewritten"] = pool.memory("rewritten", answers)["auc"]
    for name in ("test", "retain"):
        labels = getattr(experiment, name).labels
        before = auc(labels, pool.original[0][name])
        figures[f"{name}_auc"] = float(np.mean([auc(labels, odds[name]) for odds in answers]))
        figures[f"{name}_auc_change"] = figures[f"{name}_auc"] - before
    return figures


def run(space: Workspace, arguments: Any) -> dict[str, Any]:
    """All figures of one seed."""
    experiment = Experiment.of(space, arguments.ratio, arguments.requests)
    original = experiment.ask(experiment.original, experiment.parts)
    numbers = range(1, arguments.retrained + 1)
    retrained = [experiment.retrained(number) for number in numbers]
    pool = Pool(experiment.parts, original, retrained)
    tables: dict[str, Any] = {
        "rows": {
            "going": [len(part.going) for part in experiment.parts],
            "rewritten": [len(part.rewritten) for part in experiment.parts],
        },
        "original": report(experiment, pool, original),
        "retrained": [report(experiment, pool, answers) for answers in retrained],
    }
    for variant in variants_of(arguments.variant, None):
        answers = []
        abouts = []
        for part in experiment.parts:
            odds, about = experiment.unlearned(variant, part)
            answers.append(odds)
            abouts.append(about)
            print(f"{variant.name}: {about['seconds']:.1f} s", file=sys.stderr, flush=True)
        tables[variant.name] = report(experiment, pool, answers) | {"requests": abouts}
    return tables


def main() -> None:
    """Read the arguments; make the base and its models, and print the figures."""
    parser = option_parser(__doc__)
    parser.add_argument("--seed", type=int, default=100, help="of split, original and requests")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=METHOD[:KEY=VALUE]")
    parser.add_argument("--ratio", type=float, default=0.02, help="of the training rows, a request")
    parser.add_argument("--requests", type=int, default=5, help="disjoint requests")
    parser.add_argument("--retrained", type=int, default=2, help="retrained models")
    arguments = parser.parse_args()
    settings = [f"seed={arguments.seed}", "scores.pairs=2"]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.load(RECIPE).updated([f"model.name={folder}", *settings])
        write_base(recipe, Path(folder))
        tables = run(Workspace(recipe), arguments)
    print(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
