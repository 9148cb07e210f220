"""How the seconds of unlearning grow: with the forget set, and with the training set.

    python benchmarks/scaling.py --original RUN [--plot docs/evidence/scaling.svg] [--json]

`RUN` is a run folder of `e2urec train`. Its model is asked every time (what it knows does not
change how long it takes), and its recipe says which data. First 1% to 40% of the users of 3,000
rows are forgotten. Then the same users, a tenth of those of 1,500 rows, while the training set
doubles three times around them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from common import RequestCase, add_json, add_original, option_parser, recipe_of
from e2urec.data.requests import ErasureRequest
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.study import unlearning_seconds
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.runs.folder import Run, open_run

RATIOS = (0.01, 0.05, 0.1, 0.2, 0.4)
SIZES = (1500, 3000, 6000, 12000)
FIXED_SIZE = 3000
"""Rows of the training set while the forget set grows."""
FIXED_RATIO = 0.1
"""Share of the users of the smallest training set that is forgotten while the others grow."""

BLUE = "#1f6feb"
GREY = "#8b949e"

Point = dict[str, Any]
"""Rows and seconds of one request."""


# --- measuring


def unlearn(run: Run, recipe: Recipe, request: ErasureRequest | None = None) -> Point:
    """Put a request, or the one that the recipe draws, to the original."""
    case = RequestCase.open(run, recipe, request)
    method = build("e2urec")
    task = case.task(method)
    method.unlearn(task)
    forget_count = len(case.rows.forget)
    row_count = forget_count + len(case.rows.retain)
    seconds = unlearning_seconds(task.costs)
    print(f"{forget_count} of {row_count} rows: {seconds:.1f} s", file=sys.stderr)
    return {
        "forget": forget_count,
        "train": row_count,
        "seconds": seconds,
        "phases": task.costs.seconds,
    }


def grow_forget_set(run: Run, rows: int, ratios: Sequence[float]) -> list[Point]:
    """Forget more and more users of one training set."""
    fixed = recipe_of(run).updated([f"data.rows={rows}"])
    points = []
    for ratio in ratios:
        recipe = fixed.updated([f"request.ratio={ratio}"])
        points.append(unlearn(run, recipe))
    return points


def grow_training_set(run: Run, sizes: Sequence[int]) -> list[Point]:
    """Forget the same users of larger and larger training sets."""
    recipes = [recipe_of(run).updated([f"data.rows={size}"]) for size in sizes]
    # Users are added in the same random order, so those of the smallest set are in all of them.
    smallest = recipes[0].updated([f"request.ratio={FIXED_RATIO}"])
    request = Workspace(smallest).request()
    return [unlearn(run, recipe, request) for recipe in recipes]


def line_of(points: Sequence[Point]) -> dict[str, float]:
    """The line through the seconds, by least squares."""
    rows = [point["forget"] for point in points]
    seconds = [point["seconds"] for point in points]
    line = stats.linregress(rows, seconds)
    return {"slope": line.slope, "intercept": line.intercept, "r_squared": line.rvalue**2}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both series, the line through the first, and how much the second grows."""
    run = open_run(arguments.original)
    forget_series = grow_forget_set(run, arguments.rows, arguments.ratios)
    training_series = grow_training_set(run, arguments.sizes)
    first = training_series[0]["seconds"]
    last = training_series[-1]["seconds"]
    return {
        "forget_set": forget_series,
        "training_set": training_series,
        "line": line_of(forget_series),
        "last_over_first": last / first,
    }


# --- drawing


def plot(report: dict[str, Any], path: Path) -> None:
    """Both series, with axes from zero."""
    figure, axes_pair = plt.subplots(1, 2, figsize=(8.5, 3.2), sharey=True, layout="constrained")
    forget_axes, training_axes = axes_pair
    rows, seconds = columns(report["forget_set"], "forget")
    forget_axes.plot(rows, seconds, "o", color=BLUE)
    line = report["line"]
    # The line ends a little beyond the last point.
    ends = np.array([0, max(rows) * 1.05])
    fitted = line["intercept"] + line["slope"] * ends
    forget_axes.plot(ends, fitted, color=GREY, lw=1)
    forget_axes.set(
        xlabel="rows of the forget set", ylabel="seconds of unlearning", title="fixed training set"
    )
    rows, seconds = columns(report["training_set"], "train")
    training_axes.plot(rows, seconds, "o-", color=BLUE, lw=1)
    training_axes.set(xlabel="rows of the training set", title="fixed forget set")
    for axes in axes_pair:
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def columns(points: Sequence[Point], key: str) -> tuple[list[float], list[float]]:
    """The rows called `key` and the seconds of a series."""
    return [point[key] for point in points], [point["seconds"] for point in points]


# --- the command line


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_original(parser)
    parser.add_argument("--plot", type=Path, help="where to draw both series")
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=RATIOS, help="shares of users to forget"
    )
    parser.add_argument(
        "--rows", type=int, default=FIXED_SIZE, help="training rows while the forget set grows"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="training rows of the second series"
    )
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    """Read the arguments; measure; draw and print."""
    arguments = options()
    report = measure(arguments)
    if arguments.plot:
        plot(report, arguments.plot)
    print(json.dumps(report, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
