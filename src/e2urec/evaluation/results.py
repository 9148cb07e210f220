"""What an evaluation found: a table a measure, and a verdict a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..metrics.bootstrap import Interval
from .measure import Headline, Table
from .roles import Role
from .verdict import Verdict


@dataclass(frozen=True)
class Results:
    """All figures of one request, each with its 95% interval.

    Attributes:
        tables: by name of the measure, in the order in which they are shown.
        verdicts: PASS, FAIL, RETRAIN or UNMEASURABLE of the original and each candidate, and why.
        roles: the models, in the order in which tables list them.
        left_out: why figures on D_f are left out, in a sentence; empty where they are not.
    """

    tables: Mapping[str, Table]
    roles: tuple[Role, ...]
    verdicts: Mapping[Role, Verdict] = field(default_factory=dict)
    left_out: str = ""

    def find(
        self, measure: str, column: str, role: Role | None = None, group: str = ""
    ) -> Interval | None:
        """A figure, or None where the measure did not apply or has no such figure."""
        table = self.tables.get(measure)
        if table is None:
            return None
        return table.find(column, role, group)

    def figure(
        self, measure: str, column: str, role: Role | None = None, group: str = ""
    ) -> Interval:
        """A figure, such as `figure("memory", "auc", UNLEARNED)`.

        Raises:
            KeyError: there is none, since the measure did not apply or has no such figure.
        """
        figure = self.find(measure, column, role, group)
        if figure is None:
            model = "" if role is None else role.key
            place = " ".join(word for word in (measure, column, model, group) if word)
            measures = ", ".join(self.tables)
            raise KeyError(f"no figure {place}; there are {measures}")
        return figure

    def flat(self, role: Role | None) -> dict[str, Interval]:
        """All figures of one model (None: of none) under one name each, such as `memory_auc`."""
        # A model's figures side by side, for files with one row a model.
        figures = {}
        for table in self.tables.values():
            for row in table.rows:
                if row.role != role:
                    continue
                for column, figure in row.figures.items():
                    figures[flat_name(table.name, column, row.group)] = figure
        return figures

    def headlines(self, role: Role) -> dict[str, Interval]:
        """The figures of one model that stand in a table with one line a method."""
        figures = {}
        for name, (table, headline) in headlines_of(self.tables).items():
            figure = table.find(headline.column, role, headline.group)
            if figure is not None:
                figures[name] = figure
        return figures

    def as_dict(self) -> dict[str, Any]:
        """Measure → model → figures, as plain JSON values, `verdict` → model, and `left_out`."""
        plain: dict[str, Any] = {}
        for name, table in self.tables.items():
            plain[name] = table.as_dict()
        verdicts = {}
        for role, verdict in self.verdicts.items():
            verdicts[role.key] = verdict.as_dict()
        plain["verdict"] = verdicts
        if self.left_out:
            plain["left_out"] = self.left_out
        return plain


def headlines_of(tables: Mapping[str, Table]) -> dict[str, tuple[Table, Headline]]:
    """The headlines of all tables in order, each under its name among all figures."""
    # Measures say themselves which of their figures belong there: no list has to be kept.
    headlines = {}
    for table in tables.values():
        for headline in table.headlines:
            name = flat_name(table.name, headline.column, headline.group)
            headlines[name] = (table, headline)
    return headlines


def flat_name(measure: str, column: str, group: str = "") -> str:
    """One name for a figure among those of all measures."""
    parts = (measure, group, column)
    return "_".join(part for part in parts if part)
