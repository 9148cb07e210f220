"""What was aimed at, beside what `requests.py` measured: a table for each base."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pooled_plan import Size
from report_parts import MISSING, markdown
from requests_lines import Line, size_title

VARIANT = "scores"
"""Whose figures are held against the aims: what `e2urec` does where a run has scores."""
MOST_LEFT = 0.10
WIDEST = 0.20
FARTHEST_REQUEST = 0.25
MOST_AUC_LOST = 0.005
LEAST_ALIGNMENT = 0.75
LEAST_RETAINED = 0.9
MOST_SECONDS = 10
MOST_OF_A_RETRAINING: Mapping[str, float] = {Size.FOLD: 1 / 5, Size.PART: 1 / 20}


@dataclass(frozen=True)
class Found:
    """What one seed shows of an aim: in words, and whether that reaches it."""

    words: str
    is_reached: bool

    def __str__(self) -> str:
        return f"**{self.words}**" if self.is_reached else self.words


UNKNOWN = Found(MISSING, False)
"""A figure that the line lacks, as alignment is where one model was retrained."""

Look = Callable[[Line], Found]
"""What a line shows of an aim."""


# --- the aims


def at_least(name: str, least: float, digits: int = 2) -> Look:
    """A figure that shall not be below `least`."""

    def look(line: Line) -> Found:
        value = line.values["figures"][name]["value"]
        return UNKNOWN if value is None else Found(f"{value:.{digits}f}", value >= least)

    return look


def memory_left(line: Line) -> Found:
    """M_auc, which is 0 for retrained models."""
    value = line.values["figures"]["memory_auc"]["value"]
    return UNKNOWN if value is None else Found(f"{value:.2f}", abs(value) <= MOST_LEFT)


def interval_of_memory(line: Line) -> Found:
    """How surely M_auc is known to be small."""
    figure = line.values["figures"]["memory_auc"]
    if figure["low"] is None or figure["high"] is None:
        return UNKNOWN
    words = f"[{figure['low']:.2f}, {figure['high']:.2f}]"
    return Found(words, max(-figure["low"], figure["high"]) <= WIDEST)


def single_requests(line: Line) -> Found:
    """How many requests are near retraining one by one."""
    near = [value for value in line.points if abs(value) <= FARTHEST_REQUEST]
    return Found(f"{len(near)} of {len(line.points)}", len(near) == len(line.points))


def seconds(line: Line) -> Found:
    """The median request's, as a share of a retraining; a single user's as they are."""
    found = line.values["seconds"]
    if line.size in MOST_OF_A_RETRAINING:
        return Found(f"{found['share']:.0%}", found["share"] <= MOST_OF_A_RETRAINING[line.size])
    return Found(f"{found['median']:.1f} s", found["median"] <= MOST_SECONDS)


def passes(line: Line) -> Found:
    """The verdict, which is to be PASS."""
    outcome = line.values["verdict"]["outcome"]
    return Found(outcome, outcome == "PASS")


def fails_not(line: Line) -> Found:
    """The verdict of what may be too few rows for a PASS."""
    outcome = line.values["verdict"]["outcome"]
    return Found(outcome, outcome != "FAIL")


ALL = tuple(Size)
AIMS: Sequence[tuple[str, Look, Sequence[Size]]] = (
    (f"M_auc within ±{MOST_LEFT:.2f}", memory_left, ALL),
    (f"its interval within ±{WIDEST:.2f}", interval_of_memory, ALL),
    (f"each request within ±{FARTHEST_REQUEST:.2f}", single_requests, (Size.FOLD,)),
    (
        f"test AUC less the retrained models' at least −{MOST_AUC_LOST}",
        at_least("test_auc_to_retrained", -MOST_AUC_LOST, 3),
        ALL,
    ),
    (f"alignment at least {LEAST_ALIGNMENT}", at_least("alignment", LEAST_ALIGNMENT), ALL),
    (
        f"retained memory at least {LEAST_RETAINED}",
        at_least("retained_memory", LEAST_RETAINED),
        ALL,
    ),
    ("PASS", passes, (Size.FOLD,)),
    ("no FAIL", fails_not, (Size.PART, Size.SINGLE)),
    (
        f"seconds: a fifth, a twentieth of a retraining, {MOST_SECONDS} s",
        seconds,
        ALL,
    ),
)


# --- the table


def aims_table(lines: Sequence[Line], base: str) -> str:
    """Markdown: a line for each aim, a column for each size; in each cell a value for each seed."""
    ours = [line for line in lines if (line.base, line.variant) == (base, VARIANT)]
    ours.sort(key=lambda line: line.seed)
    measured = {line.size for line in ours}
    sizes = [size for size in Size if size in measured]
    rows = []
    for words, look, of_sizes in AIMS:
        cells = [words]
        for size in sizes:
            found = [str(look(line)) for line in ours if line.size == size]
            cells.append(", ".join(found) if size in of_sizes else MISSING)
        rows.append(cells)
    seeds = ", ".join(str(seed) for seed in sorted({line.seed for line in ours}))
    title = f"*Base {base}: what was aimed at (bold: reached), on seeds {seeds}*"
    headings = ["aim", *map(size_title, sizes)]
    return "\n".join([title, "", *markdown(headings, rows)])


def aims_tables(lines: Sequence[Line]) -> str:
    """A table for each base that has the variant."""
    bases = dict.fromkeys(line.base for line in lines if line.variant == VARIANT)
    return "\n\n".join(aims_table(lines, base) for base in bases) + "\n"
