"""What the reports of benchmarks share: figures as text, Markdown tables, and marks in pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import interval_text
from e2urec.core.errors import DataError

MISSING = "–"


def figure_text(figure: Mapping[str, Any] | None, digits: int, *, interval: bool = True) -> str:
    """A figure with its interval, where it has one."""
    if figure is None or figure["value"] is None:
        return MISSING
    if not interval or figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.{digits}f}"
    return interval_text(figure, digits)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def machine_name(machine: Mapping[str, Any]) -> str:
    """`EPYC (2 cores, 1 threads)`, with the GPU where it has one."""
    parts = [f"{machine['count']} cores", f"{machine['threads']} threads"]
    if "gpu" in machine:
        parts.append(machine["gpu"])
    return f"{machine['cpu']} ({', '.join(parts)})"


def put_into(page: Path, texts: Mapping[str, str]) -> None:
    """Put each text between `<!-- mark -->` and `<!-- /mark -->` of a page, by mark.

    Raises:
        DataError: the page lacks a mark; it stays as it is.
    """
    content = page.read_text(encoding="utf-8")
    for mark, text in texts.items():
        start_mark = f"<!-- {mark} -->"
        end_mark = f"<!-- /{mark} -->"
        before, start, rest = content.partition(start_mark)
        _, end, after = rest.partition(end_mark)
        if not start or not end:
            raise DataError(f"'{page}': lacks {start_mark} or {end_mark}; add a line for each")
        content = f"{before}{start_mark}\n\n{text}\n{end_mark}{after}"
    page.write_text(content, encoding="utf-8")
