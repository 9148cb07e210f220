"""The page of all methods and their settings, made from the methods themselves."""

import inspect

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..methods import all_methods
from ..unlearning.method import Method

TABLE_HEAD = ["| setting | default | meaning |", "|---|---|---|"]

Places = dict[tuple[str, str], str]
"""(setting, its default as text) → the method whose section lists the parts of that default."""


def method_table() -> str:
    """Markdown: a section a method, a row a setting.

    The parts of a nested setting have rows of their own. Methods that share its default refer to
    the first of them.
    """
    # Filled section by section: which method is the first depends on the order of the names.
    places: Places = {}
    sections = [_section(method, places) for method in all_methods().values()]
    return "\n".join(sections)


def _section(method: type[Method], places: Places) -> str:
    presets = ", ".join(f"`{name}`" for name in ("default", *method.presets))
    rows = []
    for name, field in method.model_fields.items():
        rows += _rows(method.name, name, field, places)
    lines = [
        f"## `{method.name}`",
        "",
        inspect.cleandoc(method.__doc__ or ""),
        "",
        f"Presets: {presets}.",
        "",
        *TABLE_HEAD,
        *rows,
        "",
    ]
    return "\n".join(lines)


def _rows(method: str, name: str, field: FieldInfo, places: Places) -> list[str]:
    """The row of a setting, and those of its parts where this default is the first of its kind."""
    default = field.get_default(call_default_factory=True)
    if not isinstance(default, BaseModel):
        return [_row(name, f"`{default}`", field)]
    first_method = places.setdefault((name, repr(default)), method)
    if first_method != method:
        # Most methods share one adapter and one way to speed: nobody reads eleven rows ten times.
        return [_row(name, f"as in [`{first_method}`](#{first_method})", field)]
    rows = [_row(name, "as follows", field)]
    for part, part_field in type(default).model_fields.items():
        value = getattr(default, part)
        rows.append(_row(f"{name}.{part}", f"`{value}`", part_field))
    return rows


def _row(name: str, default: str, field: FieldInfo) -> str:
    return f"| `{name}` | {default} | {_plain(field.description or '')} |"


def _plain(text: str) -> str:
    """`text` on one line, with the character escaped that would end a cell of the table."""
    line = " ".join(text.split())
    return line.replace("|", "\\|")
