"""A look at data before anything is trained: how many rows, how spread, and what will hurt."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from ..core.arrays import Ints
from .interactions import Interactions
from .samples import Samples
from .splits import Split

# Training users below which intervals over users say little.
FEW_USERS = 50
# Rows of unseen users below which the true positive rate at 1% false positives says little: 1% of
# 1,000 rows are ten, and fewer false positives hardly fix a threshold.
FEW_NEGATIVES = 1000
# Share of rows at their user's previous time above which the order of the file matters.
MANY_TIES = 0.2
# Share of prompts beyond the model's window that does no harm yet.
MANY_TRUNCATED = 0.01
# 1990, in seconds since 1970: no ratings are older, but times in another unit look so.
EARLY = 631_152_000


@dataclass
class Overview:
    """What data hold.

    Attributes:
        rows, users, items: of the table.
        duplicates, unrated: rows that were dropped.
        unescaped: items whose title or details held HTML entities.
        order: of each user's rows: `time` or `random`.
        ratings: rows by rating.
        liked: share of rows that were liked.
        since, until: time of the first and the last row; empty where rows are in random order.
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
    unescaped: int
    order: str
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
    return Overview(
        rows=len(data),
        users=len(data.user_ids),
        items=len(data.titles),
        duplicates=data.duplicates,
        unrated=data.unrated,
        unescaped=data.unescaped,
        order="time" if data.timed else "random",
        ratings=_rating_counts(data),
        liked=float(data.liked.mean()),
        since=_day(int(data.time.min())) if data.timed else "",
        until=_day(int(data.time.max())) if data.timed else "",
        rows_per_user=_rows_per_user(data),
        samples={name: len(part) for name, part in vars(parts).items()},
        warnings=list(_warnings(data, parts)),
    )


def measure_prompts(summary: Overview, lengths: Ints, window: int) -> None:
    """Add to `summary` how `lengths` (n,), in tokens, of some prompts fit the model's window."""
    median, high = np.percentile(lengths, [50, 95])
    summary.tokens = {
        "median": float(median),
        "95%": float(high),
        "longest": float(lengths.max()),
        "window": window,
    }
    truncated_share = float((lengths > window).mean())
    if truncated_share > MANY_TRUNCATED:
        summary.warnings.append(
            f"{truncated_share:.0%} of the prompts are longer than the window of {window} tokens "
            "and lose their beginning; raise model.window or lower data.history"
        )


def _rating_counts(data: Interactions) -> dict[str, int]:
    ratings, row_counts = np.unique(data.rating, return_counts=True)
    pairs = zip(ratings.tolist(), row_counts.tolist(), strict=True)
    counts: dict[str, int] = {}
    for rating, row_count in pairs:
        # Ratings that differ in the seventh digit share a name.
        name = f"{rating:g}"
        previous = counts.get(name, 0)
        counts[name] = previous + row_count
    return counts


def _rows_per_user(data: Interactions) -> dict[str, float]:
    _, row_counts = np.unique(data.user, return_counts=True)
    return {
        "least": float(row_counts.min()),
        "median": float(np.median(row_counts)),
        "most": float(row_counts.max()),
    }


def _warnings(data: Interactions, parts: Split) -> Iterator[str]:
    yield from _warnings_of_users(data, parts)
    yield from _warnings_of_labels(parts.train)
    if data.timed:
        yield from _warnings_of_times(data)
    for name in ("valid", "test"):
        if not len(getattr(parts, name)):
            yield f"no {name} rows; widen data.fractions"


def _warnings_of_users(data: Interactions, parts: Split) -> Iterator[str]:
    user_count = len(np.unique(parts.train.users))
    unused_share = 1 - user_count / max(1, len(data.user_ids))
    if unused_share > 0.5:
        yield (
            f"{unused_share:.0%} of the users have no training row; lower data.min_history or "
            "widen data.fractions"
        )
    if user_count < FEW_USERS:
        yield f"{user_count} training users: intervals over users will be wide; take more rows"
    if len(parts.unseen) < FEW_NEGATIVES:
        yield (
            f"{len(parts.unseen)} rows of unseen users: too few for a true positive rate at 1% "
            "false positives; raise data.unseen or data.held_rows"
        )


def _warnings_of_labels(train: Samples) -> Iterator[str]:
    liked = float(train.labels.mean())
    # Beyond these a model that always gives the same answer is right in more than 80% of rows.
    if not 0.2 <= liked <= 0.8:
        yield (
            f"{liked:.0%} of the training rows are liked: accuracy will say little; move "
            "columns.liked_above"
        )


def _warnings_of_times(data: Interactions) -> Iterator[str]:
    same_user = data.user[1:] == data.user[:-1]
    same_time = data.time[1:] == data.time[:-1]
    ties = np.sum(same_user & same_time) / len(data)
    if ties > MANY_TIES:
        yield (
            f"{ties:.0%} of the rows share their time with the same user's row before: their order "
            "is that of the file"
        )
    if data.time.max() < EARLY:
        yield (
            f"all rows are from before {_day(EARLY)}: are the times seconds? else set "
            "columns.time_unit"
        )


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
