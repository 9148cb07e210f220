"""Requests for erasure, and the rows they split the data into."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ..errors import ConfigError, DataError
from ..seeding import stream
from .interactions import Samples
from .splits import Split


@dataclass(frozen=True)
class ErasureRequest:
    """Users whose every row shall be forgotten: their ids as text, sorted, each once."""

    users: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "users", tuple(sorted(set(map(str, self.users)))))

    @classmethod
    def from_file(cls, path: Path) -> "ErasureRequest":
        """Read one id a line, or the column `user` of a CSV or JSON-lines file; `#` starts a comment line.

        Raises:
            DataError: the file cannot be read, is no such table, or names nobody.
        """
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
            users = [line for line in lines if line and not line.startswith("#")]
            if users and path.suffix in (".csv", ".jsonl", ".ndjson"):
                text = "\n".join(users).encode()
                table = pl.read_csv(text, infer_schema=False) if path.suffix == ".csv" else pl.read_ndjson(text)
                if "user" not in table.columns:
                    raise DataError(f"request '{path}': has no column user; it has {', '.join(table.columns)}")
                users = [str(user).strip() for user in table["user"].drop_nulls() if str(user).strip()]
        except OSError as error:
            raise DataError(f"request '{path}': cannot be read ({error.strerror}); name a file of users") from error
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
            raise DataError(f"request '{path}': is no UTF-8 table or list; write one id a line") from error
        if not users:
            raise DataError(f"request '{path}': names nobody; write one id a line")
        return cls(tuple(users))

    @classmethod
    def sample(cls, train: Samples, ratio: float, seed: int) -> "ErasureRequest":
        """Choose `ratio` of the training users, at least one; raises ConfigError unless 0 < ratio < 1."""
        if not 0 < ratio < 1:
            raise ConfigError(f"forget ratio {ratio}: must lie between 0 and 1, such as 0.2")
        users = np.unique(train.users)
        chosen = stream(seed, "request").permutation(users)[: max(1, round(ratio * len(users)))]
        ids = train.interactions.user_ids
        return cls(tuple(str(ids[int(code)]) for code in chosen))


@dataclass(frozen=True)
class ForgetRetain:
    """The rows of a request.

    Attributes:
        forget: D_f, the training rows of the forgotten users.
        retain: D_r, all other training rows.
        valid, test: without rows of forgotten users.
        later: the forgotten users' rows of valid and test, a slice of their own.
    """

    forget: Samples
    retain: Samples
    valid: Samples
    test: Samples
    later: Samples

    def __post_init__(self) -> None:
        both = np.intersect1d(self.forget.rows, self.retain.rows)
        if len(both):
            raise DataError(f"row {both[0]} is in both forget and retain; a row belongs to one of them")


def resolve(request: ErasureRequest, split: Split, *, skip_unknown: bool = False) -> ForgetRetain:
    """Find the rows of `request`.

    Raises:
        DataError: users without a training row (unless `skip_unknown`), or a forget set that is empty or everything.
    """
    train = split.train
    codes = np.unique(train.users)
    ids = train.interactions.user_ids.cast(pl.String).to_numpy()
    known = {str(ids[code]): int(code) for code in codes}
    unknown = sum(user not in known for user in request.users)
    if unknown and not skip_unknown:
        raise DataError(
            f"request: {unknown} of {len(request.users)} users are not in the training data; "
            "correct the request, or go on without them with --skip-unknown"
        )
    gone = np.array([known[user] for user in request.users if user in known], dtype=np.int64)
    if not len(gone):
        raise DataError(f"request: none of its {len(request.users)} users is in the training data; nothing to forget")
    forgotten = np.isin(train.users, gone)
    if forgotten.all():
        raise DataError("request: names every training user; nothing would be retained, so delete the model instead")
    in_valid, in_test = np.isin(split.valid.users, gone), np.isin(split.test.users, gone)
    later = np.sort(np.concatenate([split.valid.rows[in_valid], split.test.rows[in_test]]))
    return ForgetRetain(
        forget=train.take(forgotten),
        retain=train.take(~forgotten),
        valid=split.valid.take(~in_valid),
        test=split.test.take(~in_test),
        later=Samples(train.interactions, later, train.history),
    )
