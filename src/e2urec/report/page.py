"""A self-contained page: what was asked, what was measured, what it shows; readable on a phone."""

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..evaluation.results import Demonstration
from . import plots
from .names import NAMES, limits


def write_page(found: Demonstration, path: Path) -> None:
    """Write the page of a demo. It holds figures only: no user id, no prompt."""
    results, forget = found.results, found.answers["original"]["forget"]
    shown = {"original": "original", "unlearned": "unlearned", "retrained_1": "retrained"}
    odds = {
        label: found.answers[name]["forget"].log_odds
        for name, label in shown.items()
        if name in found.answers
    }
    losses = {name: row["forget_log_loss"].value for name, row in results.models.items()}
    drawn = {
        "scores": plots.score_distributions(odds, forget.labels),
        "phases": plots.phases(found.phase_logs, losses.get("retrained")),
    }
    candidates = {
        name: memory["auc"] for name, memory in results.memory.items() if name != "untuned"
    }
    if candidates:
        drawn["memory"] = plots.memory(candidates, NAMES)
    if "retrained_2" in results.apart:
        drawn["apart"] = plots.apart(results.apart, NAMES)
    page = render(
        "page.html.j2",
        found=found,
        results=results,
        names=NAMES,
        plots=drawn,
        candidates=candidates,
        limits=limits,
    )
    path.write_text(page, encoding="utf-8")


def render(name: str, **shown: Any) -> str:
    """Fill in the template `name` of this folder; all pages share one style."""
    files = resources.files(__package__)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath(name).read_text(encoding="utf-8"))
    return template.render(style=files.joinpath("style.css").read_text(encoding="utf-8"), **shown)
