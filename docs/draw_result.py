"""Draw the picture of the result from docs/figures.json, and print what it says in words.

    python benchmarks/unlearning.py --original RUN --retrained RUN --retrained RUN --json \
        > docs/figures.json
    python docs/draw_result.py

The first command measures anew; the second needs nothing but Python. The words are the picture's
alternative text in README.md. The picture is as wide as a phone's screen takes without shrinking
the text beyond reading, and has its own background, so that it is legible on any page.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
FIGURES = DOCS / "figures.json"
PICTURE = DOCS / "assets" / "result.svg"

# A phone's screen is some 360 to 430 units wide: at this width its text is still read.
WIDTH = 480
MARGIN = 20
# The longest name of a model takes 140 units at this size of type.
LABELS = 150
# "2,117" takes 40.
NUMBERS = 52
LINE = 22
BAR_HEIGHT = 15
PANEL_HEAD = 44
PANEL_GAP = 18
HEAD = 12
# The model whose bar stands out.
OURS = "e2urec"
NOTHING_DONE = "nothing done"
RETRAINED = "retrained"
# Names of the published algorithm's variants in the benchmark. At its released passes it is the
# fair opponent; a file measured before it was one has two joint passes alone, and the name says so.
PUBLISHED = {
    "published": "published algorithm",
    "published_two_passes": "published (2 joint)",
}
MISSING = "–"

STYLE = """\
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.note { font-size: 12px; fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 }
.track { fill: #eff2f5 }
.bar { fill: #9aa4af }
.ours { fill: #3f51b5 }
.strong { font-weight: 600 }
.interval { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e8eb }
  .note { fill: #a5adb7 }
  .card { fill: #1e2129; stroke: #3d444d }
  .track { fill: #2a2f38 }
  .bar { fill: #7d8794 }
  .ours { fill: #8c9eff }
  .interval { stroke: #e6e8eb }
}"""


@dataclass(frozen=True)
class Scale:
    """From the figures of a panel to places on the picture.

    Attributes:
        left: where `zero` lies.
        width: from `zero` to `full`.
        zero: figure at the left end.
        full: figure at the right end.
    """

    left: float
    width: float
    zero: float
    full: float

    def place(self, figure: float) -> float:
        """Where a figure lies; beyond the ends, at the nearer one."""
        share = (figure - self.zero) / (self.full - self.zero)
        share = max(0.0, share)
        share = min(1.0, share)
        return self.left + self.width * share


# --- from the benchmark's report to panels


@dataclass(frozen=True)
class Panel:
    """One measure of all models.

    Attributes:
        title: above it.
        note: below the title.
        ends: figures at the left and the right end of its bars.
        values: by model; None where there is none.
        texts: the same, as they are shown.
        intervals: by model, low and high end; empty where none are drawn.
    """

    title: str
    note: str
    ends: tuple[float, float]
    values: Mapping[str, float | None]
    texts: Mapping[str, str]
    intervals: Mapping[str, tuple[float, float]]


def panels_of(report: Mapping[str, Any]) -> list[Panel]:
    """What the picture shows of the JSON of benchmarks/unlearning.py."""
    variants = variants_of(report)
    return [_memory(report, variants), _utility(report, variants), *_costs(report, variants)]


def variants_of(report: Mapping[str, Any]) -> dict[str, str]:
    """The benchmark's name of each model of the picture, in order."""
    measured = (name for name in PUBLISHED if f"{name}, 20%" in report["variants"])
    published = next(measured)
    return {
        NOTHING_DONE: "original",
        PUBLISHED[published]: published,
        OURS: "default",
        RETRAINED: "retrain",
    }


def _memory(report: Mapping[str, Any], variants: Mapping[str, str]) -> Panel:
    # So by definition: M_auc counts from a retrained model to the original.
    values: dict[str, float | None] = {NOTHING_DONE: 1.0, RETRAINED: 0.0}
    texts = {NOTHING_DONE: "1", RETRAINED: "0"}
    intervals = {}
    for model, variant in variants.items():
        if model in values:
            continue
        figure = report["quality"][variant]["memory_auc"]
        values[model] = figure["value"]
        texts[model] = f"{figure['value']:.2f}"
        intervals[model] = (figure["low"], figure["high"])
    return Panel(
        title="What is left of the memory of the forgotten rows",
        note="M_auc: 1 = all of it, 0 = as if retrained; thin lines are 95% intervals",
        ends=(0.0, 1.0),
        values=values,
        texts=texts,
        intervals=intervals,
    )


def _utility(report: Mapping[str, Any], variants: Mapping[str, str]) -> Panel:
    values: dict[str, float | None] = {}
    texts = {}
    for model, variant in variants.items():
        value = report["quality"][variant]["auc"]["value"]
        values[model] = value
        texts[model] = f"{value:.3f}"
    return Panel(
        title="How well it recommends",
        note="AUC on test rows: 0.5 = by chance",
        ends=(0.5, 0.7),
        values=values,
        texts=texts,
        intervals={},
    )


def _costs(report: Mapping[str, Any], variants: Mapping[str, str]) -> list[Panel]:
    seconds = _cost(report, variants, lambda record: record["total"])
    megabytes = _cost(report, variants, lambda record: record["bytes"] / 1e6)
    return [
        _cost_panel("Seconds that it takes", "teachers and augmented model included", seconds),
        _cost_panel(
            "Computer memory, MB", "peak of the process, less its size after imports", megabytes
        ),
    ]


def _cost(
    report: Mapping[str, Any],
    variants: Mapping[str, str],
    cost: Callable[[Mapping[str, Any]], float],
) -> dict[str, float | None]:
    """A cost by model. Nothing was made of the original: it has none."""
    costs = {}
    for model, variant in variants.items():
        record = report["variants"].get(f"{variant}, 20%")
        costs[model] = None if record is None else cost(record)
    return costs


def _cost_panel(title: str, note: str, values: Mapping[str, float | None]) -> Panel:
    texts = {}
    for model, value in values.items():
        texts[model] = MISSING if value is None else f"{value:,.0f}"
    largest = max(value for value in values.values() if value is not None)
    return Panel(title, note, (0.0, largest), values, texts, intervals={})


# --- from panels to the picture


def draw(report: Mapping[str, Any]) -> str:
    """The picture as SVG text: a panel for each measure, a bar for each model."""
    models = list(variants_of(report))
    panels = panels_of(report)
    panel_height = PANEL_HEAD + LINE * len(models) + PANEL_GAP
    height = HEAD + panel_height * len(panels)
    words = escape(in_words(report))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{words}">',
        f"<style>{STYLE}</style>",
        # Half a unit in, so that a border of one unit is sharp.
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for number, panel in enumerate(panels):
        top = HEAD + number * panel_height
        parts += _panel(panel, models, top)
    parts.append("</svg>\n")
    return "\n".join(parts)


def _panel(panel: Panel, models: list[str], top: float) -> list[str]:
    parts = [
        _text(MARGIN, top + 17, panel.title, "title"),
        _text(MARGIN, top + 34, panel.note, "note"),
    ]
    for number, model in enumerate(models):
        y = top + PANEL_HEAD + number * LINE
        parts += _row(panel, model, y)
    return parts


def _row(panel: Panel, model: str, y: float) -> list[str]:
    """A model's name, its bar on a track, and its figure."""
    left = MARGIN + LABELS
    width = WIDTH - MARGIN - NUMBERS - left
    scale = Scale(left, width, *panel.ends)
    is_ours = model == OURS
    weight = "strong" if is_ours else ""
    baseline = y + 15
    parts = [
        _text(MARGIN, baseline, model, weight),
        _rectangle("track", left, y + 3, str(width)),
        _text(left + width + 8, baseline, panel.texts[model], weight),
    ]
    value = panel.values[model]
    if value is not None:
        length = scale.place(value) - left
        # A figure at the left end has no bar: its number says enough.
        if length > 0:
            kind = "bar ours" if is_ours else "bar"
            parts.append(_rectangle(kind, left, y + 3, f"{length:.1f}"))
    interval = panel.intervals.get(model)
    if interval is not None:
        parts.append(_interval(scale, interval, y + 10.5))
    return parts


def _interval(scale: Scale, interval: tuple[float, float], y: float) -> str:
    low, high = interval
    start = scale.place(low)
    end = scale.place(high)
    return f'<line class="interval" x1="{start:.1f}" y1="{y}" x2="{end:.1f}" y2="{y}"/>'


def _rectangle(kind: str, x: float, y: float, width: str) -> str:
    size = f'width="{width}" height="{BAR_HEIGHT}"'
    return f'<rect class="{kind}" x="{x}" y="{y}" {size} rx="2"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    attribute = f' class="{kind}"' if kind else ""
    escaped = escape(text)
    return f'<text{attribute} x="{x}" y="{y}">{escaped}</text>'


def in_words(report: Mapping[str, Any]) -> str:
    """The same for those who listen: each panel's figures in words."""
    models = variants_of(report)
    sentences = []
    for panel in panels_of(report):
        values = ", ".join(f"{model} {panel.texts[model]}" for model in models)
        sentences.append(f"{panel.title}: {values}.")
    return " ".join(sentences)


def main() -> None:
    """Write the picture, and print it in words."""
    text = FIGURES.read_text(encoding="utf-8")
    report = json.loads(text)
    picture = draw(report)
    PICTURE.write_text(picture, encoding="utf-8")
    print(in_words(report))


if __name__ == "__main__":
    main()
