"""A table and a picture of what `requests.py` measured, from its JSON files alone.

    python benchmarks/requests_report.py docs/results/requests-*.json [--into PAGE.md]

Prints Markdown tables, one for each base and size of requests, and draws every request as a point.
`--into` also puts the tables into a page, between the marks `<!-- requests -->` and
`<!-- /requests -->`, and what was aimed at and reached between the same marks of `aims`.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from common import option_parser
from e2urec.core.errors import DataError, E2URecError
from e2urec.report.plots import svg_of
from pooled_plan import Size
from report_parts import MISSING, figure_text, machine_name, markdown, put_into
from requests_aims import aims_tables
from requests_lines import Line, Report, lines_of, read_reports, size_title

# Draws into memory: there may be no screen.
matplotlib.use("Agg")
from matplotlib import pyplot as plt

PICTURE = Path("docs/evidence/requests.svg")
MARK = "requests"
AIMS_MARK = "aims"

HEADINGS = (
    "variant",
    "seed",
    "requests",
    "rows",
    "M_auc",
    "within requests",
    "alignment",
    "correlation / ceiling",
    "retained memory",
    "test AUC − original's",
    "test AUC − retrained's",
    "seconds",
    "of a retraining",
    "requests with a warning",
    "verdict",
)
RETRAINED = "retrained"

# Requests of few rows lie far outside, where nothing is to be told but that they do.
LIMITS = (-1.0, 2.0)
ROW_HEIGHT = 0.45
# Rows of seeds of one variant lie closer to each other than to the next variant's.
SEED_STEP = 0.22
COLOURS = ("#1f6fb2", "#c0392b", "#3a8f5c", "#8a6d9e", "#b9770e")


# --- tables


def tables(reports: Sequence[Report]) -> str:
    """Markdown: a table for each base and size, variants in order, seeds beneath each other."""
    lines = lines_of(reports)
    parts = []
    for base, size in dict.fromkeys((line.base, line.size) for line in lines):
        group = [line for line in lines if (line.base, line.size) == (base, size)]
        group.sort(key=lambda line: (line.variant, line.seed))
        rows = [cells_of(line) for line in group]
        # The retrained models belong to the largest requests, which come first.
        if size == lines[0].size:
            rows += retrained_rows(reports, base)
        title = f"*Base {base}, requests of {size_title(size)}*"
        parts.append("\n".join([title, "", *markdown(HEADINGS, rows)]))
    notes = [note_of(report) for report in reports]
    return "\n\n".join([*parts, "\n".join(notes)]) + "\n"


def cells_of(line: Line) -> list[str]:
    """The line of the table."""
    values = line.values
    figures = values["figures"]
    seconds = values["seconds"]
    correlation = figure_text(figures["correlation"], 2, interval=False)
    ceiling = figure_text(figures["ceiling"], 2, interval=False)
    return [
        line.variant,
        str(line.seed),
        f"{values['requests']} of {values['planned']}",
        f"{values['rows']:,}",
        figure_text(figures["memory_auc"], 2),
        figure_text(figures["memory_within"], 2),
        figure_text(figures["alignment"], 2),
        f"{correlation} / {ceiling}",
        figure_text(figures["retained_memory"], 2),
        figure_text(figures["test_auc_to_original"], 3),
        figure_text(figures["test_auc_to_retrained"], 3),
        f"{seconds['median']:.1f}",
        f"{seconds['share']:.1%}",
        f"{len(line.warned)} of {values['requests']}",
        values["verdict"]["outcome"],
    ]


def retrained_rows(reports: Sequence[Report], base: str) -> list[list[str]]:
    """What retraining itself does, a line of the table for each seed that has retrained models."""
    rows = []
    for report in reports:
        if report["base"] == base and report["retraining"]["models"]:
            rows.append(retrained_cells(report))
    return rows


def retrained_cells(report: Report) -> list[str]:
    """The line of one seed."""
    retraining = report["retraining"]
    cells = {
        "variant": RETRAINED,
        "seed": str(report["seed"]),
        "requests": f"{retraining['models']} models",
        "retained memory": figure_text(retraining["retained_memory"], 2),
        "test AUC − original's": figure_text(retraining["test_auc_to_original"], 3),
        "seconds": f"{retraining['seconds']:.1f}",
    }
    return [cells.get(heading, MISSING) for heading in HEADINGS]


def note_of(report: Report) -> str:
    """Where and how long a seed was measured, and whether all of it was."""
    where = "; ".join(machine_name(machine) for machine in report["machines"])
    state = "" if report["complete"] else " Not all requests are measured yet."
    return f"- {report['base']}, seed {report['seed']}: {report['hours']:.1f} h on {where}.{state}"


# --- the picture


def draw(reports: Sequence[Report]) -> str:
    """The picture as SVG text: a panel for each base and size, a row for each of its variants."""
    lines = lines_of(reports)
    variants: dict[str, dict[str, None]] = {}
    for line in lines:
        variants.setdefault(line.base, {})[line.variant] = None
    measured_sizes = {line.size for line in lines}
    sizes = [size for size in Size if size in measured_sizes]
    heights = [1.0 + ROW_HEIGHT * len(names) for names in variants.values()]
    figure, axes = plt.subplots(
        len(variants),
        len(sizes),
        figsize=(3.2 * len(sizes), sum(heights)),
        height_ratios=heights,
        sharey="row",
        squeeze=False,
    )
    seeds = sorted({line.seed for line in lines})
    for row, (base, names) in enumerate(variants.items()):
        for column, size in enumerate(sizes):
            group = [line for line in lines if (line.base, line.size) == (base, size)]
            draw_panel(axes[row, column], group, list(names), seeds)
            axes[row, column].set_title(f"{base}: {size_title(size)}", fontsize=9)
    named_seeds = ", ".join(map(str, seeds))
    words = "M_auc: 0 = retrained, 1 = nothing done (hollow: within requests); from the top, "
    words += f"seeds {named_seeds}"
    figure.supxlabel(words, fontsize=9)
    figure.tight_layout()
    return svg_of(figure)


def draw_panel(
    axes: "plt.Axes", lines: Sequence[Line], variants: Sequence[str], seeds: Sequence[int]
) -> None:
    """Requests as points; pooled, a diamond with its interval; within requests, a hollow one."""
    for limit in (0.0, 1.0):
        axes.axvline(limit, color="#888888", lw=0.8, zorder=0)
    for line in lines:
        place = seeds.index(line.seed) - (len(seeds) - 1) / 2
        y = variants.index(line.variant) + place * SEED_STEP
        colour = COLOURS[seeds.index(line.seed) % len(COLOURS)]
        points = [clipped(value) for value in line.points]
        axes.scatter(points, [y] * len(points), s=9, color=colour, alpha=0.35, lw=0)
        figures = line.values["figures"]
        within = figures["memory_within"]["value"]
        if within is not None:
            axes.plot([clipped(within)], [y], "D", ms=7, color="none", mec=colour, mew=1.0)
        draw_pooled(axes, figures["memory_auc"], y, colour)
    if not any(line.values["requests"] for line in lines):
        words = "not measured yet"
        axes.text(
            0.5,
            (len(variants) - 1) / 2,
            words,
            ha="center",
            va="center",
            color="#888888",
            fontsize=8,
        )
    axes.set_xlim(LIMITS[0] - 0.05, LIMITS[1] + 0.05)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_yticks(range(len(variants)), variants, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_pooled(axes: "plt.Axes", figure: Mapping[str, Any], y: float, colour: str) -> None:
    """The pooled value and its interval; nothing where there is no value."""
    if figure["value"] is None:
        return
    if figure["low"] is not None and figure["high"] is not None:
        ends = [clipped(figure["low"]), clipped(figure["high"])]
        axes.plot(ends, [y, y], color=colour, lw=1.8, solid_capstyle="butt")
    axes.plot([clipped(figure["value"])], [y], "D", ms=5, color=colour, mec="white", mew=0.8)


def clipped(value: float) -> float:
    """The value, or the nearer end of the axis."""
    low, high = LIMITS
    return min(max(value, low), high)


# --- the command line


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = option_parser(__doc__)
    parser.add_argument("reports", type=Path, nargs="+", help="JSON files of requests.py")
    parser.add_argument("--plot", type=Path, default=PICTURE, help="where to draw")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="Markdown page with the marks")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Read the arguments; print the tables; draw."""
    arguments = options(words)
    try:
        reports = read_reports(arguments.reports)
        if not lines_of(reports):
            raise DataError("no request is finished in these files; measure more")
        text = tables(reports)
        print(text, end="")
        if arguments.into is not None:
            put_into(arguments.into, {AIMS_MARK: aims_tables(lines_of(reports)), MARK: text})
    except E2URecError as error:
        raise SystemExit(f"error: {error}") from error
    arguments.plot.write_text(draw(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
