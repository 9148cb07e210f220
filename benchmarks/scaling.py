"""How the seconds of unlearning grow: with the forget set at a fixed training set, and with the training set.

    python benchmarks/scaling.py --original RUN [--plot docs/evidence/scaling.svg] [--json]

`RUN` is a run folder of `e2urec train`; its model is asked every time (what it knows does not change how long it
takes), its recipe says which data. First 1% to 40% of the users of 3,000 rows are forgotten. Then the same users, a
tenth of those of 1,500 rows, while the training set doubles three times around them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from e2urec.data.requests import ErasureRequest
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace, unlearning_seconds
from e2urec.methods import build
from e2urec.models.recommender import Recommender
from e2urec.unlearning.task import Task

RATIOS = (0.01, 0.05, 0.1, 0.2, 0.4)
SIZES = (1500, 3000, 6000, 12000)


def unlearn(
    original: Path, recipe: Recipe, erasure: ErasureRequest | None = None
) -> dict[str, Any]:
    """Rows and seconds of one request."""
    space = Workspace(recipe)
    model = space.reader = Recommender.load(original)
    rows = space.rows(space.resolve(erasure or space.request()))
    method = build("e2urec")
    task = space.task(model, rows, method)
    Task.watch = lambda self, phase, model, active=None: None  # type: ignore[method-assign]
    method.unlearn(task)
    found = {
        "forget": len(rows.forget),
        "train": len(rows.forget) + len(rows.retain),
        "seconds": unlearning_seconds(task.costs),
        "phases": task.costs.seconds,
    }
    print(f"{found['forget']} of {found['train']} rows: {found['seconds']:.1f} s", file=sys.stderr)
    return found


def plot(found: dict[str, Any], path: Path) -> None:
    """Both series, each with its own axis from zero."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.5, 3.2), sharey=True, layout="constrained"
    )
    x, y = ([row[key] for row in found["forget_set"]] for key in ("forget", "seconds"))
    left.plot(x, y, "o", color="#1f6feb")
    ends = np.array([0, max(x) * 1.05])
    left.plot(
        ends, found["line"]["intercept"] + found["line"]["slope"] * ends, color="#8b949e", lw=1
    )
    x, y = ([row[key] for row in found["training_set"]] for key in ("train", "seconds"))
    right.plot(x, y, "o-", color="#1f6feb", lw=1)
    left.set(
        xlabel="rows of the forget set", ylabel="seconds of unlearning", title="fixed training set"
    )
    right.set(xlabel="rows of the training set", title="fixed forget set")
    for axis in (left, right):
        axis.set_xlim(0)
        axis.set_ylim(0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    """Read the arguments; measure; print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, required=True, help="run folder of e2urec train")
    parser.add_argument("--plot", type=Path, help="where to draw both series")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    record = json.loads((given.original / "run.json").read_text(encoding="utf-8"))["recipe"]
    recipe = Recipe.build(record, place=str(given.original))
    fixed = recipe.updated(["data.rows=3000"])
    growing = [
        unlearn(given.original, fixed.updated([f"request.ratio={ratio}"])) for ratio in RATIOS
    ]
    sizes = [recipe.updated([f"data.rows={size}"]) for size in SIZES]
    erasure = Workspace(sizes[0].updated(["request.ratio=0.1"])).request()
    found: dict[str, Any] = {
        "forget_set": growing,
        "training_set": [unlearn(given.original, size, erasure) for size in sizes],
    }
    line = stats.linregress([row["forget"] for row in growing], [row["seconds"] for row in growing])
    found["line"] = {"slope": line.slope, "intercept": line.intercept, "r_squared": line.rvalue**2}
    found["last_over_first"] = (
        found["training_set"][-1]["seconds"] / found["training_set"][0]["seconds"]
    )
    if given.plot:
        plot(found, given.plot)
    print(json.dumps(found, indent=None if given.json else 2))


if __name__ == "__main__":
    main()
