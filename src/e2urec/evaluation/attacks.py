"""Two attacks on membership, by row and by user.

D_f are the members, the rows of the unseen users the non-members. An attack gives each row a score
that should be higher for members: the log-likelihood of its label (loss attack: Yeom et al. 2018),
or that less what models answer that never saw the row (offline likelihood ratio: Carlini et al.
2022, with one pooled variance).
"""

from dataclasses import dataclass

import numpy as np

from ..core.arrays import Floats, Ints
from ..metrics.bootstrap import (
    Bootstrap,
    Interval,
    advantage,
    tpr_at_fpr,
    user_bootstrap,
)
from ..metrics.classification import row_losses
from ..models.predictions import Predictions
from .answers import Answers
from .shadows import ShadowScores

ATTACKS = {
    "loss": "loss, by row",
    "loss_user": "loss, by user",
    "ratio": "likelihood ratio, by row",
    "ratio_user": "likelihood ratio, by user",
}
MIN_NEGATIVES = 1000
"""Non-members below which a true positive rate at 1% false positives rests on ten rows or fewer."""


@dataclass(frozen=True)
class AttackSetup:
    """What attacks on all models of one request share.

    Attributes:
        shadows: answers of models that never saw a row; None: no likelihood-ratio attack.
        control: a retrained model's answers, which give nothing away; None: none is at hand.
        seed: of the bootstrap.
        resamples: of it.
    """

    shadows: ShadowScores | None
    control: Answers | None
    seed: int
    resamples: int = 2000

    def attack(self, model: Answers) -> dict[str, dict[str, Interval]]:
        """How well each attack tells D_f from the unseen users: attack → figure.

        Figures are `auc`, `advantage`, `tpr_at_fpr` (at 1%, with a thousand non-members or more)
        and, with a control, `auc_beyond`: the AUC less the control's.
        """
        users = np.concatenate([model.forget.users, model.unseen.users])
        member = np.repeat([1, 0], [len(model.forget.users), len(model.unseen.users)])
        ids, user = np.unique(users, return_inverse=True)
        member_user = np.isin(ids, model.forget.users).astype(int)
        by_row = self._bootstrap(users, member)
        by_user = self._bootstrap(ids, member_user)

        scores = self._scores(model)
        controls = {} if self.control is None else self._scores(self.control)
        attacks = {}
        for name, rows in scores.items():
            control = controls.get(name)
            control_means = None if control is None else _user_means(control, user)
            attacks[name] = _figures(by_row, member, rows, control)
            attacks[f"{name}_user"] = _figures(
                by_user, member_user, _user_means(rows, user), control_means
            )
        return attacks

    def _bootstrap(self, users: Ints, member: Ints) -> Bootstrap:
        return user_bootstrap(users, member, resamples=self.resamples, seed=self.seed)

    def _scores(self, model: Answers) -> dict[str, Floats]:
        """A score a row of D_f and then of the unseen users, by attack; higher for members."""
        scores = {"loss": np.concatenate([_gain(model.forget), _gain(model.unseen)])}
        if self.shadows is not None:
            spread = self.shadows.spread
            forget = _ratio(model.forget, self.shadows.forget, spread)
            unseen = _ratio(model.unseen, self.shadows.unseen, spread)
            scores["ratio"] = np.concatenate([forget, unseen])
        return scores


def _gain(rows: Predictions) -> Floats:
    return -row_losses(rows.labels, rows.odds)


def _ratio(rows: Predictions, shadows: Floats, spread: float) -> Floats:
    sign = 2.0 * rows.labels - 1
    return sign * (rows.odds - shadows) / spread


def _user_means(rows: Floats, user: Ints) -> Floats:
    return np.bincount(user, weights=rows) / np.bincount(user)


def _figures(
    bootstrap: Bootstrap, member: Ints, scores: Floats, control: Floats | None
) -> dict[str, Interval]:
    figures = {
        "auc": bootstrap.auc(member, scores),
        "advantage": bootstrap.ranked(member, scores, advantage),
    }
    if np.sum(member == 0) >= MIN_NEGATIVES:
        figures["tpr_at_fpr"] = bootstrap.ranked(member, scores, tpr_at_fpr(0.01))
    if control is not None:
        figures["auc_beyond"] = figures["auc"] - bootstrap.auc(member, control)
    return {name: bootstrap.interval(figure) for name, figure in figures.items()}
