"""Distances between two models' answers on the same rows: NumPy in, numbers out."""

import numpy as np

from ..core.arrays import Floats, Head


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """`½·KL(p ‖ m) + ½·KL(q ‖ m)`, m = (p + q)/2: (n, V), (n, V) → (n,) in nats, at most ln 2 (Lin 1991)."""
    return _jensen_shannon(p, q, _log(p), _log(q))


def jeffreys(p: Floats, q: Floats) -> Floats:
    """`(KL(p ‖ q) + KL(q ‖ p)) / 2`, which E2URec's code calls JSD: (n, V), (n, V) → (n,) in nats, unbounded.

    A probability of 0 counts as the least positive number of its type, so that the distance stays finite.
    """
    return _jeffreys(p, q, _log(p), _log(q))


def l2(p: Floats, q: Floats) -> Floats:
    """`‖p − q‖₂` a row: (n, V), (n, V) → (n,), at most √2."""
    return _reduce(np.square(p - q)) ** 0.5


def _log(p: Floats) -> Floats:
    return np.log(np.maximum(p, np.finfo(p.dtype).tiny))


def _jensen_shannon(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    log_m = _log((p + q) / 2)
    # Rounding may leave −1e-8 between equal rows, and a distance has no sign.
    return np.maximum(_reduce(p * (log_p - log_m) + q * (log_q - log_m)) / 2, 0)


def _jeffreys(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    return _reduce((p - q) * (log_p - log_q)) / 2


def _reduce(terms: Floats) -> Floats:
    return np.asarray(terms.sum(axis=-1))


def _distances(log_p: Floats, log_q: Floats) -> dict[str, Floats]:
    p, q = np.exp(log_p), np.exp(log_q)
    pair = (p, q, log_p, log_q)
    return {"js": _jensen_shannon(*pair), "jeffreys": _jeffreys(*pair), "l2": l2(p, q)}


def answer_distances(d_p: Floats, d_q: Floats) -> dict[str, Floats]:
    """Row-wise `js`, `jeffreys`, `l2` over {Yes, No} of two models' log-odds (n,), (n,): name → (n,).

    Logarithms come from the log-odds, so that a certain answer costs no digits.
    """
    log_p, log_q = (
        -np.logaddexp(0.0, np.stack([-d, d], axis=-1).astype(np.float64)) for d in (d_p, d_q)
    )
    return _distances(log_p, log_q)


def vocabulary_distances(
    hidden_p: Floats, head_p: Head, hidden_q: Floats, head_q: Head, chunk: int = 256
) -> dict[str, Floats]:
    """Row-wise `js`, `jeffreys`, `l2` over the whole vocabulary, streamed from answer-position states: name → (n,).

    Args:
        hidden_p: (n, d) float32 states of one model.
        head_p: its output head: weight (V, d), bias (V,) or None.
        hidden_q: (n, d') states of the other model on the same rows.
        head_q: its output head; the same V.
        chunk: rows at a time; 256 rows of 49,152 float32 logits are 50 MB an array, and about eight live at once.
    """
    parts = [
        _distances(
            _log_softmax(hidden_p[k : k + chunk], head_p),
            _log_softmax(hidden_q[k : k + chunk], head_q),
        )
        for k in range(0, max(len(hidden_p), 1), chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _log_softmax(states: Floats, head: Head) -> Floats:
    weight, bias = head
    logits = states @ weight.T
    if bias is not None:
        logits += bias
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits
