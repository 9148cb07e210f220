"""A prompt template of the user's own: a part of Jinja2 that shows fields, in its sandbox.

A template sees `user` (attributes), `history` (oldest first), `liked` and `disliked` (parts of it) and `item`, the one
in question. Each item has `title` and the data set's details; those of the history have `rating` and `liked` too.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateAssertionError, TemplateError, Undefined, meta, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..core.errors import DataError, did_you_mean
from .prompts import TEMPLATES, Catalogue, PromptTemplate, Shown

SUFFIXES = (".j2", ".jinja", ".jinja2")
FIELDS = ("user", "history", "liked", "disliked", "item")
FILTERS = (
    "capitalize",
    "default",
    "first",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "reverse",
    "round",
    "title",
    "trim",
    "upper",
)
"""None of them makes much out of little."""
PARTS = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.For,
    nodes.If,
    nodes.CondExpr,
    nodes.Assign,
    nodes.Filter,
    nodes.Keyword,
    nodes.Test,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Pos,
    nodes.Add,
    nodes.Sub,
    nodes.Mul,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Mod,
    nodes.Tuple,
    nodes.List,
)
"""Of Jinja2's language."""
LOOP = ("index", "index0", "revindex", "revindex0", "first", "last", "length")
DEEPEST = 2
"""Loops within each other."""
LONGEST = 20_000
"""Letters that may be joined."""
LARGEST = 1e9
"""Number that may be reckoned with."""


def find_template(name: str, source: str | None = None) -> PromptTemplate:
    """A template by its name, by its file (`.j2`, `.jinja`), or by its `source` where that was kept.

    Raises:
        DataError: there is none, the file cannot be read, or what it holds is no template.
    """
    if source is not None:
        return JinjaTemplate(name, source)
    if name in TEMPLATES:
        return TEMPLATES[name]
    if Path(name).suffix not in SUFFIXES:
        raise DataError(
            f"data.template '{name}': unknown{did_you_mean(name, list(TEMPLATES))}, or a file with .j2"
        )
    try:
        return JinjaTemplate(Path(name).name, Path(name).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"data.template '{name}': cannot be read as UTF-8 text; name another file"
        ) from error


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 where only fields are shown, nothing is called, and nothing makes much out of little."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_shown,
        )
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in FILTERS} | {
            "default": _default,
            "d": _default,
            "join": _join,
            "round": _round,
        }

    def is_safe_callable(self, obj: Any) -> bool:
        """Nothing is."""
        return False

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of what has fields, where a loop stands, and nothing else: no method of text or lists.

        An unknown field may be asked for, as in `is defined` or `|default`, and not shown.
        """
        if isinstance(obj, Fields):
            there = ", ".join(sorted(obj)) or "none"
            return obj.get(
                attribute, StrictUndefined(f"unknown field '{attribute}'; there are {there}")
            )
        if isinstance(obj, Undefined) or (isinstance(obj, LoopContext) and attribute in LOOP):
            return super().getattr(obj, attribute)
        raise DataError(f"unknown field '{attribute}' of what has no fields")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """The same in brackets, or an element of a list."""
        return (
            self.getattr(obj, argument)
            if isinstance(argument, str)
            else super().getitem(obj, argument)
        )

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers of a sensible size, never on text or lists."""
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if numbers and operator != "**" and max(abs(left), abs(right)) <= LARGEST:
            return super().call_binop(context, operator, left, right)
        raise DataError(f"operator {operator} is for numbers up to {LARGEST:g} alone")


class Fields(dict[str, Any]):
    """What a template may show of a user or an item."""


def _shown(value: Any) -> Any:
    if isinstance(value, str | int | float | Undefined):
        return value
    raise DataError(
        "shows what is neither text nor a number; show its fields, such as .title, or |join of them"
    )


def _default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    """`other` for what is not known; with `boolean` for all that is false."""
    return (
        other if isinstance(value, Undefined) or value == "" or (boolean and not value) else value
    )


def _join(values: Any, between: str = "", attribute: str | None = None) -> str:
    """The texts of a list, or an attribute of each, one after another."""
    if not isinstance(values, list | tuple):
        raise DataError("join is for lists alone")
    texts = [str(_shown(value if attribute is None else value[attribute])) for value in values]
    if sum(map(len, texts)) + len(between) * len(texts) > LONGEST:
        raise DataError(f"join makes more than {LONGEST:,} letters")
    return between.join(texts)


def _round(value: float, precision: int = 0) -> float:
    """To at most ten places."""
    return round(value, min(max(int(precision), 0), 10))


@dataclass(frozen=True)
class JinjaTemplate(PromptTemplate):
    """A template from a file.

    Attributes:
        name: of the file.
        source: what it holds.
    """

    name: str
    source: str
    recurs = False

    def __post_init__(self) -> None:
        """Raise DataError, with the line, when it is no template, runs something, or names an unknown field."""
        with _told(self.name):
            tree = Sandbox().parse(self.source)
            shown = meta.find_undeclared_variables(tree)
            _check(tree)
        unknown = sorted(shown - set(FIELDS))
        if unknown:
            raise DataError(
                f"template '{self.name}': has unknown field '{unknown[0]}'; it may show {', '.join(FIELDS)}"
            )

    def reading(self, catalogue: Catalogue) -> PromptTemplate:
        """The template compiled, with the catalogue's items at hand."""
        with _told(self.name):
            render = Sandbox().from_string(self.source).render
        items = _filled(catalogue.details or [{}] * len(catalogue.titles))
        named = [
            Fields(facts, title=title) for facts, title in zip(items, catalogue.titles, strict=True)
        ]
        people = dict.fromkeys((key for facts in catalogue.profiles for key in facts), "")
        return _Compiled(self.name, render, named, people)

    def pieces(self, shown: Shown) -> list[str]:
        """Nothing is known of items beyond their labels here: see `reading`."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Compiled(PromptTemplate):
    name: str
    render_with: Callable[..., str]
    items: list[Fields]
    unknown: dict[str, str]
    recurs = False

    def pieces(self, shown: Shown) -> list[str]:
        """The whole prompt."""
        *past, target = (self.items[code] for code in shown.codes)
        history = [
            Fields(item, rating=_number(rating), liked=liked)
            for item, rating, liked in zip(past, shown.ratings, shown.liked, strict=True)
        ]
        with _told(self.name):
            text = self.render_with(
                user=Fields(self.unknown | shown.profile),
                history=history,
                liked=_where(history, True),
                disliked=_where(history, False),
                item=target,
            )
        if not text.strip():
            raise DataError(f"template '{self.name}': makes an empty prompt; show item.title")
        return [text.rstrip()]


def _check(node: nodes.Node, loops: int = 0) -> None:
    """Raise TemplateAssertionError at what a template may not have, or at a loop in a loop of a loop."""
    loops += isinstance(node, nodes.For)
    if not isinstance(node, PARTS) or loops > DEEPEST:
        what = "a loop in a loop of a loop" if loops > DEEPEST else type(node).__name__
        raise TemplateAssertionError(
            f"{what} may not stand in a template; show fields, with if and for", node.lineno
        )
    if (
        isinstance(node, nodes.Const)
        and isinstance(node.value, float)
        and not math.isfinite(node.value)
    ):
        raise TemplateAssertionError("a number is too large", node.lineno)
    for child in node.iter_child_nodes():
        _check(child, loops)


def _filled(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same with every field in each row; what is not known is empty."""
    empty = dict.fromkeys((key for row in rows for key in row), "")
    return [empty | row for row in rows]


def _where(history: Iterable[Fields], liked: bool) -> list[Fields]:
    return [item for item in history if item["liked"] is liked]


def _number(rating: float) -> float | int:
    """4 rather than 4.0."""
    return int(rating) if rating == int(rating) else rating


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever goes wrong inside is told in one line that names the template."""
    try:
        yield
    except (
        TemplateError,
        DataError,
        TypeError,
        ValueError,
        ArithmeticError,
        RecursionError,
        SyntaxError,
    ) as error:
        number = getattr(error, "lineno", None)
        where = f" line {number}" if number else ""
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if text.startswith("No filter"):
            text += f" There are {', '.join(FILTERS)}."
        raise DataError(f"template '{name}'{where}: {text}") from error
