"""Judge the original and every candidate of one request."""

from dataclasses import dataclass

from ..metrics.bootstrap import Figure, interval, remaining
from .evidence import Evidence
from .roles import ORIGINAL, Role
from .verdict import LEVEL, Controls, Verdict, judge


@dataclass(frozen=True)
class _Memory:
    """What M_auc of every model is computed from.

    Attributes:
        known: what each model knows of D_f.
        after: what is known without ever having seen D_f.
        rows: how many rows these rest on.
        basis: where `after` comes from.
    """

    known: dict[Role, Figure]
    after: Figure
    rows: int
    basis: str


def verdicts(evidence: Evidence) -> dict[Role, Verdict]:
    """The verdict on each model; empty where there is nothing to judge, or to judge it by."""
    if not evidence.candidates:
        return {}
    if evidence.retrained:
        memory = _against_retrained(evidence)
    elif evidence.shadows is not None:
        memory = _against_shadows(evidence)
    else:
        return {}

    # The stronger attack is the positive control, where there are shadows for it.
    before = memory.known[ORIGINAL]
    attack = "loss" if evidence.shadows is None else "ratio"
    controls = Controls(
        headroom=interval(before - memory.after, memory.rows),
        attack=evidence.attacks(ORIGINAL)[attack]["auc"],
        basis=memory.basis,
    )
    test = evidence.bootstraps["test"]
    original_auc = evidence.figures[ORIGINAL]["auc"]
    judged = {}
    for role in (ORIGINAL, *evidence.candidates):
        share = remaining(memory.known[role], before, memory.after)
        auc = evidence.figures[role]["auc"]
        drop = original_auc - auc
        judged[role] = judge(
            interval(share, memory.rows, LEVEL),
            test.interval(drop, LEVEL),
            controls,
            evidence.margins,
        )
    return judged


def _against_retrained(evidence: Evidence) -> _Memory:
    """M_auc as the table of memory has it."""
    return _Memory(
        known=evidence.known("auc"),
        after=evidence.known_after_retraining("auc"),
        rows=len(evidence.bootstraps["forget"].user),
        basis="retrained",
    )


def _against_shadows(evidence: Evidence) -> _Memory:
    """M_auc without retrained models.

    The AUC on D_f is taken beyond that on the unseen users, `AUC_F − AUC_U`, and that of the
    shadows, which know neither, stands for the retrained models'. It holds what makes the forgotten
    users' rows easier or harder than others' by nature.
    """
    shadows = evidence.shadows
    assert shadows is not None
    known = {role: row["forget_auc"] - row["unseen_auc"] for role, row in evidence.figures.items()}
    forget, unseen = evidence.bootstraps["forget"], evidence.bootstraps["unseen"]
    original = evidence.original
    shadows_forget = forget.auc(original.forget.labels, shadows.forget)
    shadows_unseen = unseen.auc(original.unseen.labels, shadows.unseen)
    return _Memory(
        known=known,
        after=shadows_forget - shadows_unseen,
        rows=len(forget.user) + len(unseen.user),
        basis="shadows",
    )
