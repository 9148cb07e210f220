"""A comparison as files: one long table, a summary for terminal, Markdown and LaTeX, and a page with plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from rich.table import Table
from scipy import stats

from ..evaluation.results import Comparison
from ..metrics.bootstrap import Interval
from ..runs.record import write_json
from . import plots
from .names import NAMES, in_order, table
from .page import render

COLUMNS = {
    "memory_auc": ("M_auc", 2),
    "memory_loss": ("M_loss", 2),
    "auc": ("test AUC", 3),
    "auc_difference": ("test AUC − original's", 3),
    "distance_js_answers": ("JS to retrained", 4),
    "excess_js": ("JS beyond floor", 2),
    "projection": ("projection", 2),
    "attack_loss_auc_beyond": ("attack beyond retrained", 3),
    "seconds": ("seconds", 1),
}
"""Figures of the summary: title, digits."""
NARROW = ("memory_auc", "auc_difference", "seconds")
"""Those that fit into 80 columns."""


@dataclass(frozen=True)
class Entry:
    """A figure of one method over seeds: each seed's value, their mean, and an interval.

    Of several seeds the interval is Student's over them (95%); of one it is that over users.
    """

    each: tuple[float, ...]
    mean: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """`0.43 [0.40, 0.46]`, without limits where there are none."""
        if not np.isfinite(self.mean):
            return "–"
        limits = (
            f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
            if np.isfinite([self.low, self.high]).all()
            else ""
        )
        return f"{self.mean:.{digits}f}{limits}"

    def seeds(self, digits: int) -> str:
        """Every seed's value."""
        return " ".join(f"{value:.{digits}f}" for value in self.each)


@dataclass(frozen=True)
class Line:
    """One model of the summary, at one request."""

    method: str
    request: int
    entries: dict[str, Entry]
    verdicts: tuple[str, ...]


def long_table(comparison: Comparison) -> pl.DataFrame:
    """A row a method × seed × request × metric: value, low, high, n."""
    columns = ("method", "seed", "request")
    rows = []
    for cell in comparison.cells():
        key = {name: cell[name] for name in columns}
        rows += [
            key | {"metric": metric} | figure.as_dict()
            for metric, figure in cell["metrics"].items()
        ]
        nan = float("nan")
        seconds = cell["cost"].get("seconds", {})
        rows += [
            key | {"metric": f"seconds_{phase}", "value": value, "low": nan, "high": nan, "n": 1}
            for phase, value in seconds.items()
        ]
    kinds = {
        "method": pl.String,
        "seed": pl.Int64,
        "request": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
    }
    return pl.DataFrame(rows, schema=kinds)


def summary(comparison: Comparison) -> list[Line]:
    """A line a method and request, over the seeds: the methods by |M_auc|, then what they are held against."""
    lines = []
    for number in sorted({number for _, number in comparison.results}):
        found = [(seed, each) for (seed, n), each in comparison.results.items() if n == number]
        for name in in_order(found[0][1].models):
            rows = [each.row(name) for _, each in found if name in each.models]
            seconds = [
                comparison.cost((seed, number), name).get("seconds", {}).get("total")
                for seed, each in found
                if name in each.models
            ]
            entries = {
                key: _entry([row[key] for row in rows])
                for key in COLUMNS
                if all(key in row for row in rows)
            }
            if all(value is not None for value in seconds) and name not in (
                "original",
                "placebo_temperature",
            ):
                entries["seconds"] = _over_seeds(
                    [float(value) for value in seconds if value is not None]
                )
            verdicts = tuple(
                each.verdict[name].outcome for _, each in found if name in each.verdict
            )
            if not name.startswith("retrained_"):
                lines.append(Line(name, number, entries, verdicts))
    held = [line for line in lines if line.method in NAMES]
    rivals = [line for line in lines if line.method not in NAMES]
    return sorted(rivals, key=lambda line: (line.request, _far(line))) + held


def _far(line: Line) -> float:
    return abs(line.entries["memory_auc"].mean) if "memory_auc" in line.entries else float("inf")


def _entry(found: Sequence[Interval]) -> Entry:
    if len(found) == 1:
        return Entry((found[0].value,), found[0].value, found[0].low, found[0].high)
    return _over_seeds([figure.value for figure in found])


def _over_seeds(values: Sequence[float]) -> Entry:
    mean, nan = float(np.mean(values)), float("nan")
    if len(values) < 2:
        return Entry(tuple(values), mean, nan, nan)
    half = float(
        stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    )
    return Entry(tuple(values), mean, mean - half, mean + half)


def label(comparison: Comparison, line: Line) -> str:
    """The method's name; exact ones are marked, and so are requests where there are several."""
    mark = "†" if line.method in comparison.exact else ""
    where = f" ({line.request})" if len(comparison.rows) > 1 else ""
    return f"{NAMES.get(line.method, line.method)}{mark}{where}"


CAPTION = (
    "M: memory of D_f, 0 = retrained, 1 = nothing done. Each seed's value, then mean and 95% interval: over seeds "
    "where there are several, over users where there is one. †: exact by construction; sharded models are another "
    "architecture, and their distance to retrained models is that."
)


def rich_table(comparison: Comparison) -> Table:
    """The summary in 80 columns: each seed's value, their mean, its interval."""
    titles = [COLUMNS[key][0].replace("AUC − ", "AUC −\n") for key in NARROW]
    shown = table("Methods by what is left of D_f", [*titles, "verdict"])
    for line in summary(comparison):
        cells = [_cell(line, key, "\n").replace(" [", "\n[") for key in NARROW]
        shown.add_row(
            label(comparison, line), *cells, "\n".join(dict.fromkeys(line.verdicts)) or "–"
        )
    return shown


def _columns(lines: Sequence[Line]) -> list[str]:
    return [key for key in COLUMNS if any(key in line.entries for line in lines)]


def markdown(comparison: Comparison) -> str:
    """The summary as a Markdown table."""
    lines = summary(comparison)
    keys = _columns(lines)
    head = ["method", *(COLUMNS[key][0] for key in keys), "verdict"]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        cells = [_cell(line, key, "; ") for key in keys]
        rows.append([label(comparison, line), *cells, ", ".join(line.verdicts) or "–"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{CAPTION}\n"


def latex(comparison: Comparison) -> str:
    """The summary as a LaTeX tabular (booktabs)."""
    lines = summary(comparison)
    keys = _columns(lines)
    head = ["method", *(_tex(COLUMNS[key][0]) for key in keys)]
    body = [
        [_tex(label(comparison, line)), *(_tex(_cell(line, key, "; ")) for key in keys)]
        for line in lines
    ]
    rows = " \\\\\n".join(" & ".join(row) for row in body)
    return (
        f"% {CAPTION}\n\\begin{{tabular}}{{l{'r' * len(keys)}}}\n\\toprule\n{' & '.join(head)} \\\\\n\\midrule\n"
        f"{rows} \\\\\n\\bottomrule\n\\end{{tabular}}\n"
    )


def _cell(line: Line, key: str, between: str) -> str:
    entry, digits = line.entries.get(key), COLUMNS[key][1]
    if entry is None:
        return "–"
    return (f"{entry.seeds(digits)}{between}" if len(entry.each) > 1 else "") + entry.text(digits)


def _tex(text: str) -> str:
    for plain, written in (
        ("_", "\\_"),
        ("†", "$^\\dagger$"),
        ("−", "$-$"),
        ("–", "--"),
        ("%", "\\%"),
        ("&", "\\&"),
    ):
        text = text.replace(plain, written)
    return text


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write `results.json`, `results.parquet`, `table.md`, `table.tex` and `report.html`: figures only, no user id."""
    write_json(folder / "results.json", comparison.as_dict())
    long_table(comparison).write_parquet(folder / "results.parquet")
    (folder / "table.md").write_text(markdown(comparison), encoding="utf-8")
    (folder / "table.tex").write_text(latex(comparison), encoding="utf-8")
    (folder / "report.html").write_text(_page(comparison), encoding="utf-8")


def _page(comparison: Comparison) -> str:
    lines = summary(comparison)
    first = min(comparison.results)
    drawn = {
        "utility": plots.trade_off(
            _points(lines, "auc_difference"), "test AUC less the original's"
        ),
        "cost": plots.trade_off(
            _points(lines, "seconds"), "seconds, everything included", log=True
        ),
        "scores": plots.score_spread(
            {
                NAMES.get(name, name): odds
                for name, odds in comparison.odds[first].items()
                if odds is not None
            },
            comparison.labels[first[1]],
        ),
    }
    return render(
        "comparison.html.j2",
        comparison=comparison,
        lines=lines,
        keys=_columns(lines),
        plots=drawn,
        label=label,
        cell=_cell,
        columns=COLUMNS,
        caption=CAPTION,
    )


def _points(
    lines: Sequence[Line], other: str
) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
    """Model → each seed's M_auc and `other`, over all requests; the original and R stand where M has them."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    anchors = {"original": 1.0, "retrained": 0.0}
    for line in lines:
        y = line.entries[other].each if other in line.entries else ()
        if line.method == "original" and other == "auc_difference":
            y = (0.0,)
        memory = line.entries.get("memory_auc")
        x = (
            memory.each
            if memory
            else [anchors[line.method]] * len(y)
            if line.method in anchors
            else ()
        )
        if len(x) and len(x) == len(y):
            mine = found.setdefault(NAMES.get(line.method, line.method), ([], []))
            mine[0].extend(x)
            mine[1].extend(y)
    return dict(found)
