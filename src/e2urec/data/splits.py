"""Training, validation and test samples, cut by time, and users that no model may see.

Of rows without times each user's own are cut, by their random order.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..core.arrays import Floats, Ints, Mask
from ..core.errors import ConfigError, DataError
from ..core.seeding import stream
from .interactions import Interactions
from .samples import Samples

# A part may have 5% more rows than its limit: users are whole, so it rarely fits exactly.
OVERSHOOT = 1.05
_REMEDIES = {
    "train": "give more data, or raise the first of data.fractions",
    "valid": "give more data, or raise the second of data.fractions",
    "test": "give more data, or raise the third of data.fractions",
    "calibration": "give more users, raise data.calibration, or set it to 0 to do without",
    "unseen": "give more users, or raise data.unseen",
}
"""What brings rows into a part of a split."""


class SplitSettings(BaseModel):
    """How interactions are cut into parts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # More than any prompt holds, and few enough to be taken off a row's number.
    history: int = Field(10, ge=1, le=100_000, description="K: items that a prompt shows")
    min_history: int = Field(
        5, ge=1, description="earlier rows that a row needs to become a sample"
    )
    fractions: tuple[float, float, float] = Field(
        (0.6, 0.2, 0.2), description="train, valid, test by time"
    )
    last: int | None = Field(None, ge=1, description="keep only the last so many samples by time")
    unseen: float = Field(
        0.1, ge=0, lt=1, description="share of the training period's users held out as non-members"
    )
    calibration: float = Field(0.05, ge=0, lt=1, description="the same for choosing settings")


class SizeLimits(BaseModel):
    """How large the parts of a split may be; None sets no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rows: int | None = Field(None, ge=1, description="about how many training rows, users whole")
    per_user: int | None = Field(
        None, ge=1, description="at most so many samples of a user in each part"
    )
    test_rows: int | None = Field(None, ge=1, description="about how many test rows, users whole")
    held_rows: int | None = Field(
        None, ge=1, description="the same for valid and for each group of held-out users"
    )

    def of_part(self, name: str) -> int | None:
        """About how many rows the part called `name` may have."""
        if name == "train":
            return self.rows
        if name == "test":
            return self.test_rows
        return self.held_rows


@dataclass(frozen=True)
class Split:
    """Samples by part.

    Attributes:
        train: rows that the original is tuned on.
        valid: later rows, for choosing epochs and settings.
        test: the last rows, for reports.
        calibration: training-period rows of users kept out of train and valid; for choosing a
            method's settings.
        unseen: the same of other users, on whom nothing is chosen: the non-members of every report.
    """

    train: Samples
    valid: Samples
    test: Samples
    calibration: Samples
    unseen: Samples

    def changed_rows(self, erased: Mask) -> Mask:
        """Mask of all interactions: those that `erased` marks, and targets of prompts showing one.

        What was computed from one of these rows' prompts, in any part, derives from an erased row.
        """
        changed = erased.copy()
        for part in vars(self).values():
            shows_erased = part.shows(erased)
            changed[part.rows[shows_erased]] = True
        return changed

    def without(self, erased: Mask) -> "Split":
        """The same parts without the interactions that `erased` marks, in targets and histories.

        A history then reaches further back. A row stays a sample even if its history has become
        short.
        """
        stays = ~erased
        interactions = self.train.interactions.without(erased)
        new_rows = np.cumsum(stays) - 1
        parts = {}
        for name, part in vars(self).items():
            part_stays = stays[part.rows]
            old_rows = part.rows[part_stays]
            parts[name] = Samples(interactions, new_rows[old_rows], part.history)
        return Split(**parts)


def split(interactions: Interactions, settings: SplitSettings, *, seed: int) -> Split:
    """Cut the samples by time, and hold users out.

    Args:
        interactions: all rows; those with at least `min_history` earlier rows of their user become
            samples.
        settings: `fractions` are train, valid and test as shares of the samples; `unseen` and
            `calibration` are shares of the training period's users.
        seed: chooses the users that are held out.

    Raises:
        ConfigError: the fractions do not sum to 1, a number is out of range, or nobody is left to
            train on.
        DataError: no row has enough history.
    """
    _check(settings)
    train, valid, test = _cut_by_time(interactions, settings)
    unseen_users, calibration_users = _held_out_users(train, settings, seed)
    held_users = np.concatenate([unseen_users, calibration_users])
    is_held = np.isin(train.users, held_users)
    if is_held.all():
        raise ConfigError(
            f"fractions {settings.fractions}, unseen {settings.unseen} and calibration "
            f"{settings.calibration}: leave nobody to train on; raise the first fraction or hold "
            "out fewer users"
        )
    return Split(
        train=train.take(~is_held),
        valid=valid.take(~np.isin(valid.users, held_users)),
        # Held-out users stay in test: no model is tuned or chosen on it.
        test=test,
        calibration=_rows_of(calibration_users, train),
        unseen=_rows_of(unseen_users, train),
    )


def require_usable(parts: Split, *, calibration: bool) -> None:
    """Check that a recommender can be trained on the parts of a split, and then be measured.

    Args:
        parts: of the split.
        calibration: whether rows for calibration were asked for.

    Raises:
        DataError: a part has no rows, or none of one of the two answers, so that the work of hours
            would end without a figure.
    """
    for name, part in vars(parts).items():
        if name == "calibration" and not calibration:
            continue
        if not len(part):
            raise DataError(f"split: there are no {name} rows; {_REMEDIES[name]}")
        # On calibration rows nothing is measured that needs both answers.
        answers = np.unique(part.labels)
        if name != "calibration" and len(answers) == 1:
            answer = "liked" if answers[0] else "not liked"
            raise DataError(
                f"split: all {len(part)} {name} rows are {answer}, so nothing can be told from "
                f"them; set columns.liked_above between the ratings, or {_REMEDIES[name]}"
            )


def _check(settings: SplitSettings) -> None:
    """Raise ConfigError for settings that cannot split anything.

    Pydantic has refused single numbers that are out of range, unless the settings were constructed
    without validation. Sums are checked here alone. Each test is written so that NaN fails it.
    """
    fractions = settings.fractions
    # Three decimal shares rarely sum to exactly 1 in floating point.
    sums_to_one = abs(sum(fractions) - 1) <= 1e-9
    if len(fractions) != 3 or not (min(fractions) >= 0 and sums_to_one):
        raise ConfigError(
            f"fractions {fractions}: must be three shares that sum to 1, such as 0.6, 0.2, 0.2"
        )
    unseen = settings.unseen
    calibration = settings.calibration
    if not (unseen >= 0 and calibration >= 0 and unseen + calibration < 1):
        raise ConfigError(
            f"unseen {unseen} and calibration {calibration}: must be shares with a sum below 1"
        )
    minima = {"history": 1, "min_history": 0, "last": 1}
    for name, least in minima.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")


def _cut_by_time(
    interactions: Interactions, settings: SplitSettings
) -> tuple[Samples, Samples, Samples]:
    """Training, validation and test samples of all users."""
    rows = _rows_by_time(interactions, settings)
    shares = np.cumsum(settings.fractions)
    cuts = shares[:2] * len(rows)
    cuts = cuts.round().astype(int)
    # Each part is in the order of the interactions again, so that a user's rows are together.
    train, valid, test = (np.sort(part) for part in np.split(rows, cuts))
    history = settings.history
    return (
        Samples(interactions, train, history),
        Samples(interactions, valid, history),
        Samples(interactions, test, history),
    )


def _rows_by_time(interactions: Interactions, settings: SplitSettings) -> Ints:
    """The rows that become samples, by time."""
    index = np.arange(len(interactions))
    earlier_rows = index - interactions.first_rows
    rows = index[earlier_rows >= settings.min_history]
    if not len(rows):
        raise DataError(
            f"no user has more than {settings.min_history} rows; give more data or lower "
            "min_history"
        )
    times = interactions.time[rows]
    if interactions.timed:
        # A stable sort leaves rows of the same second in (user, position) order.
        rows = rows[np.argsort(times, kind="stable")]
    else:
        shares = _shares_before(interactions.user[rows])
        rows = rows[np.lexsort((times, shares))]
    return rows if settings.last is None else rows[-settings.last :]


def _shares_before(users: Ints) -> Floats:
    """(n,) the share of a user's samples that stand before each, itself by half.

    Random places know no common clock: cut by these shares, each user has her own part of
    training, validation and test rows.

    Args:
        users: (n,) codes, those of a user together.
    """
    _, first_samples, user, counts = np.unique(
        users, return_index=True, return_inverse=True, return_counts=True
    )
    places = np.arange(len(users)) - first_samples[user]
    return (places + 0.5) / counts[user]


def _held_out_users(train: Samples, settings: SplitSettings, seed: int) -> tuple[Ints, Ints]:
    """The unseen users and those for calibration."""
    users = np.unique(train.users)
    users = stream(seed, "held-out users").permutation(users)
    user_count = len(users)
    held_out = settings.unseen + settings.calibration
    # Both ends are rounded, not both sizes: the sum of the shares then keeps its size.
    unseen_end = round(settings.unseen * user_count)
    held_end = round(held_out * user_count)
    unseen_users = users[:unseen_end]
    calibration_users = users[unseen_end:held_end]
    return unseen_users, calibration_users


def _rows_of(users: Ints, samples: Samples) -> Samples:
    return samples.take(np.isin(samples.users, users))


def limit(parts: Split, sizes: SizeLimits, *, seed: int) -> Split:
    """Cut the parts down to `sizes`; `seed` and a part's name choose the users who stay in it."""
    new_parts = {}
    for name, part in vars(parts).items():
        if sizes.per_user is not None:
            part = first_of_each_user(part, sizes.per_user)
        row_count = sizes.of_part(name)
        if row_count is not None:
            part = whole_users(part, row_count, stream(seed, "limit", name))
        new_parts[name] = part
    return Split(**new_parts)


def first_of_each_user(samples: Samples, count: int) -> Samples:
    """The first `count` samples of each user; `samples` are in the order of the interactions."""
    _, first_rows, user = np.unique(samples.users, return_index=True, return_inverse=True)
    rows = np.arange(len(samples))
    places = rows - first_rows[user]
    return samples.take(places < count)


def whole_users(samples: Samples, row_count: int, random: np.random.Generator) -> Samples:
    """The samples of whole users, in random order, until there are `row_count`, or up to 5% more.

    A user who would go beyond is passed over, so that a very active one cannot multiply the size.
    There are fewer only if no user is left who fits. If nobody fits at all there are those of one
    user, more than 5% too many.
    """
    if len(samples) <= row_count:
        return samples
    ids, row_counts = np.unique(samples.users, return_counts=True)
    order = random.permutation(len(ids))
    members: list[int] = []
    total = 0
    for user in order:
        if total >= row_count:
            break
        new_total = total + row_counts[user]
        if new_total <= OVERSHOOT * row_count:
            members.append(user)
            total = new_total
    # Where everybody alone is too much, a part of one user is still better than an empty one.
    if not members:
        members = [order[0]]
    return _rows_of(ids[members], samples)
