"""Words and tables of generated pages."""

import re
import types
import typing
from typing import Any


def options(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone; `Annotated` is taken off."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation]
    members = []
    for member in typing.get_args(annotation):
        members += options(member)
    return members


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown; nothing where there are no rows."""
    if not rows:
        return ""
    rule = ("---",) * len(titles)
    lines = []
    for line in (titles, rule, *rows):
        inside = " | ".join(line)
        lines.append(f"| {inside} |\n")
    return "".join(lines)


def cell(text: str) -> str:
    """Text that may stand in a cell of a table."""
    # Not `split()`, which takes no-break spaces for spaces.
    line = re.sub(r"[ \t\n]+", " ", text.strip())
    # A bar would end the cell, and an opening bracket would start a tag.
    return line.replace("|", "\\|").replace("<", "&lt;")
