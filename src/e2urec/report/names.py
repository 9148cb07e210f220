"""How people call the models of an evaluation, in which order they read of them, and how a figure is written."""

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.table import Table

from ..metrics.bootstrap import Interval

NAMES = {
    "untuned": "before tuning",
    "original": "original",
    "unlearned": "unlearned",
    "unlearned_merged": "unlearned, merged",
    "unlearned_int8": "unlearned, in int8",
    "retrained": "retrained",
    "retrained_2": "retrained, 2nd seed",
    "placebo_temperature": "placebo: softened",
    "placebo_retain": "placebo: tuned on D_r",
}


def in_order(found: Iterable[str]) -> list[str]:
    """The models of `found` as a table lists them; further retrained ones last."""
    names = list(found)
    return [name for name in NAMES if name in names] + [name for name in names if name not in NAMES]


def limits(found: Interval, digits: int = 3, between: str = " ") -> str:
    """The value and its interval: `0.123 [0.100, 0.150]`."""
    return f"{found.value:.{digits}f}{between}[{found.low:.{digits}f}, {found.high:.{digits}f}]"


def table(title: str, columns: Iterable[str], first: str = "model", **options: Any) -> Table:
    """A table of figures by model that fits into 80 columns."""
    shown = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        **options,
    )
    shown.add_column(first, no_wrap=True)
    for heading in columns:
        shown.add_column(heading, justify="right", no_wrap=True)
    return shown
