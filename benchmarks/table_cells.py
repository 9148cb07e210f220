"""The figures of a finished comparison as small files, one for each seed and request.

    python benchmarks/table_cells.py FOLDER --recipe recipes/table-movielens.toml

FOLDER is what `e2urec compare` wrote. The recipe is the one that it was started with; settings that
were changed on the command line are found and noted. `docs/results/table-movielens/` gets one file
for each seed and request, with figures only: no user, no row, no model. `table_report.py` makes the
page of them. Seeds and requests may come from several comparisons. Where methods were measured
again by their rows' commands, `--rows` puts these rows into the cells that are there.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import option_parser
from e2urec.core.errors import DataError, E2URecError
from e2urec.experiments.recipe import Recipe
from e2urec.runs.files import write_json
from e2urec.runs.folder import Run, open_run
from e2urec.runs.record import RESULTS
from pooled_files import flat_settings, plain_names
from report_parts import machine_name

FOLDER = Path("docs/results")
PAIRED = "paired_difference_"
KEPT = (
    *("memory_", "alignment_", "retained_memory_", "utility_", "forget_set_", "projection_"),
    *("distance_js", "membership_loss_auc", PAIRED, "headroom_", "noise_floor_js"),
)
"""How the names of figures begin that a cell keeps; slices and single users are none of them."""
OURS = "e2urec"
SHARED = ("original", "retrained-")
# What a repeated row sets itself, or has no part in: nothing is chosen a second time.
OF_THE_ROW = ("methods", "seeds", "requests", "trials", "settings", "development", "tolerance")

Values = Mapping[str, Any]


# --- what a comparison says


def read_comparison(folder: Path) -> tuple[Run, Values]:
    """A finished comparison: its record and its results; raises E2URecError where it is none."""
    run = open_run(folder)
    if run.record.kind != "comparison":
        raise DataError(f"'{folder}': is no comparison ({run.record.kind}); name one's folder")
    if not run.record.recipe["retrained"]:
        raise DataError(f"'{folder}': has no retrained model; compare with retrained = 1 or more")
    results = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    return run, results


def machines_of(results: Values, said: str | None) -> list[str]:
    """Where the comparison ran; `said` is for one whose version did not note it."""
    noted = [machine_name(machine) for machine in results.get("machines", [])]
    if noted and said is not None:
        raise DataError(
            f"--machine: the comparison ran on {'; '.join(noted)}; leave the option out"
        )
    return noted or ([said] if said is not None else [])


def models_of(results: Values, seed: int, number: int) -> dict[str, Values]:
    """Figures, verdict, cost and settings of each model of a seed and request."""
    models: dict[str, Values] = {}
    for cell in results["cells"]:
        if (cell["seed"], cell["request"]) != (seed, number):
            continue
        name = cell["model"]
        values = {key: cell[key] for key in ("verdict", "cost", "outcome") if key in cell}
        values["figures"] = told_figures(cell["figures"])
        if name in results["settings"]:
            values["chosen"] = results["settings"][name]
            values["exact"] = name in results["exact"]
            trials = [trial for trial in results["trials"] if trial["method"] == name]
            values["trials"] = trials
        models[name] = values
    return models


def told_figures(figures: Values) -> dict[str, Any]:
    """The figures that a cell keeps."""
    return {name: figure for name, figure in figures.items() if name.startswith(KEPT)}


def shared_figures(results: Values, seed: int, number: int) -> dict[str, Any]:
    """The figures of no single model: headroom, noise floor and the like."""
    for entry in results.get("shared", []):
        if (entry["seed"], entry["request"]) == (seed, number):
            return told_figures(entry["figures"])
    return {}


# --- commands


def request_values(request: Values) -> dict[str, Any]:
    """What tells a request of a recipe from others, in short."""
    size = "ratio" if request["singles"] is None else "singles"
    values = {size: request[size]}
    if request["unit"] != "users":
        values["unit"] = request["unit"]
    if request["pick"] == "random":
        return values | {"seed": request["seed"]}
    return values | {"pick": request["pick"]}


def request_name(request: Values) -> str:
    """`ratio-0.2-seed-42`, `ratio-0.04-most-memorised`: the name of a cell's file."""
    words = []
    for key, value in request_values(request).items():
        words += [str(value)] if key in ("pick", "unit") else [key, str(value)]
    return "-".join(words).replace(" ", "-")


def toml_text(value: Any) -> str:
    """A value as `--set` reads it."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        items = [f"{key} = {toml_text(item)}" for key, item in value.items()]
        return f"{{{', '.join(items)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_text(item) for item in value)}]"
    return json.dumps(value)


def changes(recipe: Values, file: Values) -> dict[str, Any]:
    """The settings in which a comparison's recipe differs from the file's, by name."""
    here, there = _settings(recipe), _settings(file)
    return {key: value for key, value in here.items() if value != there.get(key)}


def _settings(recipe: Values) -> dict[str, Any]:
    """Settings by name; those of `compare` one by one, whatever they hold."""
    values = plain_names(recipe)
    compare = values.pop("compare")
    return flat_settings(values) | {f"compare.{key}": value for key, value in compare.items()}


def command(path: str, settings: Values) -> str:
    """`e2urec compare` of a recipe with some settings."""
    words = ["e2urec", "compare", path, "--out", "again"]
    for key, value in settings.items():
        words += ["--set", f"{key}={toml_text(value)}"]
    return shlex.join(words)


def row_command(path: str, changed: Values, recipe: Values, cell: Values, method: str) -> str:
    """The command that makes one row of the table again, with the settings that were chosen."""
    seeds = [cell["seed"]]
    # Whom the first seed's original remembers most only that original can say.
    first = recipe["compare"]["seeds"][0]
    if cell["request"]["pick"] != "random" and first not in seeds:
        seeds = [first, *seeds]
    others = {
        key: value
        for key, value in changed.items()
        if key.removeprefix("compare.") not in OF_THE_ROW
    }
    settings = {
        **others,
        "compare.methods": [method],
        "compare.seeds": seeds,
        "compare.requests": [request_values(cell["request"])],
        "compare.trials": 1,
        f"compare.settings.{method}": cell["models"][method]["chosen"],
    }
    return command(path, settings)


# --- cells


def cells_of(run: Run, results: Values, file: Path, machines: Sequence[str]) -> list[Values]:
    """A cell for each seed and request."""
    recipe = run.record.recipe
    path = f"recipes/{file.name}"
    changed = changes(recipe, Recipe.load(file).model_dump(mode="json"))
    seconds = results.get("seconds")
    shared = {
        "table": file.stem,
        "recipe": plain_names(recipe),
        "command": command(path, changed),
        "machines": list(machines),
        "versions": run.record.versions,
        "hours": None if seconds is None else seconds / 3600,
        "first_seed": recipe["compare"]["seeds"][0],
    }
    cells: list[Values] = []
    for number, request in enumerate(recipe["compare"]["requests"], start=1):
        for seed in recipe["compare"]["seeds"]:
            cell: dict[str, Any] = shared | {
                "seed": seed,
                "request": request,
                "request_words": results["requests"][str(number)],
                "rows": results["rows"][str(number)],
                "control_test_auc": results["control_test_auc"][str(number)],
                "figures": shared_figures(results, seed, number),
                "models": models_of(results, seed, number),
                "failed": failures(results, seed, number),
            }
            for method in results["settings"]:
                if method in cell["models"]:
                    row = row_command(path, changed, recipe, cell, method)
                    cell["models"][method]["repeat"] = row
            cells.append(cell)
    return cells


def failures(results: Values, seed: int, number: int) -> dict[str, str]:
    """Why models of a seed and request could not be made."""
    start = f"seed-{seed}/request-{number}/"
    failed = results["failed"].items()
    return {key.removeprefix(start): why for key, why in failed if key.startswith(start)}


def with_rows(before: Values, cell: Values) -> dict[str, Any]:
    """A fuller cell, in which the methods of `cell` have the rows that it has of them.

    Such a row notes where it was measured. Differences to e2urec are of answers that are not at
    hand any more, so they go where it is among these methods.

    Raises:
        DataError: the two are of other originals, retrained models or settings.
    """
    models: dict[str, dict[str, Any]] = {}
    for name, model in before["models"].items():
        models[name] = dict(model)
    methods = [name for name, model in cell["models"].items() if "chosen" in model]
    for name, model in cell["models"].items():
        known = models.get(name, {})
        if name in methods:
            if known.get("chosen") != model["chosen"]:
                raise DataError(f"--rows: {name} has other settings than those that were chosen")
            # How its settings were chosen stays as it was.
            place = {key: cell[key] for key in ("machines", "versions", "hours")}
            models[name] = {**model, "trials": known["trials"], "again": place}
        elif name.startswith(SHARED) and known.get("figures") != model["figures"]:
            raise DataError(f"--rows: {name} is another than that of the cell")
    if OURS in methods:
        for model in models.values():
            figures = model["figures"].items()
            model["figures"] = {key: value for key, value in figures if not key.startswith(PAIRED)}
    return {**before, "models": models}


def write_cell(cell: Values, out: Path, *, rows: bool = False) -> Path:
    """Write a cell, or its rows into the one that is there; raises DataError for a fuller one."""
    name = request_name(cell["request"])
    path: Path = out / cell["table"] / f"seed-{cell['seed']}" / f"{name}.json"
    if rows and not path.is_file():
        raise DataError(f"--rows: '{path}' is not there; leave the option out")
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        lost = [model for model in before["models"] if model not in cell["models"]]
        if rows:
            cell = with_rows(before, cell)
        elif lost:
            raise DataError(
                f"'{path}': has {', '.join(lost)}, which this comparison lacks; add --rows, give "
                "--out another folder, or remove the file"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, cell)
    return path


# --- the command line


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("folder", type=Path, help="of a finished comparison")
    parser.add_argument("--recipe", type=Path, required=True, help="that it was started with")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of all cells")
    parser.add_argument("--rows", action="store_true", help="into the cells that are there")
    parser.add_argument("--machine", metavar="TEXT", help="where it ran, if it does not say")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments; write the cells."""
    arguments = options(words)
    try:
        run, results = read_comparison(arguments.folder)
        machines = machines_of(results, arguments.machine)
        cells = cells_of(run, results, arguments.recipe, machines)
        for cell in cells:
            print(f"wrote {write_cell(cell, arguments.out, rows=arguments.rows)}")
    except E2URecError as error:
        raise SystemExit(f"error: {error}") from error
    if not machines:
        print("note: the comparison does not say on which machine it ran; --machine adds it")
    if results.get("seconds") is None:
        print("note: the comparison does not say how long it took")
    if OURS in results["settings"] and not has_pairs(cells):
        print("note: the comparison has no paired differences, so nothing is called better by it")


def has_pairs(cells: Sequence[Values]) -> bool:
    """Whether some model was compared with e2urec row by row."""
    for cell in cells:
        for model in cell["models"].values():
            if f"{PAIRED}memory_distance" in model["figures"]:
                return True
    return False


if __name__ == "__main__":
    main()
