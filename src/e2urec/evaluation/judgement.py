"""Judge the original and every candidate of one request."""

from dataclasses import dataclass

from ..metrics.bootstrap import Figure, Interval, interval, remaining
from .evidence import Evidence
from .roles import ORIGINAL, Role
from .verdict import LEVEL, Controls, Verdict, judge


@dataclass(frozen=True)
class _Memory:
    """What M_auc of every model is computed from.

    Attributes:
        knowledge: what each model knows of D_f.
        after: what is known without ever having seen D_f.
        rows: how many rows these rest on.
        basis: where `after` comes from.
    """

    knowledge: dict[Role, Figure]
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

    before = memory.knowledge[ORIGINAL]
    controls = Controls(
        headroom=interval(before - memory.after, memory.rows),
        attack=_positive_control(evidence),
        basis=memory.basis,
        users=evidence.forget_users,
        retrained=len(evidence.retrained),
    )
    test = evidence.bootstraps["test"]
    original_auc = evidence.figures[ORIGINAL]["auc"]
    judged = {}
    # The original is judged too: a test that it passes would be worth nothing.
    for role in (ORIGINAL, *evidence.candidates):
        share = remaining(memory.knowledge[role], before, memory.after)
        auc = evidence.figures[role]["auc"]
        drop = original_auc - auc
        judged[role] = judge(
            interval(share, memory.rows, LEVEL),
            test.interval(drop, LEVEL),
            controls,
            evidence.margins,
        )
    return judged


def _positive_control(evidence: Evidence) -> Interval:
    """An attack on the original: its AUC beyond a retrained model's, or its AUC without one."""
    # The stronger attack, where there are shadows for it.
    attack = "loss" if evidence.shadows is None else "ratio"
    figure = "auc_beyond" if evidence.retrained else "auc"
    return evidence.attacks(ORIGINAL)[attack][figure]


def _against_retrained(evidence: Evidence) -> _Memory:
    """M_auc as the table of memory has it."""
    return _Memory(
        knowledge=evidence.knowledge("auc"),
        after=evidence.knowledge_after_retraining("auc"),
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
    # A difference of differences: what makes D_f easy for every model falls out.
    knowledge = {
        role: row["forget_auc"] - row["unseen_auc"] for role, row in evidence.figures.items()
    }
    forget, unseen = evidence.bootstraps["forget"], evidence.bootstraps["unseen"]
    original = evidence.original
    shadows_forget = forget.auc(original.forget.labels, shadows.forget)
    shadows_unseen = unseen.auc(original.unseen.labels, shadows.unseen)
    return _Memory(
        knowledge=knowledge,
        after=shadows_forget - shadows_unseen,
        rows=len(forget.user) + len(unseen.user),
        basis="shadows",
    )
