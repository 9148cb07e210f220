"""What was aimed at, beside what `requests.py` measured: a table for each base."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from e2urec.core.errors import DataError
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
"""Of a figure that was not measured, as alignment is not where one model was retrained."""


@dataclass(frozen=True)
class Aim:
    """A line of the table.

    Attributes:
        words: what is aimed at.
        look: what a line of the measurements shows of it.
        sizes: of the requests that it is asked of.
    """

    words: str
    look: Callable[[Line], Found]
    sizes: Sequence[Size] = tuple(Size)


# --- how the aims are looked at
# A figure is held against its limit as it is printed.


def at_least(name: str, least: float, digits: int) -> Callable[[Line], Found]:
    """A figure that shall not be below `least`."""

    def look(line: Line) -> Found:
        value = line.values["figures"][name]["value"]
        if value is None:
            return UNKNOWN
        return Found(f"{value:.{digits}f}", round(value, digits) >= least)

    return look


def near_retraining(name: str) -> Callable[[Line], Found]:
    """An M_auc, which is 0 for retrained models and 1 where nothing was done."""

    def look(line: Line) -> Found:
        value = line.values["figures"][name]["value"]
        if value is None:
            return UNKNOWN
        return Found(f"{value:.2f}", round(abs(value), 2) <= MOST_LEFT)

    return look


def interval_of_memory(line: Line) -> Found:
    """How surely M_auc is known to be small."""
    figure = line.values["figures"]["memory_auc"]
    if figure["low"] is None or figure["high"] is None:
        return UNKNOWN
    words = f"[{figure['low']:.2f}, {figure['high']:.2f}]"
    return Found(words, round(max(-figure["low"], figure["high"]), 2) <= WIDEST)


def requests_near_retraining(line: Line) -> Found:
    """How many requests are near retraining one by one, of those that were made."""
    count = line.values["requests"]
    near = sum(round(abs(value), 2) <= FARTHEST_REQUEST for value in line.points)
    return Found(f"{near} of {count}", near == count)


def seconds(line: Line) -> Found:
    """The median request's, as a share of a retraining; a single user's as they are."""
    found = line.values["seconds"]
    if line.size in MOST_OF_A_RETRAINING:
        share = round(found["share"], 2)
        return Found(f"{share:.0%}", share <= MOST_OF_A_RETRAINING[line.size])
    median = round(found["median"], 1)
    return Found(f"{median:.1f} s", median <= MOST_SECONDS)


def passes(line: Line) -> Found:
    """The verdict, which is to be PASS."""
    outcome = line.values["verdict"]["outcome"]
    return Found(outcome, outcome == "PASS")


def does_not_fail(line: Line) -> Found:
    """The verdict of what may be too few rows for a PASS."""
    outcome = line.values["verdict"]["outcome"]
    return Found(outcome, outcome != "FAIL")


AIMS = (
    Aim(f"M_auc within ±{MOST_LEFT:.2f}", near_retraining("memory_auc")),
    Aim(f"its interval within ±{WIDEST:.2f}", interval_of_memory),
    Aim(f"M_auc within requests within ±{MOST_LEFT:.2f}", near_retraining("memory_within")),
    Aim(
        f"each request within ±{FARTHEST_REQUEST:.2f}",
        requests_near_retraining,
        (Size.FOLD,),
    ),
    Aim(
        f"test AUC minus the retrained models': −{MOST_AUC_LOST} or more",
        at_least("test_auc_to_retrained", -MOST_AUC_LOST, 3),
    ),
    Aim(f"alignment {LEAST_ALIGNMENT} or more", at_least("alignment", LEAST_ALIGNMENT, 2)),
    Aim(
        f"retained memory {LEAST_RETAINED} or more", at_least("retained_memory", LEAST_RETAINED, 2)
    ),
    Aim("the verdict is PASS", passes, (Size.FOLD,)),
    Aim("the verdict is not FAIL", does_not_fail, (Size.PART, Size.SINGLE)),
    Aim(
        f"at most 1/5 (20%) or 1/20 (4%) of a retraining's seconds, {MOST_SECONDS} s (single user)",
        seconds,
    ),
)


# --- the table


def aims_tables(lines: Sequence[Line]) -> str:
    """Markdown: a table for each base that has the variant.

    Raises:
        DataError: none has it.
    """
    ours = [line for line in lines if line.variant == VARIANT]
    if not ours:
        raise DataError(f"no variant '{VARIANT}' in these files; name a file that has it as well")
    bases = dict.fromkeys(line.base for line in ours)
    tables = [aims_table([line for line in ours if line.base == base], base) for base in bases]
    return "\n\n".join(tables) + "\n"


def aims_table(lines: Sequence[Line], base: str) -> str:
    """A line for each aim, a column for each size; in each cell a value for each seed."""
    by_place = {(line.size, line.seed): line for line in lines}
    seeds = sorted({line.seed for line in lines})
    sizes = [size for size in Size if any(line.size == size for line in lines)]

    def cell(aim: Aim, size: Size) -> str:
        if size not in aim.sizes:
            return MISSING
        found = []
        for seed in seeds:
            line = by_place.get((size, seed))
            found.append(UNKNOWN if line is None else aim.look(line))
        return ", ".join(map(str, found))

    rows = [[aim.words, *(cell(aim, size) for size in sizes)] for aim in AIMS]
    named_seeds = ", ".join(map(str, seeds))
    title = f"*Base {base}: what was aimed at (bold: reached), on seeds {named_seeds}*"
    headings = ["aim", *map(size_title, sizes)]
    return "\n".join([title, "", *markdown(headings, rows)])
