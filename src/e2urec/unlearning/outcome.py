"""What a request aimed at, what it reached, and what stood in the way."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# The largest share of the memory of D_f that a verdict lets pass, unless a recipe says otherwise.
MUCH_LEFT = 0.25
REMEDY = "--method retrain leaves nothing"
# One-sided 5%: below it, a lead of 0 is not surely wrong.
SURE_ERRORS = 1.645

Basis = Literal["scores", "calibration"]


@dataclass(frozen=True)
class Target:
    """What a request has to reach.

    Attributes:
        before: AUC of the original on D_f.
        lead: by how much that shall fall; negative where strangers' rows are the easier ones, NaN
            where some rows it is measured on have one answer alone, or there are none.
        error: standard error of the lead, over users; NaN where it cannot be told.
        basis: what it was measured by.
        obstacle: why lead or error cannot be told, in a sentence; empty where both can.
        remedy: what would tell the lead better, as a clause.
        drift: log-odds by which out-of-fold scores differ from the original's answers on strangers'
            rows, in the mean: no memory is in it. 0 without scores.
        margin: c that, taken off the log-odds of Yes rows, lowers the AUC on D_r by the lead; NaN
            by scores, and where there is no lead.
    """

    before: float
    lead: float
    error: float
    basis: Basis
    obstacle: str = ""
    remedy: str = "a larger data.calibration would tell it better"
    drift: float = 0.0
    margin: float = math.nan

    @property
    def auc(self) -> float:
        """The AUC on D_f to reach."""
        return self.before - self.lead

    @property
    def is_sure(self) -> bool:
        """Whether the lead is surely above 0."""
        # Written so that what is not a number is not sure.
        return self.lead > SURE_ERRORS * self.error

    def memory_left(self, auc: float) -> float:
        """Estimated share of the memory of D_f that a model with this AUC still has."""
        return (auc - self.auc) / self.lead


@dataclass
class Outcome:
    """What a method knows of how far it came. Filled in while it works.

    Attributes:
        target: what had to be reached; None where nobody measured it.
        alpha: how much of the gain the forgetting teacher took off.
        teacher_auc: AUC of the forgetting teacher on D_f.
        start_scale: multiple of the augmented adapter that the student started from.
        scale: what the finished student was multiplied by.
        reached: AUC on D_f of the result, on the rows that scaling looked at.
        is_solved: whether the student was solved for, and not trained.
        limits: every bound that was hit, and everything that could not be done, a sentence each.
        notes: what else a user should know, a sentence each; nothing stood in the way.
        without_figures: those of the limits that tell no figure of D_f.
    """

    target: Target | None = None
    alpha: float | None = None
    teacher_auc: float | None = None
    start_scale: float | None = None
    scale: float | None = None
    reached: float | None = None
    is_solved: bool = False
    limits: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    without_figures: list[str] = field(default_factory=list)

    def tell(self, sentence: str, *, has_figures: bool = True) -> None:
        """Add a sentence to the limits, unless it is there already.

        Args:
            sentence: on a bound that was hit, or on what could not be done.
            has_figures: whether it may tell a figure of D_f, so that it is left out where D_f has
                too few rows for any.
        """
        if sentence in self.limits:
            return
        self.limits.append(sentence)
        if not has_figures:
            self.without_figures.append(sentence)

    def note(self, sentence: str) -> None:
        """Add a sentence to the notes, unless it is there already; it tells no figure of D_f."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @property
    def memory_left(self) -> float | None:
        """Estimated share of the memory of D_f that is left; None where it cannot be estimated."""
        if self.target is None or self.reached is None or not self.target.is_sure:
            return None
        share = self.target.memory_left(self.reached)
        return share if math.isfinite(share) else None

    @property
    def is_done(self) -> bool:
        """Whether little is left for all that the method can tell, and no bound was hit."""
        share = self.memory_left
        return not self.limits and share is not None and abs(share) <= MUCH_LEFT

    def sentences(self) -> list[str]:
        """What a user has to know; notes alone where it was honoured as far as can be told."""
        # A method that measures nothing has nothing to tell: the evaluation judges it.
        if self.is_done or (self.target is None and not self.limits):
            return self.notes
        return [*self.limits, *self.notes, self._conclusion()]

    def _conclusion(self) -> str:
        """How much is left, and what to do about it."""
        if self.target is None:
            return f"How much is left was not measured; {REMEDY}."
        share = self.memory_left
        if share is None:
            return f"How much is left cannot be told from this request alone; {REMEDY}."
        if share < -MUCH_LEFT:
            return self._overshoot(self.target)
        # A little below 0 is as near to the target as a little above.
        estimate = f"About {max(share, 0):.0%} of the memory of D_f is left"
        return f"{estimate}; {REMEDY}." if share > MUCH_LEFT else f"{estimate}."

    def _overshoot(self, target: Target) -> str:
        """What to say where D_f is answered worse than by a model that never saw it."""
        if self.is_solved:
            remedy = "a smaller solving.strength takes less"
        else:
            # Without an augmented model no α was looked for.
            setting = "strength" if self.alpha is None else "start_scale"
            remedy = f"a smaller {setting} or joint takes less"
        # As trained, and nobody asked for its target.
        if self.scale is None:
            remedy = "with scaling.largest=1 the student is taken back to its target"
        elif self.scale > 1:
            setting = "solving.largest" if self.is_solved else "scaling.largest"
            remedy = f"{setting} below {self.scale:.2g} takes less"
        return (
            f"More than its memory was taken from D_f: its AUC is {self.reached:.3f}, and a "
            f"model that never saw it would have {target.auc:.3f}; {remedy}."
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        values = asdict(self)
        del values["without_figures"]
        if self.target is not None:
            values["target"]["auc"] = self.target.auc
        return values | {
            "memory_left": self.memory_left,
            "is_done": self.is_done,
            "sentences": self.sentences(),
        }


def unsure_lead(target: Target) -> str:
    """The sentence on a lead that is not surely positive."""
    if target.obstacle:
        return target.obstacle
    return (
        f"What tuning is worth is not surely positive: {target.lead:.3f} AUC with a standard error "
        f"of {target.error:.3f}; {target.remedy}."
    )
