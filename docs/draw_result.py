"""Draw the picture of the result from docs/figures.json.

    python docs/draw_result.py

It needs nothing but Python. The picture is as wide as a phone's screen takes without shrinking the
text beyond reading, and has its own background, so that it is legible on any page.
"""

import json
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


def draw(figures: dict[str, Any]) -> str:
    """The picture as SVG text: a panel for each measure, a bar for each model."""
    models = figures["models"]
    panels = figures["panels"]
    panel_height = PANEL_HEAD + LINE * len(models) + PANEL_GAP
    height = HEAD + panel_height * len(panels)
    spoken = escape(_spoken(figures))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{spoken}">',
        f"<style>{STYLE}</style>",
        # Half a unit in, so that a border of one unit is sharp.
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for number, panel in enumerate(panels):
        top = HEAD + number * panel_height
        parts += _panel(panel, models, top)
    parts.append("</svg>\n")
    return "\n".join(parts)


def _panel(panel: dict[str, Any], models: list[str], top: float) -> list[str]:
    parts = [
        _text(MARGIN, top + 17, panel["title"], "title"),
        _text(MARGIN, top + 34, panel["note"], "note"),
    ]
    for number, model in enumerate(models):
        y = top + PANEL_HEAD + number * LINE
        parts += _row(panel, number, model, y)
    return parts


def _row(panel: dict[str, Any], number: int, model: str, y: float) -> list[str]:
    """A model's name, its bar on a track, and its figure."""
    left = MARGIN + LABELS
    width = WIDTH - MARGIN - NUMBERS - left
    scale = Scale(left, width, panel["zero"], panel["full"])
    is_ours = model == OURS
    weight = "strong" if is_ours else ""
    baseline = y + 15
    parts = [
        _text(MARGIN, baseline, model, weight),
        _rectangle("track", left, y + 3, str(width)),
        _text(left + width + 8, baseline, panel["shown"][number], weight),
    ]
    value = panel["values"][number]
    # Nothing was made of the original: it has no seconds.
    if value is not None:
        length = scale.place(value) - left
        # A figure at the left end has no bar: its number says enough.
        if length > 0:
            kind = "bar ours" if is_ours else "bar"
            parts.append(_rectangle(kind, left, y + 3, f"{length:.1f}"))
    interval = panel["intervals"][number]
    if interval is not None:
        parts.append(_interval(scale, interval, y + 10.5))
    return parts


def _interval(scale: Scale, interval: list[float], y: float) -> str:
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


def _spoken(figures: dict[str, Any]) -> str:
    """The same for those who listen: each panel's figures in words."""
    sentences = []
    for panel in figures["panels"]:
        pairs = zip(figures["models"], panel["shown"], strict=True)
        values = ", ".join(f"{model} {figure}" for model, figure in pairs)
        title = panel["title"]
        sentences.append(f"{title}: {values}.")
    return " ".join(sentences)


def main() -> None:
    """Write the picture."""
    text = FIGURES.read_text(encoding="utf-8")
    figures = json.loads(text)
    picture = draw(figures)
    PICTURE.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
