"""The way from the original to models that never saw a row: what a forgetting teacher asks for.

`w = δ_R − δ_o`, in log-odds, δ_R of a model that was not tuned on the row. There are two ways to
tell it without such a model.

By out-of-fold scores: a score, out, is the mean log-odds of K half models that did not see the
row: what all such models would say, and noise. A student that is taught the noise as well goes
further than to a retrained model, elsewhere, and takes other rows with it. So `d = out − δ_o` is
replaced by the best linear prediction of w from itself and from the row's label:

    ŵ = E[d] + b₁·(d − E[d]) + b₂·(y − E[y])
    b = Σ⁻¹·(Var(d) − σ²/K, Cov(y, d))            Σ the covariance of (d, y)

σ² is the variance between half models, in the mean over rows, so σ²/K is the noise in d, and w
varies by `Var(d) − σ²/K`, or by as much as the label explains of d where that is more. Half models
that differ by a constant count it as noise, and ŵ leans on the label more. This is regression
calibration (Carroll, Ruppert, Stefanski and Crainiceanu 2006, Measurement Error in Nonlinear
Models, chapter 4).

By margins: tuning on a row raises the log-odds of its answer, of all rows by about as much. That is
c, which takes from the AUC on D_r what tuning on rows is worth (the lead: `unlearning/target.py`):

    AUC_Dr(δ_o − c·y) = AUC_Dr(δ_o) − lead
    ŵ = −c·(y − ȳ)                                ȳ the share of Yes, so that the mean stays
"""

from dataclasses import dataclass

import numpy as np

from ..core.arrays import Floats, Ints
from .task import Task
from .teachers import AnsweredRows

LEAST_MODELS = 2
"""Half models behind a score from which its noise can be told."""

ONE_MODEL = (
    "Each out-of-fold score is the word of one half model, whose noise cannot be told, so it was "
    "taught as it is; make the scores anew with scores.pairs=2 or more."
)

NO_MARGIN = (
    "Nothing shows that tuning on rows is worth anything to the original, so no margin was taken "
    "off and nothing was forgotten; make out-of-fold scores by e2urec prepare, or use --preset "
    "gain."
)


@dataclass(frozen=True)
class ExpectedWay:
    """Predicts w of a row from its score and its label.

    Attributes:
        means: E[d] and E[y], (2,).
        slopes: b, (2,).
    """

    means: Floats
    slopes: Floats

    @classmethod
    def fit(cls, ways: Floats, labels: Ints, spread: Floats, models: int) -> "ExpectedWay":
        """From rows that the original was tuned on.

        Args:
            ways: d, (n,).
            labels: y, (n,), 1 for Yes.
            spread: standard deviation between the half models, (n,).
            models: K, at least `LEAST_MODELS`.
        """
        known = np.stack([ways, labels]).astype(np.float64)
        covariance = np.cov(known, ddof=0)
        noise = np.mean(np.square(spread, dtype=np.float64)) / models
        # What the label alone explains of d is no noise, however much the half models differ.
        explained = covariance[0, 1] ** 2 / covariance[1, 1] if covariance[1, 1] else 0.0
        signal = max(covariance[0, 0] - noise, explained)
        # Rows that all have one label, or one way, leave a slope open: the least one is taken.
        slopes = np.linalg.pinv(covariance) @ np.array([signal, covariance[0, 1]])
        return cls(known.mean(1), slopes)

    def of(self, ways: Floats, labels: Ints) -> Floats:
        """ŵ of rows, (n,), from their own d (n,) and y (n,)."""
        known = np.stack([ways, labels]) - self.means[:, None]
        expected: Floats = self.means[0] + self.slopes @ known
        return expected.astype(np.float32)


def way_by_scores(
    task: Task, forget_odds: Floats, retain: AnsweredRows, *, denoise: bool
) -> Floats:
    """The way of D_f by out-of-fold scores, (n,), float32.

    Where the noise of scores cannot be told they are taken as they are, and the outcome says so; so
    it does of scores that are left out.

    Args:
        task: with a score of each row of D_f.
        forget_odds: log-odds of the original on D_f, (n,).
        retain: rows of D_r that the original answered, from which the noise is told, too.
        denoise: whether the noise is taken out.
    """
    scores = task.scores
    assert scores is not None, "a task without scores was refused"
    if sentence := scores.stale_sentence():
        task.outcome.note(sentence)
    forget_ways: Floats = scores.forget.mean - forget_odds
    if not denoise:
        return forget_ways
    if scores.models < LEAST_MODELS:
        task.outcome.tell(ONE_MODEL)
        return forget_ways
    # The target says what follows where an original answers with what is not a number.
    if not np.isfinite(forget_ways).all():
        return forget_ways
    retain_scores = scores.retain.take(retain.rows)
    # A row of D_r whose prompt was written anew has no score.
    retain_ways = retain_scores.mean - retain.odds
    is_scored = np.isfinite(retain_ways)
    retain_labels = task.retain.labels[retain.rows]
    way = ExpectedWay.fit(
        np.concatenate([forget_ways, retain_ways[is_scored]]),
        np.concatenate([task.forget.labels, retain_labels[is_scored]]),
        np.concatenate([scores.forget.spread, retain_scores.spread[is_scored]]),
        scores.models,
    )
    return way.of(forget_ways, task.forget.labels)


def way_by_margin(task: Task, margin: float) -> Floats:
    """The way of D_f by margins, (n,), float32.

    Args:
        task: whose rows have labels.
        margin: c; below 0, or where it cannot be told, nothing is moved, and the outcome says so.
    """
    labels = task.forget.labels
    # Written so that what is not a number is none.
    if not margin > 0:
        task.outcome.tell(NO_MARGIN, has_figures=False)
        return np.zeros(len(labels), np.float32)
    liked_share = np.concatenate([labels, task.retain.labels]).mean()
    way: Floats = -margin * (labels - liked_share)
    return way.astype(np.float32)
