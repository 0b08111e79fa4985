"""Which class to answer where macro-F1 is what counts: often a rarer one than the likeliest.

Macro-F1 gives a class with 20 series the say of one with 1,000. The answers with the largest expected macro-F1 are
those of argmax_k w_k p_k with a weight for each class (plug-in rules: Narasimhan et al. 2015, "Consistent multiclass
algorithms for complex performance measures", ICML). How large the weights are depends on how sure the model is, so each
length has its own. They are found from calibrated probabilities alone, without labels: what is expected of an answer k
is p_k of a hit.

Shapes: N series, L lengths, K classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FLOOR = 1e-9  # smaller probabilities count as this much
APART = 1e-9  # series whose scores differ by less cannot be told apart by a weight
ROWS = 2_000  # series that are looked at, evenly spread
SWEEPS = 20  # over the classes; it settles after three to six
STARTS = (0.0, 0.5, 1.0)  # powers of (1 / share of a class) that the search begins with


def fit(p_NLK: Floats) -> Floats:
    """The weights (L, K) of each length, scaled to a geometric mean of 1.

    Raises ValueError where there are no series.
    """
    if p_NLK.ndim != 3 or len(p_NLK) == 0:
        raise ValueError(f"probabilities {p_NLK.shape}: must be (N, L, K), N at least 1")
    some_NLK = np.maximum(p_NLK[:: -(-len(p_NLK) // ROWS)], FLOOR)
    return np.stack([_of_length(p_NK) for p_NK in np.swapaxes(some_NLK, 0, 1)])


def answers(p_NLK: Floats, weights_LK: Floats) -> NDArray[np.int64]:
    """The classes (N, L) with the largest weighed probabilities."""
    return (np.maximum(p_NLK, FLOOR) * weights_LK).argmax(axis=2)


def expected_macro_f1(p_NK: Floats, answers_N: NDArray[np.int64]) -> float:
    """The ratio of expectations that stands for it: of each class 2 hits / (answers + series), then the mean."""
    hits_K, answered_K = np.zeros(p_NK.shape[1]), np.bincount(answers_N, minlength=p_NK.shape[1])
    np.add.at(hits_K, answers_N, p_NK[np.arange(len(p_NK)), answers_N])
    return float(np.mean(2 * hits_K / (answered_K + p_NK.sum(axis=0))))


def _of_length(p_NK: Floats) -> Floats:
    share_K = p_NK.mean(axis=0)
    found = [_climb(p_NK, -power * np.log(share_K)) for power in STARTS]
    log_w_K, _ = max(found, key=lambda pair: pair[1])
    weights_K: Floats = np.exp(log_w_K - log_w_K.mean())
    return weights_K


def _climb(p_NK: Floats, log_w_K: Floats) -> tuple[Floats, float]:
    """The best weights that are found by changing one at a time, and what they are expected to reach."""
    log_p_NK = np.log(p_NK)
    best = expected_macro_f1(p_NK, (log_p_NK + log_w_K).argmax(axis=1))
    for _ in range(SWEEPS):
        before = best
        for k in range(len(log_w_K)):
            value, log_w = _line(p_NK, log_p_NK, log_w_K, k)
            if value > best + 1e-12:
                best, log_w_K = value, np.concatenate([log_w_K[:k], [log_w], log_w_K[k + 1 :]])
        if best == before:
            break
    return log_w_K, best


def _line(p_NK: Floats, log_p_NK: Floats, log_w_K: Floats, k: int) -> tuple[float, float]:
    """The expected macro-F1 with the best log weight of class k, the others as they are, and that weight.

    The larger it is, the more series are answered k, the nearest first: all cuts of that order are tried.
    """
    score_NK = log_p_NK + log_w_K
    score_NK[:, k] = -np.inf
    other_N = score_NK.argmax(axis=1)
    needs_N = score_NK.max(axis=1) - log_p_NK[:, k]  # the log weight from which on k is answered
    order_N = np.argsort(needs_N)
    p_NK, other_N, needs_N = p_NK[order_N], other_N[order_N], needs_N[order_N]
    rows = np.arange(len(p_NK))
    # what the others lose, one series after the other, once the first m of them are answered k: (N + 1, K)
    lost_NK, hits_NK = np.zeros_like(p_NK), np.zeros_like(p_NK)
    lost_NK[rows, other_N], hits_NK[rows, other_N] = 1, p_NK[rows, other_N]
    answered_MK, hit_MK = (_left(part) for part in (lost_NK, hits_NK))
    answered_MK[:, k], hit_MK[1:, k] = np.arange(len(p_NK) + 1), np.cumsum(p_NK[:, k])
    value_M = (2 * hit_MK / (answered_MK + p_NK.sum(axis=0))).mean(axis=1)
    edges = np.concatenate([[needs_N[0] - 1], needs_N, [needs_N[-1] + 1]])
    value_M[1:-1][np.diff(needs_N) < APART] = -1
    m = int(value_M.argmax())
    return float(value_M[m]), float((edges[m] + edges[m + 1]) / 2)


def _left(part_NK: Floats) -> Floats:
    """Totals of the rows that remain after the first m: (N + 1, K)."""
    total_MK: Floats = part_NK.sum(axis=0) - np.concatenate([np.zeros((1, part_NK.shape[1])), part_NK.cumsum(axis=0)])
    return np.maximum(total_MK, 0)
