"""Plots of a page, as SVG text."""

import io
import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from scipy import special

from ..core.arrays import Floats, Ints
from ..evaluation.results import Results
from ..evaluation.roles import ORIGINAL, UNLEARNED, Role, RoleKind, in_order
from ..metrics.bootstrap import Interval
from ..unlearning.task import PhaseLog

# Draws into memory: there may be no screen.
matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {
    RoleKind.UNTUNED: "#666666",
    RoleKind.ORIGINAL: "#c0392b",
    RoleKind.UNLEARNED: "#1f6fb2",
    RoleKind.RETRAINED: "#3a8f5c",
    RoleKind.PLACEBO: "#8a6d9e",
}
GREY = "#666666"
INK = "#1c2330"
LIKED = "#1f6fb2"
DISLIKED = "#a9c9e4"
# Shapes tell methods apart for those who cannot tell twenty colours apart.
MARKERS = "osD^vP*X<>"


def svg_of(figure: "plt.Figure") -> str:
    """SVG text of a figure, which is closed: the same figures give the same bytes everywhere."""
    text = io.StringIO()
    # Letters as paths, since fonts differ, and a fixed salt for the names of the parts.
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": "e2urec"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    whole = text.getvalue()
    return whole[whole.index("<svg") :]


def _axes(height: float = 3.2) -> tuple["plt.Figure", "plt.Axes"]:
    figure, axes = plt.subplots(figsize=(6.2, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _name_rows(axes: "plt.Axes", roles: Sequence[Role]) -> None:
    """A row a model, the first at the top."""
    titles = [role.title for role in reversed(roles)]
    count = len(roles)
    axes.set_yticks(range(count), titles)
    axes.set_ylim(-0.6, count - 0.4)


def score_distributions(log_odds: Mapping[Role, Floats], labels: Ints) -> str:
    """P(Yes) on D_f: liked rows above the axis, disliked rows below, one line a model."""
    figure, axes = _axes()
    # Twenty bins of five per cent: D_f has some thousand rows.
    edges = np.linspace(0, 1, 21)
    centres = (edges[1:] + edges[:-1]) / 2
    for role, values in log_odds.items():
        scores = special.expit(values)
        colour = COLOURS[role.kind]
        liked = _share(scores[labels == 1], edges)
        disliked = _share(scores[labels == 0], edges)
        axes.plot(centres, liked, color=colour, label=role.title, lw=2, alpha=0.9)
        axes.plot(centres, -disliked, color=colour, lw=2, alpha=0.9)
    axes.axhline(0, color="#888", lw=0.8)
    axes.set(
        xlabel="P(Yes) on the forgotten rows",
        ylabel="share of disliked (below) and liked rows",
        xlim=(0, 1),
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
    axes.legend(frameon=False)
    return svg_of(figure)


def _share(scores: Floats, edges: Floats) -> Floats:
    counts, _ = np.histogram(scores, edges)
    return counts / max(1, len(scores))


def phases(logs: Sequence[PhaseLog], retrained_loss: float | None) -> str:
    """Log loss on D_f and on the unseen users after each phase."""
    figure, axes = _axes()
    steps = list(range(len(logs)))
    forget = [log.forget_log_loss for log in logs]
    unseen = [log.unseen_log_loss for log in logs]
    axes.plot(steps, forget, "o-", color=COLOURS[RoleKind.UNLEARNED], label="D_f")
    axes.plot(steps, unseen, "s--", color=GREY, label="unseen users")
    if retrained_loss is not None:
        colour = COLOURS[RoleKind.RETRAINED]
        axes.axhline(retrained_loss, color=colour, lw=1.5, label="retrained, on D_f")
    axes.set_xticks(steps, [log.phase for log in logs])
    axes.set(ylabel="log loss")
    axes.legend(frameon=False)
    return svg_of(figure)


def memory(figures: Mapping[Role, Interval]) -> str:
    """M_auc with its interval, one row a model, between the retrained (0) and the original (1)."""
    roles = in_order(figures)
    figure, axes = _axes(0.6 + 0.5 * len(roles))
    for row, role in enumerate(reversed(roles)):
        interval = figures[role]
        colour = COLOURS[role.kind]
        axes.plot([interval.low, interval.high], [row, row], color=colour, lw=2)
        axes.plot(interval.value, row, "o", color=colour)
    _mark_ends(axes)
    _name_rows(axes, roles)
    axes.set(xlabel="memory of D_f (M_auc): 0 = retrained, 1 = original")
    return svg_of(figure)


def _mark_ends(axes: "plt.Axes") -> None:
    """Where a retrained model stands, and where the original does."""
    axes.axvline(0, color=COLOURS[RoleKind.RETRAINED], lw=1.5)
    axes.axvline(1, color=COLOURS[RoleKind.ORIGINAL], lw=1.5)


def pairwise_distances(results: Results, references: Sequence[Role]) -> str:
    """JS over {Yes, No} on D_f to the first two retrained models, a row a model.

    They are unsigned: a second retrained model is not at 0 either, and softening all answers, which
    forgets nothing, moves a model as far as forgetting does.
    """
    first, second = references[:2]
    placebos = [role for role in results.roles if role.kind is RoleKind.PLACEBO]
    roles = [ORIGINAL, second, *placebos, UNLEARNED]
    figure, axes = _axes(0.8 + 0.5 * len(roles))
    for row, role in enumerate(reversed(roles)):
        for other, marker, lift in ((first, "o", 0.12), (second, "s", -0.12)):
            distance = results.find("pairwise_distance", "js_answers", role, other.key)
            if distance is None:
                continue
            colour = COLOURS[role.kind]
            height = row + lift
            limits = [distance.low, distance.high]
            axes.plot(limits, [height, height], color=colour, lw=2)
            axes.plot(distance.value, height, marker, color=colour)
    for marker, ordinal in (("o", "first"), ("s", "second")):
        axes.plot([], [], marker, color=GREY, label=f"to the {ordinal} retrained model")
    _name_rows(axes, roles)
    axes.set(xlabel="Jensen–Shannon divergence of the answers on D_f", xlim=(0, None))
    # Divergences have long decimals, and their labels would run into each other.
    axes.locator_params(axis="x", nbins=6)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return svg_of(figure)


Points = tuple[Sequence[float], Sequence[float]]
"""M_auc of each seed, and another figure of each."""


def trade_off(points: Mapping[str, Points], ylabel: str, *, log: bool = False) -> str:
    """A point a seed: M_auc across, another figure upwards."""
    figure, axes = _axes(4.2)
    colours = plt.get_cmap("tab20")
    markers = itertools.cycle(MARKERS)
    for place, (name, (memories, heights)) in enumerate(points.items()):
        colour = colours(place % 20)
        axes.plot(memories, heights, next(markers), color=colour, label=name, ms=7, alpha=0.9)
    axes.axvline(0, color=COLOURS[RoleKind.RETRAINED], lw=1, ls=":")
    axes.axvline(1, color=COLOURS[RoleKind.ORIGINAL], lw=1, ls=":")
    if log:
        axes.set_yscale("log")
    # Over-forgetting can be many times the headroom: straight up to 1.5, logarithmic beyond.
    axes.set_xscale("symlog", linthresh=1.5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="memory of D_f (M_auc): 0 = retrained, 1 = original", ylabel=ylabel)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg_of(figure)


def score_spread(log_odds: Mapping[Role, Floats], labels: Ints) -> str:
    """P(Yes) on D_f, two boxes a model: liked rows above (dark), disliked rows below (light)."""
    roles = in_order(log_odds)
    figure, axes = _axes(0.8 + 0.42 * len(roles))
    for row, role in enumerate(reversed(roles)):
        scores = special.expit(log_odds[role].astype(np.float64))
        _box(axes, scores[labels == 1], row + 0.17, LIKED)
        _box(axes, scores[labels == 0], row - 0.17, DISLIKED)
    _name_rows(axes, roles)
    axes.set(xlabel="P(Yes) on the forgotten rows", xlim=(0, 1))
    return svg_of(figure)


def _box(axes: "plt.Axes", scores: Floats, height: float, colour: str) -> None:
    """Median, quartiles, 5% and 95%; nothing where there are no rows, as in D_f of one class."""
    if not len(scores):
        return
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    low, first, median, third, high = np.quantile(scores, shares)
    line = [height, height]
    axes.plot([low, high], line, color=colour, lw=1)
    axes.plot([first, third], line, color=colour, lw=6, solid_capstyle="butt")
    axes.plot(median, height, "|", color=INK, ms=8)
