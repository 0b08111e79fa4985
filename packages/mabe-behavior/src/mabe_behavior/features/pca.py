"""Principal components, fitted to training rows and kept as arrays.

Covariances are over the rows where both columns are known, so that laboratories which do not track a part still serve
for the others. A missing value is taken for its training mean when components are computed; a row of which nothing is
known has none.

Shapes: N rows, F columns, K components.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mabe_behavior.features.columns import Doubles, Floats


@dataclass(frozen=True)
class PCA:
    """Directions of the largest variance."""

    mean_F: Doubles
    directions_KF: Doubles  # orthonormal; the largest weight of each is positive
    variance_K: Doubles  # of the training rows along each

    def __post_init__(self) -> None:
        if self.directions_KF.shape != (len(self.variance_K), len(self.mean_F)):
            raise ValueError(f"pca: directions of shape {self.directions_KF.shape}; must be (components, columns)")

    def transform(self, x_NF: ArrayLike) -> Floats:
        """(N, K). Raises ValueError for another number of columns than was fitted."""
        x = np.asarray(x_NF, np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.mean_F):
            raise ValueError(f"pca: shape {x.shape}; was fitted to {len(self.mean_F)} columns")
        from mabe_behavior.features import mixtures  # compiles, which takes long

        found_KN = np.empty((len(self.directions_KF), len(x)), np.float32)
        columns_FN = np.ascontiguousarray(x.T)
        mixtures.mixed(columns_FN, *(array.astype(np.float32) for array in (self.mean_F, self.directions_KF)), found_KN)
        return found_KN.T

    def state(self) -> dict[str, NDArray]:
        """Arrays from which `of_state` makes it again."""
        return {"mean": self.mean_F, "directions": self.directions_KF, "variance": self.variance_K}


def of_state(state: Mapping[str, ArrayLike]) -> PCA:
    """What `PCA.state` was taken of."""
    return PCA(*(np.asarray(state[name], np.float64) for name in ("mean", "directions", "variance")))


def fit(blocks: Iterable[ArrayLike], components: int) -> PCA:
    """Of training rows, given as one or more arrays (N, F), each of which is looked at once.

    Raises ValueError for no rows, or more components than columns.
    """
    sums: _Sums | None = None
    for block in blocks:
        x_NF = np.asarray(block, np.float64)
        sums = sums or _Sums.empty(x_NF)
        sums.add(x_NF)
    if sums is None or not sums.both_FF.any():
        raise ValueError("pca: no rows with any value; must be fitted to training rows")
    if not 1 <= components <= len(sums.shift_F):
        raise ValueError(f"components: {components}; must lie in 1..{len(sums.shift_F)}, the number of columns")
    mean_F, covariance_FF = sums.moments()
    variance_F, vectors_FF = np.linalg.eigh(covariance_FF)
    order = np.argsort(variance_F)[::-1][:components]
    directions_KF = vectors_FF.T[order]
    largest = np.abs(directions_KF).argmax(axis=1)
    directions_KF *= np.sign(directions_KF[np.arange(components), largest])[:, None]
    # pairwise covariances need not be positive definite: a negative eigenvalue stands for none
    return PCA(mean_F, directions_KF, np.maximum(variance_F[order], 0))


@dataclass
class _Sums:
    """Sums of products over the rows where both columns are known, of values less a first guess at the mean."""

    shift_F: Doubles
    both_FF: Doubles  # how many rows
    first_FF: Doubles  # of the first column's values
    product_FF: Doubles

    @classmethod
    def empty(cls, x_NF: Doubles) -> _Sums:
        count = np.isfinite(x_NF).sum(axis=0)
        shift = np.where(np.isfinite(x_NF), x_NF, 0).sum(axis=0) / np.maximum(count, 1)
        return cls(shift, *(np.zeros((len(shift), len(shift))) for _ in range(3)))

    def add(self, x_NF: Doubles) -> None:
        if x_NF.ndim != 2 or x_NF.shape[1] != len(self.shift_F):
            raise ValueError(f"pca: shape {x_NF.shape}; must be (rows, {len(self.shift_F)}), as the first block's")
        seen = np.isfinite(x_NF)
        known = np.where(seen, x_NF - self.shift_F, 0)
        ones = seen.astype(np.float64)
        self.both_FF += ones.T @ ones
        self.first_FF += known.T @ ones
        self.product_FF += known.T @ known

    def moments(self) -> tuple[Doubles, Doubles]:
        """Mean and covariance; columns that are never known together have covariance 0."""
        rows = np.maximum(self.both_FF, 1)
        covariance = self.product_FF / rows - (self.first_FF / rows) * (self.first_FF / rows).T
        return self.shift_F + np.diag(self.first_FF / rows), covariance
