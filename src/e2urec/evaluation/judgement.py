"""Judge the original and every candidate of one request."""

from dataclasses import dataclass, replace

from ..metrics.bootstrap import Figure, Interval, interval, remaining
from .evidence import Evidence
from .pooled import PooledBasis
from .roles import ORIGINAL, UNLEARNED, Role
from .verdict import LEVEL, MIN_USERS, REHEARSAL, Controls, Verdict, judge


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
    """The verdict on each model; empty where there is nothing to judge, or to judge it by.

    A rehearsal judges the unlearned model, and only where its own rows are too few to.
    """
    if not evidence.candidates:
        return {}
    memory = _memory(evidence)
    if memory is None:
        if evidence.rehearsal is None or evidence.forget_users >= MIN_USERS:
            return {}
        return {UNLEARNED: _by_rehearsal(evidence, evidence.rehearsal)}
    controls = _controls(evidence, memory)
    judged = _by_own_rows(evidence, memory, controls)
    too_small = controls.users < MIN_USERS or not controls.is_measurable
    # What fails by its own rows has failed, whatever became of other requests.
    if evidence.rehearsal is not None and too_small and judged[UNLEARNED].outcome != "FAIL":
        judged[UNLEARNED] = _by_rehearsal(evidence, evidence.rehearsal)
    return judged


def _memory(evidence: Evidence) -> _Memory | None:
    """What M_auc rests on; None where there are neither retrained models nor shadows."""
    if evidence.retrained:
        return _against_retrained(evidence)
    if evidence.shadows is not None:
        return _against_shadows(evidence)
    return None


def _controls(evidence: Evidence, memory: _Memory) -> Controls:
    return Controls(
        headroom=interval(memory.knowledge[ORIGINAL] - memory.after, memory.rows),
        attack=_positive_control(evidence),
        basis=memory.basis,
        users=evidence.forget_users,
        retrained=len(evidence.retrained),
    )


def _by_own_rows(evidence: Evidence, memory: _Memory, controls: Controls) -> dict[Role, Verdict]:
    """The verdict on the original and each candidate, by the rows of the request."""
    before = memory.knowledge[ORIGINAL]
    judged = {}
    # The original is judged too: a test that it passes would be worth nothing.
    for role in (ORIGINAL, *evidence.candidates):
        share = remaining(memory.knowledge[role], before, memory.after)
        figure = interval(share, memory.rows, LEVEL)
        judged[role] = judge(figure, _auc_drop(evidence, role), controls, evidence.margins)
    return judged


def _auc_drop(evidence: Evidence, role: Role) -> Interval:
    """The drop of test AUC against the original, 90%."""
    figures = evidence.figures
    drop = figures[ORIGINAL]["auc"] - figures[role]["auc"]
    return evidence.bootstraps["test"].interval(drop, LEVEL)


def _by_rehearsal(evidence: Evidence, basis: PooledBasis) -> Verdict:
    """The verdict on the unlearned model: memory as rehearsed, and its own loss of test AUC."""
    controls = Controls(basis.headroom, basis.attack, REHEARSAL, basis.users, basis.retrained)
    # Test rows are many, however small the request: what this very model lost can be measured.
    drop = _auc_drop(evidence, UNLEARNED)
    verdict = judge(basis.memory, drop, controls, evidence.margins)
    reason = f"by rehearsal of {basis.requests}, since this one is too small: {verdict.reason}"
    return replace(verdict, reason=reason)


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
