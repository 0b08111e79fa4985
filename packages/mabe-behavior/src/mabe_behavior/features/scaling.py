"""Columns of mean 0 and spread 1, by what training rows have; missing values become 0, the mean.

Shapes: N rows, F columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior.features.columns import Doubles, Floats

LIMIT = 8.0  # in spreads; a derivative of a point that jumps can be any number


@dataclass(frozen=True)
class Scaling:
    """A mean and a spread for each column."""

    mean_F: Doubles
    spread_F: Doubles  # standard deviation; 1 for a column that never changes or was never known
    limit: float = LIMIT  # scaled values are kept within plus and minus this

    def apply(self, x_NF: ArrayLike, indicators: bool = False) -> Floats:
        """(N, F), without missing values; with `indicators` (N, 2F), where the second half is 1 where one was missing.

        Raises ValueError for another number of columns than was fitted.
        """
        x = np.asarray(x_NF, np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.mean_F):
            raise ValueError(f"scaling: shape {x.shape}; was fitted to {len(self.mean_F)} columns")
        seen = np.isfinite(x)
        scaled = (x - self.mean_F.astype(np.float32)) / self.spread_F.astype(np.float32)
        found = np.where(seen, np.clip(scaled, -self.limit, self.limit), np.float32(0))
        return np.concatenate((found, (~seen).astype(np.float32)), axis=1) if indicators else found

    def state(self) -> dict[str, NDArray]:
        """Arrays from which `of_state` makes it again."""
        return {"mean": self.mean_F, "spread": self.spread_F, "limit": np.array(self.limit)}


def of_state(state: Mapping[str, ArrayLike]) -> Scaling:
    """What `Scaling.state` was taken of."""
    mean, spread = (np.asarray(state[name], np.float64) for name in ("mean", "spread"))
    return Scaling(mean, spread, float(np.asarray(state["limit"])))


def fit(blocks: Iterable[ArrayLike], limit: float = LIMIT) -> Scaling:
    """Of training rows, given as one or more arrays (N, F), each of which is looked at once.

    Means and variances of blocks are put together as Chan, Golub and LeVeque do (1983, "Algorithms for computing the
    sample variance"), so that neither the order nor the size of blocks matters.

    Raises ValueError for no rows or a limit that is not above 0.
    """
    if not limit > 0:
        raise ValueError(f"limit: {limit}; must be above 0")
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
    return Scaling(mean, np.where(tiny, 1.0, spread), limit)
