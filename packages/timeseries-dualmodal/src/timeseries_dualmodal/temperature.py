"""Calibration: one temperature per length, fitted on validation series.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599) divides the logits by a number T: above 1 it makes a model less
sure of itself, below 1 surer. How sure a model may be depends on how much it has seen, so each length has its own T. A
few hundred validation series would fit noise that way. So log T is taken to change little from one length to the next:
what is fitted is its most probable course under the priors below.

Shapes: N series, L lengths, K classes. Probabilities `p_NLK` are those after each length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STEP = 0.2  # prior: standard deviation of the change of log T from one length to the next
LEVEL = 1.0  # prior: that of log T itself, around 0; keeps T finite where no answer, or every answer, is right
FLOOR = 1e-6  # smaller probabilities count as this much: a tree's 0 is no proof


def fit(p_NLK: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """The temperature of each length: the maximum of the posterior, given labels `y` (N,).

    Raises ValueError where there are no series, or `y` does not fit them.
    """
    from scipy.optimize import minimize

    if p_NLK.ndim != 3 or len(p_NLK) == 0 or y.shape != p_NLK.shape[:1]:
        raise ValueError(f"probabilities {p_NLK.shape} and labels {y.shape}: must be (N, L, K) and (N,), N at least 1")
    logit_NLK = _logits(p_NLK)
    true_NL = np.take_along_axis(logit_NLK, y[:, None, None], axis=2)[:, :, 0]

    def minus_log_posterior(log_t_L: np.ndarray) -> tuple[float, np.ndarray]:
        inverse_L = np.exp(-log_t_L)
        scaled_NLK = logit_NLK * inverse_L[:, None]
        weight_NLK = np.exp(scaled_NLK)  # the largest logit is 0: nothing overflows
        total_NL = weight_NLK.sum(axis=2)
        loss_L = (np.log(total_NL) - true_NL * inverse_L).sum(axis=0)
        mean_NL = (weight_NLK * logit_NLK).sum(axis=2) / total_NL
        slope_L = ((true_NL - mean_NL) * inverse_L).sum(axis=0)
        change_L = np.diff(log_t_L) / STEP**2
        prior = (log_t_L @ log_t_L) / (2 * LEVEL**2) + (change_L @ change_L) * STEP**2 / 2
        slope_L += log_t_L / LEVEL**2 - np.diff(change_L, prepend=0.0, append=0.0)
        return float(loss_L.sum() + prior), slope_L

    found = minimize(minus_log_posterior, np.zeros(p_NLK.shape[1]), jac=True, method="L-BFGS-B")
    return tuple(float(t) for t in np.exp(found.x))


def apply(p_NLK: np.ndarray, temperatures: Sequence[float]) -> np.ndarray:
    """Probabilities at the temperatures of their lengths, float64 (N, L, K); the most probable class never changes.

    Raises ValueError for another number of lengths.
    """
    if p_NLK.ndim != 3 or p_NLK.shape[1] != len(temperatures):
        raise ValueError(f"probabilities {p_NLK.shape} and {len(temperatures)} temperatures: must be one per length")
    answer_NL1 = p_NLK.argmax(axis=2)[:, :, None]
    weight_NLK = np.exp(_logits(p_NLK) / np.asarray(temperatures)[:, None])
    scaled_NLK = weight_NLK / weight_NLK.sum(axis=2, keepdims=True)
    # rounding may have made a smaller probability as large as the largest
    moved = scaled_NLK.argmax(axis=2)[:, :, None] != answer_NL1
    largest_NL1 = np.where(
        moved, np.nextafter(scaled_NLK.max(axis=2, keepdims=True), 2.0), scaled_NLK.max(axis=2, keepdims=True)
    )
    np.put_along_axis(scaled_NLK, answer_NL1, largest_NL1, axis=2)
    return scaled_NLK


def _logits(p_NLK: np.ndarray) -> np.ndarray:
    """Logarithms less the largest of each row, which so is 0."""
    log_NLK = np.log(np.maximum(p_NLK.astype(np.float64), FLOOR))
    return log_NLK - log_NLK.max(axis=2, keepdims=True)
