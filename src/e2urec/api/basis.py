"""What a rehearsal of the original says of a request that is too small to be measured alone."""

from collections.abc import Callable

from ..evaluation.pooled import PooledBasis
from ..metrics.bootstrap import Interval
from ..runs.folder import Run
from ..runs.record import IntervalRecord
from ..runs.rehearsal import FILE, Rehearsal, read_rehearsal
from .request import RequestCase


def rehearsed_basis(
    run: Run, case: RequestCase, say: Callable[[str], object] | None = None
) -> PooledBasis | None:
    """What the rehearsal of the run's original says of its request; None where it says nothing.

    It speaks for the same method in the same settings, and for users as many as were rehearsed, or
    more; `say` is told where it does not.

    Raises:
        RunError: the rehearsal is damaged, or another run's.
    """
    rehearsal = read_rehearsal(case.parent)
    if rehearsal is None:
        return None
    basis = _basis(run, case, rehearsal)
    if basis is None and say is not None:
        say(
            f"'{case.parent.path / FILE}': is of other settings, of larger requests, or measured "
            "too little, and no basis for this request; rehearse with its settings and size"
        )
    return basis


def _basis(run: Run, case: RequestCase, rehearsal: Rehearsal) -> PooledBasis | None:
    method = run.record.method
    assert method is not None, "an unlearned run says how it was made"
    place = rehearsal.find(method.name, method.settings)
    request = case.request
    is_alike = not request.interactions and not request.items
    if place is None or not is_alike or rehearsal.size > len(request.users):
        return None
    gate = rehearsal.trials[place].gate
    if gate is None or rehearsal.headroom is None:
        return None
    return PooledBasis(
        requests=rehearsal.requests,
        memory=gate.interval,
        headroom=rehearsal.headroom.interval,
        attack=_attack(rehearsal.attack),
        users=rehearsal.users,
        retrained=rehearsal.retrained,
    )


def _attack(record: IntervalRecord | None) -> Interval | None:
    return None if record is None else record.interval
