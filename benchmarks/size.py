"""Measure the peak of memory while base + LoRA forgets, with the base in bf16 and in float32.

    python benchmarks/size.py [--base NAME] [--rows 60] [--json]

Each variant is a process of its own, and so is the training of its original: what one leaves in
memory cannot touch the next one. The same weights are written out once in either precision.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from common import add_json, option_parser
from e2urec.api.request import RequestOptions
from e2urec.api.train import train
from e2urec.api.unlearn import unlearn
from e2urec.experiments.packaged import resolve_model
from e2urec.experiments.recipe import Recipe
from e2urec.methods import build
from e2urec.models.backbone import load_backbone
from e2urec.runs.folder import open_run
from one_variant import RSS_UNIT

# So few rows and steps that a model with all its blocks is measured in minutes. What a step holds
# depends on the rows of a batch alone.
SETTINGS = {
    "data.per_user": 8,
    "data.history": 5,
    "data.test_rows": 40,
    "data.held_rows": 40,
    "tuning.lora.rank": 16,
    "tuning.lora.targets": "all",
    "tuning.schedule.epochs": 1,
    "tuning.schedule.precision": "bf16",
}
# On all blocks, so that what all of them hold for the backward pass is in the peak.
METHOD = {"min_steps": 2, "augment_min_steps": 2, "lora": {"rank": 16, "upper": 1.0}}
SHARE = 0.2


@dataclass(frozen=True)
class Variant:
    """What one process measures.

    Attributes:
        dtype: precision in which the base is stored.
        settings: of the recipe.
    """

    dtype: str = "bfloat16"
    settings: Mapping[str, Any] | None = None


VARIANTS = {
    "float32": Variant("float32"),
    "bf16": Variant(),
    "bf16, micro_batch=4": Variant(settings={"tuning.schedule.micro_batch": 4}),
    "bf16, gradient_checkpointing": Variant(
        settings={"tuning.schedule.gradient_checkpointing": "true"}
    ),
}


# --- in the caller's process


def measure_all(base: str, rows: int) -> dict[str, Any]:
    """The figures of all variants, by name."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "bfloat16"):
            write_base(base, Path(folder) / dtype, dtype)
        for number, (name, variant) in enumerate(VARIANTS.items()):
            job = asdict(variant) | {"rows": rows, "folder": folder, "number": number}
            for command in ("train", "unlearn"):
                figures[name] = run_apart(command, job)
            megabytes = figures[name]["bytes"] / 1e6
            print(f"{name}: {megabytes:.0f} MB, {figures[name]['seconds']:.0f} s", file=sys.stderr)
    return figures


def write_base(base: str, folder: Path, dtype: str) -> None:
    """The weights of a base as they are stored, written in some precision."""
    backbone = load_backbone(resolve_model(base), dtype="auto")
    backbone.lm.to(getattr(torch, dtype)).save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)


def run_apart(command: str, job: dict[str, Any]) -> dict[str, Any]:
    """Carry out a command in a new process; what it took."""
    words = [sys.executable, __file__, "--job", json.dumps(job | {"command": command})]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


# --- in the new process


def carry_out(job: Mapping[str, Any]) -> dict[str, Any]:
    """Train or unlearn in this process: seconds, and the peak less what imports take, in bytes."""
    bytes_after_imports = psutil.Process().memory_info().rss
    folder = Path(job["folder"])
    original = folder / f"original-{job['number']}"
    start_time = time.perf_counter()
    if job["command"] == "train":
        settings = SETTINGS | {"model.name": folder / job["dtype"], "data.rows": job["rows"]}
        settings |= job["settings"] or {}
        recipe = Recipe().updated([f"{key}={value}" for key, value in settings.items()])
        train(recipe, original)
    else:
        request = RequestOptions(ratio=SHARE)
        unlearn(
            open_run(original), folder / f"run-{job['number']}", build("e2urec", METHOD), request
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    seconds = time.perf_counter() - start_time
    return {"bytes": peak - bytes_after_imports, "bytes_in_total": peak, "seconds": seconds}


def main() -> None:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("--base", default="smollm2-135m", help="packaged name, folder or hub name")
    parser.add_argument("--rows", type=int, default=60, help="training rows")
    parser.add_argument("--job", type=json.loads, help="what a process of its own does")
    add_json(parser)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(carry_out(options.job)))
        return
    figures = measure_all(options.base, options.rows)
    if options.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:32} {figure['bytes'] / 1e6:8.0f} MB")


if __name__ == "__main__":
    main()
