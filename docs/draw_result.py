"""Draw the picture of the result from docs/figures.json.

    python docs/draw_result.py

It needs nothing but Python. The picture is as wide as a phone's screen takes without shrinking the
text beyond reading, and has its own background, so that it is legible on any page.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
FIGURES = DOCS / "figures.json"
PICTURE = DOCS / "assets" / "result.svg"

WIDTH = 480
MARGIN = 20
LABELS = 150
"""Room for the names of the models: the longest takes 140 units at this size of type."""
NUMBERS = 52
LINE = 22
PANEL_HEAD = 44
PANEL_GAP = 18
HEAD = 12

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


def draw(figures: dict[str, Any]) -> str:
    """The picture as SVG text: a panel for each measure, a bar for each model."""
    models = figures["models"]
    panel_height = PANEL_HEAD + LINE * len(models) + PANEL_GAP
    height = HEAD + panel_height * len(figures["panels"])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(_spoken(figures))}">',
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
    ]
    for number, panel in enumerate(figures["panels"]):
        parts += _panel(panel, models, HEAD + number * panel_height)
    return "\n".join([*parts, "</svg>", ""])


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
    left = MARGIN + LABELS
    width = WIDTH - MARGIN - NUMBERS - left
    value, interval = panel["values"][number], panel["intervals"][number]
    is_ours = model == "e2urec"

    def place(figure: float) -> float:
        share = (figure - panel["zero"]) / (panel["full"] - panel["zero"])
        return left + width * min(1.0, max(0.0, share))

    parts = [
        _text(MARGIN, y + 15, model, "strong" if is_ours else ""),
        f'<rect class="track" x="{left}" y="{y + 3}" width="{width}" height="15" rx="2"/>',
        _text(left + width + 8, y + 15, panel["shown"][number], "strong" if is_ours else ""),
    ]
    if value is not None and place(value) > left:
        kind = "bar ours" if is_ours else "bar"
        length = place(value) - left
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{y + 3}" width="{length:.1f}" height="15" rx="2"/>'
        )
    if interval is not None:
        low, high = place(interval[0]), place(interval[1])
        parts.append(
            f'<line class="interval" x1="{low:.1f}" y1="{y + 10.5}" x2="{high:.1f}" '
            f'y2="{y + 10.5}"/>'
        )
    return parts


def _text(x: float, y: float, text: str, kind: str) -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x}" y="{y}">{escape(text)}</text>'


def _spoken(figures: dict[str, Any]) -> str:
    """The same for those who listen: each panel's figures in words."""
    sentences = []
    for panel in figures["panels"]:
        pairs = zip(figures["models"], panel["shown"], strict=True)
        values = ", ".join(f"{model} {shown}" for model, shown in pairs)
        sentences.append(f"{panel['title']}: {values}.")
    return " ".join(sentences)


def main() -> None:
    """Write the picture."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    PICTURE.write_text(draw(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
