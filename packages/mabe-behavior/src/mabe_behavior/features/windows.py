"""The compiled part of `rolling`: statistics of moving windows, out of columns and into the rows of a table.

Within a tile of frames, few enough for the processor's cache, a column's frames lie side by side in memory, so that
several are worked on at once; only `read` and `write` turn rows into columns and back. Tiles do not depend on each
other: any number of threads may share a recording, and a value far from all others is forgotten with its tile.

A tile has margins as wide as the widest window reaches, in which frames before and after the recording are missing.
What is missing takes no part.

Shapes: C columns, N frames of a tile with its margins, M without them, W windows, S statistics, K = W * S * C.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mabe_behavior.features.columns import Doubles, Floats
from mabe_behavior.features.compiled import NAN, compiled

STATISTICS = ("mean", "std", "min", "max", "change")
_MEAN, _STD, _MIN, _MAX, _CHANGE = range(5)
_TILE = 512
_ROWS, _BESIDE = 64, 8  # that are written in one go
_LOWEST = np.float32(-np.inf)
Numbers = NDArray[np.int64]


@compiled
def series(x_TAPX: Floats, which_B: Numbers, origin_X: Floats, unit: float) -> Floats:
    """(X, P, B, T) of some animals, from an origin, in multiples of a unit: a coordinate in one piece of memory."""
    frames, _, parts, axes = x_TAPX.shape
    found_XPBT = np.empty((axes, parts, len(which_B), frames), np.float32)
    for first in range(0, frames, _ROWS):
        last = min(first + _ROWS, frames)
        for b in range(len(which_B)):
            for p in range(parts):
                for x in range(axes):
                    for t in range(first, last):
                        found_XPBT[x, p, b, t] = (x_TAPX[t, which_B[b], p, x] - origin_X[x]) / unit
    return found_XPBT


@compiled
def read(x_TC: Floats, first: int, x_CN: Floats) -> None:
    """Rows from `first` on as columns; those outside the recording are missing."""
    for n in range(x_CN.shape[1]):
        if 0 <= first + n < len(x_TC):
            for c in range(len(x_CN)):
                x_CN[c, n] = x_TC[first + n, c]
        else:
            x_CN[:, n] = NAN


@compiled
def write(x_KN: Floats, margin: int, out_TF: Floats, start: int, stop: int, place: int) -> None:
    """Columns, from their frame `margin` on, into rows from `start` to `stop` of a table, from column `place` on."""
    columns = len(x_KN)
    whole = columns - columns % _BESIDE
    for first in range(start, stop, _ROWS):
        last = min(first + _ROWS, stop)
        for k in range(0, whole, _BESIDE):
            for t in range(first, last):
                for beside in range(_BESIDE):  # a constant number: without a loop in the machine code
                    out_TF[t, place + k + beside] = x_KN[k + beside, t - start + margin]
        for t in range(first, last):
            for k in range(whole, columns):
                out_TF[t, place + k] = x_KN[k, t - start + margin]


@compiled
def statistics(
    x_CN: Floats,
    skip: int,
    picked_C: Numbers,
    half_W: Numbers,
    kind_S: Numbers,
    out_TF: Floats,
    start: int,
    stop: int,
    place: int,
) -> None:
    """Statistics of some columns over windows of 2 * half + 1 frames, by window, statistic and column.

    They are of the frames `start` to `stop` and come into these rows of a table, from column `place` on. Frame
    `skip` of `x_CN` lies as far before `start` as the widest window reaches, and its last as far behind `stop`.
    """
    margin, columns = half_W.max(), len(picked_C)
    of_sums = not np.all((kind_S == _MIN) | (kind_S == _MAX))
    found_KM = np.empty((len(half_W) * len(kind_S) * columns, _TILE), np.float32)
    sums_3N, mean_2M = np.empty((3, _TILE + 2 * margin + 1)), np.empty((2, _TILE))
    for tile in range(start, stop, _TILE):
        frames = min(_TILE, stop - tile)
        for c in range(columns):
            x_N = x_CN[picked_C[c], skip + tile - start : skip + tile - start + frames + 2 * margin]
            shift = accumulate(x_N, sums_3N) if of_sums else 0.0
            for w in range(len(half_W)):
                if of_sums:
                    means(sums_3N, margin - half_W[w], margin + half_W[w] + 1, mean_2M[0, :frames], mean_2M[1, :frames])
                for s in range(len(kind_S)):
                    out_M = found_KM[(w * len(kind_S) + s) * columns + c, :frames]
                    window(x_N, sums_3N, mean_2M, shift, margin, half_W[w], kind_S[s], out_M)
        write(found_KM, 0, out_TF, tile, tile + frames, place)


@compiled
def accumulate(x_N: Floats, sums_3N: Doubles) -> float:
    """How many values there are before each frame, their sum, and that of their squares.

    They are of values less what it returns, about the tile's mean: so the variance, a difference, keeps its digits.
    """
    count = total = square = 0.0
    for n in range(0, len(x_N), 8):
        if math.isfinite(x_N[n]):
            count += 1.0
            total += x_N[n]
    shift = total / max(count, 1.0)
    count = total = 0.0
    for n in range(len(x_N)):
        sums_3N[0, n], sums_3N[1, n], sums_3N[2, n] = count, total, square
        value = x_N[n] - shift
        seen = abs(value) < np.inf
        value = value if seen else 0.0
        count += 1.0 if seen else 0.0
        total += value
        square += value * value
    sums_3N[0, len(x_N)], sums_3N[1, len(x_N)], sums_3N[2, len(x_N)] = count, total, square
    return shift


@compiled
def window(
    x_N: Floats, sums_3N: Doubles, mean_2M: Doubles, shift: float, margin: int, half: int, kind: int, out_M: Floats
) -> None:
    """One statistic of one column over one window, whose inverse number of values and mean are given."""
    frames, low, high = len(out_M), margin - half, margin + half + 1
    if kind == _MEAN:
        for m in range(frames):
            out_M[m] = mean_2M[1, m] + shift
    elif kind == _STD:
        of_squares = sums_3N[2, low : low + frames], sums_3N[2, high : high + frames]
        deviations(of_squares[0], of_squares[1], mean_2M[0, :frames], mean_2M[1, :frames], out_M)
    elif kind == _CHANGE:
        before_M, after_M, inverse_M = np.empty(frames), np.empty(frames), np.empty(frames)
        means(sums_3N, low, margin, inverse_M, before_M)
        means(sums_3N, margin + 1, high, inverse_M, after_M)
        for m in range(frames):
            out_M[m] = after_M[m] - before_M[m]
    else:
        largest(x_N[low : high + frames - 1], 2 * half + 1, np.float32(1 if kind == _MAX else -1), out_M)


@compiled
def means(sums_3N: Doubles, low: int, high: int, inverse_M: Doubles, mean_M: Doubles) -> None:
    """One over the number of values, and their mean, from frame m + low up to, not with, m + high."""
    frames = len(mean_M)
    before_M, after_M = sums_3N[0, low : low + frames], sums_3N[0, high : high + frames]
    for m in range(frames):
        inverse_M[m] = 1.0 / (after_M[m] - before_M[m])
    before_M, after_M = sums_3N[1, low : low + frames], sums_3N[1, high : high + frames]
    for m in range(frames):
        mean_M[m] = (after_M[m] - before_M[m]) * inverse_M[m]  # of no values 0 * inf, which is missing


@compiled
def deviations(before_M: Doubles, after_M: Doubles, inverse_M: Doubles, mean_M: Doubles, out_M: Floats) -> None:
    """Out of sums of squares."""
    for m in range(len(out_M)):
        variance = (after_M[m] - before_M[m]) * inverse_M[m] - mean_M[m] * mean_M[m]
        out_M[m] = math.sqrt(np.float32(0.0 if variance < 0.0 else variance))


@compiled
def largest(x_N: Floats, width: int, sign: float, out_M: Floats) -> None:
    """The largest of sign * x from each frame over so many frames, times sign.

    Of two neighbours, then of four, and so on; at last, of the two longest of those that together are the window.
    """
    one_N, two_N = np.empty(len(x_N), np.float32), np.empty(len(x_N), np.float32)
    for n in range(len(x_N)):
        value = sign * x_N[n]
        one_N[n] = value if abs(value) < np.inf else _LOWEST
    span, count = 1, len(x_N)
    while 2 * span <= width:
        count -= span
        larger(one_N[:count], one_N[span : span + count], two_N[:count])
        one_N, two_N = two_N, one_N
        span *= 2
    larger(one_N[: len(out_M)], one_N[width - span : width - span + len(out_M)], two_N[: len(out_M)])
    for m in range(len(out_M)):
        out_M[m] = sign * two_N[m] if two_N[m] > _LOWEST else NAN


@compiled
def larger(one_N: Floats, two_N: Floats, out_N: Floats) -> None:
    for n in range(len(out_N)):
        out_N[n] = max(one_N[n], two_N[n])
