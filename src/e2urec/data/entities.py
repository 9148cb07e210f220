"""HTML entities in the text of items, which tables made from web pages hold."""

import html
import re
from html.entities import html5

import polars as pl

# No character has a number of more digits, and Python refuses to read those of thousands.
ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|[a-zA-Z][a-zA-Z0-9]*);")


def without_entities(items: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Titles and details with the characters that entities stand for.

    Args:
        items: a row an item; ids in the column `item`, all else text.

    Returns:
        The same rows, and how many of them held an entity.
    """
    names = [name for name in items.columns if name != "item"]
    has_entity = [pl.col(name).str.contains(ENTITY.pattern) for name in names]
    # Most tables hold none, and Python's functions are slow on the millions of rows of some.
    if not items.select(pl.any_horizontal(has_entity).any()).item():
        return items, 0
    characters = pl.col(names).map_elements(unescape, return_dtype=pl.String)
    new_items = items.with_columns(characters)
    is_changed = (items[name].ne_missing(new_items[name]) for name in names)
    changes = pl.DataFrame([column.alias(str(place)) for place, column in enumerate(is_changed)])
    return new_items, int(changes.select(pl.any_horizontal(pl.all()).sum()).item())


def unescape(text: str) -> str:
    """`Law &amp; Order` → `Law & Order`; once, so that `&amp;amp;` becomes `&amp;`."""
    return ENTITY.sub(_character, text)


def _character(entity: re.Match[str]) -> str:
    text = entity[0]
    # html.unescape alone would make "¬hing;" of "&nothing;", and "Rock¬es" of "Rock&notes".
    is_known = text[1] == "#" or text[1:] in html5
    return html.unescape(text) if is_known else text
