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
    user_bootstrap,
)
from ..metrics.classification import row_losses
from ..metrics.ranking import advantage, tpr_at_fpr
from ..models.predictions import Predictions
from .answers import Answers
from .shadows import ShadowScores

# How tables call them.
ATTACKS = {
    "loss": "loss, by row",
    "loss_user": "loss, by user",
    "ratio": "ratio, by row",
    "ratio_user": "ratio, by user",
}
FPR = 0.01
"""False positive rate at which attacks are read off: a few certain hits matter more than many
guesses (Carlini et al. 2022, section 3)."""
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
        members = model.forget.users
        non_members = model.unseen.users
        users = np.concatenate([members, non_members])
        member = np.repeat([1, 0], [len(members), len(non_members)])
        ids, user = np.unique(users, return_inverse=True)
        member_user = np.isin(ids, members).astype(int)
        # Users are drawn within their group, so that every resample has members and non-members.
        by_row = self._bootstrap(users, member)
        by_user = self._bootstrap(ids, member_user)

        scores = self._scores(model)
        controls = {}
        if self.control is not None:
            controls = self._scores(self.control)
        attacks = {}
        for name, row_scores in scores.items():
            user_scores = _user_means(row_scores, user)
            row_control = controls.get(name)
            user_control = None
            if row_control is not None:
                user_control = _user_means(row_control, user)
            attacks[name] = _figures(by_row, member, row_scores, row_control)
            attacks[f"{name}_user"] = _figures(by_user, member_user, user_scores, user_control)
        return attacks

    def _bootstrap(self, users: Ints, member: Ints) -> Bootstrap:
        return user_bootstrap(users, member, resamples=self.resamples, seed=self.seed)

    def _scores(self, model: Answers) -> dict[str, Floats]:
        """A score a row of D_f and then of the unseen users, by attack; higher for members."""
        forget = _log_likelihood(model.forget)
        unseen = _log_likelihood(model.unseen)
        scores = {"loss": np.concatenate([forget, unseen])}
        # How hard a row is for everybody hides in its loss; the ratio takes that out.
        shadows = self.shadows
        if shadows is not None:
            forget = _ratio(model.forget, shadows.forget, shadows.spread)
            unseen = _ratio(model.unseen, shadows.unseen, shadows.spread)
            scores["ratio"] = np.concatenate([forget, unseen])
        return scores


def _log_likelihood(rows: Predictions) -> Floats:
    return -row_losses(rows.labels, rows.log_odds)


def _ratio(rows: Predictions, shadows: Floats, spread: float) -> Floats:
    """How much likelier the label is to the model than to the shadows, in their deviations."""
    # A member's log-odds are too high where the label is Yes, and too low where it is No.
    sign = 2.0 * rows.labels - 1
    return sign * (rows.log_odds - shadows) / spread


def _user_means(scores: Floats, user: Ints) -> Floats:
    totals = np.bincount(user, weights=scores)
    return totals / np.bincount(user)


def _figures(
    bootstrap: Bootstrap, member: Ints, scores: Floats, control: Floats | None
) -> dict[str, Interval]:
    # AUC says how well the attack ranks, advantage how well one threshold separates.
    figures = {
        "auc": bootstrap.auc(member, scores),
        "advantage": bootstrap.ranked(member, scores, advantage),
    }
    non_members = np.sum(member == 0)
    if non_members >= MIN_NEGATIVES:
        figures["tpr_at_fpr"] = bootstrap.ranked(member, scores, tpr_at_fpr(FPR))
    if control is not None:
        control_auc = bootstrap.auc(member, control)
        figures["auc_beyond"] = figures["auc"] - control_auc
    return {name: bootstrap.interval(figure) for name, figure in figures.items()}
