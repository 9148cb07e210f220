"""Measures of other papers, for comparison with them only."""

import numpy as np
from scipy import stats

from ..core.arrays import Floats


def residual_bota(p: Floats, r: Floats, o: Floats) -> float:
    """`Σ_F |p − r| / Σ_F |o − r|` over scores (n,) on D_f (BOTA's residual): 1 = nothing done.

    It has no sign, so the noise of seeds counts as memory: a second retrained model scores about
    0.9. NaN when o equals r.
    """
    headroom = _distance(o, r)
    if headroom == 0:
        return float("nan")
    return _distance(p, r) / headroom


def ks_tofu(losses_a: Floats, losses_b: Floats) -> float:
    """p-value of the two-sample Kolmogorov–Smirnov test of row losses (n,), (m,).

    After TOFU's forget quality (Maini et al. 2024, arXiv 2401.06121), which tests truth ratios. A
    p-value grows as rows get fewer, so never gate on it.
    """
    test = stats.ks_2samp(losses_a, losses_b)
    return float(test.pvalue)


def priv_leak(auc_unlearned: float, auc_retrained: float) -> float:
    """`100·((1 − AUC_u) − (1 − AUC_r)) / (1 − AUC_r)` of membership AUCs, in percent.

    0 = as the retrained model. After MUSE (Shi et al. 2024, arXiv 2407.06460). NaN when AUC_r is 1.
    """
    unlearned = 1 - auc_unlearned
    retrained = 1 - auc_retrained
    if retrained == 0:
        return float("nan")
    return 100 * (unlearned - retrained) / retrained


def _distance(a: Floats, b: Floats) -> float:
    differences = np.abs(a - b)
    # In float64: a sum of a million float32 scores would lose digits.
    return float(differences.sum(dtype=np.float64))
