"""What benchmarks of many models share: a working folder with a step for each model, on one base.

The folder holds models and log-odds of single rows: it is to stay where it was made. A command that
was interrupted goes on with what is finished. `--set scores.pairs=N` makes out-of-fold scores for
each original, which variants may use.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from common import RequestCase
from e2urec.core.arrays import Floats
from e2urec.core.errors import ConfigError, E2URecError
from e2urec.core.process import signals_as_interrupt
from e2urec.core.seeding import derive
from e2urec.data.requests import ForgetRetain
from e2urec.experiments.grid import Grid
from e2urec.experiments.recipe import Recipe
from e2urec.experiments.request_rows import RequestRows
from e2urec.experiments.workspace import Workspace
from e2urec.models.batches import Examples
from e2urec.models.predictions import predict
from e2urec.models.recommender import Recommender
from e2urec.runs.files import write_json
from e2urec.runs.keys import controller_key
from e2urec.runs.row_digests import RowKey
from e2urec.runs.score_index import ScoreIndex
from e2urec.training.loop import Phase
from e2urec.training.supervised import tune
from pooled_files import (
    DECISIVE_PARTS,
    RECORD,
    SCORES,
    VARIANTS,
    check_settings,
    note_machine,
    read_arrays,
    read_record,
    save_step,
)
from pooled_plan import NamedMethod
from tiny_base import RECIPE, write_base

BASE_FOLDER = "base"
# Kinds of models, as their folders are called; a variant has a kind of its own name.
ORIGINAL = "original"
RETRAINED = "retrained"
FLOOR = "floor"
"""Further retrained models: what a figure is where nothing is left."""
ROWS = "rows"
"""The folder of what is known of the rows themselves."""
RESERVED = (BASE_FOLDER, ORIGINAL, RETRAINED, FLOOR)


def say(text: str) -> None:
    """Print a line at once: a run takes hours."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class KeptModels:
    """Models in a working folder, each made once; of most, answers alone stay.

    Attributes:
        space: data and base.
        grid: of finished steps.
        purpose: of the seeds, so that no two benchmarks share models.
    """

    space: Workspace
    grid: Grid
    purpose: str

    @classmethod
    def open(
        cls, work: Path, settings: Sequence[str], purpose: str, base: str | None = None
    ) -> Self:
        """Open a working folder.

        Args:
            work: the folder.
            settings: in place of those of `tiny.toml`.
            purpose: of the seeds.
            base: name or folder of the base; None: the tiny one, which is made in the working
                folder first.

        Raises:
            ConfigError: the folder has models of other settings.
        """
        name = base or str(work / BASE_FOLDER)
        recipe = Recipe.load(RECIPE).updated([f"model.name={name}", *settings])
        check_settings(work, recipe, (*DECISIVE_PARTS, "request", "scores"))
        note_machine(work)
        grid = Grid(work, 0, say)
        if base is None:
            grid.folder_of(BASE_FOLDER, lambda path: write_base(recipe, path))
        return cls(Workspace(recipe), grid, purpose)

    def seed(self, kind: str, number: int) -> int:
        """The seed of a model: of each kind and number another."""
        return derive(self.space.recipe.seed, self.purpose, kind, number)

    def tuned(self, rows: Examples, kind: str, number: int) -> Recommender:
        """A model tuned on some rows with a seed of its own."""
        # One name for all kinds: they shall differ in their rows and seeds alone.
        phase = Phase("original", self.seed(kind, number))
        model, _ = tune(self.space.untuned(), self.space.recipe.tuning, rows, None, phase)
        return model

    def ask(self, model: Recommender, rows: Mapping[str, Examples]) -> dict[str, Floats]:
        """Log-odds of a model on each part."""
        precision = self.space.recipe.tuning.schedule.precision
        odds = {}
        for part, examples in rows.items():
            odds[part] = predict(model, examples, precision=precision).log_odds
        return odds

    def make(
        self,
        key: str,
        model: Callable[[], Recommender],
        rows: Mapping[str, Examples],
        *,
        keep: bool = False,
    ) -> None:
        """Do the step `key` unless it is done: make a model and ask it.

        Args:
            key: of the step.
            model: makes the model.
            rows: what it is asked, by part.
            keep: whether the model itself stays as well.
        """

        def save(folder: Path) -> None:
            start_time = time.perf_counter()
            made = model()
            odds = self.ask(made, rows)
            if keep:
                made.save(folder)
            save_step(folder, odds, {"wall": time.perf_counter() - start_time})

        self.grid.folder_of(key, save)

    def original(self, key: str) -> Recommender:
        """The model that the step `key` kept; the caller may change it."""
        base = None
        if self.space.recipe.tuning.lora is not None:
            base = self.space.base.with_shared_weights()
        return Recommender.load(self.grid.folder / key, base)

    def scored_rows(
        self, rows: RequestRows, parts: ForgetRetain, original_key: str, number: int
    ) -> RequestRows:
        """The rows of a request with an original's out-of-fold scores, where settings ask for any.

        Args:
            rows: of the request, tokenised.
            parts: the same as samples.
            original_key: step of the original.
            number: of the original.
        """
        recipe = self.space.recipe
        if not recipe.scores.pairs:
            return rows
        key = f"{original_key}-{SCORES}"

        def save(folder: Path) -> None:
            start_time = time.perf_counter()
            seeds = [f"seed={self.seed(ORIGINAL, number)}", f"data.seed={recipe.data_seed}"]
            space = Workspace(recipe.updated(seeds))
            space.row_key = RowKey.under(controller_key())
            space.make_scores(folder)
            assert space.score_index is not None, "scores are made where settings ask for them"
            space.score_index.save(folder)
            save_step(folder, {}, {"wall": time.perf_counter() - start_time})

        folder = self.grid.folder_of(key, save)
        self.space.score_index = ScoreIndex.load(folder, controller_key())
        return replace(rows, scores=self.space.request_scores(parts))

    def unlearned(
        self, original_key: str, rows: RequestRows, variant: NamedMethod, number: int
    ) -> Recommender:
        """What a method makes of a kept original and a request, with a seed of its own."""
        case = RequestCase(self.space, self.original(original_key), rows)
        task = case.task(variant.method)
        task.seed = self.seed("unlearned", number)
        return variant.method.unlearn(task)

    def begin(self, variant: NamedMethod) -> None:
        """Note a variant's settings at its first model.

        Raises:
            ConfigError: a variant of this name was begun with others, or models of another kind
                have that name.
        """
        if variant.name in RESERVED:
            raise ConfigError(
                f"variant '{variant.name}': is the name of models that every variant is held "
                "against; give it another"
            )
        folder = self.grid.folder / VARIANTS
        path = folder / f"{variant.name}.json"
        if not path.is_file():
            folder.mkdir(exist_ok=True)
            write_json(path, variant.as_dict())
        elif read_record(folder, path.name) != variant.as_dict():
            raise ConfigError(
                f"variant '{variant.name}': was begun with other settings (see '{path}'); give it "
                "another name"
            )


def answers_in(folder: Path, key: str) -> dict[str, Floats] | None:
    """The log-odds of a finished step by part; None: it is not finished."""
    if not (folder / key / RECORD).is_file():
        return None
    return read_arrays(folder / key)


def variants_in(folder: Path) -> dict[str, Any]:
    """The method and settings of each variant that was begun, by name."""
    paths = sorted((folder / VARIANTS).glob("*.json"))
    return {path.stem: read_record(path.parent, path.name) for path in paths}


def add_work(parser: argparse.ArgumentParser) -> None:
    """Add the options of a working folder."""
    parser.add_argument("--work", type=Path, required=True, help="folder of models and answers")
    parser.add_argument("--base", help="name or folder of a base; by default the tiny one is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=METHOD[:KEY=VALUE]")
    parser.add_argument("--variants", type=Path, metavar="FILE", help="TOML, a table for each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--report-only", action="store_true", help="of what is finished")
    parser.add_argument("--out", type=Path, help="JSON file to write as well")


def print_report(make: Callable[[], Mapping[str, Any]], out: Path | None) -> None:
    """Make a report, print it as one JSON object, and write it to `out` as well, if given.

    Ends the process with status 2 after an error of the user, and with 130 after an interrupt.
    """
    try:
        with signals_as_interrupt():
            report = make()
    except E2URecError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted: the same command goes on with what is finished")
        sys.exit(130)
    print(json.dumps(report))
    if out is not None:
        write_json(out, report)
