"""Distances between the answers of two models on the same rows."""

import numpy as np

from ..core.arrays import Floats, Head, Weights

# As `models.output_head` has it: a probability of 0, whose logarithm is a number all the same.
ABSENT = -1e4
"""Logit of a token that counts as another one."""

# 16 MB as float32: the head of a model of 8B parameters would take 2 GB.
PIECE_NUMBERS = 1 << 22
"""Numbers of a head that are widened to float32 at a time."""


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """`½·KL(p ‖ m) + ½·KL(q ‖ m)`, m = (p + q)/2, in nats, at most ln 2 (Lin 1991).

    Shapes: (n, V), (n, V) → (n,).
    """
    return _jensen_shannon(p, q, _log(p), _log(q))


def jeffreys(p: Floats, q: Floats) -> Floats:
    """`(KL(p ‖ q) + KL(q ‖ p)) / 2` in nats, unbounded. E2URec's code calls it JSD.

    Shapes: (n, V), (n, V) → (n,). A probability of 0 counts as the least positive number of its
    type, so that the distance stays finite.
    """
    return _jeffreys(p, q, _log(p), _log(q))


def l2(p: Floats, q: Floats) -> Floats:
    """`‖p − q‖₂` of each row, at most √2: (n, V), (n, V) → (n,)."""
    squares = np.square(p - q)
    return _row_sums(squares) ** 0.5


def answer_distances(d_p: Floats, d_q: Floats) -> dict[str, Floats]:
    """`js`, `jeffreys`, `l2` of each row over {Yes, No}: log-odds (n,), (n,) → (n,) by name."""
    return _distances(_answer_logs(d_p), _answer_logs(d_q))


def vocabulary_distances(
    hidden_p: Floats, head_p: Head, hidden_q: Floats, head_q: Head, chunk: int = 256
) -> dict[str, Floats]:
    """`js`, `jeffreys`, `l2` of each row over the whole vocabulary: (n,) by name.

    The probabilities are made from the hidden states at the answer's position, a chunk of rows at a
    time.

    Args:
        hidden_p: (n, d) float32 states of one model.
        head_p: its output head.
        hidden_q: (n, d') states of the other model on the same rows.
        head_q: its output head; the same V.
        chunk: rows at a time. 256 rows of 49,152 float32 logits are 50 MB an array, and about eight
            arrays live at once.
    """
    chunks = []
    # Without rows there is still one empty chunk, which gives the names.
    for start in range(0, max(len(hidden_p), 1), chunk):
        rows = slice(start, start + chunk)
        log_p = _log_softmax(hidden_p[rows], head_p)
        log_q = _log_softmax(hidden_q[rows], head_q)
        chunks.append(_distances(log_p, log_q))
    distances = {}
    for name in chunks[0]:
        parts = [values[name] for values in chunks]
        distances[name] = np.concatenate(parts)
    return distances


def _distances(log_p: Floats, log_q: Floats) -> dict[str, Floats]:
    p = np.exp(log_p)
    q = np.exp(log_q)
    return {
        "js": _jensen_shannon(p, q, log_p, log_q),
        "jeffreys": _jeffreys(p, q, log_p, log_q),
        "l2": l2(p, q),
    }


def _jensen_shannon(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    middle = (p + q) / 2
    log_m = _log(middle)
    p_terms = p * (log_p - log_m)
    q_terms = q * (log_q - log_m)
    divergences = _row_sums(p_terms + q_terms) / 2
    # Rounding may leave −1e-8 between equal rows, and a distance has no sign.
    return np.maximum(divergences, 0)


def _jeffreys(p: Floats, q: Floats, log_p: Floats, log_q: Floats) -> Floats:
    differences = p - q
    log_ratios = log_p - log_q
    return _row_sums(differences * log_ratios) / 2


def _log(p: Floats) -> Floats:
    tiny = np.finfo(p.dtype).tiny
    positive = np.maximum(p, tiny)
    return np.log(positive)


def _row_sums(terms: Floats) -> Floats:
    return np.asarray(terms.sum(axis=-1))


def _answer_logs(d: Floats) -> Floats:
    """Logarithms of the probabilities of Yes and No: (n,) → (n, 2)."""
    # Straight from the log-odds: by way of P, a certain answer would lose its digits.
    exponents = np.stack([-d, d], axis=-1)
    return -np.logaddexp(0.0, exponents.astype(np.float64))


def _log_softmax(states: Floats, head: Head) -> Floats:
    weight, bias, cap, sets = Head(*head)
    logits = _product(states, weight)
    # In place from here on: each copy of the logits would be 50 MB.
    if bias is not None:
        logits += bias
    if cap is not None:
        logits /= cap
        np.tanh(logits, out=logits)
        logits *= cap
    for first, *further_tokens in sets:
        logits[:, first] = np.logaddexp.reduce(logits[:, [first, *further_tokens]], axis=-1)
        logits[:, further_tokens] = ABSENT
    logits -= logits.max(axis=-1, keepdims=True)
    totals = np.exp(logits).sum(axis=-1, keepdims=True)
    logits -= np.log(totals)
    return logits


def _product(states: Floats, weight: Weights) -> Floats:
    """`h·Wᵀ`: (n, d), (V, d) → (n, V); a weight of fewer bits is widened piece by piece."""
    if weight.dtype not in (np.uint16, np.float16):
        return np.asarray(states @ weight.T)
    product = np.empty((len(states), len(weight)), states.dtype)
    rows = max(1, PIECE_NUMBERS // weight.shape[1])
    for start in range(0, len(weight), rows):
        piece = weight[start : start + rows]
        product[:, start : start + rows] = states @ _widened(piece).T
    return product


def _widened(piece: Weights) -> Floats:
    """Weights in float32, without rounding."""
    if piece.dtype == np.uint16:
        # bf16 is the upper half of float32.
        bits = piece.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return piece.astype(np.float32)
