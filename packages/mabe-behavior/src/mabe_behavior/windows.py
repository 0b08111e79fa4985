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

from mabe_behavior.columns import Doubles, Floats

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any]) -> Any:
    """Machine code, kept on the disk for the next process where a folder can be written."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # Numba found no such folder: a read-only container without NUMBA_CACHE_DIR
        return njit(**_OPTIONS)(function)


@compiled
def moments(x_TF: Floats, shift_F: Doubles, first: int, stop: int, out_TKF: Floats, mean: int, std: int) -> None:
    """Means into out[:, mean] and standard deviations into out[:, std], unless that is below 0.

    Sums are carried from frame to frame in double precision: what enters the window is added, what leaves it is taken
    away. They are sums of values less `shift`, about each column's mean, so that the variance, a difference of two
    means, keeps its digits. Missing values are left out; without any value there is no mean.
    """
    frames, columns = x_TF.shape
    count_F, sum_F, square_F = np.zeros(columns), np.zeros(columns), np.zeros(columns)
    for t in range(min(0, 1 - stop), frames):
        for frame, sign in ((t + stop - 1, 1.0), (t + first - 1, -1.0)):
            if 0 <= frame < frames:
                for f in range(columns):
                    seen = sign if math.isfinite(x_TF[frame, f]) else 0.0
                    value = x_TF[frame, f] - shift_F[f] if seen != 0.0 else 0.0
                    count_F[f] += seen
                    sum_F[f] += seen * value
                    square_F[f] += seen * value * value
        if t < 0:
            continue
        for f in range(columns):
            share = 1.0 / count_F[f] if count_F[f] > 0.0 else math.nan
            out_TKF[t, mean, f] = sum_F[f] * share + shift_F[f]
        if std >= 0:
            for f in range(columns):
                share = 1.0 / count_F[f] if count_F[f] > 0.0 else math.nan
                variance = square_F[f] * share - (sum_F[f] * share) ** 2
                out_TKF[t, std, f] = math.sqrt(variance) if not variance < 0.0 else 0.0


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
