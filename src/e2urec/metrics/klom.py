"""Distributions of margins over models: how unlike unlearned models are to retrained ones."""

import numpy as np

from ..core.arrays import Floats, Ints
from ..core.errors import DataError

# As the authors' code has them, so that figures can be laid beside theirs.
BINS = 20
EPSILON = 1e-5
"""Share that is added to each bin: an empty one would make the divergence infinite."""
LARGEST_MARGIN = 100.0
MIN_MODELS = 2


def margins(labels: Ints, log_odds: Floats) -> Floats:
    """Log-odds of the right answer against the wrong one.

    Args:
        labels: (n,) 1 = liked.
        log_odds: (models, n) of Yes against No.
    """
    return np.where(labels == 1, log_odds, -log_odds)


def klom(unlearned: Floats, retrained: Floats) -> Floats:
    """KL divergence of margins (KLOM: Georgiev et al. 2024, arXiv 2410.23232, appendix E.1).

    For each row `Σ_b p_b·ln(p_b / q_b)`, in nats, p and q the shares of unlearned and retrained
    models whose margin lies in bin b, of 20 equal bins over the range of all of them. It sees what
    one model of each kind cannot tell: whether the answers could come from retraining, its noise
    included. Its value at the same distribution is not 0 but that of so many models; hold it
    against KLOM of further retrained ones.

    Args:
        unlearned: (N, n) margins of N models that forgot, of seeds of their own.
        retrained: (M, n) margins of M retrained models.

    Returns:
        (n,) divergences.

    Raises:
        DataError: there are fewer than two models of a kind.
    """
    counts = (len(unlearned), len(retrained))
    if min(counts) < MIN_MODELS:
        raise DataError(
            f"KLOM of {counts[0]} unlearned and {counts[1]} retrained models: a distribution takes "
            f"at least {MIN_MODELS} of either; make more, of other seeds"
        )
    first = np.clip(unlearned, -LARGEST_MARGIN, LARGEST_MARGIN)
    second = np.clip(retrained, -LARGEST_MARGIN, LARGEST_MARGIN)
    row_count = first.shape[1]
    divergences = np.empty(row_count)
    for row in range(row_count):
        divergences[row] = _divergence(first[:, row], second[:, row])
    return divergences


def _divergence(first: Floats, second: Floats) -> float:
    """KL of the histogram of `first` from that of `second`, over bins that both share."""
    both = np.concatenate([first, second])
    edges = np.histogram_bin_edges(both, BINS)
    p = _shares(first, edges)
    q = _shares(second, edges)
    return float(np.sum(p * np.log(p / q)))


def _shares(values: Floats, edges: Floats) -> Floats:
    counts, _ = np.histogram(values, edges)
    shares = counts / len(values) + EPSILON
    return np.asarray(shares / shares.sum())
