"""Requests for erasure, and the samples that they split the data into."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from ..core.arrays import Ints, Mask
from ..core.errors import ConfigError, DataError
from ..core.seeding import stream
from .interactions import Interactions
from .request_files import read_pairs
from .samples import Samples
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
        users = _sorted_texts(self.users)
        items = _sorted_texts(self.items)
        pairs = {(str(user), str(item)) for user, item in self.interactions}
        interactions = tuple(sorted(pairs))
        # The class is frozen, so its own fields are set past its guard.
        object.__setattr__(self, "users", users)
        object.__setattr__(self, "interactions", interactions)
        object.__setattr__(self, "items", items)

    def lines(self) -> list[str]:
        """The request as text for its digest, one thing a line.

        A user's id stands as it is, all else as JSON.
        """
        lines = [_user_line(user) for user in self.users]
        for user, item in self.interactions:
            lines.append(json.dumps(["interaction", user, item]))
        for item in self.items:
            lines.append(json.dumps(["item", item]))
        return lines

    @classmethod
    def from_file(cls, path: Path) -> "ErasureRequest":
        """Read a file of users, interactions or items; see `request_files.read_pairs`.

        A line with both a user and an item names one interaction. A line with either names all
        rows of that user or item.

        Raises:
            DataError: the file cannot be read, is no such table, or names nothing.
        """
        users: list[str] = []
        interactions: list[tuple[str, str]] = []
        items: list[str] = []
        for user, item in read_pairs(path):
            if user and item:
                interactions.append((user, item))
            elif user:
                users.append(user)
            elif item:
                items.append(item)
        if not users and not interactions and not items:
            raise DataError(f"request '{path}': names nobody; write one id a line")
        return cls(tuple(users), tuple(interactions), tuple(items))

    @classmethod
    def of_users(cls, samples: Samples, codes: Ints) -> "ErasureRequest":
        """All rows of the users with these codes in the data of `samples`."""
        return cls(users=_ids_of(codes, samples.interactions.user_ids))

    @classmethod
    def draw(
        cls, train: Samples, ratio: float, seed: int, unit: Unit = "users"
    ) -> "ErasureRequest":
        """Draw `ratio` of the training users, rows or items, at least one.

        Raises:
            ConfigError: `ratio` is not between 0 and 1.
        """
        if not 0 < ratio < 1:
            raise ConfigError(f"forget ratio {ratio}: must lie between 0 and 1, such as 0.2")
        data = train.interactions
        random = stream(seed, "request")
        if unit == "users":
            user_codes = np.unique(train.users)
            user_codes = _draw_share(user_codes, ratio, random)
            users = _ids_of(user_codes, data.user_ids)
            return cls(users=users)
        if unit == "items":
            item_codes = np.unique(data.item[train.rows])
            item_codes = _draw_share(item_codes, ratio, random)
            items = _ids_of(item_codes, data.item_ids)
            return cls(items=items)
        rows = _draw_share(train.rows, ratio, random)
        users = _ids_of(data.user[rows], data.user_ids)
        items = _ids_of(data.item[rows], data.item_ids)
        pairs = zip(users, items, strict=True)
        return cls(interactions=tuple(pairs))


@dataclass(frozen=True)
class ForgetRetain:
    """The samples of a request.

    Prompts of D_f, and old prompts, are as the original saw them. All others are written without
    the rows that go.

    Attributes:
        forget: D_f, the training rows that go. Where prompts only show what goes, and none is of
            such a row, D_f are these prompts: nothing else taught the original anything of it.
            Empty where no training prompt shows anything that goes: there is nothing to unlearn.
        retain: D_r, all other training rows.
        valid, test: without rows that go.
        later: the rows of valid and test that go, a slice of their own.
        calibration, unseen: users that no model was tuned on, without rows that go.
        erased: mask of the interactions that go.
        changed: of these, and of those with a prompt, in any part, that showed one of them.
        rewritten: (m,) positions in `retain` of the rows whose prompt showed one that goes.
        old_prompts: these m rows with the prompts that showed it, unless they are D_f themselves;
            `retain` has their new prompts.
        skipped: things that the request names and the data do not hold.
    """

    forget: Samples
    retain: Samples
    valid: Samples
    test: Samples
    later: Samples
    calibration: Samples
    unseen: Samples
    erased: Mask
    changed: Mask
    rewritten: Ints
    old_prompts: Samples
    skipped: int = 0


def resolve(request: ErasureRequest, split: Split, *, skip_unknown: bool = False) -> ForgetRetain:
    """Find the rows of `request`.

    Anybody's rows go, also those of users who were held out and those that no prompt shows.

    Raises:
        DataError: it names what the data do not hold (unless `skip_unknown`), nothing that they
            hold, or all training rows.
    """
    train = split.train
    erased = _erased_rows(request, train.interactions, skip_unknown=skip_unknown)
    if not erased.any():
        raise DataError(
            "request: nothing that it names is in the recommender's data; nothing to forget"
        )
    is_target = erased[train.rows]
    stays = ~is_target
    # What its row says stays true, so it is no row of D_f; only its history changes.
    is_rewritten = train.shows(erased) & stays
    if is_target.all():
        raise DataError(
            "request: names every training row; nothing would be retained, so delete the model "
            "instead"
        )
    new_split = split.without(erased)
    # Without a row to un-know nothing could be forgotten, and no figure would tell what was.
    is_forgotten = is_target if is_target.any() else is_rewritten
    return ForgetRetain(
        forget=train.take(is_forgotten),
        retain=new_split.train,
        valid=new_split.valid,
        test=new_split.test,
        later=_later_samples(split, erased),
        calibration=new_split.calibration,
        unseen=new_split.unseen,
        erased=erased,
        changed=split.changed_rows(erased),
        # D_r holds the rows that stay, in their order.
        rewritten=np.flatnonzero(is_rewritten[stays]),
        old_prompts=train.take(is_rewritten & ~is_forgotten),
        skipped=_unknown_count(request, train.interactions),
    )


def _later_samples(split: Split, erased: Mask) -> Samples:
    """The validation and test samples whose own row is erased."""
    train = split.train
    rows = np.concatenate([split.valid.rows, split.test.rows])
    erased_rows = rows[erased[rows]]
    erased_rows = np.sort(erased_rows)
    return Samples(train.interactions, erased_rows, train.history)


@dataclass(frozen=True)
class _Search:
    """One unit of a request, to be found among the rows of the data.

    Attributes:
        unit: what the names are of.
        name_count: how many things the request names.
        keys: keys of those names that the data know at all.
        row_keys: (n,) key of every row of the data.
    """

    unit: Unit
    name_count: int
    keys: list[int]
    row_keys: Ints


def _erased_rows(request: ErasureRequest, data: Interactions, *, skip_unknown: bool) -> Mask:
    """(n,) True where `request` names a row of the data, also if no prompt shows it.

    Raises:
        DataError: some of what it names has no row, and `skip_unknown` is not set.
    """
    erased = np.zeros(len(data), dtype=bool)
    for search in _searches(request, data):
        matches = np.isin(search.row_keys, search.keys)
        # The data may have the name of a user whose rows are gone.
        present_keys = np.unique(search.row_keys[matches])
        missing_count = search.name_count - len(present_keys)
        # The names themselves are not told: a message may end up in a log.
        if missing_count and not skip_unknown:
            raise DataError(
                f"request: {missing_count} of {search.name_count} {search.unit} are not in the "
                "recommender's data; correct the request, or go on without them with "
                "--skip-unknown"
            )
        erased |= matches
    return erased


def _unknown_count(request: ErasureRequest, data: Interactions) -> int:
    """How many of the things that a request names have no row in the data."""
    count = 0
    for search in _searches(request, data):
        present_keys = np.intersect1d(search.row_keys, search.keys)
        count += search.name_count - len(present_keys)
    return count


def _searches(request: ErasureRequest, data: Interactions) -> Iterator[_Search]:
    """A search for each unit that the request names anything of."""
    user_codes = _codes(data.user_ids)
    item_codes = _codes(data.item_ids)
    if request.users:
        user_count = len(request.users)
        keys = _known_codes(request.users, user_codes)
        yield _Search("users", user_count, keys, data.user)
    if request.items:
        item_count = len(request.items)
        keys = _known_codes(request.items, item_codes)
        yield _Search("items", item_count, keys, data.item)
    if request.interactions:
        yield _search_of_pairs(request.interactions, data, user_codes, item_codes)


def _search_of_pairs(
    pairs: Sequence[tuple[str, str]],
    data: Interactions,
    user_codes: dict[str, int],
    item_codes: dict[str, int],
) -> _Search:
    """The key of a pair is its place in a table of users × items."""
    width = len(item_codes)
    keys = []
    for user, item in pairs:
        if user not in user_codes or item not in item_codes:
            continue
        line_start = user_codes[user] * width
        keys.append(line_start + item_codes[item])
    # In 64 bits: users times items may be more than 32 bits hold.
    users = data.user.astype(np.int64)
    row_keys = users * width + data.item
    return _Search("interactions", len(pairs), keys, row_keys)


def _codes(ids: pl.Series) -> dict[str, int]:
    names = ids.cast(pl.String)
    return {name: code for code, name in enumerate(names.to_list())}


def _known_codes(names: Sequence[str], codes: dict[str, int]) -> list[int]:
    return [codes[name] for name in names if name in codes]


def _draw_share(values: Ints, ratio: float, random: np.random.Generator) -> Ints:
    """`ratio` of `values` in random order, at least one."""
    count = max(1, round(ratio * len(values)))
    return random.permutation(values)[:count]


def _ids_of(codes: Ints, ids: pl.Series) -> tuple[str, ...]:
    names = []
    for code in codes.tolist():
        names.append(str(ids[code]))
    return tuple(names)


def _sorted_texts(ids: Sequence[object]) -> tuple[str, ...]:
    """Each id once, as text: callers may pass numbers."""
    texts = {str(name) for name in ids}
    return tuple(sorted(texts))


def _user_line(user: str) -> str:
    # A line break in an id, or an id that looks like JSON, could pass for another request.
    if user.isprintable() and user[:1] != "[":
        return user
    return json.dumps(["user", user])
