"""Lines of JSON, each an object, whoever wrote them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

ARRAY = "["
"""What a file begins with that is one array, and no lines of objects."""


def json_object(line: str) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        ValueError: the line holds none, or one that names a key twice; the message goes on after
            the line's place, and quotes nothing of the line.
    """
    return as_object(_parsed(line, "is no JSON object; correct it"))


def json_array(text: str) -> list[Any]:
    """What a JSON array holds; raises ValueError as `json_object` does."""
    values = _parsed(text, "is no whole JSON array; correct it")
    if not isinstance(values, list):
        raise ValueError("is no JSON array; correct it")
    return values


def as_object(value: Any) -> dict[str, Any]:
    """`value`; raises ValueError unless it is an object."""
    if not isinstance(value, dict):
        raise ValueError("is no JSON object; correct it")
    return value


def first_object(text: str) -> dict[str, Any]:
    """The first object of JSON lines, or of one array; raises ValueError where there is none."""
    start = text.lstrip().removeprefix(ARRAY).lstrip()
    try:
        value, _ = json.JSONDecoder(object_pairs_hook=_distinct).raw_decode(start)
    except RecursionError as error:
        raise ValueError("is no JSON object; correct it") from error
    return as_object(value)


def _parsed(text: str, fault: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except _RepeatedKeyError as error:
        raise ValueError("names a key twice; leave one out") from error
    # Brackets nested a thousand deep exhaust the parser's recursion.
    except (ValueError, RecursionError) as error:
        raise ValueError(fault) from error


def require_whole_letters(texts: Iterable[str | None]) -> None:
    """Raise ValueError where a text holds half a letter, which no file could hold.

    An escape of JSON may spell one half of a letter such as an emoji.
    """
    try:
        "".join(text for text in texts if text).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a field holds half a letter; correct it") from error


class _RepeatedKeyError(ValueError):
    """An object has two values for one key, of which a parser would take the last."""


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _RepeatedKeyError
    return values
