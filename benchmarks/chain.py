"""One request after another: does what was forgotten first stay forgotten, and what does it cost the others?

    python benchmarks/chain.py --original RUN [--requests 5] [--share 0.04] [--json]

`RUN` is a run folder of `e2urec train`. Each request names other users and starts from the result of the one before,
whose rows stay out of what is retained. After each, every request's rows are asked of the model. The reference is tuned
without the users of all of them, with two seeds: M_auc is 1 where nothing was done and 0 where it is as if retrained.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from e2urec.data.requests import ErasureRequest
from e2urec.evaluation.evaluate import evaluate
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace, unlearning_seconds
from e2urec.methods import build
from e2urec.methods.retrain import Retrain
from e2urec.models.batches import Examples
from e2urec.models.predictions import Predictions, predict
from e2urec.models.recommender import Recommender
from e2urec.runs.split_index import SplitIndex
from e2urec.unlearning.task import Task


def requests_of(space: Workspace, count: int, share: float) -> list[ErasureRequest]:
    """`count` requests of `share` of the training users each, none of them twice."""
    whole = space.drawn(space.recipe.request.model_copy(update={"ratio": count * share}))
    users = np.random.default_rng(space.recipe.request.seed).permutation(np.array(whole.users))
    return [ErasureRequest(tuple(part)) for part in np.array_split(users, count)]


def main() -> None:
    """Read the arguments; measure; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, required=True, help="run folder of e2urec train")
    parser.add_argument("--requests", type=int, default=5, help="requests in a row")
    parser.add_argument("--share", type=float, default=0.04, help="of the training users, in each")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    Task.watch = lambda self, phase, model, active=None: None  # type: ignore[method-assign]
    record = json.loads((given.original / "run.json").read_text(encoding="utf-8"))["recipe"]
    recipe = Recipe.build(record, place=str(given.original))
    first = Workspace(recipe)

    def load() -> Recommender:
        return Recommender.load(given.original, first.base.copy() if recipe.tuning.lora else None)

    original = first.reader = load()
    asked = requests_of(first, given.requests, given.share)
    union = ErasureRequest(tuple(user for request in asked for user in request.users))
    everything = first.rows(first.resolve(union))
    forgotten = [first.encode(first.resolve(request).forget) for request in asked]

    def answers(model: Recommender) -> list[dict[str, Predictions]]:
        """What the model says of each request's rows, beside test and unseen rows that are the same for all."""
        precision = recipe.tuning.schedule.precision

        def ask(rows: Examples) -> Predictions:
            return replace(predict(model, rows, precision=precision), hidden=None)

        shared = {"test": ask(everything.test), "unseen": ask(everything.unseen)}
        return [shared | {"forget": ask(rows)} for rows in forgotten]

    before, after, seconds, model = answers(original), {}, [], original
    split_index = SplitIndex.of(first.split)
    for number, request in enumerate(asked, start=1):
        space = Workspace(recipe, reader=model, split_index=split_index)
        parts = space.resolve(request)
        method = build("e2urec")
        task = space.task(model, space.rows(parts), method)
        model = method.unlearn(task)
        split_index = split_index.without(parts.forget.interactions, parts.erased)
        seconds.append(unlearning_seconds(task.costs))
        after[f"after request {number}"] = answers(model)
        print(f"request {number}: {len(task.forget)} rows, {seconds[-1]:.1f} s", file=sys.stderr)
    retrained = []
    for number in (1, 2):
        method = Retrain(number=number)
        retrained.append(answers(method.unlearn(first.task(load(), everything, method))))
        print(f"retrained {number}", file=sys.stderr)

    table: dict[str, dict[str, Any]] = {name: {} for name in after}
    for number in range(given.requests):
        found = evaluate(
            before[number],
            [each[number] for each in retrained],
            {name: each[number] for name, each in after.items()},
            seed=recipe.seed,
        ).as_dict()
        for name in after:
            table[name][f"request {number + 1}"] = found["memory"][name]["auc"]
            table[name]["test AUC"] = found["models"][name]["auc"]
        reference = {name: found["models"][name]["auc"] for name in ("original", "retrained")}
    report = {
        "rows": [len(rows) for rows in forgotten],
        "seconds": seconds,
        "memory": table,
        "test_auc": reference,
        "headroom": [
            evaluate(b, [r[k] for r in retrained], {}, seed=recipe.seed).as_dict()["headroom"][
                "auc"
            ]
            for k, b in enumerate(before)
        ],
    }
    if given.json:
        print(json.dumps(report))
        return
    print(f"rows {report['rows']}, seconds {[round(value, 1) for value in seconds]}")
    for name, row in table.items():
        cells = (
            f"{cell['value']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]" for cell in row.values()
        )
        print(name, *cells, sep=" | ")
    for name, cell in reference.items():
        print(f"{name}: test AUC {cell['value']:.3f}")


if __name__ == "__main__":
    main()
