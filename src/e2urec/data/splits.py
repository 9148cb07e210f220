"""Chronological train, validation and test rows, and users that no model may see."""

from dataclasses import dataclass

import numpy as np

from ..core.arrays import Mask
from ..core.errors import ConfigError, DataError
from ..core.seeding import stream
from .interactions import Interactions
from .samples import Samples


@dataclass(frozen=True)
class Split:
    """Samples by part.

    Attributes:
        train: rows that the original is tuned on.
        valid: later rows, for choosing epochs and settings.
        test: the last rows, for reports.
        calibration: training-period rows of users kept out of train and valid; for choosing a method's settings.
        unseen: the same of other users, on whom nothing is chosen: the non-members of every report.
    """

    train: Samples
    valid: Samples
    test: Samples
    calibration: Samples
    unseen: Samples

    def without(self, gone: Mask) -> "Split":
        """The same parts without the rows of the interactions that `gone` marks, as targets and in every history.

        A history then reaches further back; a row stays a sample even if its history has become short.
        """
        data = self.train.interactions
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        left = {name: part.rows[~gone[part.rows]] for name, part in parts.items()}
        place, fewer = np.cumsum(~gone) - 1, data.without(gone)
        return Split(
            **{
                name: Samples(fewer, place[rows], parts[name].history)
                for name, rows in left.items()
            }
        )


def split(
    interactions: Interactions,
    *,
    history: int = 10,
    min_history: int = 5,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    last: int | None = None,
    unseen: float = 0.1,
    calibration: float = 0.0,
    seed: int,
) -> Split:
    """Cut the samples by time.

    Args:
        interactions: all rows; those with at least `min_history` earlier rows of their user become samples.
        history: K, the most rows that a prompt shows.
        min_history: see above.
        fractions: train, valid and test as shares of the samples, in order of time; they sum to 1.
        last: keep only the last so many samples by time.
        unseen: share of the training period's users who are the non-members.
        calibration: share of them on whom settings may be chosen.
        seed: chooses those users.

    Raises:
        ConfigError: the fractions do not sum to 1, a number is out of range, or nobody is left to train on.
        DataError: no row has enough history.
    """
    # each test is written so that NaN fails it
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-9):
        raise ConfigError(
            f"fractions {fractions}: must be three shares that sum to 1, such as 0.6, 0.2, 0.2"
        )
    if not (unseen >= 0 and calibration >= 0 and unseen + calibration < 1):
        raise ConfigError(
            f"unseen {unseen} and calibration {calibration}: must be shares with a sum below 1"
        )
    for name, value, least in (
        ("history", history, 1),
        ("min_history", min_history, 0),
        ("last", last, 1),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} {value}: must be at least {least}")
    index = np.arange(len(interactions))
    rows = index[index - interactions.first >= min_history]
    rows = rows[
        np.argsort(interactions.time[rows], kind="stable")
    ]  # ties stay in (user, position) order
    rows = rows[-last:] if last else rows
    if not len(rows):
        raise DataError(
            f"no user has more than {min_history} rows; give more data or lower min_history"
        )
    cuts = (np.cumsum(fractions)[:2] * len(rows)).round().astype(int)
    train, valid, test = (
        Samples(interactions, np.sort(part), history) for part in np.split(rows, cuts)
    )
    users = stream(seed, "held-out users").permutation(np.unique(train.users))
    first, second = round(unseen * len(users)), round((unseen + calibration) * len(users))
    held = np.isin(train.users, users[:second])
    if held.all():
        raise ConfigError(
            f"fractions {fractions}, unseen {unseen} and calibration {calibration}: leave nobody to train on; "
            "raise the first fraction or hold out fewer users"
        )
    return Split(
        train=train.take(~held),
        valid=valid.take(~np.isin(valid.users, users[:second])),
        test=test,
        calibration=train.take(np.isin(train.users, users[first:second])),
        unseen=train.take(np.isin(train.users, users[:first])),
    )


def limit(
    samples: Samples, rows: int | None, *, per_user: int | None = None, seed: int, name: str
) -> Samples:
    """Keep users whole, in a seeded order, until there are `rows` samples, or at most 5% more.

    A user who would go beyond is passed over, so that a very active one cannot multiply the size. The result is
    smaller than `rows` only if no user is left who fits, and more than 5% larger only if none fits at all.

    Args:
        samples: in the order of the interactions.
        rows: stop once there are so many; None keeps all users.
        per_user: first keep only the first so many samples of each user.
        seed: with `name`, chooses the users.
        name: of the part, so that each part draws its own users.
    """
    users = samples.users
    if per_user is not None:
        starts = (
            np.concatenate([[True], users[1:] != users[:-1]]) if len(users) else np.zeros(0, bool)
        )
        first = np.maximum.accumulate(np.where(starts, np.arange(len(users)), 0))
        samples = samples.take(np.arange(len(users)) - first < per_user)
        users = samples.users
    if rows is None or len(samples) <= rows:
        return samples
    ids, counts = np.unique(users, return_counts=True)
    order = stream(seed, "limit", name).permutation(len(ids))
    kept: list[int] = []
    total = 0
    for user in order:
        if total < rows and total + counts[user] <= 1.05 * rows:
            kept.append(user)
            total += counts[user]
    return samples.take(np.isin(users, ids[kept or order[:1]]))
