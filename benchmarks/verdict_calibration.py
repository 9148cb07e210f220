"""How often the verdict errs: judge models of which the truth is known, on MovieLens-100K and a tiny Llama.

Further retrained models have forgotten: none may FAIL, most should PASS. Further originals have not: none may PASS.
Both are judged by retrained models and, as in production, by shadows and unseen users alone. Prints a JSON object after
each model judged; the last one counts.

The base can recommend before it sees a user of the experiment: it was tuned on everybody else's rows. So test AUC
differs little from seed to seed, as it does for a large language model, and what the verdict is asked about is memory.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from e2urec.core.seeding import derive
from e2urec.evaluation.evaluate import Answers, evaluate
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace, outsiders_of
from e2urec.models.recommender import Recommender
from e2urec.training.loop import Phase
from e2urec.training.supervised import tune
from tiny_base import RECIPE, write_base


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20, help="models of either kind to judge")
    parser.add_argument("--references", type=int, default=5, help="retrained models that are R")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the recipe"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.load(RECIPE).updated([f"model.name={folder}", *asked.set])
        write_base(recipe, Path(folder))
        calibrate(recipe, asked.models, asked.references)


def calibrate(recipe: Recipe, models: int, references: int) -> None:
    """Train `references` models that are R, then judge `models` of either kind."""
    space = Workspace(recipe)
    rows = space.rows(space.resolve(space.request()))
    sets, train = rows.evaluation, space.encode(space.split.train)

    def answers(forgotten: bool, number: int) -> Answers:
        data = rows.retain if forgotten else train
        seed = derive(recipe.seed, "calibration", "retrained" if forgotten else "original", number)
        untuned = Recommender(space.base, space.template, window=recipe.model.window)
        model, _ = tune(untuned, recipe.tuning, data, None, Phase("original", seed))
        return sets.ask(model, precision=recipe.tuning.schedule.precision)

    original = answers(False, 0)
    retrained = [answers(True, k) for k in range(references)]
    outside = outsiders_of(space, rows)
    told: dict[str, Any] = {"rows": rows.counts()}
    for kind in ("retrained", "original"):
        verdicts: dict[str, list[str]] = {"retrained": [], "shadows": []}
        memory, drops = [], []
        for k in range(models):
            judged = {"judged": answers(kind == "retrained", 100 + k)}
            for basis, against in (("retrained", retrained), ("shadows", [])):
                found = evaluate(
                    original,
                    against,
                    judged,
                    seed=recipe.seed,
                    outside=outside,
                    margins=recipe.margins,
                )
                verdict = found.verdict["judged"]
                verdicts[basis].append(verdict.outcome)
                if against:
                    memory.append([verdict.memory.value, verdict.memory.low, verdict.memory.high])
                    drops.append([verdict.auc_drop.value, verdict.auc_drop.high])
                    told["headroom"] = found.headroom["auc"].as_dict()
            told[kind] = {basis: _counted(each) for basis, each in verdicts.items()}
            same = sum(a == b for a, b in zip(*verdicts.values(), strict=True))
            told[kind]["agreement"] = _share(same, k + 1)
            told[kind]["memory"], told[kind]["auc_drop"] = memory, drops
            print(json.dumps(told), flush=True)


def _counted(verdicts: list[str]) -> dict[str, Any]:
    return {outcome: _share(count, len(verdicts)) for outcome, count in Counter(verdicts).items()}


def _share(count: int, of: int) -> list[float]:
    """The count, its share of `of`, and Clopper–Pearson 95% limits."""
    limits = binomtest(count, of).proportion_ci(method="exact")
    return [count, count / of, limits.low, limits.high]


if __name__ == "__main__":
    main()
