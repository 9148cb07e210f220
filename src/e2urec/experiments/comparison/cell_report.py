"""What a job says of the cells that it made, or could not make."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ...core.errors import RunError
from ...core.reading import read_object
from ...runs.files import write_json

REPORTS = "reports"


@dataclass
class CellReport:
    """What became of one cell.

    Attributes:
        key: its name.
        seconds: that it took.
        lines: what a user should know.
        failure: why its method could not make it; None: it is there.
        error: class and text of what ends the comparison; None: nothing does.
    """

    key: str
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)
    failure: str | None = None
    error: tuple[str, str] | None = None


def write_reports(path: Path, reports: Sequence[CellReport]) -> None:
    """Write what became of some cells into a file that is whole or not there."""
    write_json(path, {REPORTS: [asdict(report) for report in reports]})


def read_reports(path: Path) -> list[CellReport] | None:
    """What `write_reports` wrote; None where there is no such file, or a damaged one."""
    try:
        values = read_object(path, "").get(REPORTS)
        return TypeAdapter(list[CellReport]).validate_python(values)
    except (RunError, ValidationError):
        return None
