"""Where the time goes: kinds of operations in the published algorithm and in E2URec's default.

    python benchmarks/where_time_goes.py --original RUN [--json]

`RUN` is a run folder of `e2urec train`. torch's profiler looks at both. Both get the same 48 rows
of D_f and of D_r, the same passes over them and one teacher's α, so that the shares are those of
steps and teachers alone.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.profiler import ProfilerActivity, profile

from common import RequestCase, add_json, add_original, option_parser
from e2urec.methods import build
from e2urec.runs.folder import open_run
from published import Published
from unlearning_report import LARGE
from variants import RELEASED_PASSES, SAME_PASSES, UNTUNED_ALPHA, recipe_for

# Three batches: the profiler keeps every operation in memory until it is done.
ROW_COUNT = 48

KINDS = {
    "products of matrices": ("mm", "addmm", "bmm", "linear", "matmul", "mkldnn", "dot", "baddbmm"),
    "softmax and losses": ("softmax", "kl_div", "nll_loss", "xlogy", "log_sigmoid"),
    "casts and copies": (
        "copy_",
        "to",
        "clone",
        "cat",
        "contiguous",
        "fill_",
        "zero_",
        "empty",
        "pad",
        "index",
        "embedding",
    ),
    "optimizer": (
        "_fused_adamw",
        "_foreach",
        "lerp",
        "addcmul",
        "addcdiv",
        "sqrt",
        "linalg_vector_norm",
    ),
}
"""Beginnings of the names of torch's operations, by kind; the first kind that fits counts."""
REST = "elementwise and the rest"

Seconds = dict[str, float]
"""By kind of operation."""


# --- measuring


def kind_of(name: str) -> str:
    """The kind that an operation belongs to; what is left is elementwise or bookkeeping."""
    short = name.removeprefix("aten::").removeprefix("_")
    for kind, beginnings in KINDS.items():
        # An underscore in front or at the end makes a private operation, or one in place.
        if short.startswith(tuple(beginning.strip("_") for beginning in beginnings)):
            return kind
    return REST


def seconds_by_kind(work: Callable[[], object]) -> Seconds:
    """Seconds of the processor while `work` is done."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    seconds: Seconds = {}
    for event in profiler.key_averages():
        kind = kind_of(event.key)
        # The profiler counts microseconds.
        seconds[kind] = seconds.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    return seconds


def few_rows_of(case: RequestCase) -> RequestCase:
    """The same request with few rows in each part that a method reads."""
    first = np.arange(ROW_COUNT)
    rows = case.rows
    few_rows = replace(
        rows,
        forget=rows.forget.take(first),
        retain=rows.retain.take(first),
        unseen=rows.unseen.take(first),
    )
    return replace(case, rows=few_rows)


def measure(original: Path) -> dict[str, Seconds]:
    """Seconds by kind of the published algorithm and of ours."""
    recipe = recipe_for(original, "", LARGE)
    case = few_rows_of(RequestCase.open(open_run(original), recipe))
    # The published algorithm changes how its original answers, so it gets one of its own.
    published = Published(
        case.original.copy(),
        case.rows.forget,
        case.rows.retain,
        seed=0,
        embeddings=recipe.tuning.embeddings,
    )
    method = build("e2urec", SAME_PASSES | {"alpha": UNTUNED_ALPHA})
    task = case.task(method)
    return {
        "published": seconds_by_kind(lambda: published.unlearn(**RELEASED_PASSES)),
        "ours": seconds_by_kind(lambda: method.unlearn(task)),
    }


# --- the command line


def show(report: Mapping[str, Seconds]) -> None:
    """Print a line for each kind: seconds, and the share of all."""
    totals = {name: sum(seconds.values()) for name, seconds in report.items()}
    for kind in [*KINDS, REST]:
        cells = []
        for name, seconds in report.items():
            value = seconds.get(kind, 0.0)
            cells.append(f"{value:6.1f} s {value / totals[name]:4.0%}")
        print(f"{kind:26}", *cells, sep="  ")


def options() -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    add_original(parser)
    add_json(parser)
    return parser.parse_args()


def main() -> None:
    """Read the arguments; measure; print."""
    arguments = options()
    report = measure(arguments.original)
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()
