"""A part of Jinja2 that shows fields: nothing is called, and nothing makes much out of little.

A template may come with a model from a stranger. So what is not listed here is refused.
"""

import math
from typing import Any

from jinja2 import StrictUndefined, TemplateAssertionError, Undefined, nodes
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..core.errors import DataError

# Filters that a template may use. None of them makes much out of little, as `center` would.
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
# What of Jinja2's language a template may hold: no calls, imports, macros, powers or `~`.
NODES = (
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
# Fields of `loop` that say where it stands.
LOOP_FIELDS = ("index", "index0", "revindex", "revindex0", "first", "last", "length")
# Loops within each other: three over a long history would take its length cubed.
MAX_LOOP_DEPTH = 2
# Letters of a joined text: several times what a window of 512 tokens holds.
MAX_JOINED_LENGTH = 20_000
# Largest operand of arithmetic, so that no product is too long to print.
MAX_NUMBER = 1e9
MAX_DECIMALS = 10


class Fields(dict[str, Any]):
    """What a template may show of a user or an item."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 where only fields are shown."""

    # All of them, so that every operator goes through `call_binop`.
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_printable,
        )
        # `range`, `lipsum` and the like make much out of little.
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.filters["default"] = _default
        self.filters["d"] = _default
        self.filters["join"] = _join
        self.filters["round"] = _round

    def is_safe_callable(self, obj: Any) -> bool:
        """Nothing is."""
        return False

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of what has fields, or where a loop stands; no method of text or lists.

        A template may test for an unknown field, as in `is defined` or `|default`, but not show it.
        """
        if isinstance(obj, Fields):
            names = ", ".join(sorted(obj)) or "none"
            unknown = StrictUndefined(f"unknown field '{attribute}'; there are {names}")
            return obj.get(attribute, unknown)
        is_loop_field = isinstance(obj, LoopContext) and attribute in LOOP_FIELDS
        if is_loop_field or isinstance(obj, Undefined):
            return super().getattr(obj, attribute)
        raise DataError(f"unknown field '{attribute}' of what has no fields")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """The same in brackets, or an element of a list."""
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on numbers of a sensible size, never on text or lists."""
        # Powers are refused for themselves: 9 ** 9 ** 9 would never end.
        if operator != "**" and _is_small(left) and _is_small(right):
            return super().call_binop(context, operator, left, right)
        raise DataError(f"operator {operator} is for numbers up to {MAX_NUMBER:g} alone")


def check_nodes(node: nodes.Node, loop_depth: int = 0) -> None:
    """Raise TemplateAssertionError at what a template may not hold, here or anywhere below."""
    if isinstance(node, nodes.For):
        loop_depth += 1
    if loop_depth > MAX_LOOP_DEPTH:
        raise _not_allowed("a loop in a loop of a loop", node)
    if not isinstance(node, NODES):
        raise _not_allowed(type(node).__name__, node)
    value = node.value if isinstance(node, nodes.Const) else None
    # Python reads a number such as 9e999 as infinite.
    if isinstance(value, float) and not math.isfinite(value):
        raise TemplateAssertionError("a number is too large", node.lineno)
    for child in node.iter_child_nodes():
        check_nodes(child, loop_depth)


def _is_small(value: Any) -> bool:
    if not isinstance(value, int | float):
        return False
    return abs(value) <= MAX_NUMBER


def _not_allowed(part: str, node: nodes.Node) -> TemplateAssertionError:
    return TemplateAssertionError(
        f"{part} may not stand in a template; show fields, with if and for", node.lineno
    )


def _printable(value: Any) -> Any:
    if isinstance(value, str | int | float | Undefined):
        return value
    raise DataError(
        "shows what is neither text nor a number; show its fields, such as .title, or |join of them"
    )


def _default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    """`other` for what the data do not hold; with `boolean` for all that is false."""
    is_missing = isinstance(value, Undefined) or value == ""
    if is_missing or (boolean and not value):
        return other
    return value


def _join(values: Any, between: str = "", attribute: str | None = None) -> str:
    """The texts of a list, or an attribute of each, one after another."""
    if not isinstance(values, list | tuple):
        raise DataError("join is for lists alone")
    texts = []
    for value in values:
        text = value if attribute is None else value[attribute]
        texts.append(str(_printable(text)))
    # Counted before joining: a long text between many items would fill the memory.
    text_length = sum(map(len, texts))
    length = text_length + len(between) * len(texts)
    if length > MAX_JOINED_LENGTH:
        raise DataError(f"join makes more than {MAX_JOINED_LENGTH:,} letters")
    return between.join(texts)


def _round(value: float, precision: int = 0) -> float:
    """To at most ten decimals: Python would write out as many as it is told."""
    decimals = min(max(int(precision), 0), MAX_DECIMALS)
    return round(value, decimals)
