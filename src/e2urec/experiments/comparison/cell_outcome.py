"""What a job says of the cells that it made, or could not make."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ...core.errors import RunError
from ...core.reading import read_object
from ...runs.files import write_json

OUTCOMES = "outcomes"


@dataclass
class Outcome:
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


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what became of some cells into a file that is whole or not there."""
    write_json(path, {OUTCOMES: [asdict(outcome) for outcome in outcomes]})


def read_outcomes(path: Path) -> list[Outcome] | None:
    """What `write_outcomes` wrote; None where there is no such file, or a damaged one."""
    try:
        values = read_object(path, "").get(OUTCOMES)
        return TypeAdapter(list[Outcome]).validate_python(values)
    except (RunError, ValidationError):
        return None
