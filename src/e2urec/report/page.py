"""A self-contained page: what was asked, what was measured, what it shows; readable on a phone."""

from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..evaluation.demonstration import Demonstration
from ..evaluation.disclosure import is_told
from ..evaluation.results import Results
from ..evaluation.roles import ORIGINAL, UNLEARNED, Role, RoleKind, retrained
from ..metrics.bootstrap import Interval
from . import plots
from .tables import Sheet, sheet


def write_page(demonstration: Demonstration, path: Path) -> None:
    """Write the page of a demo. It holds figures only: no user id, no prompt."""
    results = demonstration.results
    page = render(
        "page.html.j2",
        demo=demonstration,
        verdicts=_verdicts(results),
        plots=_plots(demonstration),
        sheets=sheets(results),
        unlearned=UNLEARNED,
        left_out=results.left_out,
    )
    path.write_text(page, encoding="utf-8")


def sheets(results: Results, between: str = " ") -> dict[str, Sheet]:
    """The tables that people read, by name of the measure; see `tables.sheet`."""
    brief = {}
    for name, table in results.tables.items():
        if table.brief:
            brief[name] = sheet(table, between)
    return brief


def _verdicts(results: Results) -> list[tuple[Role, str, str]]:
    """Role, outcome and reason of every verdict, the unlearned model's first."""
    verdicts: list[tuple[Role, str, str]] = []
    for role, verdict in results.verdicts.items():
        line = (role, verdict.outcome, verdict.reason)
        # It is the headline; all others say what it is held against.
        if role == UNLEARNED:
            verdicts.insert(0, line)
        else:
            verdicts.append(line)
    return verdicts


def _plots(demonstration: Demonstration) -> dict[str, str]:
    """The plots for which there is something to draw."""
    results = demonstration.results
    first = retrained(1)
    roles = [role for role in (ORIGINAL, UNLEARNED, first) if role in demonstration.answers]
    log_odds = {role: demonstration.answers[role].forget.log_odds for role in roles}
    labels = demonstration.answers[ORIGINAL].forget.labels
    # Where nothing was retrained there is no line to aim at.
    loss = results.find("forget_set", "forget_log_loss", first)
    drawings = {}
    if is_told(len(labels)):
        drawings["scores"] = plots.score_distributions(log_odds, labels)
        drawings["phases"] = plots.phases(demonstration.phase_logs, loss.value if loss else None)
    memories = memory_figures(results)
    if memories:
        drawings["memory"] = plots.memory(memories)
    references = [role for role in results.roles if role.kind is RoleKind.RETRAINED]
    if len(references) > 1:
        drawings["distance"] = plots.pairwise_distances(results, references)
    return drawings


def memory_figures(results: Results) -> dict[Role, Interval]:
    """M_auc of every model that has one."""
    figures = {}
    for role in results.roles:
        figure = results.find("memory", "auc", role)
        if figure is not None:
            figures[role] = figure
    return figures


def render(name: str, **content: Any) -> str:
    """Fill in the template `name` of this folder; all pages share one style."""
    files = resources.files(__package__)
    # Undefined names are errors: a page with a hole is worse than none.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files.joinpath(name).read_text(encoding="utf-8")
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    tables = files.joinpath("table.html.j2").read_text(encoding="utf-8")
    # Put before the page itself, so that its macro is known there.
    return environment.from_string(tables + source).render(style=style, **content)
