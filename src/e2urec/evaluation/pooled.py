"""Figures of several requests at once: their rows of D_f are one set.

Each row is answered by the model that forgot it. A request of a single user has some twenty rows,
which prove nothing; those of twenty such requests together do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ..core.arrays import Floats, Ints
from ..metrics.bootstrap import Bootstrap, Figure, Interval, over_seeds, remaining

Figures = dict[str, Figure]
"""Figures by name."""


@dataclass(frozen=True)
class ForgottenRows:
    """Rows of D_f of one or more requests.

    Attributes:
        labels: (n,) 1 = liked.
        users: (n,) user codes.
        candidate: (n,) log-odds of the model that forgot the row.
        original: (n,) log-odds of the original.
        retrained: (models, n) log-odds of models retrained without the row, or more than it.
        request: (n,) number of the request that names the row's user.
    """

    labels: Ints
    users: Ints
    candidate: Floats
    original: Floats
    retrained: Floats
    request: Ints

    @classmethod
    def union(cls, parts: Sequence["ForgottenRows"]) -> "ForgottenRows":
        """The rows of all of them, numbered anew."""
        arrays = {}
        for name in vars(parts[0]):
            arrays[name] = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        lengths = [len(part.labels) for part in parts]
        arrays["request"] = np.repeat(np.arange(len(parts)), lengths)
        return cls(**arrays)

    def figures(self, bootstrap: Bootstrap, *, seed: int) -> Figures:
        """Memory, alignment, and what they are made of; see `evaluation.measures`."""
        aucs = [bootstrap.auc(self.labels, odds) for odds in self.retrained]
        losses = [bootstrap.log_loss(self.labels, odds) for odds in self.retrained]
        # The mean over retrained models carries the noise of their seeds, where it is known.
        auc_after = over_seeds(aucs, seed=seed)
        loss_after = over_seeds(losses, seed=seed)
        auc_before = bootstrap.auc(self.labels, self.original)
        loss_before = bootstrap.log_loss(self.labels, self.original)
        auc = bootstrap.auc(self.labels, self.candidate)
        loss = bootstrap.log_loss(self.labels, self.candidate)
        correlation, ceiling = self._correlations(bootstrap)
        return {
            "memory_auc": remaining(auc, auc_before, auc_after),
            # A lower loss means that more is known.
            "memory_loss": remaining(-loss, -loss_before, -loss_after),
            "headroom": auc_before - auc_after,
            "forget_auc": auc,
            "forget_auc_original": auc_before,
            "forget_auc_retrained": auc_after,
            "correlation": correlation,
            "ceiling": ceiling,
            "alignment": remaining(correlation, ceiling, np.zeros_like(ceiling)),
        }

    def within_figures(self, bootstrap: Bootstrap, *, seed: int) -> Figures:
        """Memory of the mean AUC within requests.

        Each request has a model of its own. If these say Yes more or less often than each other,
        the AUC of the union falls, although no ranking within a request has changed. This one
        does not see it.
        """
        after = over_seeds(
            [self._auc_within(bootstrap, odds) for odds in self.retrained], seed=seed
        )
        before = self._auc_within(bootstrap, self.original)
        auc = self._auc_within(bootstrap, self.candidate)
        return {
            "memory_within": remaining(auc, before, after),
            "headroom_within": before - after,
        }

    def _auc_within(self, bootstrap: Bootstrap, odds: Floats) -> Figure:
        """Mean AUC of requests by their rows drawn; one with a single class counts nothing."""
        total = np.zeros(len(bootstrap.counts))
        row_count = np.zeros(len(bootstrap.counts))
        for number in np.unique(self.request):
            rows = np.flatnonzero(self.request == number)
            own = replace(bootstrap, user=bootstrap.user[rows])
            auc = own.auc(self.labels[rows], odds[rows])
            weight = np.where(np.isfinite(auc), own.total(np.ones(len(rows))), 0.0)
            total += np.where(np.isfinite(auc), auc, 0.0) * weight
            row_count += weight
        with np.errstate(invalid="ignore"):
            return np.asarray(total / row_count)

    def _correlations(self, bootstrap: Bootstrap) -> tuple[Figure, Figure]:
        """`corr(δ_p − δ_o, δ_R − δ_o)`, and its ceiling between two retrained models."""
        # In float64 before the difference is taken: models answer in float32.
        origin = self.original.astype(np.float64)
        movement = self.candidate - origin
        directions = [odds - origin for odds in self.retrained]
        correlations = [bootstrap.correlation(movement, direction) for direction in directions]
        ceilings = [bootstrap.correlation(one, other) for one, other in combinations(directions, 2)]
        correlation = mean_figure(correlations)
        if not ceilings:
            return correlation, np.full_like(correlation, np.nan)
        return correlation, mean_figure(ceilings)


def mean_figure(figures: Iterable[Figure]) -> Figure:
    """The mean of some figures, resample by resample."""
    return np.asarray(np.mean(list(figures), axis=0))


def retained_share(figures: Mapping[str, Figure]) -> Figure:
    """Retained memory, of the AUC on D_r of a model, of the original, and of one without memory."""
    return remaining(figures["retain_auc"], figures["retain_auc_original"], figures["never"])


@dataclass(frozen=True)
class PooledBasis:
    """What a rehearsal says of a request too small to be measured by its own rows.

    Attributes:
        requests: that were rehearsed, in words.
        memory: pooled M_auc, 90%.
        headroom: what there was to forget in all of them, 95%.
        attack: AUC of an attack on the original beyond a retrained model, 95%; None: not known.
        users: in all requests.
        retrained: number of retrained models.
    """

    requests: str
    memory: Interval
    headroom: Interval
    attack: Interval | None
    users: int
    retrained: int
