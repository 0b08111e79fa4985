"""Statistics of moving windows: mean, standard deviation, smallest, largest and change.

A window is centred on its frame, has an odd number of frames and ends where the recording does. Missing values take no
part; a window without any value has no statistics. Sums come out of cumulative sums in double precision, of values
less the column's mean (which keeps the difference of two cumulative sums accurate), and extremes out of SciPy's
`minimum_filter1d`; both take the same time whatever the window.

Time is the LAST axis here, so that a column lies in one piece of memory.

Shapes: F columns, T frames, W windows, S statistics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from mabe_behavior.columns import Doubles, Floats

STATISTICS = ("mean", "std", "min", "max", "change")


def odd_frames(seconds: float, fps: float) -> int:
    """The odd number of frames, at least 1, that comes nearest to lasting so long; of two as near, the smaller."""
    if not seconds > 0 or not fps > 0:
        raise ValueError(f"seconds {seconds}, fps {fps}; must be above 0")
    return 2 * max(0, math.ceil(seconds * fps / 2 - 1 - 1e-9)) + 1


def rolling(x_FT: ArrayLike, frames: Sequence[int], statistics: Sequence[str] = ("mean", "std")) -> Floats:
    """Statistics of every column over windows of so many frames, (F, W, S, T).

    `std` divides by the number of values, so that of a single one is 0; `change` is the mean of the window's frames
    after its centre less that of the frames before it, missing where either side has no value.

    Raises ValueError for an even window or an unknown statistic.
    """
    x_FT = np.asarray(x_FT)
    if x_FT.ndim != 2:
        raise ValueError(f"x: shape {x_FT.shape}; must be (columns, frames)")
    for width in frames:
        if width < 1 or width % 2 == 0:
            raise ValueError(f"frames: {width}; must be odd and at least 1")
    if unknown := set(statistics) - set(STATISTICS):
        raise ValueError(f"statistics: {', '.join(sorted(unknown))}; must be among {', '.join(STATISTICS)}")
    count, steps = x_FT.shape
    found = np.empty((count, len(frames), len(statistics), steps), np.float32)
    if not steps:
        return found
    halves = [width // 2 for width in frames]
    for row, x_T in enumerate(x_FT):
        _one(x_T, halves, statistics, found[row])
    return found


def named(
    columns: Mapping[str, ArrayLike], fps: float, seconds: Sequence[float], statistics: Sequence[str] = ("mean", "std")
) -> dict[str, Floats]:
    """Statistics of (T,) columns, each with a name such as `agent.speed.mean_0.5s`."""
    x_FT = np.stack([np.asarray(column, np.float32) for column in columns.values()])
    found = rolling(x_FT, [odd_frames(one, fps) for one in seconds], statistics)
    return {
        f"{name}.{statistic}_{one:g}s": found[f, w, s]
        for f, name in enumerate(columns)
        for w, one in enumerate(seconds)
        for s, statistic in enumerate(statistics)
    }


def mean(x_TN: ArrayLike, fps: float, seconds: float) -> Floats:
    """(T, N) moving means along the FIRST axis."""
    return rolling(np.asarray(x_TN).T, [odd_frames(seconds, fps)], ["mean"])[:, 0, 0].T


def _one(x_T: NDArray, halves: Sequence[int], statistics: Sequence[str], out_WST: Floats) -> None:
    """All statistics of one column."""
    seen = np.isfinite(x_T)
    whole = bool(seen.all())
    if not seen.any():
        out_WST[:] = np.nan
        return
    centre = float(x_T.mean(dtype=np.float64)) if whole else float(x_T[seen].mean(dtype=np.float64))
    less_T = x_T.astype(np.float64) - centre
    if not whole:
        less_T[~seen] = 0
    reach = max(halves)
    count = _cumulated(seen, reach)
    total = _cumulated(less_T, reach)
    squares = _cumulated(np.square(less_T), reach) if "std" in statistics else None
    for w, half in enumerate(halves):
        with np.errstate(divide="ignore", invalid="ignore"):
            share_T = 1.0 / _between(count, reach, -half, half + 1)
            mean_T = _between(total, reach, -half, half + 1) * share_T
            for s, statistic in enumerate(statistics):
                out_T = out_WST[w, s]
                if statistic == "mean":
                    np.add(mean_T, centre, out=out_T, casting="same_kind")
                elif statistic == "std":
                    assert squares is not None
                    variance_T = _between(squares, reach, -half, half + 1)
                    variance_T *= share_T
                    variance_T -= np.square(mean_T)
                    np.sqrt(np.maximum(variance_T, 0, out=variance_T), out=out_T, casting="same_kind")
                elif statistic == "change":
                    after = _between(total, reach, 1, half + 1) / _between(count, reach, 1, half + 1)
                    before = _between(total, reach, -half, 0) / _between(count, reach, -half, 0)
                    np.subtract(after, before, out=out_T, casting="same_kind")
                else:
                    _extreme(x_T, seen, whole, half, statistic, out_T)
        if not whole:  # the extreme of no values is infinite
            out_WST[w][:, ~np.isfinite(share_T)] = np.nan


def _cumulated(x_T: NDArray, reach: int) -> Doubles:
    """What comes before each frame, added up; `reach` frames more at either end, where nothing is added."""
    found = np.empty(len(x_T) + 2 * reach + 1)
    found[: reach + 1] = 0
    np.cumsum(x_T, out=found[reach + 1 : reach + 1 + len(x_T)])
    found[reach + 1 + len(x_T) :] = found[reach + len(x_T)]
    return found


def _between(cumulated: Doubles, reach: int, first: int, stop: int) -> Doubles:
    """(T,) sums of the frames t + first up to, not with, t + stop."""
    steps = len(cumulated) - 2 * reach - 1
    return cumulated[reach + stop : reach + stop + steps] - cumulated[reach + first : reach + first + steps]


def _extreme(x_T: NDArray, seen: NDArray[np.bool_], whole: bool, half: int, statistic: str, out_T: Floats) -> None:
    worst = np.inf if statistic == "min" else -np.inf
    sought = ndimage.minimum_filter1d if statistic == "min" else ndimage.maximum_filter1d
    values = x_T if whole else np.where(seen, x_T, worst)
    sought(values, 2 * half + 1, output=out_T, mode="constant", cval=worst)
