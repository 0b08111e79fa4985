"""The compiled part of `pca`: weighted sums of columns.

On one thread, unlike NumPy's product of matrices: several recordings may be worked on at once.

Shapes: N rows, M of them at once, F columns, K sums.
"""

from __future__ import annotations

import math

import numpy as np

from mabe_behavior.features.columns import Floats
from mabe_behavior.features.compiled import NAN, ZERO, compiled

_BLOCK = 256  # rows


@compiled
def mixed(x_FN: Floats, mean_F: Floats, weight_KF: Floats, out_KN: Floats) -> None:
    """Of values less their column's mean, for which a missing one is taken; missing where all are."""
    away_FM, seen_M = np.empty((len(x_FN), _BLOCK), np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, x_FN.shape[1], _BLOCK):
        rows = min(_BLOCK, x_FN.shape[1] - start)
        seen_M[:] = NAN  # which the first value that is not missing makes 0
        for f in range(len(x_FN)):
            relative(x_FN[f, start : start + rows], mean_F[f], away_FM[f, :rows])
            mark(x_FN[f, start : start + rows], seen_M[:rows])
        for k in range(len(weight_KF)):
            out_M = out_KN[k, start : start + rows]
            out_M[:] = seen_M[:rows]
            for f in range(len(x_FN)):
                add(weight_KF[k, f], away_FM[f, :rows], out_M)


@compiled
def relative(x_M: Floats, mean: float, out_M: Floats) -> None:
    for m in range(len(out_M)):
        out_M[m] = ZERO if math.isnan(x_M[m]) else x_M[m] - mean


@compiled
def mark(x_M: Floats, seen_M: Floats) -> None:
    for m in range(len(seen_M)):
        seen_M[m] = seen_M[m] if math.isnan(x_M[m]) else ZERO


@compiled
def add(weight: float, x_M: Floats, sum_M: Floats) -> None:
    for m in range(len(sum_M)):
        sum_M[m] += weight * x_M[m]
