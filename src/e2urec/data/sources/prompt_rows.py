"""JSON lines that hold a prompt and its answer each: what a recommender made elsewhere was fed."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ...core.errors import DataError
from ..json_objects import json_object, require_whole_letters
from ..prompts import require_prompt
from ..splits import Split
from ..text_lines import read_lines
from ..written_prompts import HELD
from .prompt_formats import Fill

PARTS = (*Split.__dataclass_fields__, HELD)
"""What `part` may say."""
SUFFIXES = (".jsonl", ".ndjson")
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
    """Whether the first line of a file of JSON lines holds an answer and what it answers."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            first_line = next((line for line in file if line.strip()), "")
        keys = json_object(first_line).keys()
    # Whatever else is wrong with it, the source that reads tables will tell.
    except (OSError, ValueError):
        return False
    return "output" in keys and bool({"prompt", "instruction"} & keys)


def read_rows(path: Path, fill: Fill, default_part: str) -> list[PromptRow]:
    """The rows of a file, in its order.

    Args:
        path: the file.
        fill: makes the prompt of a row's fields.
        default_part: part of rows that name none.

    Raises:
        DataError: the file cannot be read, or a line is no such row.
    """
    lines = read_lines(path, f"'{path}'", "give a file of JSON lines")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(json_object(line), fill, default_part))
        except ValueError as error:
            raise DataError(f"{path.name} line {number}: {error}") from error
        except DataError as error:
            raise DataError(f"{path.name} line {number}: {error}; correct the line") from error
    if not rows:
        raise DataError(f"{path.name}: holds no rows; give one prompt and its answer a line")
    return rows


def _row(values: Mapping[str, object], fill: Fill, default_part: str) -> PromptRow:
    """The row of a line; raises ValueError with what is wrong with it."""
    prompt = fill(values)
    require_prompt(prompt)
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


def find_answers(rows: Iterable[PromptRow], own_words: tuple[str, str] | None) -> tuple[str, str]:
    """What stands for liked and for not liked.

    Args:
        rows: all of them.
        own_words: what the user says; None: the two outputs that begin with yes and no.

    Raises:
        DataError: an output is neither, or nobody can say which of them means liked.
    """
    outputs = {row.output for row in rows}
    if own_words is not None:
        unknown_count = len(outputs - set(own_words))
        if unknown_count or own_words[0] == own_words[1]:
            raise DataError(
                f"data.options.answers {list(own_words)}: {unknown_count} outputs of the rows are "
                "neither; give the two, liked first, letter by letter"
            )
        return own_words
    liked = [text for text in outputs if _begins(text, "yes")]
    disliked = [text for text in outputs if _begins(text, "no")]
    if len(outputs) == 2 and len(liked) == len(disliked) == 1:
        return liked[0], disliked[0]
    raise DataError(
        f"rows: hold {len(outputs)} different outputs, which are not one Yes and one No; say which "
        'of two means liked, and which not: --answers "Yes." "No."'
    )


def _begins(text: str, word: str) -> bool:
    return text.strip().casefold().startswith(word)


def as_table(rows: Iterable[PromptRow], liked: str) -> pl.DataFrame:
    """Rows as a table of ratings: 1 where the output is `liked`, 0 elsewhere."""
    columns: dict[str, Callable[[PromptRow], object]] = {
        "user": lambda row: row.user,
        "item": lambda row: row.item,
        "rating": lambda row: float(row.output == liked),
        "time": lambda row: row.time,
        "prompt": lambda row: row.prompt,
        "part": lambda row: row.part,
    }
    rows = list(rows)
    return pl.DataFrame({name: [value(row) for row in rows] for name, value in columns.items()})
