"""Lines of JSON, each an object, whoever wrote them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def json_object(line: str) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        ValueError: the line holds none, or one that names a key twice; the message goes on after
            the line's place, and quotes nothing of the line.
    """
    try:
        value = json.loads(line, object_pairs_hook=_distinct)
    except _RepeatedKeyError as error:
        raise ValueError("names a key twice; leave one out") from error
    # Brackets nested a thousand deep exhaust the parser's recursion.
    except (ValueError, RecursionError) as error:
        raise ValueError("is no JSON object; correct it") from error
    if not isinstance(value, dict):
        raise ValueError("is no JSON object; correct it")
    return value


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
