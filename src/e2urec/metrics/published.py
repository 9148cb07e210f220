"""Figures of other papers, for comparison only, and the projection."""

import numpy as np
from scipy import stats

from ..core.arrays import Floats


def projection(p: Floats, r1: Floats, o2: Floats, r2: Floats, o: Floats) -> float:
    """`⟨p − r1, o2 − r2⟩ / ⟨o − r1, o2 − r2⟩` over D_f log-odds (n,): 1 = nothing done, 0 = retrained.

    o2, r1 and r2 come from independent seeds, so that seed noise averages out. p and o share theirs. NaN when the
    two differences between original and retrained are orthogonal. This project's own measure.
    """
    p, r1, o2, r2, o = (np.asarray(scores, np.float64) for scores in (p, r1, o2, r2, o))
    direction = o2 - r2
    length = float((o - r1) @ direction)
    return float((p - r1) @ direction) / length if length else float("nan")


def residual_bota(p: Floats, r: Floats, o: Floats) -> float:
    """`Σ_F |p − r| / Σ_F |o − r|` over scores (n,) on D_f (BOTA's residual): 1 = nothing done.

    Unsigned, so seed noise counts as memory: a second retrained model scores about 0.9. NaN when o equals r.
    """
    whole = float(np.abs(o - r).sum(dtype=np.float64))
    return float(np.abs(p - r).sum(dtype=np.float64)) / whole if whole else float("nan")


def ks_tofu(losses_a: Floats, losses_b: Floats) -> float:
    """p-value of the two-sample Kolmogorov–Smirnov test of per-row losses (n,), (m,), after TOFU's forget quality.

    Maini et al. 2024 (arXiv 2401.06121) test truth ratios. A p-value grows as rows get fewer: never gate on it.
    """
    return float(stats.ks_2samp(losses_a, losses_b).pvalue)


def priv_leak(auc_unlearned: float, auc_retrained: float) -> float:
    """`100·((1 − AUC_u) − (1 − AUC_r)) / (1 − AUC_r)` of membership AUCs, in percent; 0 = as the retrained model.

    After MUSE (Shi et al. 2024, arXiv 2407.06460). NaN when AUC_r is 1.
    """
    rest = 1 - auc_retrained
    return 100 * ((1 - auc_unlearned) - rest) / rest if rest else float("nan")
