"""Probabilities out of logits: temperature, and what a probability is worth.

Shapes: N pairs.
"""

from __future__ import annotations

import numpy as np

TEMPERATURES = (0.05, 20.0)  # beyond, a model is a lookup table or noise
FLOOR = 1e-12  # probabilities are kept this far from 0 and 1 where their logarithm is taken


def temperature(logit: np.ndarray, y: np.ndarray) -> float:
    """The T for which sigmoid(logit / T) has the lowest NLL (Guo et al. 2017); logit and y (N,).

    Kept within `TEMPERATURES`, whose upper bound is what a model gets that knows nothing.
    """
    from scipy.optimize import minimize_scalar

    against = np.where(np.asarray(y) == 1, -1.0, 1.0) * logit  # log-odds of the wrong answer
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, against * np.exp(-log_t)).mean(),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(np.exp(found.x))


def nll(p: np.ndarray, y: np.ndarray) -> float:
    """Mean negative log-likelihood, in nats, of probabilities (N,) for labels (N,)."""
    return float(-np.log(bounded(np.where(np.asarray(y) == 1, p, 1 - p))).mean())


def sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)); in this form it neither overflows nor loses the symmetry about 1/2."""
    return 0.5 + 0.5 * np.tanh(0.5 * logit)


def bounded(p: np.ndarray) -> np.ndarray:
    """Away from 0 and 1, for logarithms."""
    return np.clip(p, FLOOR, 1 - FLOOR)
