"""Settings that take memory away, in the order of how little else they change."""

import bisect
import json
from collections.abc import Callable, Sequence
from typing import Any

from ...core.errors import ConfigError
from ..recipe import Recipe, method_of

Lever = tuple[str, object]
"""Key and value of a setting; of one that has parts, those that are set."""
Settings = dict[str, object]
"""Values by key."""
# A batch of half as many rows, down to a single one.
BATCH_SIZES = (8, 4, 2, 1)
TUNING = "tuning.schedule.batch_size"
METHOD = "method.batch_size"
# The step stays the same within rounding.
SAME_STEP = (
    *[("tuning.schedule.micro_batch", size) for size in BATCH_SIZES],
    ("tuning.schedule.gradient_checkpointing", True),
)
QUANTISATION = (("model.quantize", "8bit"), ("model.quantize", "4bit"))
WINDOW = (("model.window", 256), ("model.window", 128))
# The recipe's settings by command. Those of a method come first in unlearn: they change no model
# that is there already.
LEVERS: dict[str, tuple[Lever, ...]] = {
    "train": (
        *SAME_STEP,
        *[(TUNING, size) for size in BATCH_SIZES],
        ("tuning.embeddings", False),
        ("tuning.lora.rank", 16),
        *QUANTISATION,
        *WINDOW,
    ),
    "unlearn": (
        *SAME_STEP,
        ("method.solving", {"memory_gb": 1.0}),
        ("method.speed", {"together": "batch"}),
        *[(METHOD, size) for size in BATCH_SIZES],
        ("tuning.lora.rank", 16),
        *QUANTISATION,
        *WINDOW,
    ),
    "evaluate": (
        *SAME_STEP,
        *[(METHOD, size) for size in BATCH_SIZES],
        ("tuning.lora.rank", 16),
        *QUANTISATION,
        *WINDOW,
    ),
}
"""Settings to try for each command, one after another and each on top of those before."""


def levers_of(command: str, *, is_fixed: bool, is_unpacked: bool = False) -> Sequence[Lever]:
    """The settings to try for a command.

    Args:
        command: its name.
        is_fixed: whether its model is there already, so that those of its method alone are left.
        is_unpacked: whether its base comes out of a GGUF file, and is not packed again.
    """
    levers = LEVERS[command]
    if is_unpacked:
        levers = tuple(lever for lever in levers if lever not in QUANTISATION)
    if is_fixed:
        return [lever for lever in levers if lever[0].startswith("method.")]
    return levers


def search_remedy(
    levers: Sequence[Lever], recipe: Recipe, fits: Callable[[Recipe], bool]
) -> tuple[str, ...]:
    """Settings by which a command would fit, without those that it can do without.

    Args:
        levers: settings to try, one after another and each on top of those before.
        recipe: by which it does not fit.
        fits: whether it does by another recipe.

    Returns:
        The settings as `--set` takes them; none where all of them are not enough.
    """
    prefixes = _prefixes(levers, recipe)
    # Each makes it smaller, so the first that does it is found by halving.
    place = bisect.bisect_left(prefixes, True, key=lambda trial: fits(trial[1]))
    if place == len(prefixes):
        return ()
    settings, _ = prefixes[place]
    return _without_surplus(recipe, settings, fits)


def _prefixes(levers: Sequence[Lever], recipe: Recipe) -> list[tuple[Settings, Recipe]]:
    """The first of `levers`, the first two, and so on, each with the recipe that they make."""
    prefixes = []
    settings: Settings = {}
    for key, value in levers:
        trial = settings | {key: value}
        changed = _changed(recipe, trial) if _lowers(recipe, key, value) else None
        if changed is not None:
            settings = trial
            prefixes.append((settings, changed))
    return prefixes


def _without_surplus(
    recipe: Recipe, settings: Settings, fits: Callable[[Recipe], bool]
) -> tuple[str, ...]:
    """Those of `settings` without which it would not fit, the first ones left out first."""
    for key in list(settings):
        fewer = {name: value for name, value in settings.items() if name != key}
        changed = _changed(recipe, fewer)
        if changed is not None and fits(changed):
            settings = fewer
    return _as_words(recipe, settings)


def _lowers(recipe: Recipe, key: str, value: object) -> bool:
    """Whether a number would be lower than it is; what is no number may help in any case."""
    part, *path = key.split(".")
    current: Any = method_of(recipe) if part == "method" else getattr(recipe, part)
    for name in path:
        current = getattr(current, name, None)
    if isinstance(value, dict):
        return any(_is_lower(new, getattr(current, name, None)) for name, new in value.items())
    return _is_lower(value, current)


def _is_lower(value: Any, current: Any) -> bool:
    # True is a number to Python.
    if type(current) is type(value) and type(value) in (int, float):
        return bool(value < current)
    return bool(current != value)


def _changed(recipe: Recipe, settings: Settings) -> Recipe | None:
    """The recipe with settings; None where they are no settings of it, or change nothing."""
    try:
        changed = recipe.updated(_as_words(recipe, settings))
        method_of(changed)
    except ConfigError:
        return None
    return None if changed == recipe else changed


def _as_words(recipe: Recipe, settings: Settings) -> tuple[str, ...]:
    return tuple(f"{key}={_as_word(recipe, key, value)}" for key, value in settings.items())


def _as_word(recipe: Recipe, key: str, value: object) -> str:
    """A value as TOML has it; parts of a method's setting stand beside those of the recipe."""
    if not isinstance(value, dict):
        return str(value).lower()
    own = recipe.method.settings.get(key.removeprefix("method."), {})
    parts = [f"{name}={json.dumps(part)}" for name, part in (own | value).items()]
    return "{" + ", ".join(parts) + "}"
