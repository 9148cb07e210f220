"""A comparison with one line a method: each seed's value, their mean, and an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..evaluation.comparison import Comparison
from ..evaluation.results import Results, headlines_of
from ..evaluation.roles import ORIGINAL, PLACEBO_TEMPERATURE, Kind, Role, in_order
from ..metrics.bootstrap import Interval
from .tables import MISSING

SECONDS = "seconds"
MEMORY = "memory_auc"


@dataclass(frozen=True)
class Heading:
    """A column of the summary.

    Attributes:
        name: of the figure among those of all measures.
        title: above the column.
        digits: decimals.
        narrow: whether the column is also in the 80 columns of a terminal.
    """

    name: str
    title: str
    digits: int
    narrow: bool


@dataclass(frozen=True)
class Entry:
    """A figure of one method over seeds.

    Of several seeds the interval is Student's over them (95%); of one it is that over users.

    Attributes:
        values: of each seed.
        mean: of them.
        low: lower end of the interval.
        high: upper end.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float

    @classmethod
    def over_seeds(cls, values: Sequence[float]) -> "Entry":
        """The mean of one value a seed; a single seed says nothing of how seeds differ."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(tuple(values), mean, float("nan"), float("nan"))
        quantile = stats.t.ppf(0.975, len(values) - 1)
        half = float(quantile * np.std(values, ddof=1) / np.sqrt(len(values)))
        return cls(tuple(values), mean, mean - half, mean + half)

    @classmethod
    def of(cls, figures: Sequence[Interval]) -> "Entry":
        """The figures of one method, one a seed."""
        if len(figures) == 1:
            figure = figures[0]
            return cls((figure.value,), figure.value, figure.low, figure.high)
        return cls.over_seeds([figure.value for figure in figures])

    def text(self, digits: int) -> str:
        """`0.43 [0.40, 0.46]`, without limits where there are none."""
        if not np.isfinite(self.mean):
            return MISSING
        value = f"{self.mean:.{digits}f}"
        if not np.isfinite([self.low, self.high]).all():
            return value
        return f"{value} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def cell(self, digits: int, between: str) -> str:
        """Every seed's value where there are several, then the mean and its interval."""
        if len(self.values) == 1:
            return self.text(digits)
        seeds = " ".join(f"{value:.{digits}f}" for value in self.values)
        return f"{seeds}{between}{self.text(digits)}"


@dataclass(frozen=True)
class SummaryLine:
    """One model of the summary, at one request.

    Attributes:
        role: of the model.
        request: its number.
        entries: by name of the figure.
        verdicts: of each seed.
    """

    role: Role
    request: int
    entries: dict[str, Entry]
    verdicts: tuple[str, ...]

    @property
    def distance_from_retrained(self) -> float:
        """|M_auc|, by which methods are ranked; those without come last."""
        entry = self.entries.get(MEMORY)
        return float("inf") if entry is None else abs(entry.mean)

    def cell(self, heading: Heading, between: str) -> str:
        """The entry of a column, or a dash."""
        entry = self.entries.get(heading.name)
        return MISSING if entry is None else entry.cell(heading.digits, between)


def headings(comparison: Comparison) -> list[Heading]:
    """All columns for which there is a figure: the measures' headlines, then the seconds."""
    columns: dict[str, Heading] = {}
    for results in comparison.results.values():
        for name, (_, headline) in headlines_of(results.tables).items():
            columns[name] = Heading(name, headline.title, headline.digits, headline.narrow)
    columns[SECONDS] = Heading(SECONDS, "seconds", 1, narrow=True)
    lines = summary(comparison)
    return [
        column for name, column in columns.items() if any(name in line.entries for line in lines)
    ]


def summary(comparison: Comparison) -> list[SummaryLine]:
    """A line a model and request: the methods by |M_auc|, then what they are held against."""
    methods: list[SummaryLine] = []
    references: list[SummaryLine] = []
    for request in comparison.rows:
        for role in _roles(comparison, request):
            line = _line(comparison, request, role)
            if role.kind is Kind.UNLEARNED:
                methods.append(line)
            else:
                references.append(line)
    methods.sort(key=lambda line: (line.request, line.distance_from_retrained))
    return methods + references


def _roles(comparison: Comparison, request: int) -> list[Role]:
    """The models of a request; of the retrained ones the first stands for all."""
    roles: dict[Role, None] = {}
    for (_, number), results in comparison.results.items():
        if number == request:
            roles |= dict.fromkeys(role for role in results.roles if role.number <= 1)
    return in_order(roles)


def _line(comparison: Comparison, request: int, role: Role) -> SummaryLine:
    results = _results_with(comparison, request, role)
    figures = [found.headlines(role) for found in results.values()]
    names = [name for name in figures[0] if all(name in row for row in figures)]
    entries = {name: Entry.of([row[name] for row in figures]) for name in names}
    # The original took no request, and a fitted temperature next to nothing.
    if role not in (ORIGINAL, PLACEBO_TEMPERATURE):
        records = [comparison.record((seed, request), role) for seed in results]
        seconds = [record.seconds.get("total") for record in records]
        values = [value for value in seconds if value is not None]
        if len(values) == len(seconds):
            entries[SECONDS] = Entry.over_seeds(values)
    verdicts = [
        found.verdicts[role].outcome for found in results.values() if role in found.verdicts
    ]
    return SummaryLine(role, request, entries, tuple(verdicts))


def _results_with(comparison: Comparison, request: int, role: Role) -> dict[int, Results]:
    """By seed: the results of a request that have the model."""
    return {
        seed: results
        for (seed, number), results in comparison.results.items()
        if number == request and role in results.roles
    }


def label(comparison: Comparison, line: SummaryLine) -> str:
    """The model's name; exact methods are marked, and so are requests where there are several."""
    mark = "†" if line.role.name in comparison.exact else ""
    request = f" ({line.request})" if len(comparison.rows) > 1 else ""
    return f"{line.role.title}{mark}{request}"


CAPTION = (
    "M: memory of D_f, 0 = retrained, 1 = nothing done. Each seed's value, then mean and 95% "
    "interval: over seeds where there are several, over users where there is one. †: exact by "
    "construction; sharded models are another architecture, and their distance to retrained models "
    "is that."
)
