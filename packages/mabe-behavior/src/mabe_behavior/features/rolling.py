"""Statistics of moving windows: mean, standard deviation, smallest, largest and change.

A window is centred on its frame, has an odd number of frames and ends where the recording does. Missing values take no
part; a window without any value has no statistics. All take the same time whatever the window.

Shapes: T frames, F columns, W windows, S statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from mabe_behavior.features.columns import Floats, Table

STATISTICS = ("mean", "std", "min", "max", "change")


def odd_frames(seconds: float, fps: float) -> int:
    """The odd number of frames, at least 1, that comes nearest to lasting so long; of two as near, the smaller."""
    if not seconds > 0 or not fps > 0:
        raise ValueError(f"seconds {seconds}, fps {fps}; must be above 0")
    return 2 * max(0, math.ceil(seconds * fps / 2 - 1 - 1e-9)) + 1


def rolling(x_TF: ArrayLike, frames: Sequence[int], statistics: Sequence[str] = ("mean", "std")) -> Floats:
    """Statistics of every column over windows of so many frames, (T, W, S, F).

    `std` divides by the number of values, so that of a single one is 0; `change` is the mean of the window's frames
    after its centre less that of the frames before it, missing where either side has no value.

    Raises ValueError for an even window or an unknown statistic.
    """
    from mabe_behavior.features import windows

    x_TF = np.ascontiguousarray(x_TF, np.float32)
    if x_TF.ndim != 2:
        raise ValueError(f"x: shape {x_TF.shape}; must be (frames, columns)")
    for width in frames:
        if width < 1 or width % 2 == 0:
            raise ValueError(f"frames: {width}; must be odd and at least 1")
    if unknown := set(statistics) - set(STATISTICS):
        raise ValueError(f"statistics: {', '.join(sorted(unknown))}; must be among {', '.join(STATISTICS)}")
    some_NF = x_TF[:: max(1, len(x_TF) // 1024)]  # enough to be near each column's mean
    seen = np.isfinite(some_NF)
    shift_F = np.where(seen, some_NF, 0).sum(axis=0, dtype=np.float64) / np.maximum(seen.sum(axis=0), 1)
    count = len(statistics)
    found = np.empty((len(x_TF), len(frames) * count, x_TF.shape[1]), np.float32)
    for w, width in enumerate(frames):
        half, place = width // 2, {statistic: w * count + s for s, statistic in enumerate(statistics)}
        if "mean" in place:
            windows.moments(x_TF, shift_F, -half, half + 1, found, place["mean"], place.get("std", -1))
        elif "std" in place:
            mean_TKF = np.empty((len(x_TF), 2, x_TF.shape[1]), np.float32)
            windows.moments(x_TF, shift_F, -half, half + 1, mean_TKF, 0, 1)
            found[:, place["std"]] = mean_TKF[:, 1]
        if "change" in place:
            sides_TKF = np.empty((len(x_TF), 2, x_TF.shape[1]), np.float32)
            windows.moments(x_TF, shift_F, -half, 0, sides_TKF, 0, -1)
            windows.moments(x_TF, shift_F, 1, half + 1, sides_TKF, 1, -1)
            np.subtract(sides_TKF[:, 1], sides_TKF[:, 0], out=found[:, place["change"]])
        for statistic, sign in (("min", -1.0), ("max", 1.0)):
            if statistic in place:
                windows.largest(x_TF, half, sign, found, place[statistic])
    return found.reshape(len(x_TF), len(frames), count, x_TF.shape[1])


def named(table: Table, fps: float, seconds: Sequence[float], statistics: Sequence[str] = ("mean", "std")) -> Table:
    """Statistics of every column, each with a name such as `agent.speed.mean_0.5s`: by window, statistic, column."""
    found = rolling(table.x_TF, [odd_frames(one, fps) for one in seconds], statistics)
    names = [f"{name}.{statistic}_{one:g}s" for one in seconds for statistic in statistics for name in table.names]
    return Table(tuple(names), found.reshape(len(found), len(names)))


def mean(x_TF: ArrayLike, fps: float, seconds: float) -> Floats:
    """(T, F) moving means."""
    return rolling(x_TF, [odd_frames(seconds, fps)], ["mean"])[:, 0, 0]
