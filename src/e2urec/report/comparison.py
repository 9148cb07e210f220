"""A comparison as files: a long table, a summary in Markdown and LaTeX, and a page with plots."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..evaluation.comparison import CellRecord, Comparison
from ..evaluation.disclosure import is_told
from ..evaluation.roles import ORIGINAL, retrained
from ..runs.files import write_json
from ..runs.record import RESULTS
from . import plots
from .page import render
from .summary import MEMORY, SECONDS, SummaryLine, caption, headings, label, summary

UTILITY = "utility_auc_difference"
ANCHORS = {ORIGINAL: 1.0, retrained(1): 0.0}
"""M_auc of the models that define its scale."""
LATEX = {
    "_": "\\_",
    "†": "$^\\dagger$",
    "−": "$-$",
    "–": "--",
    "%": "\\%",
    "&": "\\&",
}
SCHEMA = {
    "model": pl.String,
    "seed": pl.Int64,
    "request": pl.Int64,
    "measure": pl.String,
    "column": pl.String,
    "group": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
}
"""Of the long table."""


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write `results.json`, `results.parquet`, `table.md`, `table.tex` and `report.html`.

    They hold figures only, and no user id.
    """
    write_json(folder / RESULTS, comparison.as_dict())
    long_table(comparison).write_parquet(folder / "results.parquet")
    texts = {
        "table.md": markdown(comparison),
        "table.tex": latex(comparison),
        "report.html": _page(comparison),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def long_table(comparison: Comparison) -> pl.DataFrame:
    """A row a figure: model × seed × request × measure × column × group."""
    rows = []
    for (seed, request), results in comparison.results.items():
        for role in results.roles:
            place = {"model": role.key, "seed": seed, "request": request}
            for table in results.tables.values():
                for row in table.rows:
                    if row.role != role:
                        continue
                    measure = {"measure": table.name, "group": row.group}
                    for column, figure in row.figures.items():
                        rows.append(place | measure | {"column": column} | figure.as_dict())
            record = comparison.record((seed, request), role)
            rows += [place | row for row in _cost_rows(record)]
    return pl.DataFrame(rows, schema=SCHEMA)


def _cost_rows(record: CellRecord) -> list[dict[str, object]]:
    """Seconds as figures without limits."""
    nan = float("nan")
    # Beside the measures, so that one table answers what a method forgets and what it costs.
    rows: list[dict[str, object]] = []
    for phase, seconds in record.seconds.items():
        name = {"measure": "cost", "column": f"seconds_{phase}", "group": ""}
        rows.append(name | {"value": seconds, "low": nan, "high": nan, "n": 1})
    return rows


def markdown(comparison: Comparison) -> str:
    """The summary as a Markdown table."""
    # Every headline: a file may be wider than a terminal.
    columns = headings(comparison)
    titles = ["method", *(column.title for column in columns), "verdict"]
    rows = [titles, ["---"] * len(titles)]
    for line in summary(comparison):
        name = label(comparison, line)
        cells = [line.cell(column, "; ") for column in columns]
        verdicts = ", ".join(line.verdicts) or "–"
        rows.append([name, *cells, verdicts])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    table = "\n".join(lines)
    return f"{table}\n\n{caption(comparison)}\n"


def latex(comparison: Comparison) -> str:
    """The summary as a LaTeX tabular (booktabs)."""
    columns = headings(comparison)
    titles = ["method", *(_tex(column.title) for column in columns)]
    rows = []
    for line in summary(comparison):
        name = _tex(label(comparison, line))
        cells = [_tex(line.cell(column, "; ")) for column in columns]
        rows.append(" & ".join([name, *cells]))
    body = " \\\\\n".join(rows)
    return (
        f"% {caption(comparison)}\n"
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}\n"
        "\\toprule\n"
        f"{' & '.join(titles)} \\\\\n"
        "\\midrule\n"
        f"{body} \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _tex(text: str) -> str:
    for plain, markup in LATEX.items():
        text = text.replace(plain, markup)
    return text


def _page(comparison: Comparison) -> str:
    # Scores of one seed and request: more would not be readable, and others look alike.
    lines = summary(comparison)
    first = min(comparison.results)
    drawings = {
        "utility": plots.trade_off(_points(lines, UTILITY), "test AUC less the original's"),
        "cost": plots.trade_off(_points(lines, SECONDS), "seconds, everything included", log=True),
    }
    labels = comparison.labels[first[1]]
    if is_told(len(labels)):
        drawings["scores"] = plots.score_spread(comparison.log_odds[first], labels)
    return render(
        "comparison.html.j2",
        comparison=comparison,
        lines=lines,
        columns=headings(comparison),
        plots=drawings,
        left_out=comparison.results[first].left_out,
        label=label,
        caption=caption(comparison),
    )


def _points(lines: Sequence[SummaryLine], name: str) -> dict[str, plots.Points]:
    """M_auc and another figure of each seed, by model, over all requests."""
    points: dict[str, tuple[list[float], list[float]]] = {}
    for line in lines:
        heights: tuple[float, ...] = ()
        if name in line.entries:
            heights = line.entries[name].values
        # The original's difference to itself is in no table.
        if line.role == ORIGINAL and name == UTILITY:
            heights = (0.0,)
        memories = _memories(line, len(heights))
        if memories and len(memories) == len(heights):
            across, upwards = points.setdefault(line.role.title, ([], []))
            across.extend(memories)
            upwards.extend(heights)
    return dict(points)


def _memories(line: SummaryLine, count: int) -> list[float]:
    """M_auc of each seed; the original and the retrained model stand at the ends of its scale."""
    entry = line.entries.get(MEMORY)
    if entry is not None:
        return list(entry.values)
    if line.role in ANCHORS:
        return [ANCHORS[line.role]] * count
    return []
