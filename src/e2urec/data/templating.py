"""A prompt template of the user's own, in a part of Jinja2.

A template sees `user` (attributes), `history` (oldest first), `liked` and `disliked` (parts of it)
and `item`, the one in question. Each item has `title` and the data set's details; those of the
history have `rating` and `liked` too.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError, meta

from ..core.errors import DataError, did_you_mean
from .prompts import CHAT, TEMPLATES, VERBATIM, Catalogue, PromptFields, PromptTemplate
from .sandbox import FILTERS, Fields, Sandbox, check_nodes

SUFFIXES = (".j2", ".jinja", ".jinja2")
FIELDS = ("user", "history", "liked", "disliked", "item")


def find_template(name: str, source: str | None = None) -> PromptTemplate:
    """A template by its name, by its file (`.j2`, `.jinja`), or by its `source` if that was kept.

    Raises:
        DataError: there is none, the file cannot be read, or what it holds is no template.
    """
    if source is not None:
        return JinjaTemplate(name, source)
    if name in TEMPLATES:
        return TEMPLATES[name]
    for template in (VERBATIM, CHAT):
        if name == template.name:
            return template
    path = Path(name)
    if path.suffix not in SUFFIXES:
        suggestion = did_you_mean(name, list(TEMPLATES))
        raise DataError(f"data.template '{name}': unknown{suggestion}, or a file with .j2")
    try:
        return JinjaTemplate(path.name, path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.template '{name}': cannot be read as UTF-8 text; name another file"
        ) from error


@dataclass(frozen=True)
class JinjaTemplate(PromptTemplate):
    """A template from a file.

    Attributes:
        name: of the file.
        source: what it holds.

    Raises:
        DataError: with the line, when it is no template, runs something, or names an unknown field.
    """

    name: str
    source: str
    recurs = False

    def __post_init__(self) -> None:
        with template_errors(self.name):
            tree = Sandbox().parse(self.source)
            names = meta.find_undeclared_variables(tree)
            check_nodes(tree)
        unknown_names = sorted(names.difference(FIELDS))
        if unknown_names:
            raise DataError(
                f"template '{self.name}': has unknown field '{unknown_names[0]}'; it may show "
                f"{', '.join(FIELDS)}"
            )

    def bind(self, catalogue: Catalogue) -> PromptTemplate:
        """The template compiled, with the fields of all items at hand."""
        with template_errors(self.name):
            render = Sandbox().from_string(self.source).render
        items = []
        item_count = len(catalogue.titles)
        details = catalogue.details or [{}] * item_count
        no_details = _empty_fields(details)
        for title, attributes in zip(catalogue.titles, details, strict=True):
            item = Fields(no_details | attributes, title=title)
            items.append(item)
        no_profile = _empty_fields(catalogue.profiles)
        return _BoundTemplate(self.name, render, items, no_profile)

    def pieces(self, fields: PromptFields) -> list[str]:
        """Not here: only a bound template has the fields of items beyond their labels."""
        raise NotImplementedError


@dataclass(frozen=True)
class _BoundTemplate(PromptTemplate):
    """A compiled template.

    Attributes:
        name: of the file.
        render_fields: fills the template.
        items: fields of each item, by code.
        no_profile: the profile of a user of whom nothing is known: every attribute, empty.
    """

    name: str
    render_fields: Callable[..., str]
    items: list[Fields]
    no_profile: dict[str, str]
    recurs = False

    def pieces(self, fields: PromptFields) -> list[str]:
        """The whole prompt, as one piece."""
        *history_codes, target = fields.codes
        history = []
        for code, rating, liked in zip(history_codes, fields.ratings, fields.liked, strict=True):
            stars = _plain_number(rating)
            item = Fields(self.items[code], rating=stars, liked=liked)
            history.append(item)
        with template_errors(self.name):
            text = self.render_fields(
                user=Fields(self.no_profile | fields.profile),
                history=history,
                liked=[item for item in history if item["liked"]],
                disliked=[item for item in history if not item["liked"]],
                item=self.items[target],
            )
        if not text.strip():
            raise DataError(f"template '{self.name}': makes an empty prompt; show item.title")
        return [text.rstrip()]


def _empty_fields(rows: list[dict[str, str]]) -> dict[str, str]:
    """Every field that any row has, empty: a field that only some rows have is no unknown one."""
    return {key: "" for row in rows for key in row}


def _plain_number(rating: float) -> float | int:
    """4 rather than 4.0."""
    return int(rating) if rating == int(rating) else rating


@contextlib.contextmanager
def template_errors(name: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into one line that names the template."""
    try:
        yield
    # Jinja2 compiles to Python, so a template can raise nearly anything that Python raises.
    except (
        TemplateError,
        DataError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        SyntaxError,
    ) as error:
        line_number = getattr(error, "lineno", None)
        place = f" line {line_number}" if line_number else ""
        lines = str(error).strip().splitlines()
        text = lines[0] if lines else type(error).__name__
        if text.startswith("No filter"):
            text += f" There are {', '.join(FILTERS)}."
        raise DataError(f"template '{name}'{place}: {text}") from error
