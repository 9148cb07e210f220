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

from e2urec.experiments.recipe import Recipe, RequestRecipe

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
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
        return f"`[{'.'.join(self.path)}]`" if self.path else "Keys outside all parts"

    def parts(self) -> Iterator["Part"]:
        """The parts inside this one, in its order."""
        for key, field in self.fields.items():
            inner = _model_in(field.annotation)
            if inner is None or self._is_request(inner):
                continue
            value = getattr(self.values, key)
            text = _sentence(field.description or inspect.cleandoc(inner.__doc__ or ""))
            # A part that is none by default has the defaults of its class once it is there.
            yield Part([*self.path, key], inner() if value is None else value, text)

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """A row for each key that is no part which is always there."""
        for key, field in self.fields.items():
            inner = _model_in(field.annotation)
            is_value = inner is None or self._is_request(inner)
            if is_value or not _is_part(field.annotation):
                default = _default(getattr(self.values, key))
                yield f"`{key}`", _kind(field), default, _meaning(field, [*self.path, key])

    def _is_request(self, inner: type[BaseModel]) -> bool:
        """Whether it is a request of a comparison, whose keys are listed under [request]."""
        return inner is RequestRecipe and bool(self.path)


def recipe_sections() -> Iterator[str]:
    """The sections, in the order of the recipe."""
    return _sections(Part([], Recipe(), "For the run as a whole."))


def _sections(part: Part) -> Iterator[str]:
    yield f"## {part.title}\n\n{part.text}\n"
    yield table(("key", "value", "default", "meaning"), list(part.rows()))
    for inner in part.parts():
        yield from _sections(inner)


def _meaning(field: FieldInfo, path: list[str]) -> str:
    inner = _model_in(field.annotation)
    text = cell(field.description or "")
    if inner is None or text:
        return text
    return f"see `[{'.'.join(path)}]`"


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", ":")) else f"{text}."


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for option in options(annotation):
        candidates = [option, *typing.get_args(option)]
        for candidate in candidates:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                return candidate
    return None


def _is_part(annotation: Any) -> bool:
    """Whether it is a part that is always there, and so only a section of its own."""
    return all(isinstance(option, type) for option in options(annotation)) and (
        type(None) not in options(annotation)
    )


def _kind(field: FieldInfo) -> str:
    words = [_word(option) for option in options(field.annotation)]
    # Two members of a union may have the same word; it is said once.
    distinct = dict.fromkeys(words)
    return cell(", ".join([" or ".join(distinct), *_bounds(field)]))


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
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        return f"list of {_plural(arguments[0])}"
    if origin is dict or option is dict:
        return "table"
    if isinstance(option, type) and issubclass(option, BaseModel):
        return "table like `[request]`" if option is RequestRecipe else "table"
    return WORDS.get(option, "text")


def _plural(option: Any) -> str:
    word = _word(option)
    return word if word == "text" else re.sub("^(table|whole number|number)", r"\1s", word)


def _default(value: Any) -> str:
    if value in ((), {}):
        return "empty"
    if value is None:
        return "none"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A value as a recipe would give it; of a part, what differs from its own defaults."""
    if isinstance(value, BaseModel):
        changed = value.model_dump(exclude_defaults=True)
        pairs = [f"{key} = {_toml(item)}" for key, item in changed.items()]
        inside = ", ".join(pairs)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, tuple):
        items = ", ".join(_toml(item) for item in value)
        return f"[{items}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
