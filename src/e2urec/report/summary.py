"""A comparison with one line a method: each seed's value, their mean, and an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..evaluation.comparison import Comparison
from ..evaluation.results import Results, headlines_of
from ..evaluation.roles import ORIGINAL, PLACEBO_TEMPERATURE, Role, RoleKind, in_order
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
        # Student's quantile: with three seeds the normal one would be half as wide as it must be.
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(tuple(values), mean, float("nan"), float("nan"))
        quantile = stats.t.ppf(0.975, len(values) - 1)
        standard_error = np.std(values, ddof=1) / np.sqrt(len(values))
        half = float(quantile * standard_error)
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
        if entry is None:
            return float("inf")
        return abs(entry.mean)

    def cell(self, heading: Heading, between: str) -> str:
        """The entry of a column, or a dash."""
        entry = self.entries.get(heading.name)
        if entry is None:
            return MISSING
        return entry.cell(heading.digits, between)


def headings(comparison: Comparison) -> list[Heading]:
    """All columns for which there is a figure: the measures' headlines, then the seconds."""
    columns: dict[str, Heading] = {}
    for results in comparison.results.values():
        for name, (_, headline) in headlines_of(results.tables).items():
            columns[name] = Heading(name, headline.title, headline.digits, headline.narrow)
    columns[SECONDS] = Heading(SECONDS, "seconds", 1, narrow=True)
    names: set[str] = set()
    for line in summary(comparison):
        names.update(line.entries)
    present = [column for name, column in columns.items() if name in names]
    # What is left of D_f comes first: it is what the methods are ranked by.
    return sorted(present, key=lambda column: not column.name.startswith("memory_"))


def summary(comparison: Comparison) -> list[SummaryLine]:
    """A line a model and request: the methods by |M_auc|, then what they are held against."""
    # Placebos, original and retrained models are no rivals, and come last.
    methods: list[SummaryLine] = []
    references: list[SummaryLine] = []
    for request in comparison.rows:
        for role in _roles(comparison, request):
            line = _line(comparison, request, role)
            if role.kind is RoleKind.UNLEARNED:
                methods.append(line)
            else:
                references.append(line)

    def rank(line: SummaryLine) -> tuple[int, float]:
        return line.request, line.distance_from_retrained

    methods.sort(key=rank)
    return methods + references


def _roles(comparison: Comparison, request: int) -> list[Role]:
    """The models of a request; of the retrained ones the first stands for all."""
    roles: dict[Role, None] = {}
    for (_, number), results in comparison.results.items():
        if number != request:
            continue
        for role in results.roles:
            if role.number <= 1:
                roles[role] = None
    return in_order(roles)


def _line(comparison: Comparison, request: int, role: Role) -> SummaryLine:
    results_by_seed = _results_with(comparison, request, role)
    figures = [results.headlines(role) for results in results_by_seed.values()]
    # A figure that one seed lacks has no mean over seeds.
    shared = set(figures[0]).intersection(*figures)
    entries = {}
    for name in figures[0]:
        if name in shared:
            entries[name] = Entry.of([row[name] for row in figures])
    seconds = _seconds(comparison, request, role, list(results_by_seed))
    if seconds is not None:
        entries[SECONDS] = seconds
    verdicts = []
    for results in results_by_seed.values():
        if role in results.verdicts:
            verdicts.append(results.verdicts[role].outcome)
    return SummaryLine(role, request, entries, tuple(verdicts))


def _seconds(
    comparison: Comparison, request: int, role: Role, seeds: Sequence[int]
) -> Entry | None:
    """What a model took in all; None where a seed does not say."""
    # The original took no request, and a fitted temperature next to nothing.
    if role in (ORIGINAL, PLACEBO_TEMPERATURE):
        return None
    totals = []
    for seed in seeds:
        record = comparison.record((seed, request), role)
        if "total" not in record.seconds:
            return None
        totals.append(record.seconds["total"])
    return Entry.over_seeds(totals)


def _results_with(comparison: Comparison, request: int, role: Role) -> dict[int, Results]:
    """By seed: the results of a request that have the model."""
    results_by_seed = {}
    for (seed, number), results in comparison.results.items():
        if number == request and role in results.roles:
            results_by_seed[seed] = results
    return results_by_seed


def label(comparison: Comparison, line: SummaryLine) -> str:
    """The model's name; exact methods are marked, and so are requests where there are several."""
    # Exact methods forget by construction: they must not be taken for better ones.
    mark = "†" if line.role.name in comparison.exact else ""
    request = f" ({line.request})" if len(comparison.rows) > 1 else ""
    return f"{line.role.title}{mark}{request}"


def caption(comparison: Comparison) -> str:
    """What the table means, and what it leaves out."""
    sentences = [CAPTION]
    # The same name stands for methods as different as learning from scores or not.
    if comparison.presets:
        presets = [f"{name}: {preset}" for name, preset in comparison.presets.items()]
        sentences.append(f"Presets other than the default: {', '.join(presets)}.")
    sentences += _sentences_on_requests(comparison)
    seconds = []
    for key in comparison.records:
        record = comparison.record(key, ORIGINAL)
        if "scores" in record.seconds:
            seconds.append(record.seconds["scores"])
    if seconds:
        mean = sum(seconds) / len(seconds)
        sentences.append(
            f"Out-of-fold scores are made once for each original, in {mean:.1f} s; the seconds of "
            "requests leave that out."
        )
    jobs = [record.jobs for records in comparison.records.values() for record in records.values()]
    # An interrupted comparison may have gone on with another number.
    if max(jobs, default=1) > 1:
        sentences.append(
            f"Cells were made by up to {max(jobs)} jobs at once: their seconds are those of a busy "
            "machine, and cannot be compared."
        )
    return " ".join(sentences)


def _sentences_on_requests(comparison: Comparison) -> list[str]:
    """Whom each request names, and what a cheap recommender reaches on its test rows."""
    sentences = []
    # Of one request the page says enough.
    if len(comparison.requests) > 1:
        texts = [f"({number}) {text}" for number, text in comparison.requests.items()]
        sentences.append(f"Requests: {'; '.join(texts)}.")
    if any("single users" in text for text in comparison.requests.values()):
        sentences.append(
            "Of single users the rows are one set, and the seconds those of one request in the "
            "mean; exact methods (†) erase all of them at once."
        )
    if comparison.control_auc:
        aucs = [f"{value:.3f}" for value in comparison.control_auc.values()]
        sentences.append(
            "A control that sees the means of items and users alone reaches a test AUC of "
            f"{', '.join(aucs)}{' in turn' if len(aucs) > 1 else ''}."
        )
    return sentences


CAPTION = (
    "M: memory of D_f, 0 = retrained, 1 = nothing done. Each seed's value, then mean and 95% "
    "interval: over seeds where there are several, over users where there is one. †: exact by "
    "construction; sharded models are another architecture, and their distance to retrained models "
    "is that."
)
