"""The working folder of `requests.py`: a folder for each finished step, and what they hold.

It holds log-odds, labels and codes of users: it is to stay where it was made.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from e2urec.core.arrays import Floats, Ints
from e2urec.core.errors import ConfigError
from e2urec.experiments.recipe import Recipe
from e2urec.runs.files import write_json
from e2urec.runs.machine import this_machine
from e2urec.runs.record import versions

ARRAYS = "arrays.npz"
RECORD = "record.json"
SETTINGS = "settings.json"
MACHINES = "machines.json"
# Folders of a seed, each a step; those of folds and requests say themselves what they are called.
DATA = "data"
ORIGINAL = "original"
ORIGINAL_ANSWERS = "original-answers"
SCORES = "scores"
VARIANTS = "variants"
ROWS = "rows"

ASKED_PARTS = ("train", "test", "valid", "unseen")
"""Parts of the split that the original is asked about."""
DECISIVE_PARTS = ("data", "columns", "model", "tuning", "seed")
"""Parts of a recipe on which the models of a working folder depend."""

Arrays = Mapping[str, Floats | Ints]


def save_step(folder: Path, arrays: Arrays, record: Mapping[str, Any]) -> None:
    """Write the arrays of a step, and what it took."""
    # Typed as Any: NumPy's `savez` has a keyword of its own among the names.
    named: dict[str, Any] = dict(arrays)
    np.savez(folder / ARRAYS, **named)
    write_json(folder / RECORD, record)


def read_arrays(folder: Path) -> dict[str, Any]:
    """The arrays of a finished step."""
    with np.load(folder / ARRAYS) as archive:
        return dict(archive)


def read_record(folder: Path, name: str = RECORD) -> Any:
    """What a finished step took, or another JSON file of a folder."""
    return json.loads((folder / name).read_text(encoding="utf-8"))


def hours_in(folder: Path) -> float:
    """Of all finished steps together, on the clock."""
    seconds = 0.0
    for path in folder.rglob(RECORD):
        seconds += read_record(path.parent).get("wall", 0.0)
    return seconds / 3600


def check_settings(folder: Path, recipe: Recipe, parts: Sequence[str] = DECISIVE_PARTS) -> None:
    """Note the settings that a folder's models depend on: some parts of a recipe.

    Raises:
        ConfigError: the folder has models of other settings.
    """
    values = recipe.model_dump(mode="json")
    settings = plain_names({part: values[part] for part in parts})
    path = folder / SETTINGS
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    before = flat_settings(read_record(folder, SETTINGS))
    after = flat_settings(settings)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            raise ConfigError(
                f"'{folder}': was begun with {key}={before.get(key)}, not {after.get(key)}; give "
                "--work another folder"
            )


def plain_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the names of folders in place of their paths on this machine."""
    plain = dict(settings)
    for part, key in (("data", "source"), ("model", "name")):
        plain[part] = plain[part] | {key: Path(str(plain[part][key])).name}
    return plain


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"data": {"rows": 3}}` → `{"data.rows": 3}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def note_machine(folder: Path) -> None:
    """Add this machine to those that a folder's steps were measured on."""
    # Figures may be made elsewhere: the libraries are those that made the models.
    machine = this_machine() | {"versions": versions()}
    path = folder / MACHINES
    machines = read_record(folder, MACHINES) if path.is_file() else []
    if machine not in machines:
        write_json(path, [*machines, machine])


def retrained_key(number: int) -> str:
    """The folder of a fold's retrained model."""
    return f"retrained-{number}"
