"""Weights on the simplex, for averages of probabilities.

Everything here sees only `true_NM`, the probability that each of M base models gives to the true answer of each of N
pairs, strictly between 0 and 1.
"""

from __future__ import annotations

import numpy as np

MOST_STEPS = 10_000
GAP = 1e-6  # nats per pair that the weights found may lie above the best
SELECTIONS = 50  # of greedy selection, after its start


def equal(models: int) -> np.ndarray:
    """(M,) weights of the plain mean."""
    return np.full(models, 1 / models)


def one(models: int, chosen: int) -> np.ndarray:
    """(M,) weights of a single model."""
    return np.eye(models)[chosen]


def best(true_NM: np.ndarray) -> np.ndarray:
    """(M,) weights of the lowest NLL, by expectation maximisation for mixture weights (Dempster et al. 1977).

    Each step lowers the NLL, starting from the plain mean. The NLL is convex in the weights, so that it lies above its
    minimum by at most the largest derivative of the log-likelihood less 1, which says when to stop.
    """
    weight_M = equal(true_NM.shape[1])
    for _ in range(MOST_STEPS):
        derivative_M = (1 / (true_NM @ weight_M)) @ true_NM / len(true_NM)
        if derivative_M.max() - 1 <= GAP:
            break
        weight_M = weight_M * derivative_M
    return weight_M / weight_M.sum()


def greedy(true_NM: np.ndarray) -> np.ndarray:
    """(M,) weights by ensemble selection with replacement (Caruana et al. 2004), for the NLL.

    Starts from the k best models, for the k with the lowest NLL (sorted initialisation). Then adds, time and again, the
    model that helps most or harms least; the best state on the way is taken.
    """
    models = true_NM.shape[1]
    order = np.argsort(-np.log(true_NM).mean(axis=0), kind="stable")
    running_NM = np.cumsum(true_NM[:, order], axis=1)
    k = 1 + int(np.argmin(-np.log(running_NM / np.arange(1, models + 1)).mean(axis=0)))
    count_M = np.bincount(order[:k], minlength=models)
    sum_N = running_NM[:, k - 1]
    lowest, found_M = -np.log(sum_N / k).mean(), count_M.copy()
    for size in range(k + 1, k + 1 + SELECTIONS):
        nll_M = -np.log((sum_N[:, None] + true_NM) / size).mean(axis=0)
        added = int(nll_M.argmin())
        count_M[added] += 1
        sum_N = sum_N + true_NM[:, added]
        if nll_M[added] < lowest:
            lowest, found_M = nll_M[added], count_M.copy()
    return found_M / found_M.sum()
