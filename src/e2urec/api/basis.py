"""What a rehearsal of the original says of a request that is too small to be measured alone."""

from collections.abc import Callable

import numpy as np

from ..evaluation.pooled import PooledBasis
from ..methods import rebuild
from ..metrics.bootstrap import Interval
from ..runs.folder import Run
from ..runs.record import IntervalRecord
from ..runs.rehearsal import FILE, Rehearsal, read_rehearsal
from ..unlearning.method import Method
from .request import RequestCase

LARGEST = 2
"""A rehearsal speaks for requests of up to so many times as many users."""


def rehearsed_basis(
    run: Run, case: RequestCase, say: Callable[[str], object] | None = None
) -> PooledBasis | None:
    """What the rehearsal of the run's original says of its request; None where it says nothing.

    It speaks for the same method in the same settings, and for requests of as many users as were
    rehearsed at a time, up to twice as many; `say` is told where it does not.

    Raises:
        RunError: the rehearsal is damaged, or another run's.
    """
    rehearsal = read_rehearsal(case.parent, case.controller_key)
    if rehearsal is None:
        return None
    basis = _basis(run, case, rehearsal)
    if basis is None and say is not None:
        say(
            f"'{case.parent.path / FILE}': is of other settings, of requests of another unit or "
            "size, or measured too little, and no basis for this request; rehearse users, with "
            "its settings and size"
        )
    return basis


def _basis(run: Run, case: RequestCase, rehearsal: Rehearsal) -> PooledBasis | None:
    method = run.record.method
    assert method is not None, "an unlearned run says how it was made"
    place = rehearsal.find(method.name, method.settings)
    if place is None or not _is_alike(case, rehearsal, rebuild(method.name, method.settings)):
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


def _is_alike(case: RequestCase, rehearsal: Rehearsal, method: Method) -> bool:
    """Whether a request is of users, about as many as were rehearsed, and treated alike."""
    if case.request.interactions or case.request.items:
        return False
    forget = case.parts.forget
    # Names may be of nobody in the training data; only users with rows that go count.
    user_count = len(np.unique(forget.users))
    is_of_size = rehearsal.size <= user_count <= LARGEST * rehearsal.size
    if not is_of_size:
        return False
    original = case.original
    assert original is not None, "the original is asked afterwards"
    retain = len(case.parts.retain)
    sizes = (len(forget), round(rehearsal.rows / rehearsal.times))
    regimes = [method.suited(rows, retain, original.lm).regime(rows) for rows in sizes]
    return bool(regimes[0] == regimes[1])


def _attack(record: IntervalRecord | None) -> Interval | None:
    return None if record is None else record.interval
