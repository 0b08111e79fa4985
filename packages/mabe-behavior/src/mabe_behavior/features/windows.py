"""The compiled part of `rolling`: sums and extremes over the frames from t + first up to, not with, t + stop.

Numba takes long to import, so `rolling` imports this module when it first needs it. One thread; the innermost loops run
over columns, which lie side by side in memory, so that several are worked on at once.

Shapes: T frames, F columns, K statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from mabe_behavior.features.columns import Doubles, Floats

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Any:
    """Machine code, kept on the disk for the next process where a folder can be written."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # Numba found no such folder: a read-only container without NUMBA_CACHE_DIR
        return njit(**_OPTIONS)(function)


@compiled
def add(x_F: Floats, shift_F: Doubles, sign: float, count_F: Doubles, sum_F: Doubles, square_F: Doubles) -> None:
    """A frame enters the sums, or leaves them with the sign -1; missing values do neither."""
    for f in range(len(x_F)):
        value = x_F[f] - shift_F[f]
        seen = abs(value) < np.inf
        value = value if seen else 0.0
        count_F[f] += sign if seen else 0.0
        sum_F[f] += sign * value
        square_F[f] += sign * value * value


@compiled
def moments(x_TF: Floats, shift_F: Doubles, first: int, stop: int, out_TKF: Floats, mean: int, std: int) -> None:
    """Means into out[:, mean] and standard deviations into out[:, std], unless that is below 0.

    Sums are carried from frame to frame in double precision: what enters the window is added, what leaves it is taken
    away. They are sums of values less `shift`, about each column's mean, so that the variance, a difference of two
    means, keeps its digits. Missing values are left out; without any value there is no mean.
    """
    frames, columns = x_TF.shape
    count_F, sum_F, square_F = np.zeros(columns), np.zeros(columns), np.zeros(columns)
    mean_F = np.zeros(columns)
    for t in range(min(0, 1 - stop), frames):
        if 0 <= t + stop - 1 < frames:
            add(x_TF[t + stop - 1], shift_F, 1.0, count_F, sum_F, square_F)
        if 0 <= t + first - 1 < frames:
            add(x_TF[t + first - 1], shift_F, -1.0, count_F, sum_F, square_F)
        if t < 0:
            continue
        found_F = out_TKF[t, mean]
        for f in range(columns):
            mean_F[f] = sum_F[f] / count_F[f] if count_F[f] > 0.5 else np.nan
            found_F[f] = mean_F[f] + shift_F[f]
        if std >= 0:
            found_F = out_TKF[t, std]
            for f in range(columns):
                variance = square_F[f] / count_F[f] - mean_F[f] * mean_F[f]
                found_F[f] = math.sqrt(np.float32(max(variance, 0.0))) if count_F[f] > 0.5 else np.nan


@compiled
def largest(x_TF: Floats, half: int, sign: float, out_TKF: Floats, place: int) -> None:
    """The largest of sign * x from t - half to t + half, times sign, into out[:, place].

    Van Herk's way (1992, "A fast algorithm for local minimum and maximum filters on rectangular and octagonal
    kernels"): cut into blocks as long as a window, a window is the end of one block and the beginning of the next, and
    the largest values from a block's beginning and to its end are carried along.
    """
    frames, columns = x_TF.shape
    width, padded = 2 * half + 1, frames + 2 * half
    ahead_NF = np.full((padded, columns), np.float32(-np.inf))  # from a block's beginning to here
    for n in range(half, half + frames):
        for f in range(columns):
            value = np.float32(sign) * x_TF[n - half, f]
            ahead_NF[n, f] = value if math.isfinite(value) else np.float32(-np.inf)
    behind_NF = ahead_NF.copy()  # from here to the block's end
    for n in range(1, padded):
        if n % width:
            for f in range(columns):
                ahead_NF[n, f] = max(ahead_NF[n, f], ahead_NF[n - 1, f])
    for n in range(padded - 2, -1, -1):
        if (n + 1) % width:
            for f in range(columns):
                behind_NF[n, f] = max(behind_NF[n, f], behind_NF[n + 1, f])
    for t in range(frames):
        for f in range(columns):
            value = max(behind_NF[t, f], ahead_NF[t + 2 * half, f])
            out_TKF[t, place, f] = np.float32(sign) * value if math.isfinite(value) else np.float32(np.nan)
