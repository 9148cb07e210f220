"""Requests for erasure, and the rows they split the data into."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ..core.arrays import Ints, Mask
from ..core.errors import ConfigError, DataError
from ..core.seeding import stream
from .samples import Samples
from .splits import Split

Unit = Literal["users", "interactions", "items"]
COLUMNS = ("user", "item")
ALIKE = {
    "item": re.compile(r"item|movie|film|book|product|song|track|title|article|asin|isbn|sku|id$"),
    "user": re.compile(r"user|customer|member|account|reviewer|reader|person|client|name|id$"),
}
"""Other names of columns that might mean a user or an item."""


@dataclass(frozen=True)
class ErasureRequest:
    """What shall be forgotten, each thing once, sorted; ids as text.

    Attributes:
        users: of whom every row goes.
        interactions: (user, item): every row in which this user rated this item.
        items: of which every row goes, whoever rated them.
    """

    users: tuple[str, ...] = ()
    interactions: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("users", "items"):
            object.__setattr__(self, name, tuple(sorted(set(map(str, getattr(self, name))))))
        pairs = {(str(user), str(item)) for user, item in self.interactions}
        object.__setattr__(self, "interactions", tuple(sorted(pairs)))

    def lines(self) -> list[str]:
        """The request as text, one thing a line, for its digest: a user's id as it is, all else as JSON."""
        return [
            *(
                user if user.isprintable() and user[:1] != "[" else json.dumps(["user", user])
                for user in self.users
            ),
            *(json.dumps(["interaction", *pair]) for pair in self.interactions),
            *(json.dumps(["item", item]) for item in self.items),
        ]

    @classmethod
    def from_file(cls, path: Path) -> "ErasureRequest":
        """Read one user a line, or a CSV or JSON-lines file with the columns `user`, `item` or both, and others.

        With both, a row names one interaction; one that leaves either out names all of the other's. `#` starts a
        comment line.

        Raises:
            DataError: the file cannot be read, is no such table, or names nothing.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise DataError(
                f"request '{path}': cannot be read ({error.strerror}); name a file of users"
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(f"request '{path}': is no UTF-8 text; write one id a line") from error
        lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1)]
        lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
        read = {".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}.get(
            path.suffix.lower()
        )
        try:
            rows = read(lines) if read else [(line, "") for _, line in lines]
        except ValueError as error:
            raise DataError(f"request '{path}' {error}") from error
        found = cls(
            users=tuple(user for user, item in rows if user and not item),
            interactions=tuple((user, item) for user, item in rows if user and item),
            items=tuple(item for user, item in rows if item and not user),
        )
        if found == cls():
            raise DataError(f"request '{path}': names nobody; write one id a line")
        return found

    @classmethod
    def sample(
        cls, train: Samples, ratio: float, seed: int, unit: Unit = "users"
    ) -> "ErasureRequest":
        """Choose `ratio` of the training users, rows or items, at least one; ConfigError unless 0 < ratio < 1."""
        if not 0 < ratio < 1:
            raise ConfigError(f"forget ratio {ratio}: must lie between 0 and 1, such as 0.2")
        data, random = train.interactions, stream(seed, "request")

        def some(choices: Ints) -> Ints:
            return random.permutation(choices)[: max(1, round(ratio * len(choices)))]

        if unit == "users":
            return cls(
                tuple(str(data.user_ids[int(code)]) for code in some(np.unique(train.users)))
            )
        if unit == "items":
            return cls(
                items=tuple(
                    str(data.item_ids[int(code)]) for code in some(np.unique(data.item[train.rows]))
                )
            )
        rows = some(train.rows)
        return cls(
            interactions=tuple(
                (str(data.user_ids[int(user)]), str(data.item_ids[int(item)]))
                for user, item in zip(data.user[rows], data.item[rows], strict=True)
            )
        )


@dataclass(frozen=True)
class ForgetRetain:
    """The rows of a request. Prompts of D_f are as the original saw them; all others are written without its rows.

    Attributes:
        forget: D_f, the training rows that go, and the old prompts of those that stay but showed one that goes.
        retain: D_r, all other training rows, and the latter with a history that does not show it.
        valid, test: without rows that go.
        later: the rows of valid and test that go, a slice of their own.
        calibration, unseen: users that no model was tuned on, without rows that go.
        gone: mask of the interactions of D_f: the rows that go.
        rewritten: training prompts that showed one of them and are written anew.
    """

    forget: Samples
    retain: Samples
    valid: Samples
    test: Samples
    later: Samples
    calibration: Samples
    unseen: Samples
    gone: Mask
    rewritten: int = 0


def resolve(request: ErasureRequest, split: Split, *, skip_unknown: bool = False) -> ForgetRetain:
    """Find the rows of `request`.

    Raises:
        DataError: it names what no training prompt shows (unless `skip_unknown`), or the forget set is empty or
            everything.
    """
    train, data = split.train, split.train.interactions
    gone = marked(request, split, skip_unknown=skip_unknown)
    targets, shown = gone[train.rows], train.shows(gone)
    if not (targets | shown).any():
        raise DataError("request: nothing that it names is in the training data; nothing to forget")
    if targets.all():
        raise DataError(
            "request: names every training row; nothing would be retained, so delete the model instead"
        )
    after = split.without(gone)
    later = [part.rows[gone[part.rows]] for part in (split.valid, split.test)]
    return ForgetRetain(
        forget=train.take(targets | shown),
        retain=after.train,
        valid=after.valid,
        test=after.test,
        later=Samples(data, np.sort(np.concatenate(later)), train.history),
        calibration=after.calibration,
        unseen=after.unseen,
        gone=gone,
        rewritten=int((shown & ~targets).sum()),
    )


def marked(request: ErasureRequest, split: Split, *, skip_unknown: bool = False) -> Mask:
    """(n,) True where a row of the data is one that `request` names, also where no training prompt shows it.

    Raises:
        DataError: no training prompt shows anything of some of what it names, and `skip_unknown` is not set.
    """
    data, seen = split.train.interactions, split.train.read()
    users, items = _codes(data.user_ids), _codes(data.item_ids)

    def pair() -> npt.NDArray[np.int64]:
        return data.user.astype(np.int64) * len(items) + data.item

    kinds: tuple[tuple[str, Sequence[object], Callable[[], Ints], list[int]], ...] = (
        (
            "users",
            request.users,
            lambda: data.user,
            [users[name] for name in request.users if name in users],
        ),
        (
            "items",
            request.items,
            lambda: data.item,
            [items[name] for name in request.items if name in items],
        ),
        (
            "interactions",
            request.interactions,
            pair,
            [
                users[user] * len(items) + items[item]
                for user, item in request.interactions
                if user in users and item in items
            ],
        ),
    )
    gone = np.zeros(len(data), dtype=bool)
    for what, named, column, codes in kinds:
        if not named:
            continue
        of = column()
        here = np.isin(of, codes)
        missing = len(named) - len(np.unique(of[here & seen]))
        if missing and not skip_unknown:
            raise DataError(
                f"request: {missing} of {len(named)} {what} are not in the training data; "
                "correct the request, or go on without them with --skip-unknown"
            )
        gone |= here
    return gone


def _codes(ids: pl.Series) -> dict[str, int]:
    return {name: code for code, name in enumerate(ids.cast(pl.String).to_list())}


def _csv(lines: list[tuple[int, str]]) -> list[tuple[str, str]]:
    """(user, item) of each line below a header; ValueError with the line where it is none."""
    if not lines:
        return []
    (start, header), *rows = ((number, _fields(line, number)) for number, line in lines)
    _check_columns(header, start)
    for number, fields in rows:
        if len(fields) != len(header):
            raise ValueError(
                f"line {number}: has {len(fields)} fields, the header {len(header)}; correct the line"
            )
    found = [dict(zip(header, fields, strict=True)) for _, fields in rows]
    return [(row.get("user", ""), row.get("item", "")) for row in found]


def _fields(line: str, number: int) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True))]
    except csv.Error as error:
        raise ValueError(f"line {number}: is no CSV ({error}); correct it") from error


def _json_lines(lines: list[tuple[int, str]]) -> list[tuple[str, str]]:
    """The same of objects, one a line; ids are texts or whole numbers."""
    found = []
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: is no JSON object; correct it")
        _check_columns(list(row), number)
        ids = [row.get(name) for name in COLUMNS]
        if not all(value is None or type(value) in (str, int) for value in ids):
            raise ValueError(
                f"line {number}: holds an id that is neither text nor a whole number; correct it"
            )
        user, item = ("" if value is None else str(value).strip() for value in ids)
        found.append((user, item))
    return found


def _check_columns(names: list[str], number: int) -> None:
    """Raise ValueError unless there is a user or an item, and no other column that might name one of them."""
    known = [name for name in names if name in COLUMNS]
    if not known or len(known) > len(set(known)):
        raise ValueError(
            f"line {number}: names no column user or item, each once; add them as the first line"
        )
    for absent in set(COLUMNS) - set(
        known
    ):  # else single interactions would be taken for all of a user or an item
        alike = next(
            (name for name in names if name not in known and ALIKE[absent].search(name.lower())),
            None,
        )
        if alike is not None:
            raise ValueError(
                f"line {number}: column '{alike}' might name the {absent}; call it so, or remove it"
            )
