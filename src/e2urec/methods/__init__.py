"""Finds the methods: every file of this folder, and what other packages register.

A new file here needs no other edit. Another package joins with an entry point of the group
`e2urec.methods` that names a subclass of `Method`.
"""

import importlib
import itertools
import pkgutil
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ValidationError

from ..core.errors import ConfigError, did_you_mean
from ..unlearning.method import Method

GROUP = "e2urec.methods"


def all_methods() -> dict[str, type[Method]]:
    """All methods, sorted by name: those of this folder, and those of other packages.

    One line of warning names an entry point that cannot be used, and a name that is taken.
    """
    # Read anew at each call: a package may be installed, or a file added, while a session runs.
    methods: dict[str, type[Method]] = {}
    # Ours come first, so that no installed package can take the place of a built-in method.
    for method in itertools.chain(_built_in_methods(), _registered_methods()):
        owner = methods.setdefault(method.name, method)
        if owner is not method:
            _warn(
                f"method '{method.name}' of {method.__module__} is left out: {owner.__module__} "
                "has one of that name; rename it"
            )
    return dict(sorted(methods.items()))


def _built_in_methods() -> Iterator[type[Method]]:
    """The methods of the modules in this folder; a module that cannot be imported is a bug."""
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            # A module also holds what it imports, so a class counts only where it is defined.
            if _is_method(value) and value.__module__ == module.__name__:
                yield value


def _registered_methods() -> Iterator[type[Method]]:
    """The methods that other packages register."""
    for entry_point in metadata.entry_points(group=GROUP):
        try:
            method = entry_point.load()
        # Whatever goes wrong in a package of somebody else must not stop the other methods.
        except Exception as error:
            _warn_of_entry_point(entry_point, f"{type(error).__name__}: {error}")
            continue
        if _is_method(method):
            yield method
        else:
            reason = "it is not a subclass of Method with a name of its own"
            _warn_of_entry_point(entry_point, reason)


def _is_method(value: object) -> bool:
    """Whether `value` is a method: a subclass of `Method` that says what it is called."""
    return isinstance(value, type) and issubclass(value, Method) and "name" in vars(value)


def _warn_of_entry_point(entry_point: metadata.EntryPoint, reason: str) -> None:
    _warn(
        f"entry point '{entry_point.name} = {entry_point.value}' of {GROUP} is left out: {reason}; "
        "repair or uninstall the package that registers it"
    )


def _warn(text: str) -> None:
    # The message of somebody else's error may run over many lines.
    line = " ".join(text.split())
    # The place is this one, not the caller's: Python then shows the line once, however many call.
    warnings.warn(line, stacklevel=1)


def build(name: str, settings: Mapping[str, Any] | None = None, preset: str = "default") -> Method:
    """Return method `name` with a preset's settings and then `settings` on top, part by part.

    Raises:
        ConfigError: unknown method, preset or setting, or a value out of range.
    """
    method = _method_type(name)
    values = _preset_values(method, preset)
    for key, value in (settings or {}).items():
        default = _default_of(method, key)
        values[key] = _merge(values.get(key, default), value)
    try:
        return method(**values)
    except ValidationError as error:
        # One line names one remedy: the first error is enough to go on with.
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"method '{name}': {place}={first.get('input')!r}: {first['msg']}"
        ) from error


def rebuild(name: str, settings: Mapping[str, Any]) -> Method:
    """Return method `name` as a record has it, perhaps one of an older version.

    Raises:
        ConfigError: as `build` does.
    """
    return build(name, _method_type(name).readable(settings))


def suited_preset(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    has_scores: bool,
    has_strangers: bool = True,
) -> str:
    """The preset that method `name` takes where the user names none.

    Args:
        name: of the method.
        settings: on top of the preset.
        has_scores: whether the rows of the request have out-of-fold scores.
        has_strangers: whether there are calibration users.

    Raises:
        ConfigError: there is no such method.
    """
    return _method_type(name).suited_preset(
        settings or {}, has_scores=has_scores, has_strangers=has_strangers
    )


def _method_type(name: str) -> type[Method]:
    methods = all_methods()
    if name not in methods:
        raise ConfigError(f"unknown method '{name}'{did_you_mean(name, list(methods))}")
    return methods[name]


def _preset_values(method: type[Method], preset: str) -> dict[str, Any]:
    """A copy of the settings of `preset`; the default preset changes none."""
    presets = {"default": {}, **method.presets}
    if preset not in presets:
        raise ConfigError(
            f"method '{method.name}' has no preset '{preset}'{did_you_mean(preset, list(presets))}"
        )
    return dict(presets[preset])


def _default_of(method: type[Method], key: str) -> Any:
    """The default of setting `key`; ConfigError where the method has no such setting."""
    if key not in method.model_fields:
        fields = list(method.model_fields)
        raise ConfigError(
            f"method '{method.name}' has unknown setting '{key}'{did_you_mean(key, fields)}"
        )
    return method.model_fields[key].default


def _merge(default: Any, value: Any) -> Any:
    """`value`; where it holds some parts of a setting (of `lora`, say), the rest by default."""
    if isinstance(default, BaseModel):
        default = default.model_dump()
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        return {**default, **value}
    return value
