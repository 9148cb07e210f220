"""What the benchmarks share: the run of an original, a request to it, and their options."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2urec.api.request import open_space
from e2urec.data.requests import ErasureRequest
from e2urec.evaluation.evidence import Evidence
from e2urec.evaluation.measure import Measure
from e2urec.evaluation.results import Results
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.request_rows import RequestRows
from e2urec.experiments.workspace import Workspace
from e2urec.models.recommender import Recommender
from e2urec.runs.folder import Run
from e2urec.training.loop import silent
from e2urec.unlearning.method import Method
from e2urec.unlearning.task import Task


class UnloggedTask(Task):
    """A task of which no phase is logged.

    Asking a model about all of D_f after each phase is not part of unlearning, and would only make
    a benchmark slower.
    """

    def log_phase(
        self, phase: str, model: Recommender, *, active: tuple[str, ...] | None = None
    ) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RequestCase:
    """A request to an original, with all that a method needs.

    Attributes:
        space: data and base.
        original: the recommender that is asked to forget.
        rows: of the request.
    """

    space: Workspace
    original: Recommender
    rows: RequestRows

    @classmethod
    def open(cls, run: Run, recipe: Recipe, request: ErasureRequest | None = None) -> "RequestCase":
        """Load the original of a run, and put a request to it as `of` does.

        What the run keeps once for all requests is at hand, as it is for `e2urec unlearn`.
        """
        space = open_space(run, recipe, key=None, progress=silent)
        return cls.of(space, space.load(run), request)

    @classmethod
    def of(
        cls, space: Workspace, original: Recommender, request: ErasureRequest | None = None
    ) -> "RequestCase":
        """Put a request, or the one that the recipe draws, to an original."""
        # Its tokenizer and template serve, so that the base need not be loaded.
        space.prompt_reader = original.prompt_reader
        if request is None:
            request = space.request()
        parts = space.resolve(request)
        rows = space.rows(parts)
        return cls(space, original, rows)

    def task(self, method: Method) -> Task:
        """The task for a method; no phase of it is logged."""
        task = self.space.task(self.original, self.rows, method)
        # A method may copy its task; a subclass stays one, and a changed object would not.
        return UnloggedTask(**vars(task))


def recipe_of(run: Run) -> Recipe:
    """The recipe that a run was made with."""
    return Recipe.build(run.record.recipe, place=str(run.path))


def measure_only(evidence: Evidence, measures: Sequence[Measure]) -> Results:
    """Some figures of an evaluation; unlike `evaluate`, this computes no others.

    The distances among them need the models' states, which no benchmark keeps.
    """
    tables = {}
    for measure in measures:
        tables[measure.name] = measure.table(evidence)
    return Results(tables, tuple(evidence.models))


# --- the command line


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it stands."""
    # The docstrings begin with a command line, which argparse would otherwise wrap.
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_original(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--original RUN`."""
    parser.add_argument(
        "--original", type=Path, required=required, help="run folder of e2urec train"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def interval_text(figure: Mapping[str, Any], digits: int) -> str:
    """`0.22 [0.09, 0.34]`: a figure of results.json with its interval."""
    value = f"{figure['value']:.{digits}f}"
    low = f"{figure['low']:.{digits}f}"
    high = f"{figure['high']:.{digits}f}"
    return f"{value} [{low}, {high}]"
