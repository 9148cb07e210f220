"""The sections of the page of recipes: every key, its values, its default, its meaning."""

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from page_parts import cell, options, table
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from e2urec.data.sources import all_sources
from e2urec.experiments.recipe import DrawnRequest, Recipe, RequestRecipe

TITLES = ("key", "value", "default", "meaning")
OPTIONS = """\
Settings that only one kind of source has. The source is recognised by what `source` names; a
setting of another kind is refused."""
# Of Pydantic's constraints, as a reader of mathematics writes them.
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
# Kinds of TOML in words.
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "none",
}


@dataclass(frozen=True)
class Part:
    """A part of a recipe.

    Attributes:
        path: of its heading, `["tuning", "lora"]` for `[tuning.lora]`; empty for the whole recipe.
        values: the part as it is by default.
        text: what it is about.
    """

    path: list[str]
    values: BaseModel
    text: str

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """The keys of the part."""
        return type(self.values).model_fields

    @property
    def title(self) -> str:
        """The heading of the part."""
        if not self.path:
            return "Keys outside all parts"
        name = ".".join(self.path)
        if isinstance(self.values, DrawnRequest):
            return f"`[[{name}]]`"
        return f"`[{name}]`"

    def parts(self) -> Iterator["Part"]:
        """The parts inside this one, in its order."""
        for key, field in self.fields.items():
            inner = _model_in(field.annotation)
            if inner is None or self._is_request(inner):
                continue
            value = getattr(self.values, key)
            # A part that is none by default has the defaults of its class once it is there, and
            # so has each of a list.
            if value is None or isinstance(value, tuple):
                value = inner()
            text = field.description or inspect.getdoc(inner) or ""
            path = [*self.path, key]
            yield Part(path, value, _sentence(text))

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """A row for each key that is no part which is always there."""
        for key, field in self.fields.items():
            inner = _model_in(field.annotation)
            is_value = inner is None or self._is_request(inner)
            if not is_value and _is_part(field.annotation):
                continue
            value = getattr(self.values, key)
            default = _default(value)
            meaning = _meaning(field, [*self.path, key])
            yield f"`{key}`", _kind(field), default, meaning

    def _is_request(self, inner: type[BaseModel]) -> bool:
        """Whether it is a request of a comparison, whose keys are listed under [request]."""
        return inner is RequestRecipe and bool(self.path)


def recipe_sections() -> Iterator[str]:
    """The sections, in the order of the recipe."""
    return _sections(Part([], Recipe(), "For the run as a whole."))


def _sections(part: Part) -> Iterator[str]:
    yield f"## {part.title}\n\n{part.text}\n"
    rows = list(part.rows())
    yield table(TITLES, rows)
    if part.path == ["data"]:
        yield from _source_sections()
    for inner in part.parts():
        yield from _sections(inner)


def _source_sections() -> Iterator[str]:
    """The settings of each source that has any: they stand in `[data.options]`."""
    yield f"## `[data.options]`\n\n{OPTIONS}\n"
    for name, source in all_sources().items():
        rows = []
        for key, field in source.model_fields.items():
            default = _default(field.default)
            rows.append((f"`{key}`", _kind(field), default, cell(field.description or "")))
        if rows:
            yield f"Of the source `{name}`:\n"
            yield table(TITLES, rows)


def _meaning(field: FieldInfo, path: list[str]) -> str:
    inner = _model_in(field.annotation)
    text = cell(field.description or "")
    if inner is None or text:
        return text
    name = ".".join(path)
    return f"see `[{name}]`"


def _sentence(text: str) -> str:
    first = text[:1].upper()
    sentence = first + text[1:]
    if sentence.endswith((".", ":")):
        return sentence
    return f"{sentence}."


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for option in options(annotation):
        candidates = [option, *typing.get_args(option)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                return candidate
    return None


def _is_part(annotation: Any) -> bool:
    """Whether it is a part that is always there, and so only a section of its own."""
    members = options(annotation)
    if type(None) in members:
        return False
    return all(isinstance(member, type) for member in members)


def _kind(field: FieldInfo) -> str:
    words = [_word(option) for option in options(field.annotation)]
    # Two members of a union may have the same word; it is said once.
    distinct = dict.fromkeys(words)
    kind = " or ".join(distinct)
    return cell(", ".join([kind, *_bounds(field)]))


def _bounds(field: FieldInfo) -> list[str]:
    bounds = []
    for entry in field.metadata:
        for name, sign in BOUNDS.items():
            bound = getattr(entry, name, None)
            if bound is not None:
                # A no-break space: "< 1" must not be torn apart at the end of a line.
                bounds.append(f"{sign}\u00a0{bound:g}")
    return bounds


def _word(option: Any) -> str:
    origin = typing.get_origin(option)
    arguments = typing.get_args(option)
    if origin is typing.Literal:
        choices = [f"`{choice}`" for choice in arguments]
        return " or ".join(choices)
    if origin is tuple:
        items = _plural(arguments[0])
        return f"list of {items}"
    if origin is dict or option is dict:
        return "table"
    if isinstance(option, type) and issubclass(option, BaseModel):
        return "table like `[request]`" if option is RequestRecipe else "table"
    return WORDS.get(option, "text")


def _plural(option: Any) -> str:
    words = dict.fromkeys(_word(member) for member in options(option))
    # Of text there is no plural; `table like [request]` has it in its middle.
    plurals = [re.sub("^(table|list|whole number|number)", r"\1s", word) for word in words]
    return " or ".join(plurals)


def _default(value: Any) -> str:
    if value in ((), {}):
        return "empty"
    if value is None:
        return "none"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A value as a recipe would give it; of a part, what differs from its own defaults."""
    if isinstance(value, BaseModel):
        changes = value.model_dump(exclude_defaults=True)
        if not changes:
            return "{}"
        pairs = []
        for key, item in changes.items():
            text = _toml(item)
            pairs.append(f"{key} = {text}")
        inside = ", ".join(pairs)
        return f"{{ {inside} }}"
    if isinstance(value, tuple):
        items = [_toml(item) for item in value]
        inside = ", ".join(items)
        return f"[{inside}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
