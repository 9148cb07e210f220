"""How hard rows are by nature: what a small model says of them that cannot remember anybody.

Two groups of users differ in AUC although no model was tuned on either, because some users are
easier to tell. A *control model* c sees that difference and no memory: it knows of a row how well
its item is liked, how often it is rated, and how much the user liked before. A recommender's AUC on
group B is carried over to group A by adding `b·[AUC_A(c) − AUC_B(c)]`: a control variate
(Glasserman 2003, section 4.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.seeding import stream
from .samples import Samples

# The best b has to be estimated from many splits of the users, and a request has one. With 1 the
# corrected figure is a difference of differences, which has nothing to estimate.
COEFFICIENT = 1.0
"""b: by how much an AUC is corrected for each unit by which the control model's differs."""
FOLDS = 5
"""Groups of D_r's users; each is scored by a model of the others."""
# Of 1, 2, 5, 10 and 20 it has the highest AUC on unseen users of MovieLens-100K: 0.698.
SMOOTHING = 5.0
"""Rows of average liking that are added to each item's own."""


@dataclass(frozen=True)
class Difficulty:
    """Log-odds of the control model: greater where anybody would be expected to like the item.

    Attributes:
        retain: (n,) of rows of D_r, each scored by the model that saw none of its user's rows.
        outsiders: (n,) of rows of users who are not in D_r, by name: the mean over the same models.
    """

    retain: Floats
    outsiders: Mapping[str, Floats]

    def take(self, index: Ints) -> "Difficulty":
        """The same for rows `index` of D_r alone."""
        return replace(self, retain=self.retain[index])


def difficulty(retain: Samples, outsiders: Mapping[str, Samples], *, seed: int) -> Difficulty:
    """Fit the control model on D_r, out of fold by user, and score all rows.

    A logistic regression on three features: the smoothed mean liking of the row's item, the
    logarithm of how many rows the item has, and the mean liking of the history that the prompt
    shows. Nobody's own rows are in the model, or in the items' figures, by which she is scored. A
    model of rows of one class, or of no rows, gives all rows the same log-odds.

    Args:
        retain: D_r.
        outsiders: rows of other users by name; their items may be unknown to D_r.
        seed: of the folds.
    """
    row_folds = user_folds(retain.users, seed)
    tallies = _Tallies.of(retain, row_folds)
    retain_odds = np.zeros(len(retain))
    totals = {name: np.zeros(len(samples)) for name, samples in outsiders.items()}
    fold_count = len(tallies.rows)
    for fold in range(fold_count):
        model = _Control.fit(retain, row_folds, tallies, fold)
        own = np.flatnonzero(row_folds == fold)
        retain_odds[own] = model.log_odds(retain.take(own))
        for name, samples in outsiders.items():
            totals[name] += model.log_odds(samples)
    means = {name: total / fold_count for name, total in totals.items()}
    return Difficulty(retain_odds, means)


def control_log_odds(train: Samples, samples: Samples, *, seed: int) -> Floats:
    """(n,) log-odds of `samples` by a control model of `train`: what a cheap recommender reaches.

    It sees the means of items and of users: of all that a user rated before, and not of the last
    rows alone, which a prompt shows.

    Args:
        train: rows that a recommender is tuned on.
        samples: rows that it is measured on; their users may be the same, later on.
        seed: of the folds.
    """
    everything = len(train.interactions)
    whole_train = replace(train, history=everything)
    whole_samples = replace(samples, history=everything)
    return difficulty(whole_train, {"samples": whole_samples}, seed=seed).outsiders["samples"]


def user_folds(users: Ints, seed: int) -> Ints:
    """(n,) fold of each row, the same for all rows of a user; as many folds as users if few."""
    ids, user = np.unique(users, return_inverse=True)
    places = stream(seed, "difficulty").permutation(len(ids))
    folds = places % FOLDS
    return folds[user]


@dataclass(frozen=True)
class _Items:
    """What some users say of each item.

    Attributes:
        likes: (items,) rows in which it is liked.
        rows: (items,) all rows.
    """

    likes: Ints
    rows: Ints

    def features(self, samples: Samples) -> Floats:
        """(n, 3) smoothed mean liking and log count of the item, and mean liking of the history."""
        items = samples.interactions.item[samples.rows]
        rate = _smoothed_rate(self.likes.sum(), self.rows.sum())
        likes = self.likes[items] + SMOOTHING * rate
        rows = self.rows[items] + SMOOTHING
        return np.column_stack([likes / rows, np.log1p(self.rows[items]), _history_means(samples)])


@dataclass(frozen=True)
class _Tallies:
    """The same by fold, (folds, items), so that any folds can be left out.

    Attributes:
        likes: rows in which an item is liked.
        rows: all rows.
    """

    likes: Ints
    rows: Ints

    @classmethod
    def of(cls, samples: Samples, row_folds: Ints) -> "_Tallies":
        """The tallies of `samples`, whose folds are `row_folds` (n,)."""
        item_count = len(samples.interactions.titles)
        shape = (row_folds.max(initial=0) + 1, item_count)
        cells = row_folds * item_count + samples.interactions.item[samples.rows]
        size = shape[0] * shape[1]
        likes = np.bincount(cells[samples.labels == 1], minlength=size)
        rows = np.bincount(cells, minlength=size)
        return cls(likes.reshape(shape), rows.reshape(shape))

    def without(self, folds: set[int]) -> _Items:
        """Those of all other folds."""
        others = [fold for fold in range(len(self.rows)) if fold not in folds]
        return _Items(self.likes[others].sum(axis=0), self.rows[others].sum(axis=0))


@dataclass(frozen=True)
class _Control:
    """A control model.

    Attributes:
        items: what the users that it was fitted on say of each item.
        weights: (3,) of the features.
        intercept: log-odds where all features are 0.
    """

    items: _Items
    weights: Floats
    intercept: float

    @classmethod
    def fit(cls, retain: Samples, row_folds: Ints, tallies: _Tallies, fold: int) -> "_Control":
        """Fit the model that scores users of `fold` and outsiders, on the other folds."""
        features = np.zeros((len(retain), 3))
        for other in range(len(tallies.rows)):
            # A row must not tell its own label through its item's mean: the model would rely on
            # that mean more than it deserves where the label is not in it.
            own = np.flatnonzero(row_folds == other)
            items = tallies.without({fold, other})
            features[own] = items.features(retain.take(own))
        # Here, since it takes more than a second to load, and most commands fit nothing.
        from sklearn.linear_model import LogisticRegression

        outside = row_folds != fold
        labels = retain.labels[outside]
        items = tallies.without({fold})
        # Rows of one class say nothing of what tells the classes apart.
        if len(np.unique(labels)) < 2:
            rate = _smoothed_rate(labels.sum(), len(labels))
            return cls(items, np.zeros(3), float(np.log(rate / (1 - rate))))
        regression = LogisticRegression().fit(features[outside], labels)
        return cls(items, regression.coef_[0], float(regression.intercept_[0]))

    def log_odds(self, samples: Samples) -> Floats:
        """(n,) log-odds of rows of users that the model was not fitted on."""
        features = self.items.features(samples)
        return np.asarray(features @ self.weights + self.intercept)


def _smoothed_rate(likes: int, rows: int) -> float:
    """Share of liked rows, as if there were one more of either class (Laplace's rule)."""
    return (likes + 1) / (rows + 2)


def _history_means(samples: Samples) -> Floats:
    """(n,) share of liked rows in the history that each prompt shows; 1/2 where it shows none."""
    liked = samples.interactions.liked.astype(np.int64)
    # Entry i is the number of liked rows before row i.
    counts_before = np.concatenate([[0], np.cumsum(liked)])
    likes = counts_before[samples.rows] - counts_before[samples.starts]
    rows = samples.rows - samples.starts
    return np.where(rows > 0, likes / np.maximum(rows, 1), 0.5)
