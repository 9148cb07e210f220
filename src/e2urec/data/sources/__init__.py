"""Data sets: one file each, one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ..interactions import Interactions
from . import movielens


@dataclass(frozen=True)
class Source:
    """A kind of raw files: whether a folder holds them, how to read it, and its packaged data sets."""

    recognises: Callable[[Path], bool]
    read: Callable[..., Interactions]
    packaged: tuple[str, ...] = ()
    expects: str = ""


SOURCES: dict[str, Source] = {
    "movielens": Source(movielens.recognises, movielens.read, ("movielens-100k",), movielens.EXPECTS),
}


def detect(folder: Path, *, strict: bool = False) -> Interactions:
    """Read `folder` with the source that recognises it; raises DataError if none does."""
    for source in SOURCES.values():
        if source.recognises(folder):
            return source.read(folder, strict=strict)
    expected = "; ".join(f"{name}: {source.expects}" for name, source in SOURCES.items())
    raise DataError(f"data folder '{folder}': holds no data set that is known here; expected {expected}")
