"""Where the time goes: kinds of operations in the published algorithm and in ours, by torch's profiler.

    python benchmarks/where_time_goes.py --original RUN [--json]

`RUN` is a run folder of `e2urec train`. Both get the same 48 rows of D_f and of D_r, the same passes over them and one
teacher's α, so that the shares are those of steps and teachers alone.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.profiler import ProfilerActivity, profile

from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.models.recommender import Recommender
from e2urec.unlearning.task import Task
from published import Published
from unlearning import PASSES, SAME, settings_of

ROWS = 48
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


def kind_of(name: str) -> str:
    """The kind that an operation belongs to; what is left is elementwise or bookkeeping."""
    short = name.removeprefix("aten::").removeprefix("_")
    for kind, parts in KINDS.items():
        if any(short == part or short.startswith(part.strip("_")) for part in parts):
            return kind
    return "elementwise and the rest"


def shares(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of the processor by kind of operation while `work` is done."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    seconds: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = kind_of(event.key)
        seconds[kind] = seconds.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    return seconds


def main() -> None:
    """Read the arguments; measure; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", required=True, help="run folder of e2urec train")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    given = parser.parse_args()
    Task.watch = lambda self, phase, model, active=None: None  # type: ignore[method-assign]
    space = Workspace(settings_of(given.original, "", 0.2))
    model = space.reader = Recommender.load(Path(given.original))
    rows = space.rows(space.resolve(space.request()))
    some = {
        name: getattr(rows, name).take(np.arange(ROWS)) for name in ("forget", "retain", "unseen")
    }
    rows = replace(rows, **some)

    plain = Published(model.copy(), rows.forget, rows.retain, 0)
    method = build("e2urec", SAME | {"alpha": 2.0, "min_steps": 1, "augment_min_steps": 1})
    task = space.task(model, rows, method)
    found = {
        "published": shares(lambda: plain.unlearn(**PASSES)),
        "ours": shares(lambda: method.unlearn(task)),
    }
    if given.json:
        print(json.dumps(found))
        return
    for kind in [*KINDS, "elementwise and the rest"]:
        cells = (
            f"{part.get(kind, 0):6.1f} s {part.get(kind, 0) / sum(part.values()):4.0%}"
            for part in found.values()
        )
        print(f"{kind:26}", *cells, sep="  ")


if __name__ == "__main__":
    main()
