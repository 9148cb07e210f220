"""How people call the models of an evaluation, in which order they read of them, and how a figure is written."""

from collections.abc import Iterable

from ..intervals import Interval

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
