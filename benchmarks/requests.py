"""How much is left, pooled over requests: five folds of the users, their parts, and single users.

    python benchmarks/requests.py --base demo --seed 0 --variant default=e2urec --work FOLDER

All training users are cut into five disjoint folds. Each fold is forgotten (20% of the users), each
fifth of it (4%) and some of its users one by one; every request is put to a copy of one original.
All are measured against models retrained without the whole fold. `--base` is the demo's
recommender, the same tuned as base + LoRA or of fewer blocks and rows (`small`), or a tiny one for
experiments. `--variant` may be repeated: `NAME=METHOD`, or `NAME=METHOD:key=value,key=value`, where
the key `preset` names a preset; `--variants` reads a TOML file with a table for each.

Every finished step stays in `--work`, with log-odds of single rows: do not share that folder. The
same command goes on after an interrupt, and more variants, seeds or sizes may be added later.
`--fold` makes some folds alone, so that several processes may share the work once the first has
made what all folds need. `--report-only` writes the figures of what is finished, at any time.
`requests_report.py` makes a table and a picture of them. `--set scores.pairs=N` makes out-of-fold
scores for the variants.

Seconds are of unlearning alone, without loading, answers and logs.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common import option_parser
from e2urec.core.errors import ConfigError, E2URecError
from e2urec.core.process import signals_as_interrupt
from e2urec.experiments import demo_size
from e2urec.experiments.grid import Grid
from e2urec.experiments.recipe import Recipe, parse_settings
from e2urec.experiments.workspace import Workspace
from e2urec.runs.files import write_json
from e2urec.training.out_of_fold import OutOfFold
from pooled_figures import Scope, seed_report
from pooled_files import DATA, SETTINGS, check_settings, note_machine
from pooled_models import PooledModels, PooledOptions
from pooled_plan import FOLDS, Size, variants_of
from tiny_base import RECIPE as TINY_RECIPE
from tiny_base import write_base

RESULTS = Path("docs/results")
BASE_FOLDER = "base"
DEMO_SETTINGS = {
    "demo": (),
    # At the demo's rate of 3e-4 an adapter learns so little that there is nothing to forget.
    "lora": ("tuning.lora.rank=16", "tuning.schedule.learning_rate=2e-3"),
    # Less to tune, for a processor without a GPU.
    "small": (
        "model.layers=2",
        "data.history=2",
        "data.rows=2000",
        "data.per_user=20",
        "data.held_rows=800",
        "tuning.schedule.epochs=4",
        "tuning.schedule.learning_rate=4e-4",
    ),
}
"""What bases have in place of the demo's settings."""
# Settings of the scores stand among the recipe's on the command line.
SCORES_PART = "scores."


def run_seed(base: str, seed: int, arguments: argparse.Namespace) -> int:
    """Make and report all of one seed; returns how many steps failed."""
    folder: Path = arguments.work / f"{base}-{seed}"
    failed = []
    if not arguments.report_only:
        variants = variants_of(arguments.variant, arguments.variants)
        recipe_settings, scores = split_settings(arguments.set)
        recipe = base_recipe(base, seed, recipe_settings, folder)
        check_settings(folder, recipe)
        note_machine(folder)
        options = PooledOptions(
            variants=variants,
            sizes=arguments.size,
            folds=arguments.fold,
            single=arguments.single,
            retrained=arguments.retrained,
            scores=scores,
        )
        grid = Grid(folder, 0, say)
        if base == "tiny":
            make_tiny_base(recipe, grid)
        models = PooledModels(Workspace(recipe), grid, options)
        models.make()
        failed = models.failed
    elif not (folder / DATA).is_dir() or not (folder / SETTINGS).is_file():
        raise ConfigError(f"'{folder}': nothing is finished there; run without --report-only first")
    scope = Scope(arguments.size, arguments.single, arguments.retrained)
    report = {"base": base} | seed_report(folder, scope)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"requests-{base}-{seed}.json"
    write_json(path, report)
    say(f"wrote {path}" + ("" if report["complete"] else ", of which a part is missing"))
    return len(failed)


def base_recipe(base: str, seed: int, settings: Sequence[str], folder: Path) -> Recipe:
    """The recipe of a base, with a seed."""
    own = [*settings, f"seed={seed}"]
    if base in DEMO_SETTINGS:
        return Recipe.build(demo_size.FULL, place="demo").updated([*DEMO_SETTINGS[base], *own])
    return Recipe.load(TINY_RECIPE).updated([f"model.name={folder / BASE_FOLDER}", *own])


def make_tiny_base(recipe: Recipe, grid: Grid) -> None:
    """Write the tiny base of this seed: other seeds leave other users out."""
    # It is no step of the plan, whose total is yet to be counted, so the grid does not tell of it.
    grid.folder_of(BASE_FOLDER, lambda folder: write_base(recipe, folder))


def split_settings(settings: Sequence[str]) -> tuple[list[str], OutOfFold | None]:
    """The settings of the recipe, and the out-of-fold scores that the others ask for.

    Raises:
        ConfigError: a setting of the scores is unknown or out of range.
    """
    others = [setting for setting in settings if not setting.startswith(SCORES_PART)]
    own = [setting.removeprefix(SCORES_PART) for setting in settings if setting not in others]
    try:
        scores = OutOfFold(**({"pairs": 0} | parse_settings(own)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"--set {SCORES_PART}{place}={first.get('input')!r}: {first['msg'].lower()}"
        ) from error
    return others, scores if scores.pairs else None


def say(text: str) -> None:
    """Print a line at once: a run takes hours."""
    print(text, file=sys.stderr, flush=True)


# --- the command line


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("--base", choices=[*DEMO_SETTINGS, "tiny"], required=True)
    parser.add_argument("--seed", type=int, action="append", help="repeat; by default 0")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=METHOD[:KEY=VALUE]")
    parser.add_argument("--variants", type=Path, metavar="FILE", help="TOML, a table for each")
    parser.add_argument("--work", type=Path, required=True, help="folder of models and answers")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--size", type=Size, choices=list(Size), action="append", help="repeat")
    parser.add_argument("--fold", type=int, choices=range(1, FOLDS + 1), action="append")
    parser.add_argument("--single", type=int, default=20, help="single users of each fold")
    parser.add_argument("--retrained", type=int, default=2, help="retrained models of each fold")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--report-only", action="store_true", help="of what is finished")
    arguments = parser.parse_args(words)
    if arguments.retrained < 1:
        parser.error("--retrained: memory is measured against one retrained model at least")
    if arguments.single < 0:
        parser.error("--single: no fewer than 0 users can be forgotten one by one")
    # In the order of the plan, whatever the order of the options.
    arguments.size = [size for size in Size if not arguments.size or size in arguments.size]
    arguments.seed = arguments.seed or [0]
    arguments.fold = arguments.fold or list(range(1, FOLDS + 1))
    return arguments


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments; make, measure and write, seed by seed."""
    arguments: Any = options(words)
    failures = 0
    try:
        with signals_as_interrupt():
            for seed in arguments.seed:
                failures += run_seed(arguments.base, seed, arguments)
    except E2URecError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted: the same command goes on with what is finished")
        sys.exit(130)
    if failures:
        say(f"error: {failures} steps failed; the figures are of the others")
        sys.exit(1)


if __name__ == "__main__":
    main()
