"""Whom the requests of a comparison name: random users, or those who are remembered most.

Random users hide the risk: what a model remembers best is what an attack finds first, and what is
hardest to forget (RULI, Naderloui et al., USENIX Security 2025).
"""

from pathlib import Path

import numpy as np

from ...core.arrays import Floats, Ints
from ...core.errors import ConfigError
from ...core.reading import UNREADABLE, damaged
from ...core.sealing import read_sealed, write_sealed
from ...data.samples import Samples
from ...metrics.classification import row_losses
from ..recipe import DrawnRequest, RequestRecipe

# A user of two rows would else lead the list by chance.
TYPICAL_ROWS = 5
"""Rows of average memory that are added to each user's own."""
CODE_TYPE = "<i8"
"""Of user codes on the disk."""


def as_share(request: RequestRecipe, among: Samples) -> RequestRecipe:
    """The request with a number of single users as the share of `among` that they are.

    Raises:
        ConfigError: there are not so many users, and one more to retain.
    """
    if not isinstance(request, DrawnRequest) or request.singles is None:
        return request
    user_count = len(np.unique(among.users))
    if request.singles >= user_count:
        raise ConfigError(
            f"compare.requests: singles = {request.singles} of {user_count} training users leave "
            "nobody to retain; ask for fewer, or raise data.rows"
        )
    return request.model_copy(update={"ratio": request.singles / user_count})


def most_memorised(train: Samples, original: Floats, outsider: Floats, ratio: float) -> Ints:
    """User codes of the `ratio` of the users of whom the original remembers most, at least one.

    A user's memory is the mean over her rows of how much lower the original's log loss is than that
    of an answer by somebody who never saw them; average rows are added to it.

    Args:
        train: n rows that the original was tuned on.
        original: (n,) its log-odds.
        outsider: (n,) log-odds of models that saw none of the user's rows.
        ratio: share of the users.
    """
    labels = train.labels
    gaps = row_losses(labels, outsider) - row_losses(labels, original)
    users, user = np.unique(train.users, return_inverse=True)
    totals = np.bincount(user, weights=gaps) + TYPICAL_ROWS * gaps.mean()
    memory = totals / (np.bincount(user) + TYPICAL_ROWS)
    count = max(1, round(ratio * len(users)))
    # Stable, so that equals do not depend on the sort: the first codes come first.
    order = np.argsort(-memory, kind="stable")
    return np.sort(users[order[:count]])


def write_users(file: Path, codes: Ints, key: bytes) -> None:
    """Write user codes, encrypted under `key`: a killed comparison leaves the file behind."""
    write_sealed(file, np.asarray(codes, CODE_TYPE).tobytes(), key)


def read_users(file: Path, key: bytes, remedy: str) -> Ints:
    """The user codes that `write_users` wrote; raises RunError where they cannot be read."""
    try:
        return np.frombuffer(read_sealed(file, key), CODE_TYPE)
    except UNREADABLE as error:
        raise damaged(file, remedy, error) from error
