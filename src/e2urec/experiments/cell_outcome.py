"""What a job says of a cell that it made, or could not make."""

from dataclasses import dataclass, field


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
