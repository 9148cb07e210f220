"""PASS, FAIL, RETRAIN or UNMEASURABLE: two one-sided tests against margins fixed before the run."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..metrics.bootstrap import Interval

VerdictOutcome = Literal["PASS", "FAIL", "RETRAIN", "UNMEASURABLE"]
LEVEL = 0.9
"""An interval of 90% inside a margin is two one-sided tests at 5% (Schuirmann 1987)."""

# Two limits are no margins, which are the controller's to set: below them the intervals are too
# short, and a PASS is false more often than the 5% that it promises, whatever the margins.
MIN_RETRAINED = 3
"""Retrained models for a PASS: of two, no interval carries the noise of the training seed."""

# The percentile interval of a mean over u clusters is too short by √((u − 1)/u)·z/t (Hesterberg
# 2015): its 5% a side are 11% with 5 users, and 7% with 15.
MIN_USERS = 15
"""Users in D_f for a PASS: a bootstrap of fewer clusters makes intervals that are too short."""
REHEARSAL = "rehearsal"
"""The basis of a verdict on a request too small to measure, where its like was rehearsed."""


class Margins(BaseModel):
    """How far an unlearned model may be from a retrained one; set before anything is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    memory: float = Field(
        0.25, gt=0, description="largest |M_auc|: the share of the memory of D_f that may be left"
    )
    auc_drop: float = Field(0.02, ge=0, description="largest loss of test AUC against the original")


@dataclass(frozen=True)
class Verdict:
    """What the measures say of one model.

    Attributes:
        outcome: PASS: every gated interval lies inside its margin, and rests on retrained models
            and users enough. FAIL: one lies wholly outside. UNMEASURABLE: the request leaves
            nothing to measure. RETRAIN: everything else; only a retrained model would be safe.
        reason: in one sentence.
        basis: what M_auc was measured against: `retrained` models, or `shadows` and unseen users.
            `rehearsal`: against retrained models, and on other requests.
        memory: M_auc with its 90% interval.
        auc_drop: the drop of test AUC with its 90% interval.
    """

    outcome: VerdictOutcome
    reason: str
    basis: str
    memory: Interval
    auc_drop: Interval

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "basis": self.basis,
            "memory": self.memory.as_dict(),
            "auc_drop": self.auc_drop.as_dict(),
        }


@dataclass(frozen=True)
class Gate:
    """A quantity, and the margin inside which it must surely lie.

    Attributes:
        name: in sentences.
        figure: its 90% interval.
        low: lower end of the margin.
        high: upper end.
        margin: the margin in sentences.
    """

    name: str
    figure: Interval
    low: float
    high: float
    margin: str

    @property
    def surely_inside(self) -> bool:
        """Whether the whole interval lies inside the margin."""
        above = self.figure.low >= self.low
        below = self.figure.high <= self.high
        return above and below

    @property
    def surely_outside(self) -> bool:
        """Whether the whole interval lies outside."""
        too_high = self.figure.low > self.high
        too_low = self.figure.high < self.low
        return too_high or too_low

    def __str__(self) -> str:
        return f"{self.name} is {_text(self.figure)}"


@dataclass(frozen=True)
class Controls:
    """What must hold before a verdict means anything.

    Attributes:
        headroom: what D_f has to forget, 95%: it must be above 0.
        attack: a membership attack on the original, 95%, which must detect D_f. Its AUC beyond a
            retrained model's where there is one, else its AUC. None: there is no attack.
        basis: what memory was measured against, `retrained`, `shadows` or `rehearsal`.
        users: in D_f; of a rehearsal, in all of its requests.
        retrained: number of retrained models.
    """

    headroom: Interval
    attack: Interval | None
    basis: str
    users: int
    retrained: int

    @property
    def against_retrained(self) -> bool:
        """Whether the verdict rests on retrained models."""
        return self.basis != "shadows"

    @property
    def subject(self) -> str:
        """What was measured."""
        return "rehearsal" if self.basis == REHEARSAL else "request"

    @property
    def is_measurable(self) -> bool:
        """Whether D_f surely has something to forget."""
        # Written so that an interval that is not a number is not sure.
        return self.headroom.low > 0


def judge(memory: Interval, auc_drop: Interval, controls: Controls, margins: Margins) -> Verdict:
    """Weigh the gated quantities.

    Args:
        memory: M_auc, 90%.
        auc_drop: test AUC of the original less the model's, 90%.
        controls: what must hold first.
        margins: of the recipe.
    """
    gates = (
        Gate("M_auc", memory, -margins.memory, margins.memory, f"±{margins.memory:g}"),
        Gate("the drop of test AUC", auc_drop, -np.inf, margins.auc_drop, f"{margins.auc_drop:g}"),
    )

    def verdict(outcome: VerdictOutcome, reason: str) -> Verdict:
        return Verdict(outcome, reason, controls.basis, memory, auc_drop)

    # Nothing may PASS a test that cannot fail, so the controls come before the gates.
    obstacle = _obstacle(controls)
    if obstacle:
        return verdict("UNMEASURABLE", obstacle)
    # One gate surely missed is enough to fail, whatever the others say.
    failed = [f"{gate}, outside {gate.margin}" for gate in gates if gate.surely_outside]
    if failed:
        return verdict("FAIL", " and ".join(failed))
    unsure = [
        f"{gate}, not surely inside {gate.margin}" for gate in gates if not gate.surely_inside
    ]
    if unsure:
        return verdict("RETRAIN", " and ".join(unsure))
    inside = f"{' and '.join(map(str, gates))}, both inside their margins"
    shortage = _shortage(controls)
    if shortage:
        return verdict("RETRAIN", f"{inside}, but {shortage}")
    return verdict("PASS", inside)


def _obstacle(controls: Controls) -> str:
    """Why nothing can be said of any model of this request; empty if something can."""
    if not controls.is_measurable:
        return (
            f"the {controls.subject} is too small to measure: the original's AUC on D_f is not "
            f"surely above that of retrained models, by {_text(controls.headroom)}"
        )
    # Where no attack finds D_f in the original, finding none in the others shows nothing.
    attack = controls.attack
    if attack is None:
        return ""
    # Users who differ by nature put every model off 0.5, so a retrained one is the better zero.
    if controls.against_retrained and not attack.low > 0:
        return (
            "the positive control failed: the AUC of an attack on the original is higher than on a "
            f"retrained model by {_text(attack)} only"
        )
    if not controls.against_retrained and not attack.low > 0.5:
        return f"the positive control failed: an attack on the original has AUC {_text(attack)}"
    return ""


def _shortage(controls: Controls) -> str:
    """What a PASS would need more of, and the remedy; empty if nothing."""
    shortages = []
    count = controls.retrained
    if controls.against_retrained and count < MIN_RETRAINED:
        models = "1 retrained model says" if count == 1 else f"{count} retrained models say"
        place = "with --against; in a recipe, as retrained"
        if controls.basis == REHEARSAL:
            place = "with e2urec rehearse --retrained"
        shortages.append(
            f"{models} too little of how much the training seed matters: give {MIN_RETRAINED} or "
            f"more ({place})"
        )
    if controls.users < MIN_USERS:
        users = "1 user" if controls.users == 1 else f"{controls.users} users"
        remedy = f"measure a {controls.subject} of {MIN_USERS} users or more"
        shortages.append(f"D_f has {users}, too few for intervals that hold: {remedy}")
    return "; and ".join(shortages)


def _text(figure: Interval) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
