"""Write the reference pages from the code: commands, recipes, methods, Python names.

    python docs/generate.py

A test (`tests/unit/test_docs.py`) holds the committed pages to what this prints.
"""

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.models import ArgumentInfo

import e2urec
from e2urec.cli import app
from e2urec.experiments.recipe import Recipe
from e2urec.report.method_table import method_table

REFERENCE = Path(__file__).parent / "reference"
NOTICE = "<!-- Written by docs/generate.py; change the code, not this page. -->\n"

COMMANDS = f"""\
{NOTICE}
# Command line

Every command explains itself with `--help`. Exit status:

| status | meaning |
|---|---|
| 0 | done |
| 1 | a bug in e2urec, or a comparison in which some cells could not be made |
| 2 | the input or the request is wrong; one line says what, where, and what to do |
| 3 | `evaluate --gate`: the verdict is not PASS |
| 130 | interrupted |

`--json` prints one JSON object on standard output. Progress goes to standard error: bars on a
terminal, plain lines elsewhere.
"""

RECIPES = f"""\
{NOTICE}
# Recipes

A recipe is a TOML file with every setting that a result depends on. All keys are optional. A file
is given with `--recipe FILE`, or as the argument of `e2urec compare`; a single setting is given
with `--set part.key=value`, such as `--set data.rows=3000`. `none` takes a value away. An unknown
key is refused, with the nearest known one.

The folder `recipes/` of the repository has complete examples.
"""

METHODS = f"""\
{NOTICE}
# Methods and their settings

`e2urec unlearn RUN --method NAME` chooses the method, `--preset NAME` one of its presets, and
`--set key=value` a single setting; nested ones are written as `--set lora.rank=8`.
[A comparison of methods](../how-to/compare-methods.md) shows how to weigh them against each other.
"""

PYTHON = f"""\
{NOTICE}
# Python

These names can be imported from `e2urec`. [From Python](../how-to/python.md) shows them at work.
"""

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "none",
}


def pages() -> dict[Path, str]:
    """Each generated page by its path."""
    return {
        REFERENCE / "command-line.md": "\n".join([COMMANDS, *_commands()]),
        REFERENCE / "recipes.md": "\n".join([RECIPES, *_recipe()]),
        REFERENCE / "methods.md": f"{METHODS}\n{_without_introduction(method_table())}",
        REFERENCE / "python.md": "\n".join([PYTHON, *_public_names()]),
    }


# --- the command line ---


def _commands() -> Iterator[str]:
    for name, function in commands().items():
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        rows = [_parameter(parameter, hints[parameter.name]) for parameter in parameters]
        arguments = [row[0].strip("`") for row in rows if not row[0].startswith("`-")]
        usage = " ".join(["e2urec", name, *arguments, "[OPTIONS]"])
        yield f"## `e2urec {name}`\n\n{inspect.cleandoc(function.__doc__ or '')}\n"
        yield f"```text\n{usage}\n```\n"
        yield _table(("argument or option", "default", "meaning"), rows)


def commands() -> dict[str, Callable[..., None]]:
    """Each command of the Typer app by its name."""
    return {
        command.name or command.callback.__name__: command.callback
        for command in app.registered_commands
        if command.callback is not None
    }


def _parameter(parameter: inspect.Parameter, hint: Any) -> tuple[str, str, str]:
    kind, info = typing.get_args(hint)
    value = "required" if parameter.default is inspect.Parameter.empty else ""
    if parameter.default not in (inspect.Parameter.empty, None, False):
        value = f"`{parameter.default}`"
    # Typer derives the name of an option from the parameter's where none is declared.
    declared = [info.default, *(info.param_decls or ())]
    flags = [flag for flag in declared if isinstance(flag, str) and flag.startswith("-")]
    flags = flags or [f"--{parameter.name.replace('_', '-')}"]
    if isinstance(info, ArgumentInfo):
        name = f"`{info.metavar or parameter.name.upper()}`"
    elif kind is bool:
        name = f"`{flags[0]}`"
    else:
        name = f"`{flags[0]}` {info.metavar or _metavar(kind)}"
    if typing.get_origin(_options(kind)[0]) is list and not isinstance(info, ArgumentInfo):
        name += " (repeatable)"
    return name, value, _cell(info.help or "")


def _metavar(kind: Any) -> str:
    option = _options(kind)[0]
    if typing.get_origin(option) is list:
        option = typing.get_args(option)[0]
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in typing.get_args(option))
    return {Path: "PATH", int: "N", float: "X"}.get(option, "TEXT")


# --- recipes ---


def _recipe() -> Iterator[str]:
    return _part(Recipe, [], Recipe(), "For the run as a whole.")


def _part(model: type[BaseModel], path: list[str], values: BaseModel, text: str) -> Iterator[str]:
    """A section for the keys of `model`, with the defaults in `values`; then its parts."""
    parts: list[tuple[str, type[BaseModel], FieldInfo]] = []
    rows = []
    for key, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        is_request = inner is not None and inner.__name__ == "RequestRecipe" and bool(path)
        if inner is not None and not is_request:
            parts.append((key, inner, field))
        if inner is None or is_request or not _is_part(field.annotation):
            default = _default(getattr(values, key))
            rows.append((f"`{key}`", _kind(field), default, _meaning(field, [*path, key])))
    title = f"`[{'.'.join(path)}]`" if path else "Keys outside all parts"
    yield f"## {title}\n\n{text}\n"
    if rows:
        yield _table(("key", "value", "default", "meaning"), rows)
    for key, inner, field in parts:
        default = getattr(values, key)
        about = _sentence(field.description or inspect.cleandoc(inner.__doc__ or ""))
        yield from _part(inner, [*path, key], inner() if default is None else default, about)


def _meaning(field: FieldInfo, path: list[str]) -> str:
    inner = _model_in(field.annotation)
    text = _cell(field.description or "")
    if inner is None or text:
        return text
    return f"see `[{'.'.join(path)}]`"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", ":")) else f"{text}."


def _options(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone; `Annotated` is taken off."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [option for each in typing.get_args(annotation) for option in _options(each)]
    return [annotation]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for option in _options(annotation):
        candidates = [option, *typing.get_args(option)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                return candidate
    return None


def _is_part(annotation: Any) -> bool:
    """Whether it is a part that is always there, and so only a section of its own."""
    return all(isinstance(option, type) for option in _options(annotation)) and (
        type(None) not in _options(annotation)
    )


def _kind(field: FieldInfo) -> str:
    words = " or ".join(dict.fromkeys(_word(option) for option in _options(field.annotation)))
    bounds = [
        # A no-break space: "< 1" must not be torn apart at the end of a line.
        f"{sign}\u00a0{getattr(entry, name):g}"
        for entry in field.metadata
        for name, sign in BOUNDS.items()
        if getattr(entry, name, None) is not None
    ]
    return _cell(", ".join([words, *bounds]))


def _word(option: Any) -> str:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_plural(arguments[0])}"
    if origin is dict or option is dict:
        return "table"
    if isinstance(option, type) and issubclass(option, BaseModel):
        return "table like `[request]`" if option.__name__ == "RequestRecipe" else "table"
    return WORDS.get(option, "text")


def _plural(option: Any) -> str:
    word = _word(option)
    return word if word == "text" else re.sub("^(table|whole number|number)", r"\1s", word)


def _default(value: Any) -> str:
    if value in ((), {}):
        return "empty"
    if value is None:
        return "none"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A value as a recipe would give it; of a part, what differs from its own defaults."""
    if isinstance(value, BaseModel):
        keys = value.model_dump(exclude_defaults=True).items()
        inside = ", ".join(f"{key} = {_toml(item)}" for key, item in keys)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- methods and names ---


def _without_introduction(page: str) -> str:
    """The page without its heading and the paragraph that says how it was made."""
    page = re.sub(r"\A# .*\n+", "", page)
    return re.sub(r"\AMade by .*?\n\n", "", page, flags=re.S)


def _public_names() -> Iterator[str]:
    names = {name: getattr(e2urec, name) for name in sorted(e2urec.__all__)}
    groups: dict[str, Callable[[Any], bool]] = {
        "What you can do": inspect.isfunction,
        "Errors": lambda value: inspect.isclass(value) and issubclass(value, Exception),
        "What you give and get": inspect.isclass,
        "Constants": lambda value: True,
    }
    for title, belongs in groups.items():
        members = [name for name, value in names.items() if belongs(value)]
        if members:
            yield f"## {title}\n"
        for name in members:
            yield f"::: {_place(names.pop(name), name)}\n"


def _place(value: Any, name: str) -> str:
    """Where a name is defined: docstrings are looked up there."""
    module = getattr(value, "__module__", None) or "e2urec"
    if not hasattr(importlib.import_module(module), name):
        return f"e2urec.{name}"
    return f"{module}.{name}"


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
