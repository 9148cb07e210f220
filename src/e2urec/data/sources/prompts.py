"""The rows of a recommender that was made elsewhere: prompts with their answers, word for word."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import polars as pl
from pydantic import Field

from ..interactions import Interactions
from ..tables import RatingScale, valid_ratings
from ..written_prompts import HELD
from .files import Files
from .prompt_formats import find_format
from .prompt_rows import (
    PromptRow,
    as_table,
    find_answers,
    forms_of,
    holds_prompts,
    read_rows,
)
from .reading import Columns, Reading
from .source import Source
from .table_times import seconds

Answer = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""An answer as a setting has it: see `forms_of`."""
SCALE = RatingScale(lowest=0.0, highest=1.0, liked_above=0.5)
"""What an answer is as a rating: 1 liked, 0 not."""


class Prompts(Source):
    """JSON lines of a user, a prompt and the right answer each."""

    name: ClassVar[str] = "prompts"
    expects: ClassVar[str] = "JSON lines with user, prompt (or instruction, input) and output"

    held: str | None = Field(
        None, description="prompts: further JSON lines, of rows that no model was tuned on"
    )
    answers: tuple[Answer, Answer] | None = Field(
        None,
        description="prompts: the outputs that mean liked and not liked, each a text (several with "
        "| between them) or a list; default: Yes and No",
    )
    format: str | None = Field(
        None,
        description="prompts: what makes prompts of rows: alpaca, tallrec, collm-movies, "
        "collm-books, e2urec, a file of CoLLM's or BinLLM's prompts (.txt) or a Jinja2 file (.j2)",
    )

    @classmethod
    def recognises(cls, files: Files) -> bool:
        """Whether the source is a file of JSON lines that hold prompts with their answers."""
        return not files.is_address and holds_prompts(files.path)

    def read(self, files: Files, reading: Reading, columns: Columns) -> Interactions:
        """Read the rows; raises DataError if a line is none, or times or answers are of no use."""
        rows = self.read_lines(files.path)
        own_words = None
        if self.answers is not None:
            yes, no = self.answers
            own_words = (forms_of(yes), forms_of(no))
        answers = find_answers([row for part in rows.values() for row in part], own_words)
        tables = []
        for path, part in rows.items():
            table = as_table(part, answers[0])
            table = table.with_columns(time=seconds(table["time"], columns.time_unit))
            # Checked file by file, so that an error names the row of its own file.
            tables.append(valid_ratings(table, SCALE, path.name).drop("position"))
        ratings = pl.concat(tables)
        items = ratings.select("item", title="item").unique("item", maintain_order=True)
        return Interactions.from_tables(
            reading.within(ratings),
            items,
            place=files.path.name,
            scale=replace(SCALE, answers=answers),
            strict=reading.strict,
        )

    def read_lines(self, path: Path) -> dict[Path, list[PromptRow]]:
        """The rows of `path`, and of the file of held-out rows, each in its order."""
        fill = find_format(self.format)
        rows = {path: read_rows(path, fill, "train")}
        if self.held is not None:
            held = Path(self.held)
            rows[held] = read_rows(held, fill, HELD)
        return rows
