"""JSON lines that hold a prompt and its answer each: what a recommender made elsewhere was fed."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ...core.errors import DataError
from ..json_objects import (
    ARRAY,
    as_object,
    first_object,
    json_array,
    json_object,
    require_whole_letters,
)
from ..prompts import require_prompt
from ..splits import Split
from ..text_lines import read_lines, read_start
from ..written_prompts import HELD
from .prompt_formats import Fill, require_text_alone

Forms = tuple[str, ...]
"""All outputs that mean the same answer."""
PARTS = (*Split.__dataclass_fields__, HELD)
"""What `part` may say."""
SUFFIXES = (".jsonl", ".ndjson", ".json")
START_BYTES = 4_000_000
"""More than the longest row."""
QUESTIONS = {"prompt", "instruction", "input", "TargetItemTitle"}
"""Fields of which one stands in a row of any known format."""
BARE_YES = re.compile(r"\W*yes\W*", re.IGNORECASE)
BARE_NO = re.compile(r"\W*no\W*", re.IGNORECASE)
"""The words alone, with whatever punctuation and space: not *None*, nor *Not sure*."""
SEPARATOR = "|"
"""Between several forms of one answer."""
ITEM_BYTES = 8
"""Of the hash that stands for the item of a row that names none."""


@dataclass(frozen=True)
class PromptRow:
    """A line.

    Attributes:
        user, item: ids.
        time: as it stands there.
        part: for what the row was used.
        prompt: all that the model reads before it answers.
        output: the right answer, letter by letter.
    """

    user: str
    item: str
    time: str
    part: str
    prompt: str
    output: str


def holds_prompts(path: Path) -> bool:
    """Whether the first object of a file of JSON holds an answer and what it answers."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    try:
        keys = first_object(read_start(path, START_BYTES)).keys()
    # Whatever else is wrong with it, the source that reads tables will tell.
    except (OSError, ValueError):
        return False
    return "output" in keys and bool(QUESTIONS & keys)


def read_rows(path: Path, fill: Fill, default_part: str) -> list[PromptRow]:
    """The rows of a file of JSON lines, or of one JSON array, in its order.

    Args:
        path: the file.
        fill: makes the prompt of a row's fields.
        default_part: part of rows that name none.

    Raises:
        DataError: the file cannot be read, or a line is no such row.
    """
    lines = read_lines(path, f"'{path}'", "give a file of JSON lines")
    rows = []
    members = _members(lines, path.name)
    for place, value in _filled_lines(lines) if members is None else members:
        try:
            values = json_object(value) if members is None else as_object(value)
            rows.append(_row(values, fill, default_part))
        except ValueError as error:
            raise DataError(f"{path.name} {place}: {error}") from error
        except DataError as error:
            raise DataError(f"{path.name} {place}: {error}; correct the line") from error
    if not rows:
        raise DataError(f"{path.name}: holds no rows; give one prompt and its answer a line")
    return rows


def _filled_lines(lines: Sequence[str]) -> list[tuple[str, Any]]:
    """The lines that are not empty, each with its place."""
    return [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _members(lines: Sequence[str], name: str) -> list[tuple[str, Any]] | None:
    """The members of a JSON array, each with its place; None where the lines are none."""
    first_line = next((line for line in lines if line.strip()), "")
    if not first_line.lstrip().startswith(ARRAY):
        return None
    try:
        values = json_array("\n".join(lines))
    except ValueError as error:
        raise DataError(f"{name}: {error}, or give JSON lines") from error
    return [(f"row {number}", value) for number, value in enumerate(values, 1)]


def _row(values: Mapping[str, object], fill: Fill, default_part: str) -> PromptRow:
    """The row of a line; raises ValueError with what is wrong with it."""
    prompt = fill(values)
    require_prompt(prompt)
    require_text_alone(prompt)
    output = values.get("output")
    if not isinstance(output, str) or not output.strip():
        raise ValueError("holds no text 'output'; add the right answer, or remove the line")
    part = values.get("part", default_part)
    if part not in PARTS:
        raise ValueError(f"holds an unknown part; write {', '.join(PARTS)}")
    user = _id(values.get("user"))
    if not user:
        raise ValueError("holds no user; add it, since only what has one can be forgotten")
    item = _id(values.get("item")) or _stand_in(prompt)
    require_whole_letters((prompt, output, user, item))
    return PromptRow(user, item, _time(values.get("time")), str(part), prompt, output)


def _id(value: object) -> str:
    if value is None:
        return ""
    # By type, not isinstance: true and false are no ids, though Python counts them as integers.
    if type(value) not in (str, int):
        raise ValueError("holds an id that is neither text nor a whole number; correct it")
    return str(value).strip()


def _stand_in(prompt: str) -> str:
    """The name of an item that is told from others by its prompt alone."""
    # Half a letter is refused with a message of its own, a moment later.
    text = prompt.encode(errors="replace")
    return hashlib.blake2b(text, digest_size=ITEM_BYTES).hexdigest()


def _time(value: object) -> str:
    # Without times rows keep the order of the file.
    if value is None:
        return "0"
    if type(value) not in (str, int, float):
        raise ValueError("holds a time that is neither a number nor a date; correct it")
    return str(value)


def forms_of(answer: str | Sequence[str]) -> Forms:
    """All forms of an answer: a list of them, or one text with | between them."""
    if isinstance(answer, str):
        return tuple(answer.split(SEPARATOR))
    return tuple(answer)


def as_setting(forms: Forms) -> str | list[str]:
    """The setting of which `forms_of` makes these forms: a text where it is one."""
    if len(forms) == 1 and SEPARATOR not in forms[0]:
        return forms[0]
    return [*forms]


def find_answers(
    rows: Iterable[PromptRow], own_words: tuple[Forms, Forms] | None
) -> tuple[Forms, Forms]:
    """What stands for liked and for not liked.

    Args:
        rows: all of them.
        own_words: what the user says; None: one output that begins with yes and one with no, or
            several that are no more than these words.

    Raises:
        DataError: an output is neither, or nobody can say which of them means liked.
    """
    outputs = {row.output for row in rows}
    if own_words is not None:
        _check_own_words(outputs, own_words)
        return own_words
    liked = sorted(text for text in outputs if _begins(text, "yes"))
    disliked = sorted(text for text in outputs if _begins(text, "no"))
    is_pair = len(outputs) == 2 and len(liked) == len(disliked) == 1
    if is_pair or _are_bare(outputs, liked, disliked):
        return tuple(liked), tuple(disliked)
    raise DataError(
        f"rows: hold {len(outputs)} different outputs, which are not one Yes and one No; say which "
        'mean liked, and which not: --answers "Yes." "No.", or with several --answers "4|5" "1|2|3"'
    )


def _check_own_words(outputs: set[str], own_words: tuple[Forms, Forms]) -> None:
    """Raise DataError unless each output is a form of one of the two answers."""
    yes, no = own_words
    place = f"data.options.answers {[as_setting(forms) for forms in own_words]}"
    if not all(form.strip() for form in (*yes, *no)):
        raise DataError(f"{place}: holds an empty form; leave it out")
    if set(yes) & set(no):
        raise DataError(f"{place}: a form means liked and not liked; name it for one of the two")
    unknown_count = len(outputs - {*yes, *no})
    if unknown_count:
        raise DataError(
            f"{place}: {unknown_count} outputs of the rows are neither; give all that occur, liked "
            "first, letter by letter, with | between several of one answer"
        )


def _begins(text: str, word: str) -> bool:
    return text.strip().casefold().startswith(word)


def _are_bare(outputs: set[str], liked: Sequence[str], disliked: Sequence[str]) -> bool:
    """Whether the outputs are yes and no in several forms, and both occur."""
    is_known = len(outputs) == len(liked) + len(disliked)
    return (
        is_known
        and bool(liked and disliked)
        and all(BARE_YES.fullmatch(text) for text in liked)
        and all(BARE_NO.fullmatch(text) for text in disliked)
    )


def as_table(rows: Iterable[PromptRow], liked: Forms) -> pl.DataFrame:
    """Rows as a table of ratings: 1 where the output is one of `liked`, 0 elsewhere."""
    columns: dict[str, Callable[[PromptRow], object]] = {
        "user": lambda row: row.user,
        "item": lambda row: row.item,
        "rating": lambda row: float(row.output in liked),
        "time": lambda row: row.time,
        "prompt": lambda row: row.prompt,
        "part": lambda row: row.part,
    }
    rows = list(rows)
    return pl.DataFrame({name: [value(row) for row in rows] for name, value in columns.items()})
