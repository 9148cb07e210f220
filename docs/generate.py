"""Write the reference pages from the code: commands, recipes, methods, Python names.

    python docs/generate.py

A test (`tests/unit/test_docs.py`) holds the committed pages to what this prints.
"""

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from page_parts import cell, options, table
from recipe_page import recipe_sections
from typer.models import ArgumentInfo

import e2urec
import e2urec.cli
from e2urec.cli.app import app
from e2urec.report.method_table import method_table

# The list of families is that of their tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
FAMILIES = importlib.import_module("families").FAMILIES
REFERENCE = Path(__file__).parent / "reference"
# What stands for a value of each kind.
METAVARS = {Path: "PATH", int: "N", float: "X"}
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

MODELS = f"""\
{NOTICE}
# Families of models

Any causal or sequence-to-sequence language model of Hugging Face may serve. These families are
tested, each as a tiny model with random weights: scores are those of the plain forward pass, an
adapter learns the same with and without each shortcut, only the adapter moves, and what is saved
scores the same with PEFT alone. `make families` runs the tests.

Every shortcut is compared with the plain forward pass when a model is loaded. Where it gives other
logits, it is done without, and one sentence says so. A model that changes its logits in a way that
its config does not tell is refused.

*Query and value* says whether the default adapters (`tuning.lora.targets=attention`, and
`lora.targets` of a method) fit; the others take `all`. *Cached* says whether what the blocks below
the adapters compute is computed once for each row, if adapters are on the upper blocks
(`lora.upper` below 1). It is not where upper blocks read keys and values of lower ones.

With `all`, the weights of routed experts get no adapter, since they are no linear layers. Some
further layers get none because PEFT's adapters would not work there: shared experts of DeepSeek and
Qwen 3 Next, and Mamba's `out_proj` and `dt_proj`. The command says how many.
"""

PYTHON = f"""\
{NOTICE}
# Python

These names can be imported from `e2urec`. [From Python](../how-to/python.md) shows them at work.
"""


def pages() -> dict[Path, str]:
    """Each generated page by its path."""
    sections = {
        "command-line.md": [COMMANDS, *_commands()],
        "recipes.md": [RECIPES, *recipe_sections()],
        "methods.md": [METHODS, method_table()],
        "models.md": [MODELS, _families()],
        "python.md": [PYTHON, *_public_names()],
    }
    texts = {}
    for name, parts in sections.items():
        path = REFERENCE / name
        texts[path] = "\n".join(parts)
    return texts


def _families() -> str:
    rows = []
    for family in FAMILIES:
        row = (
            cell(family.name),
            f"`{family.model_type}`",
            "yes" if family.attention else "no",
            "yes" if family.replay else "no",
        )
        rows.append(row)
    return table(("family", "type in Transformers", "query and value", "cached"), rows)


# --- the command line ---


def _commands() -> Iterator[str]:
    for name, function in commands().items():
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        rows = []
        arguments = []
        for parameter in signature.parameters.values():
            hint = hints[parameter.name]
            row = _parameter(parameter, hint)
            rows.append(row)
            title = row[0].strip("`")
            if not title.startswith("-"):
                arguments.append(title)
        words = ["e2urec", name, *arguments, "[OPTIONS]"]
        usage = " ".join(words)
        text = inspect.getdoc(function) or ""
        yield f"## `e2urec {name}`\n\n{text}\n"
        yield f"```text\n{usage}\n```\n"
        yield table(("argument or option", "default", "meaning"), rows)


def commands() -> dict[str, Callable[..., None]]:
    """Each command of the Typer app by its name."""
    functions = {}
    for command in app.registered_commands:
        function = command.callback
        if function is not None:
            name = command.name or function.__name__
            functions[name] = function
    return functions


def _parameter(parameter: inspect.Parameter, hint: Any) -> tuple[str, str, str]:
    kind, info = typing.get_args(hint)
    if isinstance(info, ArgumentInfo):
        argument = info.metavar or parameter.name.upper()
        name = f"`{argument}`"
    else:
        name = _option(parameter.name, kind, info)
    default = _parameter_default(parameter.default)
    meaning = cell(info.help or "")
    return name, default, meaning


def _option(parameter: str, kind: Any, info: Any) -> str:
    # Typer derives the name from the parameter's where none is declared.
    flag = "--" + parameter.replace("_", "-")
    # In an annotation, the first name of an option stands where its default would.
    declarations = [info.default, *(info.param_decls or ())]
    for declaration in reversed(declarations):
        if isinstance(declaration, str) and declaration.startswith("-"):
            flag = declaration
    if kind is bool:
        return f"`{flag}`"
    metavar = info.metavar or _metavar(kind)
    name = f"`{flag}` {metavar}"
    option = options(kind)[0]
    is_list = typing.get_origin(option) is list
    return f"{name} (repeatable)" if is_list else name


def _parameter_default(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    return "" if default in (None, False) else f"`{default}`"


def _metavar(kind: Any) -> str:
    option = options(kind)[0]
    if typing.get_origin(option) is list:
        option = typing.get_args(option)[0]
    if typing.get_origin(option) is typing.Literal:
        choices = [f"`{choice}`" for choice in typing.get_args(option)]
        return " or ".join(choices)
    return METAVARS.get(option, "TEXT")


# --- methods and names ---


def _public_names() -> Iterator[str]:
    names = {}
    for name in sorted(e2urec.__all__):
        names[name] = getattr(e2urec, name)
    # The order decides: an error is a class as well, and stands among the errors only.
    groups: dict[str, Callable[[Any], bool]] = {
        "What you can do": inspect.isfunction,
        "Errors": _is_error,
        "What you give and get": inspect.isclass,
        "Constants": lambda value: True,
    }
    for title, belongs in groups.items():
        members = [name for name, value in names.items() if belongs(value)]
        if members:
            yield f"## {title}\n"
        for name in members:
            value = names.pop(name)
            place = _place(value, name)
            yield f"::: {place}\n"


def _is_error(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def _place(value: Any, name: str) -> str:
    """Where a name is defined: docstrings are looked up there."""
    module_name = getattr(value, "__module__", None) or "e2urec"
    module = importlib.import_module(module_name)
    if hasattr(module, name):
        return f"{module_name}.{name}"
    return f"e2urec.{name}"


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
