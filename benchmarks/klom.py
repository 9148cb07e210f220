"""Whether unlearned models could have come from retraining: KLOM on the tiny base.

    python benchmarks/klom.py [--models 20] [--method e2urec] [--method-set KEY=VALUE]
        [--set KEY=VALUE]

N originals of their own seeds each forget the same request; N models are retrained without it, and
N more of them say what KLOM is at the same distribution (the floor). Margins of all of them on D_f,
on a sample of D_r, on test rows and on rows of unseen users. Prints one JSON object: by rows and
models, the median over rows, the mean and the 95th percentile, in nats (KLOM: Georgiev et al. 2024,
arXiv 2410.23232).
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import option_parser
from e2urec.core.arrays import Floats
from e2urec.core.seeding import derive
from e2urec.evaluation.answers import Answers
from e2urec.experiments.recipe import Recipe, toml_value
from e2urec.experiments.study import Study
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.metrics.klom import klom, margins
from e2urec.models.batches import Examples
from e2urec.models.recommender import Recommender
from e2urec.training.loop import Phase
from e2urec.training.supervised import tune
from e2urec.unlearning.method import Method
from tiny_base import RECIPE, write_base

PARTS = ("forget", "retain", "test", "unseen")


def measure(study: Study, train: Examples, method: Method, count: int) -> dict[str, Any]:
    """KLOM of `count` unlearned models, of as many originals, and of further retrained ones."""
    retained = study.rows.retain

    def ask_all(make: Callable[[int], Recommender]) -> list[Answers]:
        return [study.answers_of(make(number)) for number in range(count)]

    def unlearned(number: int) -> Recommender:
        original = new_model(study, train, "original", number)
        return study.unlearn(original, method).model

    answers = {
        "unlearned": ask_all(unlearned),
        "original": ask_all(lambda number: new_model(study, train, "original", number)),
        "floor": ask_all(lambda number: new_model(study, retained, "retrained", count + number)),
    }
    reference = ask_all(lambda number: new_model(study, retained, "retrained", number))
    report: dict[str, Any] = {"models": count, "rows": study.rows.counts()}
    for part in PARTS:
        retrained_margins = margins_of(reference, part)
        report[part] = {}
        for kind, models in answers.items():
            divergences = klom(margins_of(models, part), retrained_margins)
            report[part][kind] = shares(divergences)
    return report


def new_model(study: Study, rows: Examples, kind: str, number: int) -> Recommender:
    """Tune a model with a seed of its own."""
    recipe = study.space.recipe
    seed = derive(recipe.seed, "klom", kind, number)
    # One name for both kinds: they shall differ in their rows and seeds alone.
    model, _ = tune(study.space.untuned(), recipe.tuning, rows, None, Phase("original", seed))
    return model


def margins_of(models: Sequence[Answers], part: str) -> Floats:
    """(models, n) margins of the rows of a part."""
    rows = [model.parts()[part] for model in models]
    odds = np.stack([predictions.log_odds for predictions in rows])
    return margins(rows[0].labels, odds)


def shares(divergences: Floats) -> dict[str, float]:
    """What most rows and the worst of them have."""
    return {
        "median": float(np.median(divergences)),
        "mean": float(divergences.mean()),
        "95%": float(np.percentile(divergences, 95)),
    }


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("--models", type=int, default=20, help="models of each kind")
    parser.add_argument("--method", default="e2urec", help="method that forgets")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe"
    )
    parser.add_argument(
        "--method-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the method",
    )
    return parser.parse_args()


def main() -> None:
    """Read the arguments; make the base; measure and print."""
    arguments = options()
    pairs = [setting.split("=", 1) for setting in arguments.method_set]
    method = build(arguments.method, {key: toml_value(value) for key, value in pairs})
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.load(RECIPE).updated([f"model.name={folder}", *arguments.set])
        write_base(recipe, Path(folder))
        space = Workspace(recipe)
        study = Study(space, space.rows(space.resolve(space.request())))
        train = space.encode(space.split.train)
        print(json.dumps(measure(study, train, method, arguments.models)))


if __name__ == "__main__":
    main()
