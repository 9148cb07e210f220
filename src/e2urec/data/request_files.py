"""Files that say whom or what to forget: a list of users, a CSV table, or JSON lines."""

import csv
import difflib
import re
from pathlib import Path

from ..core.errors import DataError
from .json_objects import json_object, require_whole_letters
from .text_lines import read_lines

COLUMNS = ("user", "item")
ALIKE = {
    "item": re.compile(r"item|movie|film|book|product|song|track|title|article|asin|isbn|sku|id$"),
    "user": re.compile(r"user|customer|member|account|reviewer|reader|person|client|name|id$"),
}
"""Other names of columns that might mean a user or an item."""
# "itme" is 0.75 like "item", and "time" 0.5.
MISSPELT = 0.7
"""How like `user` or `item` a name is, by difflib, that might be either misspelt."""

Line = tuple[int, str]
"""A line's 1-based number in the file, and its text."""
Pair = tuple[str, str]
"""The ids of a user and an item; an empty one means all users, or all items."""


def read_pairs(path: Path) -> list[Pair]:
    """The (user, item) of every line.

    A file is one user a line, or a CSV or JSON-lines file with the columns `user`, `item` or both,
    and others that are not like them. Only in the plain list does `#` start a comment line: an id
    that begins so can be named in the other two.

    Raises:
        DataError: the file cannot be read, or is no such table.
    """
    place = f"request '{path}'"
    lines = _content_lines(read_lines(path, place, "name a file of users"))
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            return _csv_pairs(lines)
        if suffix in (".jsonl", ".ndjson"):
            return [_json_pair(line, number) for number, line in lines]
    except ValueError as error:
        raise DataError(f"{place} {error}") from error
    return [(line, "") for _, line in lines if not line.startswith("#")]


def _content_lines(all_lines: list[str]) -> list[Line]:
    """The lines that are not blank."""
    lines = []
    for number, line in enumerate(all_lines, start=1):
        content = line.strip()
        if content:
            lines.append((number, content))
    return lines


def _csv_pairs(lines: list[Line]) -> list[Pair]:
    """The pairs of the lines below a header; ValueError names the line that is not like it."""
    if not lines:
        return []
    rows = [(number, _csv_fields(line, number)) for number, line in lines]
    header_number, header = rows[0]
    _check_columns(header, header_number)
    pairs = []
    for number, fields in rows[1:]:
        if len(fields) != len(header):
            raise ValueError(
                f"line {number}: has {len(fields)} fields, the header {len(header)}; "
                "correct the line"
            )
        row = dict(zip(header, fields, strict=True))
        pairs.append(_named_pair(row.get("user", ""), row.get("item", ""), number))
    return pairs


def _named_pair(user: str, item: str, number: int) -> Pair:
    # A line that is passed over might have been meant to name somebody.
    if not user and not item:
        raise ValueError(f"line {number}: names neither a user nor an item; remove the line")
    return user, item


def _csv_fields(line: str, number: int) -> list[str]:
    # Strict, because a quote that is never closed would swallow ids.
    reader = csv.reader([line], strict=True)
    try:
        fields = next(reader)
    except csv.Error as error:
        raise ValueError(f"line {number}: is no CSV ({error}); correct it") from error
    return [field.strip() for field in fields]


def _json_pair(line: str, number: int) -> Pair:
    """The pair of an object, whose ids are texts or whole numbers."""
    try:
        row = json_object(line)
        if "\\u" in line:
            require_whole_letters(value for value in row.values() if isinstance(value, str))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
    _check_columns(list(row), number)
    return _named_pair(_json_id(row.get("user"), number), _json_id(row.get("item"), number), number)


def _json_id(value: object, number: int) -> str:
    if value is None:
        return ""
    # By type, not isinstance: true and false are no ids, though Python counts them as integers.
    if type(value) not in (str, int):
        raise ValueError(
            f"line {number}: holds an id that is neither text nor a whole number; correct it"
        )
    return str(value).strip()


def _check_columns(names: list[str], number: int) -> None:
    """Raise ValueError unless there is a column user or item, and none that might mean either.

    A column that might name the other would be ignored, and single interactions would be taken for
    all of a user or an item. Nor may a second user, as in `user2`, be passed over.
    """
    id_columns = [name for name in names if name in COLUMNS]
    for name in names:
        # Beside a column `user`, one called `User` would be passed over.
        if name not in COLUMNS and name.strip().lower() in COLUMNS:
            raise ValueError(
                f"line {number}: column '{name}' must be '{name.strip().lower()}'; rename it"
            )
    if not id_columns or len(id_columns) > len(set(id_columns)):
        raise ValueError(
            f"line {number}: names no column user or item, each once; add them as the first line"
        )
    missing = set(COLUMNS) - set(id_columns)
    for name in names:
        for column in COLUMNS:
            if name in COLUMNS or not _is_like(name.lower(), column, column in missing):
                continue
            remedy = "call it so, or remove it" if column in missing else "remove it"
            raise ValueError(f"line {number}: column '{name}' might name the {column}; {remedy}")


def _is_like(name: str, column: str, is_missing: bool) -> bool:
    """Whether a column of this name might be meant for `column`, or for a second one."""
    if column in name or difflib.SequenceMatcher(None, name, column).ratio() >= MISSPELT:
        return True
    # Beside `item`, a title says what that item is.
    return is_missing and ALIKE[column].search(name) is not None
