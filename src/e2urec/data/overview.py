"""A look at data before anything is trained on them: how many, how spread, and what of them will hurt."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from .interactions import Interactions
from .splits import Split

FEW_USERS = 50
"""Training users below which intervals over users say little."""
FEW_NEGATIVES = 1000
"""Rows of unseen users below which the true positive rate at 1% false positives says little."""

EARLY = 631_152_000
"""1990, in seconds since 1970: no ratings are older, but times in another unit look so."""


@dataclass
class Overview:
    """What data hold.

    Attributes:
        rows, users, items: of the table.
        duplicates, unrated: rows that were dropped.
        ratings: rows by rating.
        liked: share of rows that were liked.
        since, until: time of the first and the last row.
        rows_per_user: least, median and most.
        samples: rows by part of the split.
        tokens: median, 95% and longest of prompts, and `window`; empty if no tokenizer was at hand.
        examples: prompts with their answers, without ids.
        warnings: what will hurt, each with a remedy.
    """

    rows: int
    users: int
    items: int
    duplicates: int
    unrated: int
    ratings: dict[str, int]
    liked: float
    since: str
    until: str
    rows_per_user: dict[str, float]
    samples: dict[str, int]
    tokens: dict[str, float] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def overview(data: Interactions, parts: Split) -> Overview:
    """Count `data` and what the split makes of them."""
    ratings, rows = np.unique(data.rating, return_counts=True)
    by_rating: dict[str, int] = {}
    for rating, count in zip(ratings.tolist(), rows.tolist(), strict=True):
        by_rating[f"{rating:g}"] = by_rating.get(f"{rating:g}", 0) + count
    _, per_user = np.unique(data.user, return_counts=True)
    found = Overview(
        rows=len(data),
        users=len(data.user_ids),
        items=len(data.titles),
        duplicates=data.duplicates,
        unrated=data.unrated,
        ratings=by_rating,
        liked=float(data.liked.mean()),
        since=_day(int(data.time.min())),
        until=_day(int(data.time.max())),
        rows_per_user={
            "least": float(per_user.min()),
            "median": float(np.median(per_user)),
            "most": float(per_user.max()),
        },
        samples={name: len(getattr(parts, name)) for name in Split.__dataclass_fields__},
    )
    found.warnings = _warnings(found, data, parts)
    return found


def measure_prompts(found: Overview, lengths: np.ndarray, window: int) -> None:
    """Add what (n,) `lengths` in tokens of some prompts say about the model's window."""
    middle, most = np.percentile(lengths, [50, 95])
    beyond = float((lengths > window).mean())
    found.tokens = {
        "median": float(middle),
        "95%": float(most),
        "longest": float(lengths.max()),
        "window": window,
    }
    if beyond > 0.01:
        found.warnings.append(
            f"{beyond:.0%} of the prompts are longer than the window of {window} tokens and lose their beginning; "
            "raise model.window or lower data.history"
        )


def _warnings(found: Overview, data: Interactions, parts: Split) -> list[str]:
    train, told = parts.train, []
    users = len(np.unique(train.users))
    left = 1 - users / max(1, found.users)
    if left > 0.5:
        told.append(
            f"{left:.0%} of the users have no training row; lower data.min_history or widen data.fractions"
        )
    if users < FEW_USERS:
        told.append(f"{users} training users: intervals over users will be wide; take more rows")
    if len(parts.unseen) < FEW_NEGATIVES:
        told.append(
            f"{len(parts.unseen)} rows of unseen users: too few for a true positive rate at 1% false positives; "
            "raise data.unseen or data.held_rows"
        )
    share = float(train.labels.mean())
    if not 0.2 <= share <= 0.8:
        told.append(
            f"{share:.0%} of the training rows are liked: accuracy will say little; move columns.liked_above"
        )
    same = np.sum((data.user[1:] == data.user[:-1]) & (data.time[1:] == data.time[:-1])) / len(data)
    if same > 0.2:
        told.append(
            f"{same:.0%} of the rows share their time with the same user's row before: their order is that of the file"
        )
    if data.time.max() < EARLY:
        told.append(
            f"all rows are from before {_day(EARLY)}: are the times seconds? else set columns.time_unit"
        )
    for name in ("valid", "test"):
        if not len(getattr(parts, name)):
            told.append(f"no {name} rows; widen data.fractions")
    return told


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
