"""What a measure is: it says what it needs, computes rows of figures, and names its columns.

Each measure is one file in `measures/`, found by being there. Terminal, page, JSON, Markdown and
LaTeX show it by what it says of itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..metrics.bootstrap import Interval
from .evidence import Evidence
from .roles import OURS, Role, RoleKind


@dataclass(frozen=True)
class Column:
    """A figure of a measure.

    Attributes:
        key: its name in JSON.
        title: its heading in tables.
        digits: decimals that tables show.
        brief: whether terminal and page show it; the files have every column.
    """

    key: str
    title: str
    digits: int = 3
    brief: bool = True


@dataclass(frozen=True)
class Headline:
    """A figure that stands in a table with one line a method.

    Attributes:
        column: its key.
        title: its heading there.
        digits: decimals.
        group: the group it is taken from, where a measure has several rows a model.
        narrow: whether it is also in the summary of 80 columns on a terminal.
    """

    column: str
    title: str
    digits: int = 2
    group: str = ""
    narrow: bool = False


@dataclass(frozen=True)
class Row:
    """Figures of one model.

    Attributes:
        role: whose; None for figures of the evaluation as a whole.
        figures: by key of the column; a figure that does not exist is left out.
        group: what tells this row from others of the model: a slice, an attack, another model.
        minor: whether terminal and page leave it out; the files have it.
    """

    role: Role | None
    figures: Mapping[str, Interval]
    group: str = ""
    minor: bool = False


@dataclass(frozen=True)
class Needs:
    """What there must be before a measure can be computed.

    Attributes:
        candidates: models to judge: unlearned ones and placebos.
        retrained: at least so many retrained models.
        twin: an original of another seed.
        slices: slices of the test rows.
        relearning: relearning curves.
        retain: answers of all models to rows of D_r, and the difficulty of these.
        rewritten: answers of all models to the old prompts of rewritten rows.
        rivals: a comparison of methods, with e2urec among them.
    """

    candidates: bool = False
    retrained: int = 0
    twin: bool = False
    slices: bool = False
    relearning: bool = False
    retain: bool = False
    rewritten: bool = False
    rivals: bool = False

    def met_by(self, evidence: Evidence) -> bool:
        """Whether the evidence has it all."""
        if self.candidates and not evidence.candidates:
            return False
        if self.twin and evidence.twin is None:
            return False
        if self.slices and not evidence.slices:
            return False
        if self.relearning and not evidence.relearning:
            return False
        if self.retain and not evidence.knows_retained_rows:
            return False
        if self.rivals and OURS not in evidence.models:
            return False
        if self.rewritten and not evidence.knows("rewritten"):
            return False
        return len(evidence.retrained) >= self.retrained


@dataclass(frozen=True)
class Table:
    """What a measure found: its rows, and how they are shown.

    Attributes:
        name: of the measure.
        title: above the table.
        columns: in order.
        rows: one a model, or several, told apart by their group.
        note: a sentence below the table.
        group_title: heading of the groups; empty where there are none.
        group_titles: headings of the groups where they stand side by side.
        spread: the column that is shown of each group, side by side; empty: groups are rows.
        about: the kind of model to which terminal and page restrict the table; None: all of them.
        brief: whether terminal and page show the table; the files have every table.
        headlines: figures for tables with one line a method.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    group_title: str = ""
    group_titles: Mapping[str, str] = field(default_factory=dict)
    spread: Mapping[str, str] = field(default_factory=dict)
    about: RoleKind | None = None
    brief: bool = True
    headlines: tuple[Headline, ...] = ()

    def find(self, column: str, role: Role | None, group: str = "") -> Interval | None:
        """A figure, or None where there is none."""
        # Tables have a few dozen rows: a search costs less than an index would explain.
        for row in self.rows:
            if row.role == role and row.group == group:
                return row.figures.get(column)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Role → group → column → figure; levels that a table does not have are left out."""
        # Figures of the evaluation as a whole have no role, and most rows no group.
        table: dict[str, Any] = {}
        for row in self.rows:
            figures = {key: figure.as_dict() for key, figure in row.figures.items()}
            place = table
            if row.role is not None:
                place = table.setdefault(row.role.key, {})
            if row.group:
                place = place.setdefault(row.group, {})
            place.update(figures)
        return table


class Measure(ABC):
    """A way to look at the answers of all models of one request."""

    name: ClassVar[str]
    title: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    needs: ClassVar[Needs] = Needs()
    headlines: ClassVar[tuple[Headline, ...]] = ()
    group_title: ClassVar[str] = ""
    group_titles: ClassVar[Mapping[str, str]] = {}
    about: ClassVar[RoleKind | None] = None
    brief: ClassVar[bool] = True
    # What says nothing of its rows is taken to be measured on D_f: that errs on the safe side.
    on_forget_set: ClassVar[bool] = True
    """Whether its figures tell of the rows of D_f; these are rounded, or left out."""
    # Steps of ten between our own, so that another measure finds room between two.
    place: ClassVar[int] = 100
    """Where tables list it: lower ones first."""

    @abstractmethod
    def rows(self, evidence: Evidence) -> Iterable[Row]:
        """The figures, model by model."""

    def note(self, evidence: Evidence) -> str:
        """A sentence below the table, where one is needed."""
        return ""

    def spread(self, evidence: Evidence) -> Mapping[str, str]:
        """Group → the column that tables show of it, side by side; empty: groups are rows."""
        return {}

    def table(self, evidence: Evidence) -> Table:
        """The rows, with all that is needed to show them."""
        return Table(
            name=self.name,
            title=self.title,
            columns=self.columns,
            rows=tuple(self.rows(evidence)),
            note=self.note(evidence),
            group_title=self.group_title,
            group_titles=self.group_titles,
            spread=self.spread(evidence),
            about=self.about,
            brief=self.brief,
            headlines=self.headlines,
        )
