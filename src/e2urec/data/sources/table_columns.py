"""Which columns of the user's own tables are read, and where they stand."""

from collections.abc import Collection

from ...core.errors import DataError, did_you_mean
from .reading import Columns

ColumnNames = dict[str, str]
"""Our name of a column → the table's own."""


def columns_by_part(
    columns: Columns, parts: Collection[str], *, timed: bool
) -> dict[str, ColumnNames]:
    """The columns to read from the tables of ratings, items and users.

    Args:
        columns: the table's own names.
        parts: the parts that have a table. Items or users without one stand beside each rating.
        timed: whether times are read.
    """
    ratings = {
        "user": columns.user,
        "item": columns.item,
        "rating": columns.rating,
    }
    if timed:
        ratings["time"] = columns.time
    items = {"item": columns.item, "title": columns.title}
    # details and profile go by the table's own names, which prompts show
    items |= {name: name for name in columns.details}
    users = {"user": columns.user}
    users |= {name: name for name in columns.profile}
    if "items" not in parts:
        ratings |= items
    if "users" not in parts:
        ratings |= users
    return {"ratings": ratings, "items": items, "users": users}


def column_positions(header: list[str], names: ColumnNames, place: str) -> list[int]:
    """Where the columns stand in a header; raises DataError if one is missing or there twice."""
    positions = []
    for name, own_name in names.items():
        if own_name not in header:
            remedy = did_you_mean(own_name, header)
            # a detail or a part of the profile has no setting of its own
            if name in Columns.model_fields:
                remedy += f"; set columns.{name}"
            if name == "time":
                remedy += ", or data.order = 'random' where there are no times"
            raise DataError(f"{place}: has no column '{own_name}'{remedy}")
        if header.count(own_name) > 1:
            raise DataError(f"{place}: has two columns '{own_name}'; rename one")
        positions.append(header.index(own_name))
    return positions
