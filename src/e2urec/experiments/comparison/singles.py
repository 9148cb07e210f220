"""Requests of single users, measured as one set.

Each user is erased from a copy of the original of its own. Her rows alone would prove nothing, so
those of all are one D_f, each row answered by the model that forgot it. All other rows are dealt
out by user: each model answers its share, as if users were served by one of the models each.
Retrained models and exact methods erase all at once: what they keep of a user is nothing either
way.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.arrays import Head, Ints
from ...core.errors import ConfigError
from ...data.requests import ForgetRetain
from ...evaluation.answers import Answers, EvaluationSets
from ...evaluation.comparison import CellRecord
from ...models.batches import Examples
from ...models.predictions import NO_HEAD, Predictions

Positions = Mapping[str, Ints]
"""Rows of each set that a model answers."""
DEALT_PARTS = ("test", "unseen", "valid", "retain")
"""What the models share, besides D_f."""
NUMBER = re.compile(r"\d[\d.]*%?")


@dataclass(frozen=True)
class Share:
    """What the model that forgot one of the users is asked.

    Attributes:
        sets: the rows.
        positions: of these among the rows of all models.
    """

    sets: EvaluationSets
    positions: Positions


def deal(sets: EvaluationSets, users: Ints) -> list[Share]:
    """Deal out the rows of `sets` to the models that forgot one of `users` (sorted) each.

    Raises:
        ConfigError: a set has fewer rows than there are models.
    """
    parts = {name: part for name, part in vars(sets).items() if part is not None}
    owners = {}
    for name, part in parts.items():
        owners[name] = _owners(name, part, users)
    shares = []
    for place in range(len(users)):
        positions = {name: np.flatnonzero(owner == place) for name, owner in owners.items()}
        rows = {name: part.take(positions[name]) for name, part in parts.items()}
        shares.append(Share(EvaluationSets(**rows), positions))
    return shares


def _owners(name: str, part: Examples, users: Ints) -> Ints:
    """(n,) place in `users` of the model that answers each row."""
    if name == "forget":
        return np.searchsorted(users, part.users)
    ids, owner = np.unique(part.users, return_inverse=True)
    # Few users would leave models without a row: rows are dealt out one by one then.
    if len(ids) < len(users):
        owner = np.arange(len(part))
    _require_one_each(name, len(part), len(users))
    return owner % len(users)


def require_rows(parts: ForgetRetain, count: int) -> None:
    """Raise ConfigError, as `deal` would after hours, where `count` models are too many to ask."""
    for name in DEALT_PARTS:
        _require_one_each(name, len(getattr(parts, name)), count)


def _require_one_each(name: str, rows: int, models: int) -> None:
    if rows < models:
        raise ConfigError(
            f"compare.requests: singles = {models} models share {rows} {name} rows, and "
            "each wants one; ask for fewer, or raise data.test_rows and data.held_rows"
        )


def gather(shares: Sequence[Share], answers: Sequence[Answers]) -> Answers:
    """All answers in the order of the rows that were dealt out."""
    parts = {}
    for name in answers[0].parts():
        rows = [share.positions[name] for share in shares]
        predictions = [model_answers.parts()[name] for model_answers in answers]
        parts[name] = _gathered(np.argsort(np.concatenate(rows)), predictions)
    return Answers(**parts)


def _gathered(order: Ints, parts: Sequence[Predictions]) -> Predictions:
    head = parts[0].head
    hidden = None
    states = [part.hidden for part in parts if part.hidden is not None]
    # States under several heads have no distance over the vocabulary in one go.
    if len(states) == len(parts) and all(_is_same(part.head, head) for part in parts):
        hidden = np.concatenate(states)[order]
    return Predictions(
        hidden=hidden,
        head=NO_HEAD if hidden is None else head,
        log_odds=np.concatenate([part.log_odds for part in parts])[order],
        labels=np.concatenate([part.labels for part in parts])[order],
        users=np.concatenate([part.users for part in parts])[order],
    )


def _is_same(head: Head, other: Head) -> bool:
    # All but weight and bias, which are arrays.
    if head[2:] != other[2:] or not np.array_equal(head.weight, other.weight):
        return False
    if head.bias is None or other.bias is None:
        return head.bias is other.bias
    return np.array_equal(head.bias, other.bias)


def mean_record(records: Sequence[CellRecord]) -> CellRecord:
    """What one request took in the mean, and how many were told what.

    The logs of each one's phases are of too few rows to tell, and so are figures in what is told.
    """
    first = records[0]
    outcomes = [record.outcome for record in records]
    told = [sentence for outcome in outcomes for sentence in outcome.get("sentences", [])]
    # How many rows a user has, and what is left of them, is hers.
    counts = Counter(NUMBER.sub("…", sentence) for sentence in told)
    rows_read = _means([record.rows_read for record in records])
    return CellRecord(
        settings=first.settings,
        seconds=_means([record.seconds for record in records]),
        phases=_means([record.phases for record in records]),
        rows_read={name: round(rows) for name, rows in rows_read.items()},
        trainable_parameters=first.trainable_parameters,
        outcome={"requests_by_sentence": dict(counts)} if counts else {},
    )


def _means(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for table in tables for name in table)
    means = {}
    for name in names:
        values = [table.get(name, 0.0) for table in tables]
        means[name] = sum(values) / len(values)
    return means
