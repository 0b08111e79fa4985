"""Columns of mean 0 and spread 1, by what training rows have; what applies it is `model.Reader`.

Shapes: N rows, F columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features.columns import Doubles


@dataclass(frozen=True)
class Scaling:
    """A mean and a spread for each column."""

    mean_F: Doubles
    spread_F: Doubles  # standard deviation; 1 for a column that never changes or was never known


def fit(blocks: Iterable[ArrayLike]) -> Scaling:
    """Of training rows, given as one or more arrays (N, F), each of which is looked at once.

    Means and variances of blocks are put together as Chan, Golub and LeVeque do (1983, "Algorithms for computing the
    sample variance"), so that neither the order nor the size of blocks matters.

    Raises ValueError for no rows.
    """
    count: Doubles | None = None
    mean = square = np.empty(0)
    for block in blocks:
        x_NF = np.asarray(block, np.float64)
        if count is None:
            count, mean, square = (np.zeros(x_NF.shape[1]) for _ in range(3))
        if x_NF.ndim != 2 or x_NF.shape[1] != len(count):
            raise ValueError(f"scaling: shape {x_NF.shape}; must be (rows, {len(count)}), as the first block's")
        seen = np.isfinite(x_NF)
        more = seen.sum(axis=0)
        its_mean = np.where(seen, x_NF, 0).sum(axis=0) / np.maximum(more, 1)
        its_square = np.square(np.where(seen, x_NF - its_mean, 0)).sum(axis=0)
        total = np.maximum(count + more, 1)
        apart = its_mean - mean
        mean = mean + apart * more / total
        square = square + its_square + np.square(apart) * count * more / total
        count = count + more
    if count is None or not count.any():
        raise ValueError("scaling: no rows with any value; must be fitted to training rows")
    spread = np.sqrt(square / np.maximum(count, 1))
    tiny = spread <= 1e-6 * np.maximum(np.abs(mean), 1e-6)  # a constant, up to rounding
    return Scaling(mean, np.where(tiny, 1.0, spread))
