"""PASS, FAIL, RETRAIN or UNMEASURABLE: two one-sided tests against margins that were fixed before the run."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..metrics.bootstrap import Interval

Outcome = Literal["PASS", "FAIL", "RETRAIN", "UNMEASURABLE"]
LEVEL = 0.9
"""An interval of 90% inside a margin is two one-sided tests at 5% (Schuirmann 1987)."""


class Margins(BaseModel):
    """How far an unlearned model may be from a retrained one; set before anything is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory: float = Field(
        0.25, gt=0, description="largest |M_auc|: the share of the memory of D_f that may be left"
    )
    auc_drop: float = Field(0.02, ge=0, description="largest loss of test AUC against the original")


@dataclass(frozen=True)
class Verdict:
    """What the measures say of one model.

    Attributes:
        outcome: PASS: every gated interval lies inside its margin. FAIL: one lies wholly outside. UNMEASURABLE: the
            request leaves nothing to measure. RETRAIN: everything else; only a retrained model would be safe.
        reason: in one sentence.
        basis: what M_auc was measured against: `retrained` models, or `shadows` and unseen users.
        memory, auc_drop: the gated quantities with their 90% intervals.
    """

    outcome: Outcome
    reason: str
    basis: str
    memory: Interval
    auc_drop: Interval

    def as_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            name: value.as_dict() if isinstance(value, Interval) else value
            for name, value in vars(self).items()
        }


def judge(
    memory: Interval,
    auc_drop: Interval,
    headroom: Interval,
    margins: Margins,
    *,
    basis: str,
    control: Interval | None = None,
) -> Verdict:
    """Weigh the gated quantities.

    Args:
        memory: M_auc, 90%.
        auc_drop: test AUC of the original less the model's, 90%.
        headroom: what D_f has to forget, 95%.
        margins: of the recipe.
        basis: what `memory` was measured against.
        control: AUC of a membership attack on the original, 95%: it must be detected.
    """
    low, high = -margins.memory, margins.memory
    parts = {
        "M_auc": (memory, low, high),
        "the drop of test AUC": (auc_drop, -np.inf, margins.auc_drop),
    }
    told = {name: f"{name} is {_text(found)}" for name, (found, _, _) in parts.items()}

    def verdict(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(outcome, reason, basis, memory, auc_drop)

    if not headroom.low > 0:
        text = f"the request is too small to measure: the original's AUC on D_f is higher by {_text(headroom)} only"
        return verdict("UNMEASURABLE", text)
    if control is not None and not control.low > 0.5:
        return verdict(
            "UNMEASURABLE",
            f"the positive control failed: an attack on the original has AUC {_text(control)}",
        )
    outside = [name for name, (found, a, b) in parts.items() if found.low > b or found.high < a]
    if outside:
        return verdict(
            "FAIL",
            " and ".join(f"{told[name]}, outside {_margin(name, margins)}" for name in outside),
        )
    unsure = [
        name for name, (found, a, b) in parts.items() if not (a <= found.low and found.high <= b)
    ]
    if unsure:
        text = " and ".join(
            f"{told[name]}, not surely inside {_margin(name, margins)}" for name in unsure
        )
        return verdict("RETRAIN", text)
    return verdict("PASS", f"{' and '.join(told.values())}, both inside their margins")


def _margin(name: str, margins: Margins) -> str:
    return f"±{margins.memory:g}" if name == "M_auc" else f"{margins.auc_drop:g}"


def _text(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
