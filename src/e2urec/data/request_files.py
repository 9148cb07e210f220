"""Files that say whom or what to forget: a list of users, a CSV table, or JSON lines."""

import csv
import json
import re
from pathlib import Path

from ..core.errors import DataError

COLUMNS = ("user", "item")
ALIKE = {
    "item": re.compile(r"item|movie|film|book|product|song|track|title|article|asin|isbn|sku|id$"),
    "user": re.compile(r"user|customer|member|account|reviewer|reader|person|client|name|id$"),
}
"""Other names of columns that might mean a user or an item."""

Line = tuple[int, str]
"""A line's 1-based number in the file, and its text."""
Pair = tuple[str, str]
"""The ids of a user and an item; an empty one means all users, or all items."""


def read_pairs(path: Path) -> list[Pair]:
    """The (user, item) of every line.

    A file is one user a line, or a CSV or JSON-lines file with the columns `user`, `item` or both,
    and others. `#` starts a comment line.

    Raises:
        DataError: the file cannot be read, or is no such table.
    """
    lines = _content_lines(_read_text(path))
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            return _csv_pairs(lines)
        if suffix in (".jsonl", ".ndjson"):
            return [_json_pair(line, number) for number, line in lines]
    except ValueError as error:
        raise DataError(f"request '{path}' {error}") from error
    return [(line, "") for _, line in lines]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"request '{path}': cannot be read ({error.strerror}); name a file of users"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"request '{path}': is no UTF-8 text; write one id a line") from error


def _content_lines(text: str) -> list[Line]:
    """The lines that are neither empty nor comments."""
    lines = []
    # Not splitlines(): an id may hold one of the rarer characters that it takes for a line's end.
    for number, line in enumerate(text.split("\n"), start=1):
        content = line.strip()
        if content and not content.startswith("#"):
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
        pairs.append((row.get("user", ""), row.get("item", "")))
    return pairs


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
        row = json.loads(line)
    # Brackets nested a thousand deep exhaust the parser's recursion.
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"line {number}: is no JSON object; correct it")
    _check_columns(list(row), number)
    return _json_id(row.get("user"), number), _json_id(row.get("item"), number)


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
    """Raise ValueError unless there is a column user or item, and none that might mean the other.

    A column that might name the other would be ignored, and single interactions would be taken for
    all of a user or an item.
    """
    id_columns = [name for name in names if name in COLUMNS]
    if not id_columns or len(id_columns) > len(set(id_columns)):
        raise ValueError(
            f"line {number}: names no column user or item, each once; add them as the first line"
        )
    for missing in set(COLUMNS) - set(id_columns):
        pattern = ALIKE[missing]
        for name in names:
            if name not in id_columns and pattern.search(name.lower()):
                raise ValueError(
                    f"line {number}: column '{name}' might name the {missing}; call it so, or "
                    "remove it"
                )
