"""The picture of the tables: memory left against the change of the test AUC."""

import itertools
from collections.abc import Sequence

import matplotlib

from e2urec.report.plots import GREY, MARKERS, svg_of
from table_groups import Group

# Draws into memory: there may be no screen.
matplotlib.use("Agg")
from matplotlib import pyplot as plt

MARGIN = 0.25
"""|M_auc| up to which a verdict may be a PASS, in all recipes of the tables."""
# What is farther off is drawn at the edge: only that it is far is to be seen.
LIMITS = (-1.0, 1.5)
WIDTH = 4.6


def draw(groups: Sequence[Group]) -> str:
    """SVG text with a panel for each table, of its first request."""
    firsts: dict[str, Group] = {}
    for group in groups:
        firsts.setdefault(group.table, group)
    count = len(firsts)
    figure, panels = plt.subplots(1, count, figsize=(WIDTH * count, 4.2), squeeze=False)
    styles = styles_of(list(firsts.values()))
    for axes, group in zip(panels[0], firsts.values(), strict=True):
        draw_panel(axes, group, styles)
    panels[0][0].set_ylabel("test AUC less the original's", fontsize=9)
    figure.supxlabel("M_auc: 0 = retrained, 1 = nothing done", fontsize=9)
    handles: dict[str, object] = {}
    for axes in panels[0]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.tight_layout()
    figure.legend(
        handles.values(),
        handles.keys(),
        frameon=False,
        fontsize=8,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    return svg_of(figure)


def styles_of(groups: Sequence[Group]) -> dict[str, tuple[str, object]]:
    """Marker and colour of each method, the same in all panels."""
    names = sorted({name for group in groups for name in group.methods})
    colours = plt.get_cmap("tab20")
    markers = itertools.cycle(MARKERS)
    return {name: (next(markers), colours(place % 20)) for place, name in enumerate(names)}


def draw_panel(axes: "plt.Axes", group: Group, styles: dict[str, tuple[str, object]]) -> None:
    """A point for each method and seed."""
    axes.axvspan(-MARGIN, MARGIN, color="#eeeeee", zorder=0)
    axes.axhline(0, color=GREY, lw=0.8, zorder=1)
    for limit in (0.0, 1.0):
        axes.axvline(limit, color=GREY, lw=0.8, ls=":", zorder=1)
    for name in group.methods:
        marker, colour = styles[name]
        memories = [clipped(value) for value in group.values(name, "memory_auc")]
        changes = group.values(name, "utility_auc_difference")
        if len(memories) != len(changes):
            continue
        face = "none" if group.is_exact(name) else colour
        axes.plot(memories, changes, marker, color=colour, mfc=face, ms=7, label=name, alpha=0.9)
    axes.set_xlim(LIMITS[0] - 0.05, LIMITS[1] + 0.05)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{group.table.removeprefix('table-')}: {group.first['request_words']}"
    axes.set_title(title, fontsize=9)


def clipped(value: float) -> float:
    """The value, or the nearer end of the axis."""
    low, high = LIMITS
    return min(max(value, low), high)
