"""Plots of a page, as SVG text."""

import io
import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from scipy import special

from ..core.arrays import Floats, Ints
from ..metrics.bootstrap import Interval
from ..unlearning.task import PhaseLog

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {
    "original": "#c0392b",
    "unlearned": "#1f6fb2",
    "retrained": "#3a8f5c",
    "placebo_temperature": "#b58900",
    "placebo_retain": "#8a6d9e",
}


def _svg(figure: "plt.Figure") -> str:
    text = io.StringIO()
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": "e2urec"}):
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def _axes(height: float = 3.2) -> tuple["plt.Figure", "plt.Axes"]:
    figure, axes = plt.subplots(figsize=(6.2, height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def score_distributions(odds: Mapping[str, Floats], labels: Ints) -> str:
    """P(Yes) on D_f, liked rows above the axis and disliked rows below, one line a model."""
    figure, axes = _axes()
    edges = np.linspace(0, 1, 21)
    middle = (edges[1:] + edges[:-1]) / 2
    for name, values in odds.items():
        p = special.expit(values)
        for label, sign in ((1, 1), (0, -1)):
            share = np.histogram(p[labels == label], edges)[0] / max(1, (labels == label).sum())
            shown = name if sign == 1 else None
            axes.plot(middle, sign * share, color=COLOURS[name], label=shown, lw=2, alpha=0.9)
    axes.axhline(0, color="#888", lw=0.8)
    axes.set(
        xlabel="P(Yes) on the forgotten rows",
        ylabel="share of disliked (below) and liked rows",
        xlim=(0, 1),
    )
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):.0%}")
    axes.legend(frameon=False)
    return _svg(figure)


def phases(phase_logs: Sequence[PhaseLog], retrained_loss: float | None) -> str:
    """Log loss on D_f and on the unseen users after each phase."""
    figure, axes = _axes()
    steps = range(len(phase_logs))
    axes.plot(
        steps,
        [s.forget_log_loss for s in phase_logs],
        "o-",
        color=COLOURS["unlearned"],
        label="D_f",
    )
    unseen = [s.unseen_log_loss for s in phase_logs]
    axes.plot(steps, unseen, "s--", color="#666", label="unseen users")
    if retrained_loss is not None:
        axes.axhline(retrained_loss, color=COLOURS["retrained"], lw=1.5, label="retrained, on D_f")
    axes.set_xticks(list(steps), [s.phase for s in phase_logs])
    axes.set(ylabel="log loss")
    axes.legend(frameon=False)
    return _svg(figure)


def memory(found: Mapping[str, Interval], names: Mapping[str, str]) -> str:
    """M_auc with its interval, one row a model, between the retrained (0) and the original (1)."""
    figure, axes = _axes(0.6 + 0.5 * len(found))
    for row, (name, interval) in enumerate(reversed(list(found.items()))):
        axes.plot([interval.low, interval.high], [row, row], color=COLOURS.get(name, "#666"), lw=2)
        axes.plot(interval.value, row, "o", color=COLOURS.get(name, "#666"))
    axes.axvline(0, color=COLOURS["retrained"], lw=1.5)
    axes.axvline(1, color=COLOURS["original"], lw=1.5)
    axes.set_yticks(range(len(found)), [names.get(name, name) for name in reversed(list(found))])
    axes.set(
        xlabel="memory of D_f (M_auc): 0 = retrained, 1 = original", ylim=(-0.6, len(found) - 0.4)
    )
    return _svg(figure)


def apart(
    found: Mapping[str, Mapping[str, Mapping[str, Interval]]], names: Mapping[str, str]
) -> str:
    """JS over {Yes, No} on D_f to the first retrained model (circles) and to the second (squares), a row a model.

    They are unsigned: a second retrained model is not at 0 either, and softening all answers, which forgets nothing,
    moves a model as far as forgetting does.
    """
    shown = ("original", "retrained_2", "placebo_temperature", "placebo_retain", "unlearned")
    rows = [name for name in shown if name in found]
    figure, axes = _axes(0.8 + 0.5 * len(rows))
    for row, name in enumerate(reversed(rows)):
        for other, marker, lift in (("retrained", "o", 0.12), ("retrained_2", "s", -0.12)):
            if other in found[name]:
                js, colour = (
                    found[name][other]["js_answers"],
                    COLOURS.get(name, COLOURS["retrained"]),
                )
                axes.plot([js.low, js.high], [row + lift] * 2, color=colour, lw=2)
                axes.plot(js.value, row + lift, marker, color=colour)
    for marker, told in (("o", "first"), ("s", "second")):
        axes.plot([], [], marker, color="#666", label=f"to the {told} retrained model")
    axes.set_yticks(range(len(rows)), [names.get(name, name) for name in reversed(rows)])
    axes.set(
        xlabel="Jensen–Shannon divergence of the answers on D_f",
        ylim=(-0.6, len(rows) - 0.4),
        xlim=(0, None),
    )
    axes.locator_params(axis="x", nbins=6)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return _svg(figure)


def trade_off(
    found: Mapping[str, tuple[Sequence[float], Sequence[float]]], told: str, *, log: bool = False
) -> str:
    """A point a seed: M_auc across, `told` upwards; the model's name beside its last point."""
    figure, axes = _axes(4.2)
    marks = itertools.cycle("osD^vP*X<>")
    for k, (name, (memory, other)) in enumerate(found.items()):
        axes.plot(
            memory,
            other,
            next(marks),
            color=plt.get_cmap("tab20")(k % 20),
            label=name,
            ms=7,
            alpha=0.9,
        )
    for place, key in ((0, "retrained"), (1, "original")):
        axes.axvline(place, color=COLOURS[key], lw=1, ls=":")
    if log:
        axes.set_yscale("log")
    axes.set_xscale("symlog", linthresh=1.5)  # over-forgetting can be many times the headroom
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="memory of D_f (M_auc): 0 = retrained, 1 = original", ylabel=told)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _svg(figure)


def score_spread(odds: Mapping[str, Floats], labels: Ints) -> str:
    """P(Yes) on D_f, a pair of boxes a model: liked rows above (dark), disliked rows below (light)."""
    figure, axes = _axes(0.8 + 0.42 * len(odds))
    for row, values in enumerate(reversed(list(odds.values()))):
        p = special.expit(values.astype(np.float64))
        for label, lift, colour in ((1, 0.17, "#1f6fb2"), (0, -0.17, "#a9c9e4")):
            low, first, middle, third, high = np.quantile(
                p[labels == label], [0.05, 0.25, 0.5, 0.75, 0.95]
            )
            axes.plot([low, high], [row + lift] * 2, color=colour, lw=1)
            axes.plot([first, third], [row + lift] * 2, color=colour, lw=6, solid_capstyle="butt")
            axes.plot(middle, row + lift, "|", color="#1c2330", ms=8)
    axes.set_yticks(range(len(odds)), list(reversed(list(odds))))
    axes.set(xlabel="P(Yes) on the forgotten rows", xlim=(0, 1), ylim=(-0.6, len(odds) - 0.4))
    return _svg(figure)
