"""Measure one variant in a process of its own: seconds, memory, and what the model then says.

`unlearning.py` starts it. What one variant leaves in memory cannot touch the next one, and the peak
of the process is the variant's own.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common import RequestCase
from e2urec.api.request import open_space
from e2urec.core.arrays import Floats
from e2urec.data.prompts import PromptTemplate
from e2urec.experiments.packaged import resolve_model
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.workspace import Workspace
from e2urec.methods import build
from e2urec.models.backbone import load_backbone
from e2urec.models.precision import Precision
from e2urec.models.recommender import Recommender
from e2urec.runs.folder import open_run
from e2urec.training.loop import silent
from published import Published
from variants import PUBLISHED, recipe_for

# `ru_maxrss` is in KiB on Linux.
RSS_UNIT = 1024
# Asking models for logs is no part of unlearning.
UNCOUNTED_PHASE = "logging"
LOADING = "loading"
RECORD = "record"
"""Name of the measured figures in the file that a process leaves; the others are log-odds."""


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        variant: name of the variant.
        method: that it runs.
        settings: of the method; of the published algorithm, its passes over D_f.
        precision: of its steps.
        original: run folder of the original; None: the backbone as it comes.
        backbone: packaged name or folder.
        ratio: share of the users to forget.
        scored: whether the model is asked about the rows of an evaluation afterwards.
    """

    variant: str
    method: str
    settings: Mapping[str, Any]
    precision: Precision
    original: str | None
    backbone: str
    ratio: float
    scored: bool


@dataclass(frozen=True)
class Measurement:
    """What a variant took.

    Attributes:
        seconds: by phase, loading among them.
        bytes: peak of the resident set less its size after imports.
        bytes_in_total: the peak itself.
        rows: of the request, by part.
        total: seconds of all phases but loading.
        odds: the model's log-odds on each set of rows; empty if nobody asked.
    """

    seconds: Mapping[str, float]
    bytes: float
    bytes_in_total: float
    rows: Mapping[str, int]
    total: float
    odds: Mapping[str, Floats]

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values, without the answers."""
        return {
            "seconds": dict(self.seconds),
            "bytes": self.bytes,
            "bytes_in_total": self.bytes_in_total,
            "rows": dict(self.rows),
            "total": self.total,
        }


# --- in the caller's process


def measure_apart(job: Job) -> Measurement:
    """Measure a variant in a new process."""
    job_text = json.dumps(asdict(job))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measurement.npz"
        command = [sys.executable, __file__, job_text, str(out)]
        subprocess.run(command, check=True)
        with np.load(out) as archive:
            arrays = dict(archive)
    record = json.loads(str(arrays.pop(RECORD)))
    measurement = Measurement(**record, odds=arrays)
    megabytes = measurement.bytes / 1e6
    print(
        f"{job.variant}, {job.ratio:.0%}: {measurement.total:.1f} s, {megabytes:.0f} MB",
        file=sys.stderr,
    )
    return measurement


# --- in the new process


def measure(job: Job, out: Path) -> None:
    """Measure a variant in this process, and write the record and the answers to `out`."""
    bytes_after_imports = psutil.Process().memory_info().rss
    original_run = None if job.original is None else Path(job.original)
    recipe = recipe_for(original_run, job.backbone, job.ratio, job.precision)
    case, loading_seconds = load_case(job, recipe)
    result, phases = unlearn(job, case)
    # Before the model is asked, which may need more memory than unlearning.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    peak = usage.ru_maxrss * RSS_UNIT
    record = {
        "seconds": {LOADING: loading_seconds, **phases},
        "bytes": peak - bytes_after_imports,
        "bytes_in_total": peak,
        "rows": case.rows.counts(),
        "total": sum(phases.values()),
    }
    # One file for both: the record is an array of one text.
    arrays: dict[str, Any] = {RECORD: np.array(json.dumps(record))}
    if job.scored:
        precision = recipe.tuning.schedule.precision
        answers = case.rows.evaluation.ask(result, precision=precision)
        for name, predictions in answers.parts().items():
            arrays[name] = predictions.log_odds
    np.savez(out, **arrays)


def load_case(job: Job, recipe: Recipe) -> tuple[RequestCase, float]:
    """The request to the recommender of the run, or to the backbone; seconds of loading it."""
    if job.original is not None:
        run = open_run(Path(job.original))
        space = open_space(run, recipe, key=None, progress=silent)
        load: Callable[[], Recommender] = partial(space.load, run)
    else:
        space = Workspace(recipe)
        load = partial(load_untuned, job.backbone, space.template)
    start_time = time.perf_counter()
    original = load()
    loading_seconds = time.perf_counter() - start_time
    return RequestCase.of(space, original), loading_seconds


def load_untuned(name: str, template: PromptTemplate) -> Recommender:
    """A backbone as it comes."""
    backbone = load_backbone(resolve_model(name))
    return Recommender(backbone, template)


def unlearn(job: Job, case: RequestCase) -> tuple[Recommender, dict[str, float]]:
    """The model that has forgotten, and the seconds of each phase."""
    rows = case.rows
    if job.method == PUBLISHED:
        recipe = case.space.recipe
        published = Published(
            case.original,
            rows.forget,
            rows.retain,
            seed=recipe.seed,
            embeddings=recipe.tuning.embeddings,
        )
        return published.unlearn(**job.settings), published.seconds
    method = build(job.method, job.settings)
    task = case.task(method)
    result = method.unlearn(task)
    seconds = dict(task.costs.seconds)
    seconds.pop(UNCOUNTED_PHASE, None)
    return result, seconds


def main() -> None:
    """Read the job and where its measurement goes."""
    job_text, out = sys.argv[1:]
    measure(Job(**json.loads(job_text)), Path(out))


if __name__ == "__main__":
    main()
