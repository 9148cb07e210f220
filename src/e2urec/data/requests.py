"""Requests for erasure, and the rows they split the data into."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ..errors import ConfigError, DataError
from ..seeding import stream
from .interactions import Samples
from .splits import Split

Unit = Literal["users", "interactions", "items"]


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
        """The request as text, one thing a line, for its digest: `user`, `user⇥item` or `⇥item`."""
        pairs = [f"{user}\t{item}" for user, item in self.interactions]
        return [*self.users, *pairs, *(f"\t{item}" for item in self.items)]

    @classmethod
    def from_file(cls, path: Path) -> "ErasureRequest":
        """Read one user a line, or a CSV or JSON-lines file with the columns `user`, `item` or both.

        With both, a row names one interaction; one that leaves either out names all of the other's. `#` starts a
        comment line.

        Raises:
            DataError: the file cannot be read, is no such table, or names nothing.
        """
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
            lines = [line for line in lines if line and not line.startswith("#")]
            if not lines or path.suffix not in (".csv", ".jsonl", ".ndjson"):
                found = cls(users=tuple(lines))
            else:
                text = io.BytesIO("\n".join(lines).encode())
                table = pl.read_csv(text, infer_schema=False) if path.suffix == ".csv" else pl.read_ndjson(text)
                found = cls._from_table(table, path)
        except OSError as error:
            raise DataError(f"request '{path}': cannot be read ({error.strerror}); name a file of users") from error
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
            raise DataError(f"request '{path}': is no UTF-8 table or list; write one id a line") from error
        if found == cls():
            raise DataError(f"request '{path}': names nobody; write one id a line")
        return found

    @classmethod
    def _from_table(cls, table: pl.DataFrame, path: Path) -> "ErasureRequest":
        columns = [name for name in ("user", "item") if name in table.columns]
        if not columns or any(table.schema[name].is_nested() for name in columns):
            raise DataError(f"request '{path}': has no column user or item; it has {', '.join(table.columns)}")
        ids = table.select(pl.col(columns).cast(pl.String).str.strip_chars().fill_null(""))
        blank = pl.Series([""] * len(ids), dtype=pl.String)
        rows = list(zip(*(ids[name] if name in columns else blank for name in ("user", "item")), strict=True))
        return cls(
            users=tuple(user for user, item in rows if user and not item),
            interactions=tuple((user, item) for user, item in rows if user and item),
            items=tuple(item for user, item in rows if item and not user),
        )

    @classmethod
    def sample(cls, train: Samples, ratio: float, seed: int, unit: Unit = "users") -> "ErasureRequest":
        """Choose `ratio` of the training users, rows or items, at least one; ConfigError unless 0 < ratio < 1."""
        if not 0 < ratio < 1:
            raise ConfigError(f"forget ratio {ratio}: must lie between 0 and 1, such as 0.2")
        data, random = train.interactions, stream(seed, "request")

        def some(choices: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
            return random.permutation(choices)[: max(1, round(ratio * len(choices)))]

        if unit == "users":
            return cls(tuple(str(data.user_ids[int(code)]) for code in some(np.unique(train.users))))
        if unit == "items":
            return cls(items=tuple(str(data.item_ids[int(code)]) for code in some(np.unique(data.item[train.rows]))))
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
    gone: npt.NDArray[np.bool_]
    rewritten: int = 0

    def __post_init__(self) -> None:
        if self.forget.interactions is self.retain.interactions:
            both = np.intersect1d(self.forget.rows, self.retain.rows)
            if len(both):
                raise DataError(f"row {both[0]} is in both forget and retain; a row belongs to one of them")


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
        raise DataError("request: names every training row; nothing would be retained, so delete the model instead")
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


def marked(request: ErasureRequest, split: Split, *, skip_unknown: bool = False) -> npt.NDArray[np.bool_]:
    """(n,) True where a row of the data is one that `request` names.

    Raises:
        DataError: some of what it names is in no training prompt, and `skip_unknown` is not set.
    """
    train, data = split.train, split.train.interactions
    seen = train.read()
    users, items = _codes(data.user_ids), _codes(data.item_ids)
    known = np.unique(train.users)
    gone = np.zeros(len(data), dtype=bool)
    named = {name for name in request.users if name in users}
    chosen = np.intersect1d(np.array([users[name] for name in named], dtype=np.int64), known)
    gone |= np.isin(data.user, chosen)
    _all_known(request.users, len(chosen), "users", skip_unknown)

    if request.interactions:
        pair = data.user.astype(np.int64) * len(items) + data.item
        wanted = [users[user] * len(items) + items[item] for user, item in request.interactions
                  if user in users and item in items]  # fmt: skip
        pairs = np.intersect1d(np.array(wanted, dtype=np.int64), pair[seen])
        gone |= np.isin(pair, pairs)
        _all_known(request.interactions, len(pairs), "interactions", skip_unknown)
    if request.items:
        things = np.array([items[name] for name in request.items if name in items], dtype=np.int64)
        things = np.intersect1d(things, data.item[seen])
        gone |= np.isin(data.item, things)
        _all_known(request.items, len(things), "items", skip_unknown)
    return gone


def _all_known(named: Iterable[object], found: int, what: str, skip_unknown: bool) -> None:
    count = len(tuple(named))
    if found < count and not skip_unknown:
        raise DataError(
            f"request: {count - found} of {count} {what} are not in the training data; "
            "correct the request, or go on without them with --skip-unknown"
        )


def _codes(ids: pl.Series) -> dict[str, int]:
    return {name: code for code, name in enumerate(ids.cast(pl.String).to_list())}
